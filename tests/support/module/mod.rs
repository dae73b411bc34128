//! A host for the compiled module without Envoy, based on an interpreter. The test controls clocks,
//! header maps, HTTP calls, shared data and metrics. Host calls are answered like Envoy's. Runs are
//! deterministic, down to the instruction count. The test fails at once if the module traps, breaks
//! the ABI, or answers a request twice.
//!
//! The workers of one proxy share a [`Process`]; each has a [`Vm`]. Ticks, answers and the passing
//! of time happen only when the test triggers them.

mod abi;
mod guest;
mod host;
mod host_calls;
mod http;
mod process;
mod signature;
mod vm;

pub use abi::{INTERNAL_FAILURE, OK, Status};
pub use host::Meter;
pub use http::{Call, Fate, Headers, Reply, Response, Stream, headers};
pub use process::Process;
pub use vm::{Image, Vm};
