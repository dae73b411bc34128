//! The calls of the host's ABI (proxy-wasm 0.2.1) that the filter needs. The only file with
//! `unsafe`. Decides nothing. Returns each unexpected status as an error, on which the wrappers of
//! the SDK would panic.

#![allow(unsafe_code)]

use std::cell::OnceCell;
use std::time::Duration;

use crate::headers::HeaderEdit;
use crate::time::{Clocks, Timestamp};

/// A host call that failed, with its status (proxy-wasm's `WasmResult`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostError(pub(super) u32);

impl std::fmt::Display for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "found status {}, expected {OK}", self.0)
    }
}

type Outcome<T> = Result<T, HostError>;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;

const CALL_RESPONSE_HEADERS: u32 = 6;
const CALL_RESPONSE_BODY: u32 = 4;
const PLUGIN_CONFIGURATION: u32 = 7;
const REQUEST_STREAM: u32 = 0;
const COUNTER: u32 = 0;
const GAUGE: u32 = 1;
const NO_GRPC_STATUS: i32 = -1;

/// The part of a request that a call is about.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Part {
    Headers = 0,
    Trailers = 1,
}

/// WASI's `CLOCK_MONOTONIC`.
const MONOTONIC: u32 = 1;
/// Added to the steady clock, so that a time before the machine's start can be expressed.
const BEFORE_STEADY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How urgent a log line is.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Level {
    /// Normal operation.
    Info = 2,
    /// A denied request.
    Warn = 3,
    /// The operator has to act.
    Error = 4,
    /// The module is about to die.
    Critical = 5,
}

#[cfg_attr(target_family = "wasm", link(wasm_import_module = "env"))]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        most: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        cas: u32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
}

#[cfg_attr(
    target_family = "wasm",
    link(wasm_import_module = "wasi_snapshot_preview1")
)]
unsafe extern "C" {
    fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
    fn random_get(data: *mut u8, size: usize) -> u32;
}

fn outcome(status: u32) -> Outcome<()> {
    if status == OK {
        Ok(())
    } else {
        Err(HostError(status))
    }
}

/// The bytes that the host returns from `call`.
fn bytes_from(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Outcome<Vec<u8>> {
    let mut data = std::ptr::null_mut();
    let mut size = 0;
    outcome(call(&mut data, &mut size))?;
    if data.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: the host got this block from `proxy_on_memory_allocate`, which makes it a boxed slice
    // of `size` bytes, wrote all of it and gives it away.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// Writes a line to Envoy's log.
pub(super) fn log(level: Level, message: &str) {
    // SAFETY: the host reads `message` and keeps no pointer. So for every call below.
    unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Envoy's clocks during one call of the host, each read once at most.
#[derive(Default)]
pub(super) struct HostClocks {
    wall: OnceCell<Option<Timestamp>>,
    steady: OnceCell<Option<Timestamp>>,
}

impl Clocks for HostClocks {
    fn wall(&self) -> Option<Timestamp> {
        *self.wall.get_or_init(|| {
            time(|nanoseconds| unsafe { proxy_get_current_time_nanoseconds(nanoseconds) })
        })
    }

    fn steady(&self) -> Option<Timestamp> {
        *self.steady.get_or_init(|| {
            let time = time(|nanoseconds| unsafe { clock_time_get(MONOTONIC, 1, nanoseconds) })?;
            Some(time.plus(BEFORE_STEADY))
        })
    }
}

fn time(read: impl FnOnce(*mut u64) -> u32) -> Option<Timestamp> {
    let mut nanoseconds = 0;
    outcome(read(&mut nanoseconds)).ok()?;
    Some(Timestamp::from_millis(nanoseconds / 1_000_000))
}

/// A random number.
pub(super) fn random() -> Outcome<u64> {
    let mut bytes = [0; size_of::<u64>()];
    outcome(unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Envoy's attribute `source.address` of the effective context's request: the client's address and
/// port. Envoy's settings decide whether it is taken from `x-forwarded-for`.
pub(super) fn client_address() -> Outcome<Vec<u8>> {
    let path = "source\0address";
    bytes_from(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Makes the host call `on_tick` of the root context each `period`, first after one `period`.
/// `None`: never.
pub(super) fn set_tick(period: Option<Duration>) -> Outcome<()> {
    // 0 would switch the timer off.
    let period = period.map_or(0, |period| {
        u32::try_from(period.as_millis()).unwrap_or(u32::MAX).max(1)
    });
    outcome(unsafe { proxy_set_tick_period_milliseconds(period) })
}

/// The plugin config, `size` bytes long.
pub(super) fn plugin_configuration(size: usize) -> Outcome<Vec<u8>> {
    buffer(PLUGIN_CONFIGURATION, size)
}

/// The first `most` bytes of the body that a dispatched call was answered with.
pub(super) fn call_response_body(most: usize) -> Outcome<Vec<u8>> {
    buffer(CALL_RESPONSE_BODY, most)
}

fn buffer(buffer: u32, most: usize) -> Outcome<Vec<u8>> {
    match bytes_from(|data, size| unsafe { proxy_get_buffer_bytes(buffer, 0, most, data, size) }) {
        Err(HostError(NOT_FOUND)) => Ok(Vec::new()),
        other => other,
    }
}

/// The status that a dispatched call was answered with.
pub(super) fn call_response_status() -> Option<u16> {
    let name = ":status";
    let status = bytes_from(|data, size| unsafe {
        proxy_get_header_map_value(CALL_RESPONSE_HEADERS, name.as_ptr(), name.len(), data, size)
    });
    std::str::from_utf8(&status.ok()?).ok()?.parse().ok()
}

/// The request's headers or trailers, serialised as [`pairs`] reads them.
pub(super) fn request(part: Part) -> Outcome<Vec<u8>> {
    bytes_from(|data, size| unsafe { proxy_get_header_map_pairs(part as u32, data, size) })
}

/// Reads the ABI's header map: a count, the sizes of each name and value (all u32, little-endian),
/// then name and value of each with a NUL byte behind. `None` if `serialised` is not of that form.
pub(super) fn pairs(serialised: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let (count, rest) = serialised.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (sizes, mut texts) = rest.split_at_checked(count.checked_mul(8)?)?;
    let mut take = |size: &[u8]| {
        let size = usize::try_from(u32::from_le_bytes(size.try_into().ok()?)).ok()?;
        let (text, after) = texts.split_at_checked(size)?;
        texts = after.strip_prefix(b"\0")?;
        Some(text)
    };
    let mut pairs = Vec::with_capacity(count);
    for size in sizes.chunks_exact(8) {
        let (name, value) = size.split_at_checked(4)?;
        pairs.push((take(name)?, take(value)?));
    }
    Some(pairs)
}

/// The ABI's header map of `pairs`; the inverse of [`pairs`].
fn serialised(pairs: &[(&str, &str)]) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap_or_default().to_le_bytes();
    let mut bytes = u32::try_from(pairs.len())
        .unwrap_or_default()
        .to_le_bytes()
        .to_vec();
    for (name, value) in pairs {
        bytes.extend_from_slice(&size(name));
        bytes.extend_from_slice(&size(value));
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Changes the request's headers or trailers.
pub(super) fn edit_request(part: Part, edit: &HeaderEdit) -> Outcome<()> {
    let map = part as u32;
    outcome(match edit {
        HeaderEdit::Remove(name) => unsafe {
            proxy_remove_header_map_value(map, name.as_ptr(), name.len())
        },
        HeaderEdit::Set(name, value) => unsafe {
            proxy_replace_header_map_value(
                map,
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        },
    })
}

/// Lets the paused request of the effective context go on.
pub(super) fn resume_request() -> Outcome<()> {
    outcome(unsafe { proxy_continue_stream(REQUEST_STREAM) })
}

/// Answers the request of the effective context. `details` is `%RESPONSE_CODE_DETAILS%` of the
/// access log. Envoy sends a gRPC client the gRPC status for `status`.
pub(super) fn reply(
    status: u16,
    details: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Outcome<()> {
    let headers = serialised(headers);
    outcome(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    })
}

/// Sets the filter state `wasm.NAME` of the effective context's request. It lives as long as the
/// filter chain: after an internal redirect it is gone.
pub(super) fn set_filter_state(name: &str, value: &[u8]) -> Outcome<()> {
    outcome(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Makes `context` the effective context, to which the calls above apply.
pub(super) fn set_effective_context(context: u32) -> Outcome<()> {
    outcome(unsafe { proxy_set_effective_context(context) })
}

/// A value of the map that all VMs of this process share, and its version; `None` if there is none.
pub(super) fn shared_data(key: &str) -> Option<(Vec<u8>, u32)> {
    let mut version = 0;
    let value = bytes_from(|data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut version)
    });
    Some((value.ok()?, version))
}

/// Writes a value unless another VM has changed it since `version`. Version 0 writes in any case.
pub(super) fn set_shared_data(key: &str, value: &[u8], version: u32) -> Outcome<()> {
    outcome(unsafe {
        proxy_set_shared_data(
            key.as_ptr(),
            key.len(),
            value.as_ptr(),
            value.len(),
            version,
        )
    })
}

/// A counter's id.
pub(super) fn define_counter(name: &str) -> Outcome<u32> {
    define_metric(COUNTER, name)
}

/// A gauge's id.
pub(super) fn define_gauge(name: &str) -> Outcome<u32> {
    define_metric(GAUGE, name)
}

fn define_metric(kind: u32, name: &str) -> Outcome<u32> {
    let mut id = 0;
    outcome(unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) })?;
    Ok(id)
}

/// Adds to a counter or a gauge.
pub(super) fn increment(metric: u32, by: i64) {
    // A failure loses a count, which is no reason to deny the request.
    let _ = unsafe { proxy_increment_metric(metric, by) };
}

/// Calls a function that this host has beyond the ABI.
pub(super) fn call_foreign_function(name: &str, arguments: &[u8]) -> Outcome<Vec<u8>> {
    bytes_from(|data, size| unsafe {
        proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            arguments.as_ptr(),
            arguments.len(),
            data,
            size,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_map_is_read_as_it_was_written() {
        let map = [(":path", "/a?b"), ("x", ""), ("x", "é")];
        let bytes = serialised(&map);
        let found = pairs(&bytes).unwrap();
        assert_eq!(
            found,
            map.map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        );
    }

    #[test]
    fn a_header_map_that_is_cut_short_is_not_read() {
        let bytes = serialised(&[("name", "value"), ("other", "value")]);
        for length in 0..bytes.len() {
            assert!(
                pairs(&bytes[..length]).is_none(),
                "{length} of {}",
                bytes.len()
            );
        }
        assert!(pairs(&[255, 255, 255, 255]).is_none());
    }
}
