//! Compares the README and the local stack with the code: config reference, reasons, metrics, the
//! first WasmPlugin, make targets, the stack's plugin config and dashboard. Does not test the code.

use alb_oidc_filter::{Backend, Config, FIELDS, FetchOutcome, METRIC_PREFIX, Reason};
use std::collections::BTreeSet;
use support::envoy::interlock;

fn file(name: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of the table after the comment `<!-- NAME: …`, without its header.
fn table(name: &str) -> Vec<Vec<String>> {
    table_of("README.md", name)
}

fn table_of(readme: &str, name: &str) -> Vec<Vec<String>> {
    let text = file(readme);
    let rest = text
        .split_once(&format!("<!-- {name}: "))
        .unwrap_or_else(|| panic!("{readme} has no {name}"))
        .1;
    let lines = rest
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .skip(2);
    // `\|` does not separate cells.
    let cells = |line: &str| -> Vec<String> {
        let line = line.replace("\\|", "\u{0}");
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().replace('\u{0}', "|"))
            .collect()
    };
    lines.map(cells).collect()
}

fn code(text: impl std::fmt::Display) -> String {
    format!("`{text}`")
}

#[test]
fn config_reference_matches_the_code() {
    let found = table("config reference");
    let expected: Vec<Vec<String>> = FIELDS
        .iter()
        .map(|field| {
            let default = field.default_json();
            let default = if ["required", "none"].contains(&default.as_str()) {
                default
            } else {
                code(default)
            };
            vec![code(field.path), field.expected(), default]
        })
        .collect();
    for row in &found {
        assert!(
            row.len() == 4 && row[3].len() > 10,
            "says too little: {row:?}"
        );
    }
    let found: Vec<_> = found.iter().map(|row| row[..3].to_vec()).collect();
    assert_eq!(found, expected);
}

#[test]
fn reasons_match_the_code() {
    let found: Vec<_> = table("reasons")
        .iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let expected: Vec<_> = Reason::ALL
        .map(|reason| (code(reason.name()), reason.status().to_string()))
        .to_vec();
    assert_eq!(found, expected);
}

#[test]
fn metrics_match_the_code() {
    let found: BTreeSet<_> = table("metrics").iter().map(|row| row[0].clone()).collect();
    let mut names = vec![
        "admitted".to_owned(),
        "denied.REASON".to_owned(),
        "reported.REASON".to_owned(),
        "token_cache_hit".to_owned(),
        "dropped".to_owned(),
        "skipped".to_owned(),
        "signed_out".to_owned(),
        "waiting".to_owned(),
    ];
    names.extend(FetchOutcome::ALL.map(|outcome| format!("key_fetch.{}", outcome.name())));
    names.extend(
        [Backend::Host, Backend::Module].map(|backend| format!("verified.{}", backend.name())),
    );
    assert_eq!(
        found,
        names
            .iter()
            .map(|name| code(format!("{METRIC_PREFIX}{name}")))
            .collect()
    );
}

#[test]
fn first_wasm_plugin_is_valid() {
    let readme = file("README.md");
    let yaml = readme
        .split_once("```yaml\n")
        .and_then(|(_, rest)| rest.split_once("\n```"))
        .expect("a YAML block")
        .0;
    let plugin = yaml.split("\n---\n").next().expect("a first document");
    let plugin: serde_json::Value = serde_saphyr::from_str(plugin).expect("YAML");
    assert_eq!(plugin["kind"], "WasmPlugin");
    let config = Config::from_value(&plugin["spec"]["pluginConfig"]).expect("a good config");
    // The ServiceEntry next to it defines the cluster that the config derives.
    let entry = yaml
        .split("\n---\n")
        .find(|document| document.contains("kind: ServiceEntry"))
        .expect("a ServiceEntry");
    let entry: serde_json::Value = serde_saphyr::from_str(entry).expect("YAML");
    let (host, port) = (
        &entry["spec"]["hosts"][0],
        &entry["spec"]["ports"][0]["number"],
    );
    assert_eq!(
        config.key_sources[0].cluster,
        format!("outbound|{port}||{}", host.as_str().expect("a host"))
    );
}

#[test]
fn plugin_configs_of_the_readme_are_valid() {
    let readme = file("README.md");
    let blocks: Vec<_> = readme.split("```yaml\npluginConfig:").skip(1).collect();
    assert!(blocks.len() >= 2, "rules and sign-out");
    for block in blocks {
        let yaml = block.split_once("\n```").expect("the block's end").0;
        let yaml: serde_json::Value =
            serde_saphyr::from_str(&format!("pluginConfig:{yaml}")).expect("YAML");
        let mut config = yaml["pluginConfig"].clone();
        let arn = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
        config["loadBalancers"] =
            serde_json::json!([{"arn": arn, "issuer": "https://issuer.example", "clientId": null}]);
        Config::from_value(&config).expect("a good config");
    }
}

#[test]
fn access_log_matches_the_scenarios() {
    let (readme, harness) = (file("README.md"), file("tests/support/envoy.rs"));
    let format = readme
        .split_once("accessLogFormat: |\n")
        .and_then(|(_, rest)| rest.split_once("\n```"));
    let format: serde_json::Value =
        serde_json::from_str(format.expect("a format").0).expect("JSON");
    for field in ["passed", "user", "reason", "details", "status"] {
        assert!(
            harness.contains(&format!("\"{field}\": {}", format[field])),
            "{field}: {}",
            format[field]
        );
    }
}

#[test]
fn migration_table_has_a_row_for_each_line() {
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(format!("{}/tests/scenarios", env!("CARGO_MANIFEST_DIR")))
        .expect("the table")
    {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("its text");
        let table: toml::Table = text.parse().expect("TOML");
        let rows = table
            .get("row")
            .and_then(toml::Value::as_array)
            .into_iter()
            .flatten();
        names.extend(rows.filter_map(|row| Some(row.get("name")?.as_str()?.to_owned())));
    }
    let lines = table("coming from");
    assert!(lines.len() > 20, "{} lines", lines.len());
    for line in lines {
        let name = line.last().map_or("", |cell| cell.trim_matches('"'));
        assert!(names.contains(name), "no row is named {name:?}");
    }
}

#[test]
fn plugin_config_of_the_local_stack_is_valid() {
    let envoy: serde_json::Value = serde_saphyr::from_str(&file("envoy/envoy.yaml")).expect("YAML");
    let manager = &envoy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    let config =
        manager["http_filters"][0]["typed_config"]["config"]["configuration"]["value"].as_str();
    let config = serde_json::from_str(config.expect("pluginConfig")).expect("JSON");
    Config::from_value(&config).expect("a good config");
    // The interlock that the tests know, between the filter and the router.
    let filters = manager["http_filters"].as_array().expect("filters");
    assert_eq!(filters.len(), 3);
    assert_eq!(filters[1], interlock(&["admitted", "skipped"]));
}

#[test]
fn dashboard_uses_every_metric() {
    let dashboard = file("envoy/grafana/dashboards/alb-oidc.json");
    let name = |rest: &str| {
        rest.chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect::<String>()
    };
    let asked: BTreeSet<_> = dashboard
        .split("(wasm_filter_alb_oidc_")
        .skip(1)
        .map(name)
        .collect();
    // The local stack's Prometheus turns the part after the second dot into a label.
    let known = table("metrics")
        .iter()
        .map(|row| row[0].trim_matches('`').replace(METRIC_PREFIX, ""))
        .collect::<Vec<_>>();
    assert_eq!(
        asked,
        known
            .iter()
            .map(|name| name.split('.').next().expect("a name").to_owned())
            .collect()
    );
}

#[test]
fn make_targets_of_the_readme_exist() {
    let (readme, makefile) = (file("README.md"), file("Makefile"));
    let named: BTreeSet<_> = readme
        .split("make ")
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                .collect::<String>()
        })
        .filter(|target| {
            readme.contains(&format!("`make {target}`"))
                || readme.contains(&format!("\nmake {target} "))
        })
        .collect();
    assert!(
        named.contains("demo") && named.contains("test") && named.contains("help"),
        "{named:?}"
    );
    for target in named {
        assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
    }
}

#[test]
fn workflows_pin_actions_by_commit() {
    for workflow in ["ci", "release"] {
        let text = file(&format!(".github/workflows/{workflow}.yaml"));
        let actions: Vec<_> = text
            .split("uses: ")
            .skip(1)
            .filter_map(|rest| rest.lines().next())
            .collect();
        assert!(!actions.is_empty(), "{workflow}");
        for action in actions {
            let (commit, version) = action
                .split_once('@')
                .and_then(|(_, rest)| rest.split_once(" # v"))
                .expect(action);
            assert!(
                commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()),
                "{workflow}: {action}"
            );
            assert!(
                version.starts_with(|c: char| c.is_ascii_digit()),
                "{workflow}: {action}"
            );
        }
    }
}

/// Every YAML file under `istio/`, parsed.
fn manifests() -> Vec<(String, Vec<serde_json::Value>)> {
    let mut folders = vec!["istio".to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"))).expect("a folder")
        {
            let entry = entry.expect("an entry");
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(name);
            } else if name.ends_with(".yaml") {
                let documents = documents(&name, &file(&name));
                found.push((name, documents));
            }
        }
    }
    found
}

fn documents(name: &str, text: &str) -> Vec<serde_json::Value> {
    let parse =
        |text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    text.split("\n---\n").map(parse).collect()
}

/// The patches of a kustomization.
fn patches(name: &str, kustomization: &serde_json::Value) -> Vec<serde_json::Value> {
    let patches = kustomization["patches"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    patches
        .iter()
        .flat_map(|patch| documents(name, patch["patch"].as_str().expect("an inline patch")))
        .collect()
}

/// The elements that these patches add to the list at `path`.
fn added<'p>(
    patches: &'p [serde_json::Value],
    path: &'p str,
) -> impl Iterator<Item = &'p serde_json::Value> {
    let operations = patches
        .iter()
        .filter_map(serde_json::Value::as_array)
        .flatten();
    operations
        .filter(move |operation| operation["path"] == path)
        .map(|operation| &operation["value"])
}

const FIRST_RULE: &str = "/spec/pluginConfig/rules/0";

/// Applies a patch as kustomize does: merges objects, replaces anything else.
fn merge(over: &mut serde_json::Value, patch: &serde_json::Value) {
    match (over.as_object_mut(), patch.as_object()) {
        (Some(over), Some(patch)) => {
            patch.iter().for_each(|(name, value)| {
                merge(over.entry(name).or_insert(serde_json::Value::Null), value)
            });
        }
        _ => *over = patch.clone(),
    }
}

/// A configuration with the values of a `values.yaml` filled in.
fn with_values(config: &serde_json::Value, values: &serde_json::Value) -> serde_json::Value {
    let mut config = config.clone();
    let balancer = &mut config["loadBalancers"][0];
    for field in ["arn", "issuer", "clientId"] {
        assert_eq!(balancer[field], "FROM-VALUES", "{field}");
        balancer[field] = values[field].clone();
    }
    assert_eq!(config["logout"]["redirectTo"], "FROM-VALUES");
    config["logout"]["redirectTo"] = values["signOutUrl"].clone();
    if let Some(token) = config.get_mut("accessToken") {
        assert_eq!(token["issuer"], "FROM-VALUES");
        token["issuer"] = values["issuer"].clone();
    }
    config
}

#[test]
fn manifests_start_with_a_description() {
    for (name, _) in manifests() {
        let text = file(&name);
        let head = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n");
        assert!(
            head.len() > 40 && head.contains("\n# Change"),
            "{name} begins with: {head}"
        );
    }
}

#[test]
fn manifests_are_valid_only_with_values() {
    let manifests = manifests();
    let of = |wanted: &str| {
        &manifests
            .iter()
            .find(|(name, _)| name == wanted)
            .expect("the file")
            .1[0]
    };
    let base = &of("istio/base/wasm-plugin.yaml")["spec"]["pluginConfig"];
    let example = &of("istio/install/values.example.yaml")["data"];
    let real = serde_json::json!({
        "arn": "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188",
        "issuer": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE",
        "clientId": "1example23456789",
        "signOutUrl": "https://kubeflow.auth.us-west-2.amazoncognito.com/logout?client_id=1example23456789",
    });
    let mut configs = vec![("istio/base/wasm-plugin.yaml".to_owned(), base.clone())];
    for (name, documents) in &manifests {
        let patches: Vec<_> = documents
            .iter()
            .flat_map(|document| patches(name, document))
            .collect();
        let merged = patches
            .iter()
            .filter_map(|patch| patch["spec"].get("pluginConfig"))
            .cloned();
        let ruled = added(&patches, FIRST_RULE).map(|rule| serde_json::json!({"rules": [rule]}));
        for patch in merged.chain(ruled) {
            let mut config = base.clone();
            merge(&mut config, &patch);
            configs.push((name.clone(), config));
        }
    }
    assert!(configs.len() >= 5, "{configs:?}");
    for (name, config) in configs {
        Config::from_value(&with_values(&config, &real))
            .unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        for unchanged in [config.clone(), with_values(&config, example)] {
            let errors = Config::from_value(&unchanged)
                .err()
                .unwrap_or_else(|| panic!("{name} is taken unchanged"));
            let arn = errors
                .iter()
                .any(|error| error.to_string().starts_with("loadBalancers[0].arn"));
            assert!(arn, "{name}: {errors:?}");
        }
    }
}

#[test]
fn manifest_policies_match_open_rules() {
    let mut overlays = 0;
    for (name, documents) in manifests() {
        let patches: Vec<_> = documents
            .iter()
            .flat_map(|document| patches(&name, document))
            .collect();
        let mut skipped = BTreeSet::new();
        for rule in added(&patches, FIRST_RULE).filter(|rule| rule["require"] == "none") {
            let paths = rule["match"]["paths"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|path| &path["exact"]);
            skipped.extend(
                rule["match"]["hosts"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .chain(paths)
                    .map(ToString::to_string),
            );
        }
        let mut exempt = BTreeSet::new();
        let operations = added(&patches, "/spec/rules/0/to")
            .filter_map(|to| to.as_array())
            .flatten();
        let operations =
            operations.flat_map(|to| ["notHosts", "notPaths"].map(|list| &to["operation"][list]));
        let hosts = added(&patches, "/spec/rules/0/when/1").map(|when| &when["notValues"]);
        for list in operations.chain(hosts) {
            exempt.extend(
                list.as_array()
                    .into_iter()
                    .flatten()
                    .map(ToString::to_string),
            );
        }
        assert_eq!(skipped, exempt, "{name}");
        overlays += usize::from(!skipped.is_empty());
    }
    assert_eq!(overlays, 2);
}

#[test]
fn manifests_of_the_readme_exist() {
    let named: BTreeSet<_> = table("manifests")
        .iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    let mut found = BTreeSet::new();
    for folder in ["istio", "istio/overlays"] {
        for entry in
            std::fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"))).expect("a folder")
        {
            found.insert(format!(
                "{folder}/{}",
                entry.expect("an entry").file_name().to_string_lossy()
            ));
        }
    }
    found.remove("istio/overlays");
    assert_eq!(
        named
            .iter()
            .map(|name| format!("istio/{name}"))
            .collect::<BTreeSet<_>>(),
        found
    );
}

#[test]
fn service_entries_match_the_key_sources() {
    for (region, partition, manifest) in [
        ("eu-central-1", "aws", "istio/base/public-keys.yaml"),
        (
            "us-gov-west-1",
            "aws-us-gov",
            "istio/overlays/govcloud/public-keys.yaml",
        ),
        (
            "us-gov-east-1",
            "aws-us-gov",
            "istio/overlays/govcloud/public-keys.yaml",
        ),
    ] {
        let arn = format!(
            "arn:{partition}:elasticloadbalancing:{region}:123456789012:loadbalancer/app/kf/50dc6c495c0c9188"
        );
        let config =
            serde_json::json!({"loadBalancers": [{"arn": arn, "issuer": null, "clientId": null}]});
        let cluster = Config::from_value(&config)
            .expect("a good config")
            .key_sources[0]
            .cluster
            .clone();
        let documents = documents(manifest, &file(manifest).replace("REGION", region));
        let of = |kind: &'static str| {
            documents
                .iter()
                .filter(move |document| document["kind"] == kind)
        };
        let named = |host: &serde_json::Value| {
            format!("outbound|443||{}", host.as_str().expect("a host")) == cluster
        };
        let entry = of("ServiceEntry").find(|entry| named(&entry["spec"]["hosts"][0]));
        assert_eq!(
            entry.expect("a ServiceEntry")["spec"]["ports"][0]["number"],
            443,
            "{cluster}"
        );
        let rule = of("DestinationRule")
            .find(|rule| named(&rule["spec"]["host"]))
            .expect("a DestinationRule");
        let tls = &rule["spec"]["trafficPolicy"]["tls"];
        assert_eq!(tls["mode"], "SIMPLE", "{cluster}");
        assert!(
            named(&tls["sni"]) && named(&tls["subjectAltNames"][0]),
            "{cluster}"
        );
    }
}

/// The name of a file or folder of `tests/` that contains tests or has its own make target.
fn test_name(entry: &std::fs::DirEntry) -> Option<String> {
    let (path, name) = (
        entry.path(),
        entry.file_name().to_string_lossy().into_owned(),
    );
    let is_test = ["main.rs", &format!("{name}.rs"), "tests"]
        .iter()
        .any(|inside| path.join(inside).exists());
    match name.strip_suffix(".rs") {
        Some(test) => Some(test.to_owned()),
        None => is_test.then_some(name),
    }
}

#[test]
fn tests_readme_lists_each_test_and_its_target() {
    let entries =
        std::fs::read_dir(format!("{}/tests", env!("CARGO_MANIFEST_DIR"))).expect("a folder");
    let expected: BTreeSet<_> = entries
        .filter_map(|entry| test_name(&entry.expect("an entry")))
        .map(code)
        .collect();
    let rows = table_of("tests/README.md", "tests");
    let found: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());

    let manifest: toml::Table = file("Cargo.toml").parse().expect("TOML");
    let listed = |kind: &str| manifest[kind].as_array().expect("a list").iter();
    let apart = listed("test").filter(|test| {
        test.get("test")
            .is_some_and(|test| test.as_bool() == Some(false))
    });
    let apart: BTreeSet<_> = apart
        .chain(listed("example"))
        .map(|of| code(of["name"].as_str().expect("text")))
        .collect();
    let makefile = file("Makefile");
    for row in &rows {
        let targets: Vec<_> = row[1]
            .split(", ")
            .map(|target| target.trim_matches('`'))
            .collect();
        for target in &targets {
            let rule = target
                .strip_prefix("make ")
                .unwrap_or_else(|| panic!("{row:?}"));
            assert!(makefile.contains(&format!("\n{rule}:")), "{target}");
        }
        assert_eq!(
            targets.contains(&"make test"),
            !apart.contains(&row[0]),
            "{row:?}"
        );
    }
}
