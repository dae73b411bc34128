//! Sends the requests of `--probe`, each on its own connection and with a deadline. Follows no
//! redirect, and judges nothing.

use std::error::Error;
use std::time::Duration;

use axum::http::header::{ACCEPT, HOST, HeaderMap, HeaderValue, USER_AGENT};
use axum::http::uri::Scheme;
use axum::http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;

use super::answer::{Answer, without_query};
use crate::trouble::Trouble;

const TIMEOUT: Duration = Duration::from_secs(10);
/// The filter's answers are smaller. Nothing is read of a larger body.
const MAX_BODY_BYTES: usize = 64 << 10;
const AGENT: &str = concat!("alb-oidc/", env!("CARGO_PKG_VERSION"));

/// The target of the requests.
pub(super) struct Probe {
    url: Uri,
    /// In place of the URL's own host.
    host: Option<HeaderValue>,
    /// For the head of an answer, and again for its body.
    deadline: Duration,
}

impl Probe {
    /// # Errors
    /// The URL is not an `http` or `https` URL without a user, or the host cannot be a header value.
    pub(super) fn of(url: &str, host: Option<&str>) -> Result<Self, Trouble> {
        let is_usable = |url: &Uri| {
            let schemes = [Scheme::HTTP, Scheme::HTTPS];
            let has_scheme = url.scheme().is_some_and(|scheme| schemes.contains(scheme));
            let authority = url.authority().map_or("@", |authority| authority.as_str());
            has_scheme && !authority.contains('@')
        };
        let parsed = url.parse().ok().filter(is_usable).ok_or_else(|| {
            // A user's password is not repeated.
            let found = if url.contains('@') {
                "a URL with a user"
            } else {
                url
            };
            Trouble(format!(
                "--probe: found {found}, expected a URL such as https://kubeflow.example.com/"
            ))
        })?;
        let host = host.map(HeaderValue::from_str).transpose();
        let host = host.map_err(|error| Trouble(format!("--probe-host: {error}")))?;
        Ok(Self {
            url: parsed,
            host,
            deadline: TIMEOUT,
        })
    }

    /// The URL for messages.
    pub(super) fn shown(&self) -> String {
        without_query(&self.url.to_string()).to_owned()
    }

    /// The answer to a GET request with these headers.
    ///
    /// # Errors
    /// There is no answer within the deadline, or the server's certificate is not trusted.
    pub(super) async fn send(&self, headers: Option<HeaderMap>) -> Result<Answer, Trouble> {
        let trouble = |fault: &str| Trouble(format!("--probe {}: {fault}", self.shown()));
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers.unwrap_or_default();
        let mut own = vec![
            // The filter then answers with JSON.
            (ACCEPT, HeaderValue::from_static("application/json")),
            (USER_AGENT, HeaderValue::from_static(AGENT)),
        ];
        own.extend(self.host.clone().map(|host| (HOST, host)));
        request.headers_mut().extend(own);
        let response = tokio::time::timeout(self.deadline, self.exchange(request)).await;
        let response = response
            .map_err(|_| trouble(&format!("no answer within {:?}", self.deadline)))?
            .map_err(|fault| trouble(&fault))?;
        let (head, body) = response.into_parts();
        let is_denial = head.status.is_client_error() || head.status.is_server_error();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            // Any other body may have no end.
            body: if is_denial {
                self.text(body).await
            } else {
                String::new()
            },
        })
    }

    async fn exchange(&self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, String> {
        let answer = if self.url.scheme() == Some(&Scheme::HTTPS) {
            let builder = HttpsConnectorBuilder::new().with_native_roots();
            let builder = builder.map_err(|error| format!("root certificates: {error}"))?;
            let connector = builder.https_only().enable_http1().build();
            client(connector).request(request).await
        } else {
            client(HttpConnector::new()).request(request).await
        };
        answer.map_err(|error| cause(&error))
    }

    /// The body as text; empty if it is too large, slow or broken.
    async fn text(&self, body: Incoming) -> String {
        let body = Limited::new(body, MAX_BODY_BYTES).collect();
        match tokio::time::timeout(self.deadline, body).await {
            Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            _ => String::new(),
        }
    }
}

/// A client that keeps no connection.
fn client<C: Connect + Clone>(connector: C) -> Client<C, Empty<Bytes>> {
    Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector)
}

/// The first cause of an error, such as a refused connection.
fn cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_without_user_are_accepted() {
        for (url, is_accepted) in [
            ("https://kubeflow.example.com", true),
            ("http://localhost:8080/a?b=c", true),
            ("http://[::1]:8080/", true),
            ("kubeflow.example.com", false),
            ("/path", false),
            ("ftp://kubeflow.example.com/", false),
            ("https://ann:secret@kubeflow.example.com/", false),
            ("https://", false),
            ("", false),
        ] {
            assert_eq!(Probe::of(url, None).is_ok(), is_accepted, "{url}");
        }
        assert!(Probe::of("http://localhost/", Some("a\nb")).is_err());
    }

    #[test]
    fn shows_neither_password_nor_query() {
        let Err(Trouble(said)) = Probe::of("https://ann:secret@kubeflow.example.com/", None) else {
            panic!("accepted");
        };
        assert!(!said.contains("secret"), "{said}");
        let probe = Probe::of("https://kubeflow.example.com/a?token=secret", None).expect("a URL");
        assert_eq!(probe.shown(), "https://kubeflow.example.com/a");
    }

    #[tokio::test]
    async fn silent_server_is_given_up() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let server = server.expect("a free port");
        let address = server.local_addr().expect("its address");
        let mut probe = Probe::of(&format!("http://{address}/"), None).expect("a URL");
        probe.deadline = Duration::from_millis(50);
        let Err(Trouble(said)) = probe.send(None).await else {
            panic!("an answer");
        };
        assert!(said.ends_with("no answer within 50ms"), "{said}");
    }
}
