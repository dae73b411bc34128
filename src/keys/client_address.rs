//! The client addresses that the fetch queue counts. No I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One client's address. An IPv6 client owns a whole /64, so the prefix counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientAddress {
    /// An IPv4 address, or an IPv4-mapped IPv6 address.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
    /// All clients with an unknown address together.
    Unknown,
}

impl ClientAddress {
    /// Parses an address with or without port, as in Envoy's attribute `source.address`:
    /// `192.0.2.1:443`, `[2001:db8::1]:443`.
    pub fn parse(text: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(text) else {
            return Self::Unknown;
        };
        let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
        text.parse::<IpAddr>()
            .or_else(|_| with_port())
            .map_or(Self::Unknown, Self::from)
    }
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(network(address)),
        }
    }
}

fn network(address: Ipv6Addr) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = address.octets();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_addresses_with_and_without_port() {
        let v4 = ClientAddress::V4(Ipv4Addr::new(192, 0, 2, 1));
        let v6 = ClientAddress::V6(0x2001_0db8_0000_0001);
        for (text, address) in [
            ("192.0.2.1", v4),
            ("192.0.2.1:0", v4),
            ("192.0.2.1:65535", v4),
            ("[::ffff:192.0.2.1]:443", v4),
            ("::ffff:192.0.2.1", v4),
            ("2001:db8:0:1::1", v6),
            ("[2001:db8:0:1::1]:443", v6),
            ("[2001:db8:0:1:ffff::]:443", v6),
            (
                "[2001:db8:0:2::1]:443",
                ClientAddress::V6(0x2001_0db8_0000_0002),
            ),
        ] {
            assert_eq!(ClientAddress::parse(text.as_bytes()), address, "{text}");
        }
    }

    #[test]
    fn everything_else_is_one_unknown_address() {
        for text in [
            "",
            "unknown",
            "192.0.2.1:",
            "192.0.2",
            "[2001:db8::1]",
            "@/run/envoy.sock",
            "192.0.2.1:65536",
        ] {
            assert_eq!(
                ClientAddress::parse(text.as_bytes()),
                ClientAddress::Unknown,
                "{text}"
            );
        }
        assert_eq!(ClientAddress::parse(b"\xff"), ClientAddress::Unknown);
    }
}
