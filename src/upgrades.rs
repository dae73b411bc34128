//! Allowed protocol upgrades: `upgrades` of the plugin config. No I/O, no clock, no token.
//!
//! Envoy presents an extended CONNECT of HTTP/2 and HTTP/3 (RFC 8441) to its filters as a GET with
//! `upgrade`. It removes `upgrade: h2c`, and an `upgrade` that `connection` does not name. It
//! leaves plain CONNECT unchanged, with or without `:protocol: bytestream`.

use crate::headers::RequestHead;

/// The allowed upgrade types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrades {
    /// Protocol names in lower case, with their version if they have one: `websocket`, `spdy/3.1`.
    /// `connect` is the method CONNECT. Empty: no upgrade.
    pub allowed: Vec<String>,
}

impl Upgrades {
    /// Whether every upgrade type in `head` is allowed. True for a request without an upgrade.
    ///
    /// An empty list element is a type that is never allowed.
    pub(crate) fn admit(&self, head: &RequestHead<'_>) -> bool {
        let named = ["upgrade", ":protocol"]
            .into_iter()
            .flat_map(|name| head.values(name));
        let named = named.flat_map(|value| value.split(|byte| *byte == b','));
        let connect = head
            .values(":method")
            .filter(|method| method.eq_ignore_ascii_case(b"connect"));
        named
            .chain(connect)
            .all(|asked| self.is_allowed(asked.trim_ascii()))
    }

    fn is_allowed(&self, asked: &[u8]) -> bool {
        self.allowed
            .iter()
            .any(|allowed| asked.eq_ignore_ascii_case(allowed.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_only_listed_types() {
        let websocket = &["websocket"][..];
        for (allowed, headers, expected) in [
            (websocket, &[][..], true),
            (
                websocket,
                &[(":method", "GET"), ("upgrade-insecure-requests", "1")],
                true,
            ),
            (websocket, &[("upgrade", "websocket")], true),
            (websocket, &[("upgrade", " WebSocket\t")], true),
            (
                websocket,
                &[
                    ("upgrade", "websocket"),
                    ("upgrade", "websocket, websocket"),
                ],
                true,
            ),
            (websocket, &[("upgrade", "SPDY/3.1")], false),
            (websocket, &[("upgrade", "websocket/13")], false),
            (
                websocket,
                &[("upgrade", "websocket"), ("upgrade", "spdy/3.1")],
                false,
            ),
            (websocket, &[("upgrade", "websocket, spdy/3.1")], false),
            (websocket, &[("upgrade", "websocket,")], false),
            (websocket, &[("upgrade", "websocket spdy/3.1")], false),
            (websocket, &[("upgrade", "")], false),
            (websocket, &[(":method", "CONNECT")], false),
            (websocket, &[(":method", "connect")], false),
            (
                websocket,
                &[(":method", "CONNECT"), (":protocol", "websocket")],
                false,
            ),
            (
                websocket,
                &[(":method", "GET"), (":protocol", "bytestream")],
                false,
            ),
            (&["spdy/3.1"], &[("upgrade", "SPDY/3.1")], true),
            (&["spdy/3.1"], &[("upgrade", "SPDY/3")], false),
            (&["spdy/3.1"], &[("upgrade", "websocket")], false),
            (&["connect"], &[(":method", "CONNECT")], true),
            (
                &["connect"],
                &[(":method", "CONNECT"), (":protocol", "bytestream")],
                false,
            ),
            (
                &["connect", "bytestream"],
                &[(":method", "CONNECT"), (":protocol", "bytestream")],
                true,
            ),
            (&[], &[("upgrade", "websocket")], false),
            (&[], &[(":method", "GET")], true),
        ] {
            let upgrades = Upgrades {
                allowed: allowed.iter().map(|name| (*name).to_owned()).collect(),
            };
            let head = headers
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                .collect();
            assert_eq!(
                upgrades.admit(&RequestHead::new(head)),
                expected,
                "{allowed:?} {headers:?}"
            );
        }
    }
}
