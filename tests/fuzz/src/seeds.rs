//! The fuzzers' seeds: the vectors, the table of scenarios, and seeded random bytes.

use crate::merge::merge;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `count` inputs of `length` bytes, the same in each run.
pub fn random(count: usize, length: usize) -> Vec<Vec<u8>> {
    let mut chance = fastrand::Rng::with_seed(7);
    (0..count)
        .map(|_| (0..length).map(|_| chance.u8(..)).collect())
        .collect()
}

/// A file below `tests/vectors`.
pub fn vector(name: &str) -> Vec<u8> {
    std::fs::read(tests().join("vectors").join(name)).expect("a vector")
}

/// The same, as JSON.
pub fn json_vector(name: &str) -> Value {
    serde_json::from_slice(&vector(name)).expect("JSON")
}

/// The files in a folder of `tests/vectors`.
pub fn vectors(folder: &str) -> Vec<Vec<u8>> {
    files(&tests().join("vectors").join(folder))
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a file"))
        .collect()
}

/// Scenarios that the fuzzers alone need: the claim of the access token is not form-encoded, and a
/// header has all digits of a double.
const FURTHER: &str = r#"
[config.forms-of-both-tokens]
plugin = """{
    "accessToken": {"issuer": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE"},
    "groups": {"claims": ["custom:groups", "access:cognito:groups"], "decode": "form"}
}"""
[[row]]
config = "forms-of-both-tokens"
token.payload = {"custom:groups" = "[data+ops]"}
access_token.payload = {"cognito:groups" = ["ml+ops"]}

[config.exact-double]
plugin = '{"claimHeaders": [{"claim": "number", "header": "x-number"}]}'
[[row]]
config = "exact-double"
token.payload = {number = 9007199254740991.0}
"#;

/// The files of scenarios, without those whose configurations are in a page of `docs/`.
fn scenario_files() -> Vec<toml::Table> {
    let files = files(&tests().join("scenarios")).into_iter();
    let has_page = |table: &toml::Table| {
        let configs = table.get("config").and_then(toml::Value::as_table);
        let mut configs = configs.into_iter().flatten();
        configs.any(|(_, config)| config.get("page").is_some())
    };
    files
        .chain([FURTHER.as_bytes().to_vec()])
        .map(|file| {
            let text = String::from_utf8(file).expect("UTF-8");
            text.parse().expect("TOML")
        })
        .filter(|table| !has_page(table))
        .collect()
}

/// The configurations of the scenarios by name, each merged over `default`.
pub fn configs() -> Vec<(String, Value)> {
    let mut configs = Vec::new();
    for table in scenario_files() {
        for (name, config) in table
            .get("config")
            .and_then(toml::Value::as_table)
            .into_iter()
            .flatten()
        {
            let plugin = config
                .get("plugin")
                .and_then(toml::Value::as_str)
                .unwrap_or("{}");
            configs.push((
                name.clone(),
                serde_json::from_str::<Value>(plugin).expect("JSON"),
            ));
        }
    }
    let default = configs
        .iter()
        .find(|(name, _)| name == "default")
        .expect("a default")
        .1
        .clone();
    let over = |config: Value| {
        let mut whole = default.clone();
        merge(&mut whole, config);
        whole
    };
    configs
        .into_iter()
        .map(|(name, config)| (name, over(config)))
        .collect()
}

/// The rows of the scenarios, unchanged.
pub fn rows() -> Vec<toml::Table> {
    let rows = |table: toml::Table| {
        table
            .get("row")
            .and_then(toml::Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let tables = scenario_files().into_iter().flat_map(rows);
    tables.filter_map(|row| row.as_table().cloned()).collect()
}

/// Every text in the table of scenarios with one of these names.
pub fn scenarios(names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for table in scenario_files() {
        collect(&toml::Value::Table(table), "", names, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn collect(value: &toml::Value, name: &str, names: &[&str], found: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => table
            .iter()
            .for_each(|(name, value)| collect(value, name, names, found)),
        toml::Value::Array(values) => values
            .iter()
            .for_each(|value| collect(value, name, names, found)),
        toml::Value::String(text) if names.contains(&name) => found.push(text.clone()),
        _ => {}
    }
}

/// Every table in the scenarios with this name, merged over the genuine one.
pub fn scenario_tables(name: &str, genuine: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    for table in scenario_files() {
        tables(&toml::Value::Table(table), name, &mut found);
    }
    let over = |table: Value| {
        let mut object = genuine.clone();
        object
            .as_object_mut()
            .expect("an object")
            .extend(table.as_object().cloned().unwrap_or_default());
        object
    };
    found.into_iter().map(over).collect()
}

fn tables(value: &toml::Value, name: &str, found: &mut Vec<Value>) {
    match value {
        toml::Value::Table(table) => {
            found.extend(
                table
                    .get(name)
                    .and_then(|found| serde_json::to_value(found).ok()),
            );
            table.values().for_each(|value| tables(value, name, found));
        }
        toml::Value::Array(values) => values.iter().for_each(|value| tables(value, name, found)),
        _ => {}
    }
}
