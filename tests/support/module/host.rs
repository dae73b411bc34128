//! The host's side of one VM: plugins, requests, calls and log. Runs no wasm.

use super::abi::Status;
use super::http::{Call, Response, Stream};
use super::process::Process;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use wasmi::{Memory, TypedFunc};

/// The module's activity since [`Vm::take_meter`].
#[derive(Clone, Default, Debug)]
pub struct Meter {
    /// Instructions, counted by the interpreter.
    pub fuel: u64,
    /// Entries into the module, without allocations.
    pub entries: u64,
    /// Host calls by name.
    pub calls: BTreeMap<&'static str, u64>,
    /// Bytes that the host wrote into the module's memory.
    pub bytes_in: u64,
    /// Bytes that the host read from there.
    pub bytes_out: u64,
}

/// One plugin config in one VM.
#[derive(Clone)]
pub(super) struct Root {
    pub(super) config: Vec<u8>,
    /// The timer's period and next expiry, on the steady clock.
    pub(super) tick: Option<(Duration, Duration)>,
}

/// The host's side of a VM.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) process: Rc<RefCell<Process>>,
    pub(super) memory: Option<Memory>,
    pub(super) allocate: Option<TypedFunc<u32, u32>>,
    pub(super) environment: Vec<String>,
    pub(super) roots: BTreeMap<u32, Root>,
    pub(super) streams: BTreeMap<u32, Stream>,
    pub(super) calls: BTreeMap<u32, Call>,
    /// The answer that the module is currently processing.
    pub(super) answer: Option<Response>,
    /// Statuses for calls to fail with, by function name.
    pub(super) refused: BTreeMap<String, Status>,
    /// HTTP calls that failed with such a status.
    pub(super) refused_calls: Vec<Call>,
    pub(super) effective: u32,
    pub(super) last_context: u32,
    pub(super) last_call: u32,
    pub(super) random: u64,
    pub(super) meter: Meter,
    pub(super) log: Vec<(u32, String)>,
}
