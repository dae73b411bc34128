//! Compares the module's dependencies with docs/architecture.md: its crates, their origin on
//! crates.io with checksums, duplicates only with a reason, and `unsafe` in one file. `make deny`
//! checks licences and advisories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Crates in two versions. `jsonwebtoken` requires the older version of the first two. Macros of
/// `wasm-bindgen`, which `jsonwebtoken` requires on every WebAssembly target, use the older version
/// of the third.
const TWICE: [&str; 3] = ["base64", "signature", "syn"];

/// The module's dependencies as resolved by cargo: depth, name, version.
fn module_crates() -> Vec<(usize, String, String)> {
    let arguments = [
        "tree",
        "--locked",
        "--edges",
        "normal",
        "--target",
        "wasm32-wasip1",
        "--prefix",
        "depth",
        "--no-dedupe",
    ];
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let output = output.expect("cargo tree");
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = |line: &str| {
        let name = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let depth = line
            .strip_suffix(name)
            .expect("its start")
            .parse()
            .expect("a depth");
        let mut words = name.split(' ').map(str::to_owned);
        (
            depth,
            words.next().expect("a name"),
            words.next().expect("a version"),
        )
    };
    String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(line)
        .collect()
}

#[test]
fn architecture_lists_the_crates_of_the_module() {
    let direct = module_crates()
        .into_iter()
        .filter(|(depth, ..)| *depth == 1);
    let expected: BTreeSet<_> = direct.map(|(_, name, _)| format!("`{name}`")).collect();
    let page = support::read("docs/architecture.md");
    let rest = page.split_once("<!-- crates: ").expect("a table").1;
    let lines = rest
        .lines()
        .skip(3)
        .take_while(|line| line.starts_with('|'));
    let mut found = BTreeSet::new();
    for line in lines {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        found.insert(cells.next().expect("a crate").to_owned());
        let use_of = cells.next().expect("what it is used for");
        assert!(use_of.len() > 10, "says too little: {line}");
    }
    assert_eq!(found, expected);
}

#[test]
fn duplicate_crates_have_a_reason() {
    let crates: BTreeSet<_> = module_crates()
        .into_iter()
        .map(|(_, name, version)| (name, version))
        .collect();
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    crates
        .iter()
        .for_each(|(name, _)| *versions.entry(name).or_default() += 1);
    let twice: Vec<_> = versions
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .collect();
    assert_eq!(twice, TWICE.map(|name| (name, 2)));
}

#[test]
fn dependencies_are_from_crates_io() {
    for (name, own) in [
        (
            "Cargo.lock",
            &["alb-oidc-filter", "alb-oidc-test-support", "verifier-probe"][..],
        ),
        (
            "tests/fuzz/Cargo.lock",
            &["alb-oidc-filter", "alb-oidc-fuzz"],
        ),
    ] {
        let lock: toml::Table = support::read(name).parse().expect("TOML");
        let packages = lock["package"].as_array().expect("packages");
        assert!(packages.len() > 100, "{name}: {} packages", packages.len());
        let text = |package: &toml::Value, field: &str| {
            package
                .get(field)
                .map(|value| value.as_str().expect("text").to_owned())
        };
        for package in packages {
            let name = text(package, "name").expect("a name");
            if own.contains(&name.as_str()) {
                assert_eq!(text(package, "source"), None, "{name}");
                continue;
            }
            let source =
                text(package, "source").unwrap_or_else(|| panic!("{name} is from nowhere"));
            assert!(
                source.starts_with("registry+") && source.ends_with("/crates.io-index"),
                "{name} is from {source}"
            );
            assert!(
                text(package, "checksum").is_some_and(|sum| sum.len() == 64),
                "{name} has no checksum"
            );
        }
    }
}

#[test]
fn unsafe_is_in_one_file() {
    assert!(
        support::read("Cargo.toml").contains("\nunsafe_code = \"deny\"\n"),
        "the lint that denies it elsewhere"
    );
    let (mut folders, mut with_unsafe, mut read) = (
        vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")],
        Vec::new(),
        0,
    );
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
        {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            // Only code counts, without comments and strings.
            let is_code = |line: &&str| !line.trim_start().starts_with("//");
            let word = |line: &str| {
                line.split(|c: char| c != '_' && c != '-' && !c.is_alphanumeric())
                    .any(|word| word == "unsafe")
            };
            if text
                .lines()
                .filter(is_code)
                .any(|line| word(line) || line.contains("unsafe_code"))
            {
                with_unsafe.push(
                    path.strip_prefix(env!("CARGO_MANIFEST_DIR"))
                        .expect("inside")
                        .display()
                        .to_string(),
                );
            }
            read += 1;
        }
    }
    assert!(read > 20, "{read} files");
    assert_eq!(with_unsafe, ["src/filter/host.rs"]);
}
