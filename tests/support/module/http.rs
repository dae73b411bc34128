//! Requests, replies, and the module's HTTP calls. Data only.

use std::collections::BTreeMap;
use std::time::Duration;

/// Names and values in order, duplicates included.
pub type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// A request.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The plugin that handles it.
    pub root: u32,
    /// The current headers: upstream sees them once the request is continued.
    pub headers: Headers,
    pub trailers: Headers,
    /// Filter state, by name without `wasm.`.
    pub notes: BTreeMap<String, Vec<u8>>,
    pub fate: Fate,
}

/// The state of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The module is processing its head.
    Judged,
    /// It is paused.
    Waiting,
    /// It continued to upstream.
    Continued,
    /// The module answered it.
    Answered(Reply),
}

/// A local reply.
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

    /// The reason that the module wrote for the access log.
    pub fn reason(&self) -> Option<String> {
        self.notes.get("alb_oidc_reason").map(|reason| text(reason))
    }
}

/// An unanswered HTTP call of the module.
#[derive(Clone, Debug)]
pub struct Call {
    /// The root context of the call.
    pub root: u32,
    pub cluster: String,
    pub headers: Headers,
    pub timeout: Duration,
    /// The time of the call, on the steady clock.
    pub made: Duration,
}

impl Call {
    /// The value of one header.
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(key, _)| key == name.as_bytes());
        found.map(|(_, value)| text(value)).unwrap_or_default()
    }
}

/// The answer to a call; `None` instead is a reset.
#[derive(Clone, Debug)]
pub struct Response {
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Response {
    /// An answer with this status and body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response {
            headers: headers(&[(":status", &status.to_string())]),
            body: body.into(),
        }
    }

    /// Envoy's answer to a call that timed out.
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
