//! Programs, and where `make test-cluster` leaves those of the cluster.

use std::path::PathBuf;

pub(crate) use support::program::{Running, START_UP, helm, run};

/// A file that `make test-cluster` builds or fetches.
pub(crate) fn built(name: &str) -> PathBuf {
    let path = support::repository("target/cluster").join(name);
    assert!(
        path.exists(),
        "no {}: run `make test-cluster`, which builds it",
        path.display()
    );
    path
}
