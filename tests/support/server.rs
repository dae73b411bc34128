//! One HTTP server on a free local port: HTTP/1.1, or HTTP/2 with prior knowledge. Basis of the key
//! server, the upstream and the demo's ALB.

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// An error that ends a connection before the answer is complete: the client sees a reset.
pub type Broken = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer; it may break off.
pub type Body = BoxBody<Bytes, Broken>;

/// A running server. It stops accepting when dropped.
pub struct Server {
    /// Its address.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts to answer every request with `handler`.
    pub async fn start<H, F>(handler: H) -> Server
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response<Body>, Broken>> + Send + 'static,
    {
        Server::start_at(([127, 0, 0, 1], 0), handler).await
    }

    /// The same at another address of this machine; port 0: any.
    pub async fn start_at<H, F>(address: impl Into<SocketAddr>, handler: H) -> Server
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response<Body>, Broken>> + Send + 'static,
    {
        let listener = TcpListener::bind(address.into())
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("the port's number");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper::service::service_fn(handler.clone());
                // The client observes a connection's error.
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    drop(
                        server
                            .serve_connection_with_upgrades(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Server { address, accepting }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A complete body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed()
}
