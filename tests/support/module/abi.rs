//! The ABI's numbers (proxy-wasm 0.2.1) and the format of its header maps.

use super::http::Headers;

/// A host call's status as a number of the ABI.
pub type Status = u32;
pub const OK: Status = 0;
pub(super) const NOT_FOUND: Status = 1;
pub(super) const BAD_ARGUMENT: Status = 2;
pub(super) const CAS_MISMATCH: Status = 8;
pub const INTERNAL_FAILURE: Status = 10;

pub(super) const CONTINUE: i32 = 0;
pub(super) const PAUSE: i32 = 1;
pub(super) const GAUGE: u32 = 1;
pub(super) const REQUEST_HEADERS: u32 = 0;
pub(super) const REQUEST_TRAILERS: u32 = 1;
pub(super) const CALL_RESPONSE_BODY: u32 = 4;
pub(super) const CALL_RESPONSE_HEADERS: u32 = 6;
pub(super) const PLUGIN_CONFIGURATION: u32 = 7;

/// Parses the ABI's header map: a count, the sizes of each name and value, then both with a
/// trailing NUL byte.
pub(super) fn pairs(serialised: &[u8]) -> Option<Headers> {
    if serialised.is_empty() {
        return Some(Vec::new());
    }
    let (count, rest) = serialised.split_first_chunk::<4>()?;
    let (sizes, mut texts) =
        rest.split_at_checked((u32::from_le_bytes(*count) as usize).checked_mul(8)?)?;
    let mut taken = sizes.as_chunks::<4>().0.iter().map(|size| {
        let (text, after) = texts.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        texts = after.strip_prefix(b"\0")?;
        Some(text.to_vec())
    });
    let mut pairs = Vec::new();
    while let Some(name) = taken.next() {
        pairs.push((name?, taken.next()??));
    }
    drop(taken);
    texts.is_empty().then_some(pairs)
}

/// Writes the same format.
pub(super) fn serialised(map: &Headers) -> Vec<u8> {
    let size = |bytes: &Vec<u8>| (bytes.len() as u32).to_le_bytes();
    let mut bytes = (map.len() as u32).to_le_bytes().to_vec();
    bytes.extend(
        map.iter()
            .flat_map(|(name, value)| [size(name), size(value)].concat()),
    );
    bytes.extend(
        map.iter()
            .flat_map(|(name, value)| [name, &b"\0"[..], value, b"\0"].concat()),
    );
    bytes
}
