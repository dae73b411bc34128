//! Fuzz targets: functions of bytes that panic if the filter and its judge disagree. libFuzzer
//! calls them (`src/bin`), and so does a short seeded run in `make test` (`tests/short.rs`).

pub mod judge;
pub mod seeds;
pub mod targets;

mod host;
#[path = "../../support/merge.rs"]
mod merge;
mod mint;
mod toy;
