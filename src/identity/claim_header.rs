//! Claims as header values: `claimHeaders` of the plugin config. No groups, no user id.

use serde_json::{Number, Value};

use super::value::{is_safe_text, percent_encoded};

/// The longest value of a claim header, in bytes.
pub const MAX_CLAIM_HEADER_BYTES: usize = 4096;

/// Below this size, two whole numbers that are written with a fraction or an exponent stay two. The
/// parser rounds longer ones inexactly.
const MAX_EXACT_FLOAT: f64 = 1e15;

/// One entry of `claimHeaders`.
#[derive(Clone, Debug)]
pub struct ClaimHeader {
    /// The path of the claim.
    pub claim: String,
    /// Its header, in lower case.
    pub header: String,
    /// Whether the value is percent-encoded (RFC 3986, section 2.1), for upstreams that do not read
    /// UTF-8.
    pub is_percent_encoded: bool,
}

impl ClaimHeader {
    /// The header's value for `claim`: text, a number, a boolean, or a list of these, joined by
    /// commas. `None` for a value that a header cannot carry unambiguously: null, an object, a
    /// nested list, text that is empty or unsafe, a comma in a list (unless encoded), a number that
    /// lost digits, or more than [`MAX_CLAIM_HEADER_BYTES`].
    pub(super) fn value(&self, claim: &Value) -> Option<String> {
        let value = match claim {
            Value::Array(elements) => {
                let element = |element| {
                    let text = plain(element)?;
                    (self.is_percent_encoded || !text.contains(',')).then(|| self.encoded(text))?
                };
                let elements: Option<Vec<_>> = elements.iter().map(element).collect();
                elements?.join(",")
            }
            other => self.encoded(plain(other)?)?,
        };
        (!value.is_empty() && value.len() <= MAX_CLAIM_HEADER_BYTES).then_some(value)
    }

    fn encoded(&self, text: String) -> Option<String> {
        if !is_safe_text(&text) {
            return None;
        }
        Some(if self.is_percent_encoded {
            percent_encoded(&text, is_unreserved)
        } else {
            text
        })
    }
}

fn plain(claim: &Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => is_exact(number).then(|| serde_json::to_string(number).ok())?,
        Value::Bool(value) => Some(if *value { "true" } else { "false" }.to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether no other number of the JSON text reads as this one: whole numbers from 2^64 on lose
/// digits, and two users would have one value.
// `serde_json`'s `arbitrary_precision` keeps the digits, but accepts 1e400. It also parses the
// object `{"$serde_json::private::Number": "7"}` in a claim as the number 7.
fn is_exact(number: &Number) -> bool {
    number.is_u64()
        || number.is_i64()
        || number
            .as_f64()
            .is_some_and(|value| value.abs() < MAX_EXACT_FLOAT)
}

/// Whether `byte` is an unreserved character (RFC 3986, section 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(claim: &Value, is_percent_encoded: bool) -> Option<String> {
        let header = ClaimHeader {
            claim: "name".to_owned(),
            header: "x-name".to_owned(),
            is_percent_encoded,
        };
        header.value(claim)
    }

    #[test]
    fn carries_text_numbers_booleans_and_lists() {
        for (claim, expected) in [
            (json!("Ann Example"), Some("Ann Example")),
            (json!("Zoë"), Some("Zoë")),
            (json!("a,b"), Some("a,b")),
            (json!(7), Some("7")),
            (json!(u64::MAX), Some("18446744073709551615")),
            (json!(i64::MIN), Some("-9223372036854775808")),
            (json!(1.5), Some("1.5")),
            (json!(true), Some("true")),
            (json!(["a", 1, false]), Some("a,1,false")),
            (json!(["a,b"]), None),
            (json!([]), None),
            (json!([["a"]]), None),
            (json!({"a": 1}), None),
            (json!(null), None),
            (json!(""), None),
            (json!(" a"), None),
            (json!("a\r\nx: y"), None),
            (json!(["a", "b\0"]), None),
            (json!("x".repeat(4097)), None),
        ] {
            assert_eq!(value(&claim, false).as_deref(), expected, "{claim}");
        }
    }

    #[test]
    fn drops_numbers_that_lost_digits() {
        for text in [
            "18446744073709551616",
            "-9223372036854775809",
            "9007199254740993.0",
            "9007199254740991.0",
            "1e15",
        ] {
            let claim: Value = serde_json::from_str(text).unwrap();
            assert_eq!(value(&claim, false), None, "{text}");
        }
        assert_eq!(value(&json!(0.1), false).as_deref(), Some("0.1"));
    }

    #[test]
    fn keeps_joiners_inside_a_name_only() {
        for name in ["نرم\u{200c}افزار", "क\u{94d}\u{200d}ष"] {
            assert_eq!(value(&json!(name), false).as_deref(), Some(name));
        }
        for name in [
            "\u{200d}a",
            "a\u{200c}",
            "a\u{200b}b",
            "a\u{202e}b",
            "\u{200d}",
        ] {
            assert_eq!(value(&json!(name), false), None, "{name:?}");
        }
    }

    #[test]
    fn percent_encodes_every_reserved_byte() {
        let encoded = |claim: Value| value(&claim, true);
        assert_eq!(
            encoded(json!("Zoë B-1._~")).as_deref(),
            Some("Zo%C3%AB%20B-1._~")
        );
        assert_eq!(encoded(json!("100%,a")).as_deref(), Some("100%25%2Ca"));
        assert_eq!(encoded(json!(["a,b", "c"])).as_deref(), Some("a%2Cb,c"));
        assert_eq!(encoded(json!("a\nb")), None);
        assert_eq!(encoded(json!("é".repeat(683))), None);
        assert!(encoded(json!("é".repeat(682))).is_some());
    }
}
