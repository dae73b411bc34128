//! The client in front of the gateway: sends one request over its own connection and reads the whole answer.
//! Header values and bodies are written and read one character per byte (`ÿ` is the byte 0xFF), so that a table of text can
//! hold any bytes.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer that takes longer has not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request that HTTP can express.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// In order; a name may come twice. `host` is among them.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    /// A GET with these headers.
    pub(crate) fn get(path: &str, headers: &[(&str, &str)]) -> Request {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Request { method: "GET".into(), path: path.into(), headers, body: String::new() }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// In order, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// From connecting to the last byte.
    pub(crate) took: Duration,
}

impl Reply {
    /// All values of one header, in order.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// One byte per character.
pub(crate) fn to_bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("a character up to U+00FF, one per byte")).collect()
}

/// One character per byte.
pub(crate) fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Sends `request` and reads the answer; a broken or late answer is an error.
pub(crate) async fn send(to: SocketAddr, request: &Request) -> Result<Reply, String> {
    in_time(exchange(to, request)).await
}

/// Sends a request that HTTP cannot express, byte for byte, and reads the answer.
pub(crate) async fn send_raw(to: SocketAddr, request: &str) -> Result<Reply, String> {
    in_time(exchange_raw(to, request)).await
}

async fn in_time(answer: impl Future<Output = Result<Reply, String>>) -> Result<Reply, String> {
    let start = Instant::now();
    let answer =
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
    answer.map(|reply| Reply { took: start.elapsed(), ..reply })
}

async fn exchange(to: SocketAddr, request: &Request) -> Result<Reply, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| format!("cannot connect: {error}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let mut head = hyper::Request::builder().method(request.method.as_str()).uri(&request.path);
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("header name {name:?}: {error}"))?;
        let value = HeaderValue::from_bytes(&to_bytes(value)).map_err(|error| format!("value of {name}: {error}"))?;
        head = head.header(name, value);
    }
    let whole = head.body(Full::new(Bytes::from(to_bytes(&request.body)))).map_err(|error| error.to_string())?;
    let answer = sender.send_request(whole).await.map_err(|error| format!("no answer: {error}"))?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| format!("answer broken off: {error}"))?.to_bytes();
    drop(sender);
    connection.abort();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), to_text(value.as_bytes()))).collect();
    Ok(Reply { status: head.status.as_u16(), headers, body: to_text(&body), took: Duration::ZERO })
}

async fn exchange_raw(to: SocketAddr, request: &str) -> Result<Reply, String> {
    let mut stream = TcpStream::connect(to).await.map_err(|error| format!("cannot connect: {error}"))?;
    stream.write_all(&to_bytes(request)).await.map_err(|error| format!("cannot send: {error}"))?;
    let mut answer = String::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece).await.map_err(|error| format!("no answer: {error}"))?;
        answer += &to_text(&piece[..length]);
        if let Some(reply) = parse(&answer) {
            return Ok(reply);
        }
        if length == 0 {
            return Err(format!("no whole answer: {answer:?}"));
        }
    }
}

/// An answer with a `content-length`, once it is there as a whole.
fn parse(answer: &str) -> Option<Reply> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let reply = Reply { status, headers, body: body.to_owned(), took: Duration::ZERO };
    let length: usize = reply.header("content-length").first()?.parse().ok()?;
    (body.len() >= length).then_some(reply)
}
