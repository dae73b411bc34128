//! The filter's cost after a request was admitted: uploads, downloads and WebSocket messages, with
//! and without it. They do not enter the module, so they should cost nothing.

use super::setups::Filter;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use support::client::{Request, WEBSOCKET, send_body, send_upgrade};
use support::server::{Body, Broken, Server, full};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The filters before the streams.
pub(crate) const FILTERS: [Filter; 2] = [Filter::Nothing, Filter::Ours];

const PIECE: usize = 64 << 10;
/// 100 MiB.
const PIECES: usize = 1600;
const MESSAGES: usize = 100_000;
/// Messages under way at a time.
const AT_A_TIME: usize = 100;

/// The kind of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Upload,
    Download,
    WebSocket,
}

impl Stream {
    pub(crate) const ALL: [Stream; 3] = [Stream::Upload, Stream::Download, Stream::WebSocket];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Stream::Upload => "an upload of 100 MiB",
            Stream::Download => "a download of 100 MiB",
            Stream::WebSocket => "100,000 WebSocket messages there and back",
        }
    }

    /// Streams it through `gateway`.
    pub(crate) async fn run(self, gateway: SocketAddr, token: &str) {
        let headers = [("host", "gateway.test"), ("x-amzn-oidc-data", token)];
        let request = Request::get("/", &headers);
        match self {
            Stream::Upload => {
                let request = Request {
                    method: "POST".into(),
                    ..request
                };
                let reply = send_body(gateway, &request, pieces())
                    .await
                    .expect("an answer");
                assert_eq!(
                    (reply.status, reply.body),
                    (200, (PIECE * PIECES).to_string())
                );
            }
            Stream::Download => {
                let reply = send_body(
                    gateway,
                    &Request {
                        path: "/download".into(),
                        ..request
                    },
                    full(""),
                )
                .await;
                let reply = reply.expect("an answer");
                assert_eq!((reply.status, reply.body.len()), (200, PIECE * PIECES));
            }
            Stream::WebSocket => {
                let request = Request::get("/", &[&headers[..], &WEBSOCKET].concat());
                let (_, connection) = send_upgrade(gateway, &request).await.expect("an answer");
                let connection = connection.expect("an open WebSocket");
                let (mut to, mut from) =
                    WebSocketStream::from_raw_socket(connection, Role::Client, None)
                        .await
                        .split();
                for number in 0..MESSAGES {
                    to.feed(format!("message {number:08}").into())
                        .await
                        .expect("a message sent");
                    if number % AT_A_TIME == AT_A_TIME - 1 {
                        to.flush().await.expect("messages sent");
                        for number in number + 1 - AT_A_TIME..=number {
                            let message = from.next().await.expect("a message").expect("a message");
                            assert_eq!(
                                message.to_text().expect("text"),
                                format!("message {number:08}")
                            );
                        }
                    }
                }
            }
        }
    }
}

/// The service behind the gateway.
pub(crate) async fn upstream() -> Server {
    Server::start(serve).await
}

async fn serve(mut request: hyper::Request<Incoming>) -> Result<Response<Body>, Broken> {
    if let Some(upgrade) = request.headers().get(UPGRADE).cloned() {
        let connection = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(connection) = connection.await else {
                return;
            };
            let socket =
                WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, None)
                    .await;
            let (to, from) = socket.split();
            // It ends when the client hangs up.
            drop(from.forward(to).await);
        });
        let granted = Response::builder()
            .status(101)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, upgrade);
        return Ok(granted.body(full(""))?);
    }
    if request.uri().path() == "/download" {
        return Ok(Response::new(pieces()));
    }
    let mut length = 0;
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(Response::new(full(length.to_string())))
}

/// 100 MiB, generated while being sent.
fn pieces() -> Body {
    let (mut sender, body) = Channel::<Bytes, Broken>::new(4);
    tokio::spawn(async move {
        let piece = Bytes::from(vec![b'x'; PIECE]);
        for _ in 0..PIECES {
            if sender.send_data(piece.clone()).await.is_err() {
                return;
            }
        }
    });
    body.boxed()
}
