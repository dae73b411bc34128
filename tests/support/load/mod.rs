//! Shared code of `make chaos`, `make soak` and `make bench`: reused connections, an Envoy's memory
//! and CPU time. Checks nothing.

pub mod memory;
pub mod processor;

use crate::client::{Connection, Reply, Request};
use crate::server::full;
use hyper::body::Bytes;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The deadline for an answer.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The age limit of a reused connection, so that workers get new ones, and none outlives its
/// listener, which Envoy would close.
const AGE: Duration = Duration::from_secs(5);

/// The client's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// The outcome of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    Answered(Reply),
    /// By the client.
    HungUp,
    /// Neither an answer nor a hang-up by the client.
    Broken(String),
}

/// One listener, and its idle connections.
pub struct Lane {
    pub address: SocketAddr,
    idle: Mutex<Vec<(Connection, Instant)>>,
    shared: Mutex<Option<(Connection, Instant)>>,
}

impl Lane {
    pub fn to(address: SocketAddr) -> Lane {
        Lane {
            address,
            idle: Mutex::default(),
            shared: Mutex::default(),
        }
    }

    /// Sends a request. The client hangs up after `hangs_up` without an answer.
    pub async fn send(
        &self,
        protocol: Protocol,
        request: &Request,
        body: Bytes,
        hangs_up: Option<Duration>,
    ) -> Outcome {
        let (mut connection, since) = match self.connection(protocol).await {
            Ok(connection) => connection,
            Err(error) => return Outcome::Broken(error),
        };
        let answer = connection.send(request, full(body.clone()));
        match tokio::time::timeout(hangs_up.unwrap_or(PATIENCE), answer).await {
            // Envoy had just closed it, which is allowed: retry on a new one.
            Ok(Ok(None)) => Box::pin(self.send(protocol, request, body, hangs_up)).await,
            Ok(Ok(Some(reply))) => {
                if protocol == Protocol::Http1 {
                    self.idle
                        .lock()
                        .expect("the connections")
                        .push((connection, since));
                }
                Outcome::Answered(reply)
            }
            Ok(Err(error)) => Outcome::Broken(error),
            Err(_) => {
                if protocol == Protocol::Http1 {
                    connection.hang_up();
                }
                hangs_up.map_or_else(
                    || Outcome::Broken(format!("no answer within {PATIENCE:?}")),
                    |_| Outcome::HungUp,
                )
            }
        }
    }

    async fn connection(&self, protocol: Protocol) -> Result<(Connection, Instant), String> {
        match protocol {
            Protocol::Http1 => {
                let idle = || self.idle.lock().expect("the connections").pop();
                while let Some((connection, since)) = idle() {
                    if connection.is_ready() && since.elapsed() < AGE {
                        return Ok((connection, since));
                    }
                }
                Ok((Connection::http1(self.address).await?, Instant::now()))
            }
            Protocol::Http2 => {
                if let Some((connection, since)) = &*self.shared.lock().expect("the connections")
                    && connection.is_ready()
                    && since.elapsed() < AGE
                {
                    return Ok((
                        connection.multiplexed().expect("an HTTP/2 connection"),
                        *since,
                    ));
                }
                let new = Connection::http2(self.address).await?;
                let mine = new.multiplexed().expect("an HTTP/2 connection");
                *self.shared.lock().expect("the connections") = Some((new, Instant::now()));
                Ok((mine, Instant::now()))
            }
        }
    }

    /// Closes the idle connections.
    pub fn close(&self) {
        self.idle.lock().expect("the connections").clear();
        *self.shared.lock().expect("the connections") = None;
    }
}

/// Waits until at most this many requests are under way. A panic in one ends the test.
pub async fn at_most(most: usize, under_way: &mut JoinSet<()>) {
    while under_way.len() > most {
        under_way
            .join_next()
            .await
            .expect("a request")
            .expect("the answer that it must get");
    }
}

/// A number from the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: not a whole number"))
    })
}
