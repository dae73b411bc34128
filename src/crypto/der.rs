//! ASN.1 DER (X.690) for signatures and public keys. Writes only: no external input is parsed as
//! DER.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const SEQUENCE: u8 = 0x30;

/// An element with this tag and content (X.690, section 8.1).
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = without_leading_zeros(&length);
    let short = u8::try_from(content.len())
        .ok()
        .filter(|length| *length < 0x80);
    match short {
        Some(length) => [&[tag, length], content].concat(),
        None => [&[tag, 0x80 | digits.len() as u8], digits, content].concat(),
    }
}

/// A non-negative integer from big-endian bytes: no leading zero byte, except one that keeps it
/// positive.
pub(crate) fn integer(number: &[u8]) -> Vec<u8> {
    let digits = without_leading_zeros(number);
    let sign: &[u8] = if digits.first().is_none_or(|byte| *byte >= 0x80) {
        &[0]
    } else {
        &[]
    };
    element(INTEGER, &[sign, digits].concat())
}

/// Big-endian bytes without leading zeros.
pub(crate) fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal() {
        for (size, head) in [
            (0, &[0x30, 0][..]),
            (127, &[0x30, 127]),
            (128, &[0x30, 0x81, 128]),
            (256, &[0x30, 0x82, 1, 0]),
            (70_000, &[0x30, 0x83, 1, 0x11, 0x70]),
        ] {
            let content = vec![7; size];
            assert_eq!(
                element(SEQUENCE, &content),
                [head, &content].concat(),
                "{size}"
            );
        }
    }

    #[test]
    fn integers_are_positive_and_minimal() {
        for (number, expected) in [
            (&[][..], &[2, 1, 0][..]),
            (&[0, 0], &[2, 1, 0]),
            (&[0, 0x7f], &[2, 1, 0x7f]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[1, 0, 1], &[2, 3, 1, 0, 1]),
        ] {
            assert_eq!(integer(number), expected);
        }
    }
}
