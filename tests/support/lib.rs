//! What the integration tests, the demo and the benchmark share: a real Envoy with the compiled
//! module, and everything it talks to. It knows the module from outside only and never depends on
//! the filter's crate.

pub mod access_token;
pub mod client;
pub mod envoy;
pub mod expect;
pub mod key_server;
pub mod kubernetes;
pub mod load;
mod merge;
pub mod module;
pub mod mortal;
pub mod server;
pub mod simulator;
pub mod table;
pub mod tls;
pub mod token;
pub mod upstream;

use std::path::{Path, PathBuf};

/// What every harness failure about a missing part ends with.
const HOW_TO_GET_IT: &str = "run `make test`, which builds and installs what the tests need";

/// A path inside the repository.
pub fn repository(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("the repository above tests/support").join(path)
}

/// The module under test: `ALB_OIDC_MODULE`, else the one that `make` leaves at the repository's
/// top.
pub fn module() -> PathBuf {
    built("ALB_OIDC_MODULE", "alb_oidc_filter.wasm")
}

/// The module that puts vectors to the verifiers: `ALB_OIDC_VERIFIER_PROBE`, else where `make`
/// leaves it.
pub fn verifier_probe() -> PathBuf {
    built("ALB_OIDC_VERIFIER_PROBE", "target/verifier_probe.wasm")
}

fn built(variable: &str, path: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| repository(path), PathBuf::from);
    assert!(
        path.is_file(),
        "no module at {}: {HOW_TO_GET_IT}",
        path.display()
    );
    path.canonicalize().expect("the module's path")
}

/// The command-line tool, which cargo builds beside the tests of a package with its feature `cli`.
pub fn tool() -> PathBuf {
    // Tests are in `deps`, examples in `examples`, the tool is above them.
    let test = std::env::current_exe().expect("the test's own path");
    let path = test
        .ancestors()
        .nth(2)
        .expect("a folder of what cargo builds")
        .join("alb-oidc");
    assert!(
        path.is_file(),
        "no tool at {}: run `make cli`",
        path.display()
    );
    path
}

/// The Envoys to test on: `ENVOY_BINARIES` (separated by colons), else every installed version,
/// oldest first.
pub fn envoys() -> Vec<PathBuf> {
    let found: Vec<PathBuf> = match std::env::var("ENVOY_BINARIES") {
        Ok(list) => list
            .split(':')
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .collect(),
        Err(_) => installed_envoys(),
    };
    assert!(
        !found.is_empty(),
        "no Envoy under target/envoy: {HOW_TO_GET_IT}"
    );
    for path in &found {
        assert!(
            path.is_file(),
            "no Envoy at {}: {HOW_TO_GET_IT}",
            path.display()
        );
    }
    found
}

/// The Envoy for what needs only one: `ENVOY`, else the last of [`envoys`].
pub fn default_envoy() -> PathBuf {
    std::env::var_os("ENVOY").map_or_else(|| envoys().pop().expect("an Envoy"), PathBuf::from)
}

fn installed_envoys() -> Vec<PathBuf> {
    let Ok(folder) = std::fs::read_dir(repository("target/envoy")) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = folder
        .flatten()
        .map(|version| version.path().join("envoy"))
        .filter(|path| path.is_file())
        .collect();
    found.sort_by_key(|path| {
        version(path)
            .split('.')
            .map(|part| part.parse::<u32>().unwrap_or(0))
            .collect::<Vec<_>>()
    });
    found
}

/// `1.40.0` for `target/envoy/1.40.0/envoy`; for an Envoy from elsewhere, its path.
pub fn version(envoy: &Path) -> String {
    let folder = envoy
        .parent()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let is_version = folder.contains('.') && folder.chars().all(|c| c.is_ascii_digit() || c == '.');
    if is_version {
        folder.to_owned()
    } else {
        envoy.display().to_string()
    }
}
