//! Requests and replies, and the HTTP calls that the module makes. Holds them; decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

/// Names and values in order; a name may come twice.
pub type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// A request.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Whose plugin judges it.
    pub root: u32,
    /// As they stand now: upstream sees them once the request has been let pass.
    pub headers: Headers,
    pub trailers: Headers,
    /// Filter state, by name without `wasm.`.
    pub notes: BTreeMap<String, Vec<u8>>,
    pub fate: Fate,
}

/// What has become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The module is looking at its head.
    Judged,
    /// It is paused.
    Waiting,
    /// It went on to upstream.
    Continued,
    /// The module answered it.
    Answered(Reply),
}

/// An answer in upstream's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u32,
    pub details: String,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Stream {
    /// All values of one header, in order.
    pub fn header(&self, name: &str) -> Vec<String> {
        self.headers
            .iter()
            .filter(|(key, _)| key == name.as_bytes())
            .map(|(_, value)| text(value))
            .collect()
    }

    /// Why it was answered, as the module noted it for the access log.
    pub fn reason(&self) -> Option<String> {
        self.notes.get("alb_oidc_reason").map(|reason| text(reason))
    }
}

/// An HTTP call that the module made and nobody has answered.
#[derive(Clone, Debug)]
pub struct Call {
    /// The root context that made it.
    pub root: u32,
    pub cluster: String,
    pub headers: Headers,
    pub timeout: Duration,
    /// When it was made, by the steady clock.
    pub made: Duration,
}

impl Call {
    /// The value of one header.
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(key, _)| key == name.as_bytes());
        found.map(|(_, value)| text(value)).unwrap_or_default()
    }
}

/// What a call is answered with; `None` in its place is a reset.
#[derive(Clone, Debug)]
pub struct Response {
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Response {
    /// An answer of this status and body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response {
            headers: headers(&[(":status", &status.to_string())]),
            body: body.into(),
        }
    }

    /// What Envoy makes of a call that took too long.
    pub fn timeout() -> Response {
        Response::new(504, "upstream request timeout")
    }
}

/// Header names and values as text.
pub fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs
        .iter()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
