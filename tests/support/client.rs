//! The client of the gateway: sends one request over its own connection with HTTP/1.1 or HTTP/2,
//! and reads the whole answer. Header values and bodies have one character for each byte (`ÿ` is
//! the byte 0xFF), so that a table of text can express any bytes.

use super::server::{Body, full};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper::{HeaderMap, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// The deadline for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The headers that ask for a WebSocket (RFC 6455, section 4.1).
pub const WEBSOCKET: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A request that HTTP can express.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// In order, duplicates included. `host` is among them.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    /// A GET with these headers.
    pub fn get(path: &str, headers: &[(&str, &str)]) -> Request {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Request {
            method: "GET".into(),
            path: path.into(),
            headers,
            body: String::new(),
        }
    }

    /// A gRPC call of one empty message, to send over HTTP/2.
    pub fn grpc(path: &str, headers: &[(&str, &str)]) -> Request {
        let own = [("content-type", "application/grpc"), ("te", "trailers")];
        Request {
            method: "POST".into(),
            // Not compressed, of length 0.
            body: "\0\0\0\0\0".into(),
            ..Request::get(path, &[headers, &own].concat())
        }
    }
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// From connecting to the last byte.
    pub took: Duration,
}

impl Reply {
    /// All values of one header, in order.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

/// One byte per character.
pub fn to_bytes(text: &str) -> Vec<u8> {
    // Bodies of megabytes are ASCII.
    if text.is_ascii() {
        return text.as_bytes().to_vec();
    }
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a character up to U+00FF, one per byte"))
        .collect()
}

/// One character per byte.
pub fn to_text(bytes: &[u8]) -> String {
    if bytes.is_ascii() {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Sends `request` and reads the answer. A broken or late answer is an error.
pub async fn send(to: SocketAddr, request: &Request) -> Result<Reply, String> {
    let body = full(to_bytes(&request.body));
    in_time(async { Ok(exchange(to, request, body).await?.0) }).await
}

/// Sends `request` with a body in place of its own.
pub async fn send_body(to: SocketAddr, request: &Request, body: Body) -> Result<Reply, String> {
    in_time(async { Ok(exchange(to, request, body).await?.0) }).await
}

/// Sends `request`, which asks for an upgrade. Returns the connection if the upgrade was accepted.
pub async fn send_upgrade(
    to: SocketAddr,
    request: &Request,
) -> Result<(Reply, Option<TokioIo<Upgraded>>), String> {
    in_time(exchange(to, request, full(""))).await
}

/// Sends `request` with these trailers over HTTP/2 with prior knowledge.
pub async fn send_http2(
    to: SocketAddr,
    request: &Request,
    trailers: &[(&str, &str)],
) -> Result<Reply, String> {
    in_time(exchange_http2(to, request, trailers)).await
}

/// Sends a request that HTTP libraries cannot express, byte for byte, and reads the answer.
pub async fn send_raw(to: SocketAddr, request: &str) -> Result<Reply, String> {
    in_time(exchange_raw(to, request)).await
}

/// An answer before the deadline, with its extra value.
async fn in_time<T>(answer: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, answer)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}

async fn exchange(
    to: SocketAddr,
    request: &Request,
    body: Body,
) -> Result<(Reply, Option<TokioIo<Upgraded>>), String> {
    let start = Instant::now();
    let request = in_http1(request, body)?;
    let (mut sender, connection) = http1::handshake(connect(to).await?)
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection.with_upgrades());
    let mut answer = sender
        .send_request(request)
        .await
        .map_err(|error| format!("no answer: {error}"))?;
    if answer.status() == hyper::StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = hyper::upgrade::on(&mut answer)
            .await
            .map_err(|error| format!("no upgrade: {error}"))?;
        return Ok((read(answer, start).await?, Some(TokioIo::new(upgraded))));
    }
    let reply = read(answer, start).await?;
    drop(sender);
    connection.abort();
    Ok((reply, None))
}

async fn exchange_http2(
    to: SocketAddr,
    request: &Request,
    trailers: &[(&str, &str)],
) -> Result<Reply, String> {
    let start = Instant::now();
    let trailers = fields(trailers.iter().copied())?;
    let body = full(to_bytes(&request.body));
    let body = if trailers.is_empty() {
        body
    } else {
        body.with_trailers(async { Some(Ok(trailers)) }).boxed()
    };
    let request = in_http2(request, body)?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), connect(to).await?)
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| format!("no answer: {error}"))?;
    let reply = read(answer, start).await?;
    connection.abort();
    Ok(reply)
}

fn in_http1(request: &Request, body: Body) -> Result<hyper::Request<Body>, String> {
    let mut head = hyper::Request::builder()
        .method(request.method.as_str())
        .uri(&request.path);
    if let Some(headers) = head.headers_mut() {
        *headers = fields(
            request
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        )?;
    }
    head.body(body).map_err(|error| error.to_string())
}

fn in_http2(request: &Request, body: Body) -> Result<hyper::Request<Body>, String> {
    let mut headers = fields(
        request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    )?;
    // HTTP/2 has no `host` header.
    let host = headers.remove(HOST).ok_or("a request without a host")?;
    let uri = format!("http://{}{}", to_text(host.as_bytes()), request.path);
    let mut head = hyper::Request::builder()
        .method(request.method.as_str())
        .uri(uri);
    if let Some(place) = head.headers_mut() {
        *place = headers;
    }
    head.body(body).map_err(|error| error.to_string())
}

/// A connection for consecutive requests, or, with HTTP/2, concurrent ones.
pub struct Connection {
    sender: Sender,
    task: AbortHandle,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    /// Connects by HTTP/1.1.
    pub async fn http1(to: SocketAddr) -> Result<Connection, String> {
        let (sender, connection) = http1::handshake(connect(to).await?)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Connection {
            sender: Sender::Http1(sender),
            task: tokio::spawn(async { drop(connection.await) }).abort_handle(),
        })
    }

    /// Connects by HTTP/2.
    pub async fn http2(to: SocketAddr) -> Result<Connection, String> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), connect(to).await?)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Connection {
            sender: Sender::Http2(sender),
            task: tokio::spawn(async { drop(connection.await) }).abort_handle(),
        })
    }

    /// The same connection for a concurrent request; only HTTP/2 supports that.
    pub fn multiplexed(&self) -> Option<Connection> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Connection {
                sender: Sender::Http2(sender.clone()),
                task: self.task.clone(),
            }),
        }
    }

    /// Whether it accepts another request now.
    pub fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_ready(),
            Sender::Http2(sender) => sender.is_ready(),
        }
    }

    /// Sends `request` and reads the answer without a deadline. `None`: the connection was about to
    /// close, and the request was not sent. If the answer is abandoned, HTTP/2 resets the stream,
    /// and an HTTP/1.1 connection becomes unusable.
    pub async fn send(&mut self, request: &Request, body: Body) -> Result<Option<Reply>, String> {
        let start = Instant::now();
        let answer = match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(in_http1(request, body)?).await,
            Sender::Http2(sender) => sender.send_request(in_http2(request, body)?).await,
        };
        match answer {
            Ok(answer) => read(answer, start).await.map(Some),
            Err(error) if error.is_canceled() => Ok(None),
            Err(error) => Err(format!("no answer: {error:?}")),
        }
    }

    /// Hangs up immediately.
    pub fn hang_up(self) {
        self.task.abort();
    }
}

async fn connect(to: SocketAddr) -> Result<TokioIo<TcpStream>, String> {
    TcpStream::connect(to)
        .await
        .map(TokioIo::new)
        .map_err(|error| format!("cannot connect: {error}"))
}

fn fields<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|error| format!("header name {name:?}: {error}"))?;
        let value = HeaderValue::from_bytes(&to_bytes(value))
            .map_err(|error| format!("value of {name}: {error}"))?;
        map.append(name, value);
    }
    Ok(map)
}

async fn read(answer: Response<Incoming>, start: Instant) -> Result<Reply, String> {
    let (head, body) = answer.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|error| format!("answer broken off: {error}"))?
        .to_bytes();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), to_text(value.as_bytes())))
        .collect();
    Ok(Reply {
        status: head.status.as_u16(),
        headers,
        body: to_text(&body),
        took: start.elapsed(),
    })
}

async fn exchange_raw(to: SocketAddr, request: &str) -> Result<Reply, String> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(to)
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    stream
        .write_all(&to_bytes(request))
        .await
        .map_err(|error| format!("cannot send: {error}"))?;
    let mut answer = String::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream
            .read(&mut piece)
            .await
            .map_err(|error| format!("no answer: {error}"))?;
        answer += &to_text(&piece[..length]);
        if let Some(reply) = parse(&answer) {
            return Ok(Reply {
                took: start.elapsed(),
                ..reply
            });
        }
        if length == 0 {
            return Err(format!("no whole answer: {answer:?}"));
        }
    }
}

/// An answer with a `content-length`, once it is complete.
fn parse(answer: &str) -> Option<Reply> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let reply = Reply {
        status,
        headers,
        body: body.to_owned(),
        took: Duration::ZERO,
    };
    let length: usize = reply.header("content-length").first()?.parse().ok()?;
    (body.len() >= length).then_some(reply)
}
