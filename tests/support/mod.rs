//! The harness: a real Envoy with the compiled module, and everything it talks to. The integration tests, the demo and the
//! benchmarks share it. It knows the module from outside only: nothing here may use the crate's own code.

// Each test crate uses a part of the harness.
#![allow(dead_code)]

pub(crate) mod access_token;
pub(crate) mod client;
pub(crate) mod envoy;
pub(crate) mod expect;
pub(crate) mod key_server;
pub(crate) mod kubernetes;
pub(crate) mod merge;
pub(crate) mod module;
pub(crate) mod server;
pub(crate) mod simulator;
pub(crate) mod table;
pub(crate) mod tls;
pub(crate) mod token;
pub(crate) mod upstream;

use std::path::{Path, PathBuf};

/// What every harness failure about a missing part ends with.
const HOW_TO_GET_IT: &str = "run `make test`, which builds and installs what the tests need";

/// A path inside the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The module under test: `ALB_OIDC_MODULE`, else the one that `make` leaves at the repository's top.
pub(crate) fn module() -> PathBuf {
    built("ALB_OIDC_MODULE", "alb_oidc_filter.wasm")
}

/// The module that puts vectors to the verifiers: `ALB_OIDC_VERIFIER_PROBE`, else where `make` leaves it.
pub(crate) fn verifier_probe() -> PathBuf {
    built("ALB_OIDC_VERIFIER_PROBE", "target/verifier_probe.wasm")
}

fn built(variable: &str, path: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| repository(path), PathBuf::from);
    assert!(path.is_file(), "no module at {}: {HOW_TO_GET_IT}", path.display());
    path.canonicalize().expect("the module's path")
}

/// The Envoys to test on: `ENVOY_BINARIES` (separated by colons), else every installed version, oldest first.
pub(crate) fn envoys() -> Vec<PathBuf> {
    let found: Vec<PathBuf> = match std::env::var("ENVOY_BINARIES") {
        Ok(list) => list.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect(),
        Err(_) => installed_envoys(),
    };
    assert!(!found.is_empty(), "no Envoy under target/envoy: {HOW_TO_GET_IT}");
    for path in &found {
        assert!(path.is_file(), "no Envoy at {}: {HOW_TO_GET_IT}", path.display());
    }
    found
}

/// The Envoy for what needs only one: `ENVOY`, else the last of [`envoys`].
pub(crate) fn default_envoy() -> PathBuf {
    std::env::var_os("ENVOY").map_or_else(|| envoys().pop().expect("an Envoy"), PathBuf::from)
}

fn installed_envoys() -> Vec<PathBuf> {
    let Ok(folder) = std::fs::read_dir(repository("target/envoy")) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> =
        folder.flatten().map(|version| version.path().join("envoy")).filter(|path| path.is_file()).collect();
    found.sort_by_key(|path| version(path).split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>());
    found
}

/// `1.40.0` for `target/envoy/1.40.0/envoy`; for an Envoy from elsewhere, its path.
pub(crate) fn version(envoy: &Path) -> String {
    let folder = envoy.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let is_version = folder.contains('.') && folder.chars().all(|c| c.is_ascii_digit() || c == '.');
    if is_version { folder.to_owned() } else { envoy.display().to_string() }
}
