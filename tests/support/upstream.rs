//! The service behind the gateway: records each request and echoes it as JSON, or answers with as
//! many bytes as [`ANSWER_BYTES`] asks for. Accepts upgrades and echoes all bytes that follow.

use super::client::to_text;
use super::server::{Body, Broken, Server, full};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, LOCATION, UPGRADE};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// The header that asks for an answer of this size, in chunks.
pub const ANSWER_BYTES: &str = "x-answer-bytes";

/// The header that has `/redirect` answered with a redirect to this address.
pub const REDIRECT_TO: &str = "x-redirect-to";

/// A received request. Header values have one character for each byte.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// In order, duplicates included.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// The trailers.
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    /// All values of one header, in order.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

/// The running service.
pub struct Upstream {
    server: Server,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    /// Starts it on a free port.
    pub async fn start() -> Upstream {
        Upstream::start_at(([127, 0, 0, 1], 0)).await
    }

    /// The same at another address of this machine; port 0: any.
    pub async fn start_at(address: impl Into<SocketAddr>) -> Upstream {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let server = Server::start_at(address, move |request| serve(Arc::clone(&record), request));
        Upstream {
            server: server.await,
            seen,
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The requests since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("the record"))
    }

    /// The user ids of the requests at `path` since then, without clearing them; several in one
    /// request are joined.
    pub fn seen_at(&self, path: &str) -> Vec<String> {
        let seen = self.seen.lock().expect("the record");
        seen.iter()
            .filter(|seen| seen.path == path)
            .map(|seen| seen.header("kubeflow-userid").join(","))
            .collect()
    }
}

async fn serve(
    record: Arc<Mutex<Vec<Seen>>>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    let upgrade = request.headers().get(UPGRADE).cloned();
    let connection = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    // An upgraded connection has a body without end.
    let (body, trailers) = if upgrade.is_some() {
        Default::default()
    } else {
        let body = body.collect().await?;
        let trailers = body.trailers().map(fields).unwrap_or_default();
        (to_text(&body.to_bytes()), trailers)
    };
    let path = head
        .uri
        .path_and_query()
        .map_or_else(|| head.uri.to_string(), ToString::to_string);
    let seen = Seen {
        method: head.method.to_string(),
        path,
        headers: fields(&head.headers),
        body,
        trailers,
    };
    let wanted = head
        .headers
        .get(ANSWER_BYTES)
        .and_then(|count| count.to_str().ok()?.parse().ok());
    let echo = if wanted.is_none() {
        serde_json::to_vec_pretty(&seen)?
    } else {
        Vec::new()
    };
    let redirect = head
        .headers
        .get(REDIRECT_TO)
        .filter(|_| seen.path == "/redirect");
    record.lock().expect("the record").push(seen);
    if let Some(location) = redirect {
        let found = Response::builder().status(StatusCode::FOUND);
        return Ok(found.header(LOCATION, location).body(full(""))?);
    }
    if let Some(count) = wanted {
        return Ok(Response::new(in_pieces(count)));
    }
    let (Some(upgrade), Some(connection)) = (upgrade, connection) else {
        return Ok(Response::builder()
            .header("content-type", "application/json")
            .body(full(echo))?);
    };
    tokio::spawn(async move {
        let Ok(connection) = connection.await else {
            return;
        };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(connection));
        // It ends when the client hangs up.
        drop(tokio::io::copy(&mut from, &mut to).await);
    });
    let granted = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    Ok(granted
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, upgrade)
        .body(full(""))?)
}

fn in_pieces(mut count: usize) -> Body {
    const PIECE: usize = 16 << 10;
    let (mut sender, channel) = Channel::<Bytes, Broken>::new(1);
    tokio::spawn(async move {
        while count > 0 {
            let piece = Bytes::from_static(&[b'.'; PIECE]).slice(..count.min(PIECE));
            count -= piece.len();
            if sender.send_data(piece).await.is_err() {
                return;
            }
        }
    });
    channel.boxed()
}

fn fields(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter()
        .map(|(name, value)| (name.to_string(), to_text(value.as_bytes())))
        .collect()
}
