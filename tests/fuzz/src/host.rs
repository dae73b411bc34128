//! Envoy's `verify_signature` for the filter's host side, with AWS-LC in place of BoringSSL. The
//! only file with `unsafe`, because the function is called as C.

#![allow(unsafe_code)]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

/// The ABI's function, see `src/filter/host.rs`. Takes four fields of a protobuf message, all byte
/// strings.
///
/// # Safety
/// `arguments` points to `size` bytes; `answer` and `answer_size` are valid for writes.
#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_call_foreign_function(
    _: *const u8,
    _: usize,
    arguments: *const u8,
    size: usize,
    answer: *mut *mut u8,
    answer_size: *mut usize,
) -> u32 {
    // SAFETY: the filter passes a slice.
    let arguments = unsafe { std::slice::from_raw_parts(arguments, size) };
    let holds = verdict(arguments).expect("the message that Envoy reads");
    let bytes = if holds {
        Box::<[u8]>::from([0x08, 0x01])
    } else {
        Box::default()
    };
    // SAFETY: both point to variables of the caller, which takes ownership of the box.
    unsafe {
        *answer_size = bytes.len();
        *answer = Box::into_raw(bytes).cast();
    }
    0
}

fn verdict(mut arguments: &[u8]) -> Option<bool> {
    let mut fields = Vec::new();
    while let Some((tag, rest)) = arguments.split_first() {
        let (length, rest) = varint(rest)?;
        let (field, rest) = rest.split_at_checked(length)?;
        fields.push((*tag, field));
        arguments = rest;
    }
    let [
        (0x0a, b"sha256"),
        (0x12, spki),
        (0x1a, signature),
        (0x22, text),
    ] = fields[..]
    else {
        return None;
    };
    Some(
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki)
            .verify(text, signature)
            .is_ok(),
    )
}

fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let value = bytes[..end]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    Some((value, &bytes[end..]))
}
