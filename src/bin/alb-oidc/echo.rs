//! `alb-oidc echo`: the upstream service of the local stack. Answers with the request that it
//! received: as a page for browsers, as JSON for others. Sends WebSocket messages back. Stores
//! nothing.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use clap::Args;
use http_body_util::BodyExt as _;
use maud::html;
use serde::Serialize;

use crate::input::Trouble;
use crate::page::layout;
use crate::serve::{self, Listener, log};

const EXAMPLE: &str = "\
Example: read the user id from another header, and link to the sign-out

  alb-oidc echo --listen 127.0.0.1:8081 --user-header x-user --link 'Sign out=/logout'";

/// Run an HTTP service that shows the requests it receives
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Echo {
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// The header that carries the user id
    #[arg(long, value_name = "NAME", default_value = "kubeflow-userid")]
    user_header: HeaderName,
    /// A link on the page (repeatable)
    #[arg(long, value_name = "TEXT=URL", value_parser = link)]
    link: Vec<(String, String)>,
}

fn link(text: &str) -> Result<(String, String), String> {
    let (text, url) = text.split_once('=').ok_or("expected TEXT=URL")?;
    Ok((text.to_owned(), url.to_owned()))
}

impl Echo {
    /// Serves until a signal stops it.
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        serve::run(async {
            let listener = Listener::bind(self.listen).await?;
            log(format_args!("listening at http://{}", listener.address()));
            listener
                .serve(Router::new().fallback(echo).with_state(Arc::new(self)))
                .await
        })
    }
}

/// A request that the service received.
#[derive(Serialize)]
struct Received {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body_bytes: u64,
}

async fn echo(
    State(options): State<Arc<Echo>>,
    socket: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    if let Ok(socket) = socket {
        return socket.on_upgrade(send_back);
    }
    let (head, mut body) = request.into_parts();
    let mut body_bytes: u64 = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let length = frame.data_ref().map_or(0, |data| data.len());
        body_bytes = body_bytes.saturating_add(length.try_into().unwrap_or(u64::MAX));
    }
    let text =
        |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    let path = head
        .uri
        .path_and_query()
        .map_or_else(String::new, ToString::to_string);
    let received = Received {
        method: head.method.to_string(),
        path,
        headers,
        body_bytes,
    };
    if wants_page(&head.headers) {
        page(&options, &head.headers, &received).into_response()
    } else {
        Json(received).into_response()
    }
}

fn wants_page(headers: &HeaderMap) -> bool {
    let mut accepted = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    accepted.any(|accept| accept.contains("text/html"))
}

fn page(options: &Echo, headers: &HeaderMap, received: &Received) -> maud::Markup {
    let user = headers
        .get(&options.user_header)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    layout(
        "Request received by the service",
        html! {
            p {
                @match &user {
                    Some(user) => { "You are " strong #user { (user) } "." }
                    None => { strong { "No user" } ": the request has no " code { (options.user_header) } "." }
                }
            }
            nav { @for (text, url) in &options.link { a href=(url) { (text) } } }
            h2 { code { (received.method) " " (received.path) } }
            table {
                // Proxies append the headers that they add. Those come first here.
                @for (name, value) in received.headers.iter().rev() { tr { th { (name) } td { code { (value) } } } }
            }
        },
    )
}

async fn send_back(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let is_content = matches!(message, Message::Text(_) | Message::Binary(_));
        if is_content && socket.send(message).await.is_err() {
            return;
        }
    }
}
