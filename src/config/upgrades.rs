//! Reads `upgrades` of the plugin config into [`Upgrades`].

use super::headers::is_token_byte;
use super::reader::{Object, quoted};
use crate::upgrades::Upgrades;

/// The longest upgrade type, in bytes.
const MAX_TYPE_BYTES: usize = 64;

pub(super) fn read(root: &Object<'_>) -> Upgrades {
    let mut allowed = Vec::new();
    for (position, name) in root.strings("upgrades").into_iter().enumerate() {
        if !is_type(name) {
            let expected = format!(
                "a protocol of at most {MAX_TYPE_BYTES} bytes, such as \"websocket\" or \"SPDY/3.1\", or \"connect\""
            );
            root.mistake(&format!("upgrades[{position}]"), &quoted(name), &expected);
        }
        allowed.push(name.to_ascii_lowercase());
    }
    Upgrades { allowed }
}

/// Whether this is a `protocol` (RFC 9110, section 7.8): a token, optionally with `/` and a
/// version.
fn is_type(name: &str) -> bool {
    let is_token = |part: &str| !part.is_empty() && part.bytes().all(is_token_byte);
    let (protocol, version) = name
        .split_once('/')
        .map_or((name, None), |(name, version)| (name, Some(version)));
    name.len() <= MAX_TYPE_BYTES && is_token(protocol) && version.is_none_or(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_protocols_with_and_without_version() {
        for (name, expected) in [
            ("websocket", true),
            ("SPDY/3.1", true),
            ("connect", true),
            ("", false),
            ("*,", false),
            ("websocket, spdy", false),
            ("web socket", false),
            ("spdy/", false),
            ("/3.1", false),
            ("spdy/3/1", false),
        ] {
            assert_eq!(is_type(name), expected, "{name}");
        }
        assert!(is_type(&"a".repeat(64)) && !is_type(&"a".repeat(65)));
    }
}
