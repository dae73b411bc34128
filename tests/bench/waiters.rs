//! The effect of thousands of simultaneous requests with an unknown key on a worker: how long the
//! last of them waits, and how long other requests take.

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::key_server::{Answer, KeyServer};
use support::token::{Key, TokenSpec};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// The number of simultaneous requests, and of their connections.
const REQUESTS: usize = 5000;
const CONNECTIONS: usize = 50;
/// The key server's response time.
const FETCH: Duration = Duration::from_secs(4);
/// By then all of them have arrived and wait. Their arrival alone occupies a worker, even without a
/// filter.
const COME: Duration = Duration::from_secs(2);

/// The measurements, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Wait {
    pub(crate) requests: usize,
    pub(crate) fetches: usize,
    /// From the key's arrival to the last waiting request's answer.
    pub(crate) after_the_key: f64,
    /// The time of as many requests with other new tokens and a known key.
    pub(crate) with_the_key_known: f64,
    /// The longest time of another request while the waiting ones were resumed, and at other times.
    pub(crate) others_meanwhile: f64,
    pub(crate) others_otherwise: f64,
}

/// Sends `REQUESTS` requests at once to a gateway without their key, and as many again once it is
/// cached. `known` is a token with a cached key.
pub(crate) async fn run(gateway: SocketAddr, keys: &KeyServer, known: &str) -> Wait {
    let (kid, key) = (uuid::Uuid::new_v4().to_string(), Key::generate());
    let delay_ms = u64::try_from(FETCH.as_millis()).expect("a few seconds");
    let path = format!("/{kid}");
    keys.publish(
        &path,
        &key,
        Answer {
            delay_ms,
            ..Answer::default()
        },
    );
    let tokens = |wave: usize| -> Vec<String> {
        let user = |user| {
            TokenSpec::of(&format!("user-{wave}-{user}@example.com"))
                .mint(&kid, &key)
                .text
        };
        (0..REQUESTS).map(user).collect()
    };
    let (first, second) = (tokens(1), tokens(2));
    let (_, others_otherwise) =
        with_others(gateway, known, Duration::ZERO, tokio::time::sleep(COME)).await;
    let (took, others_meanwhile) = with_others(gateway, known, COME, all(gateway, &first)).await;
    let with_the_key_known = all(gateway, &second).await;
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
    Wait {
        requests: REQUESTS,
        fetches: keys
            .fetches()
            .iter()
            .filter(|fetch| fetch.path == path)
            .count(),
        after_the_key: milliseconds(took.saturating_sub(FETCH)),
        with_the_key_known: milliseconds(with_the_key_known),
        others_meanwhile: milliseconds(others_meanwhile),
        others_otherwise: milliseconds(others_otherwise),
    }
}

type Sender = SendRequest<Empty<Bytes>>;

async fn connect(gateway: SocketAddr) -> Sender {
    let stream = TcpStream::connect(gateway).await.expect("a connection");
    stream
        .set_nodelay(true)
        .expect("a connection that does not hold back what is small");
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("an HTTP/2 connection");
    tokio::spawn(connection);
    sender
}

/// Sends a request with this token and returns the answer.
async fn get(sender: &mut Sender, token: &str) {
    let request = hyper::Request::get("http://gateway.test/").header("x-amzn-oidc-data", token);
    let answer = sender
        .send_request(request.body(Empty::new()).expect("a request"))
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.expect("a whole answer");
}

/// The time until requests with these tokens, all sent at once, were admitted.
async fn all(gateway: SocketAddr, tokens: &[String]) -> Duration {
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        senders.push(connect(gateway).await);
    }
    let start = Instant::now();
    let requests = tokens
        .iter()
        .zip(senders.iter().cycle())
        .map(|(token, sender)| {
            let (mut sender, token) = (sender.clone(), token.clone());
            tokio::spawn(async move { get(&mut sender, &token).await })
        });
    for request in requests.collect::<Vec<_>>() {
        request.await.expect("an answer");
    }
    start.elapsed()
}

/// The time of `work`, and the longest time of another request meanwhile, the first of them sent
/// after `from`. They run in their own thread, so that this program's load is not measured.
async fn with_others<T>(
    gateway: SocketAddr,
    token: &str,
    from: Duration,
    work: impl Future<Output = T>,
) -> (T, Duration) {
    let token = token.to_owned();
    let (end, ended) = oneshot::channel();
    let others = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let longest = Cell::new(Duration::ZERO);
        runtime.block_on(async {
            let requests = async {
                let mut sender = connect(gateway).await;
                tokio::time::sleep(from).await;
                loop {
                    let start = Instant::now();
                    get(&mut sender, &token).await;
                    longest.set(longest.get().max(start.elapsed()));
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! { () = requests => {}, _ = ended => {} }
        });
        longest.get()
    });
    let result = work.await;
    end.send(()).expect("requests of somebody else");
    (result, others.join().expect("requests of somebody else"))
}
