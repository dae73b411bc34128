//! The service behind the gateway: remembers each request that reaches it and echoes it as JSON.

use super::client::to_text;
use super::server::{Server, full};
use http_body_util::BodyExt;
use hyper::Response;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// One request as it arrived. Header values are spelled one character per byte.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    /// In order; a header that came twice is here twice.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    /// All values of one header, in order.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// The running service.
pub(crate) struct Upstream {
    server: Server,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    /// Starts it on a free port.
    pub(crate) async fn start() -> Upstream {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let server = Server::start(move |request| {
            let record = Arc::clone(&record);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let headers =
                    head.headers.iter().map(|(name, value)| (name.to_string(), to_text(value.as_bytes()))).collect();
                let seen =
                    Seen { method: head.method.to_string(), path: head.uri.to_string(), headers, body: to_text(&body) };
                let echo = serde_json::to_vec_pretty(&seen)?;
                record.lock().expect("the record").push(seen);
                Ok(Response::builder().header("content-type", "application/json").body(full(echo))?)
            }
        });
        Upstream { server: server.await, seen }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What arrived since the last call.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("the record"))
    }
}
