//! Shared code of the integration tests, the demo and the benchmark: a real Envoy with the compiled
//! module, and its surroundings. Independent of the filter's crate.

pub mod access_token;
pub mod client;
pub mod envoy;
pub mod expect;
pub mod key_server;
pub mod load;
mod merge;
pub mod module;
pub mod mortal;
pub mod page;
pub mod parties;
pub mod program;
pub mod server;
pub mod simulator;
pub mod table;
pub mod tls;
pub mod token;
pub mod upstream;

use std::path::{Path, PathBuf};

/// The end of every error message about a missing part.
const HOW_TO_GET_IT: &str = "run `make test`, which builds and installs what the tests need";

/// A path inside the repository.
pub fn repository(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("the repository above tests/support").join(path)
}

/// The text of a file of the repository.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The module under test: `ALB_OIDC_MODULE`, or the one that `make` builds in the repository's
/// root.
pub fn module() -> PathBuf {
    built("ALB_OIDC_MODULE", "alb_oidc_filter.wasm")
}

/// The module that runs vectors through the verifiers: `ALB_OIDC_VERIFIER_PROBE`, or the one that
/// `make` builds.
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

/// The command-line tool, which cargo builds for tests with the feature `cli`.
pub fn tool() -> PathBuf {
    // Tests are in `deps`, examples in `examples`, and the tool one level above.
    let test = std::env::current_exe().expect("the test's own path");
    let path = test
        .ancestors()
        .nth(2)
        .expect("a folder of what cargo builds")
        .join("alb-oidc");
    assert!(
        path.is_file(),
        "no tool at {}: run `cargo build --features cli --bin alb-oidc`",
        path.display()
    );
    path
}

/// The Envoys to test: `ENVOY_BINARIES` (separated by colons), or every installed version, oldest
/// first.
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

/// The Envoy for tests that need one: `ENVOY`, or the last of [`envoys`].
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

/// `1.40.0` for `target/envoy/1.40.0/envoy`; otherwise the path.
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
