//! URLs in the plugin config, and the name of their Istio cluster. No I/O.

/// A key server's URL without its scheme: the Envoy cluster configures TLS.
#[derive(Clone)]
pub(super) struct Endpoint {
    host: String,
    port: u16,
    default_port: u16,
    pub(super) path: String,
}

impl Endpoint {
    pub(super) const EXPECTED: &'static str =
        "an http or https URL without query, such as \"https://keys.example.com/prefix\"";

    /// The endpoint `https://HOST/PATH`, whose path ends in `/`.
    pub(super) fn https(host: String, path: String) -> Self {
        Self {
            host,
            port: 443,
            default_port: 443,
            path,
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let default_port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, path.trim_end_matches('/')),
            None => (rest, ""),
        };
        let (host, port) = match authority.rsplit_once(':') {
            // `parse` would accept a sign.
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (host, port.parse().ok()?)
            }
            Some(_) => return None,
            None => (authority, default_port),
        };
        let host_is_sound = !host.is_empty()
            && host.len() <= 253
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        let path_is_sound = path.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b'%')
        });
        if !host_is_sound || !path_is_sound || port == 0 {
            return None;
        }
        let path = if path.is_empty() {
            "/".to_owned()
        } else {
            format!("/{path}/")
        };
        Some(Self {
            host: host.to_ascii_lowercase(),
            port,
            default_port,
            path,
        })
    }

    pub(super) fn authority(&self) -> String {
        if self.port == self.default_port {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Istio's name for the cluster of a ServiceEntry with this host and port.
    pub(super) fn cluster(&self) -> String {
        format!("outbound|{}||{}", self.port, self.host)
    }
}

/// Scheme and host of an absolute `url`. `None` unless the scheme is http or https, and all
/// characters are those of a URL (RFC 3986, section 2).
pub(super) fn scheme_and_host(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.split(':').next()?;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    let is_sound =
        url.bytes().all(is_plain) && Endpoint::parse(&format!("{scheme}://{authority}")).is_some();
    is_sound.then_some((scheme, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_host_port_and_path() {
        for (text, expected) in [
            (
                "https://keys.example.com",
                Some(("keys.example.com", "/", "outbound|443||keys.example.com")),
            ),
            (
                "https://Keys.example.com:443/",
                Some(("keys.example.com", "/", "outbound|443||keys.example.com")),
            ),
            (
                "http://127.0.0.1:8080/a/b",
                Some(("127.0.0.1:8080", "/a/b/", "outbound|8080||127.0.0.1")),
            ),
            ("http://keys", Some(("keys", "/", "outbound|80||keys"))),
            ("keys.example.com", None),
            ("ftp://keys", None),
            ("https://", None),
            ("https://user@keys", None),
            ("https://keys?x", None),
            ("https://keys/a?x=1", None),
            ("https://keys/a b", None),
            ("https://keys:0", None),
            ("https://keys:+1", None),
            ("https://keys:99999", None),
        ] {
            let found = Endpoint::parse(text).map(|endpoint| {
                (
                    endpoint.authority(),
                    endpoint.path.clone(),
                    endpoint.cluster(),
                )
            });
            let found = found.as_ref().map(|(authority, path, cluster)| {
                (authority.as_str(), path.as_str(), cluster.as_str())
            });
            assert_eq!(found, expected, "{text}");
        }
    }
}
