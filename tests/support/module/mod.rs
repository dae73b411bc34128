//! A host for the compiled module without Envoy: an interpreter. The test controls clocks, header
//! maps, HTTP calls, shared data and metrics. It answers host calls as Envoy does. Every run is the
//! same, down to the count of instructions. The test fails at once where the module traps, breaks
//! the ABI, or answers a request twice.
//!
//! The workers of one proxy share a [`Process`]; each has a [`Vm`]. Nothing happens unless the test
//! asks for it: no tick, no answer to a call, no passing of time.

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
