//! A simulated `public-keys.auth.elb.REGION.amazonaws.com`: serves registered keys as PEM, records
//! each fetch, and misbehaves for a key if a test asks for it.

use super::access_token::fill_in_keys;
use super::server::{Body, Broken, Server, full};
use super::token::Key;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The clusters with a key server of their own. The last two are Istio's clusters for the endpoints
/// that AWS documents.
pub const CLUSTERS: [&str; 3] = [
    "keys",
    "outbound|443||public-keys.auth.elb.us-west-2.amazonaws.com",
    "outbound|443||s3-us-gov-west-1.amazonaws.com",
];

/// Longer bodies are not recorded as served.
const LARGEST_KEY: usize = 4096;
/// The deadline for a fetch.
const PATIENCE: Duration = Duration::from_secs(30);

/// How one key is served. By default, correctly.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The body. Filled in: `{pem}`, `{pem_crlf}`, `{pem_bare}` (without the last line end),
    /// `{der}` (base64), `{off_curve}`, `{infinity}`, `{other}` (another key's PEM), `{file:NAME}`
    /// (`tests/vectors/bad-keys/NAME.pem`).
    pub body: String,
    /// Pads the body with spaces to this many bytes.
    pub size: usize,
    /// The delay before the answer.
    pub delay_ms: u64,
    /// Waits for [`KeyServer::release`].
    #[serde(skip)]
    pub held: bool,
    /// Breaks the exchange.
    pub fault: Option<Fault>,
    /// The delay between two bytes, if they are sent one by one.
    pub byte_ms: u64,
    /// Serves the key this many times before it misbehaves.
    pub good: usize,
    /// Misbehaves for this many fetches, then serves the key.
    pub times: Option<usize>,
}

impl Default for Answer {
    fn default() -> Self {
        Answer {
            status: 200,
            body: "{pem}".into(),
            size: 0,
            delay_ms: 0,
            held: false,
            fault: None,
            byte_ms: 100,
            good: 0,
            times: None,
        }
    }
}

impl Answer {
    /// The correct answer for a key set.
    pub fn key_set() -> Answer {
        Answer {
            body: r#"{"keys":[{first},{key}]}"#.into(),
            ..Answer::default()
        }
    }
}

/// Ways to break an exchange.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Never answers.
    Hang,
    /// Closes the connection without an answer.
    Close,
    /// Closes it in the middle of the body.
    CutOff,
    /// Sends one byte of the body every `byte_ms`.
    Trickle,
}

/// A load balancer's key, and its id on the key server.
pub struct Signer {
    pub kid: String,
    pub key: Key,
}

impl Signer {
    /// A new key.
    pub fn new() -> Signer {
        Signer {
            kid: uuid::Uuid::new_v4().to_string(),
            key: Key::generate(),
        }
    }

    /// Its path.
    pub fn path(&self) -> String {
        format!("/{}", self.kid)
    }
}

/// A request that the key server received.
#[derive(Clone, Debug)]
pub struct Fetch {
    pub method: String,
    pub path: String,
    pub host: String,
    /// Every header, in order.
    pub headers: Vec<(String, String)>,
    /// Whether an outage answered it, instead of the published answer.
    pub in_outage: bool,
    /// Whether a client with this host had received this content before.
    pub again: bool,
}

#[derive(Default)]
struct State {
    keys: HashMap<String, (Key, Answer)>,
    /// By path, with the id of the key that signs.
    sets: HashMap<String, (String, Answer)>,
    fetches: Vec<Fetch>,
    /// The answer for every key, instead of its own.
    outage: Option<Answer>,
    /// The bodies served completely with 200, by path.
    given: HashMap<String, Vec<String>>,
    /// The same by host and path.
    given_to: HashSet<(String, String)>,
    /// The paths whose answers are no longer held.
    released: HashSet<String>,
}

impl State {
    /// How the key at `path` is served now. Counts a limited misbehaviour.
    fn answer(&mut self, path: &str) -> (u16, String, Answer) {
        type Fill<'a> = Box<dyn Fn(&str) -> String + 'a>;
        let (good, answer, fill): (Answer, &mut Answer, Fill<'_>) =
            match (self.keys.get_mut(path), self.sets.get_mut(path)) {
                (Some((key, answer)), _) => (
                    Answer::default(),
                    answer,
                    Box::new(|body| fill_in(body, key)),
                ),
                (None, Some((kid, answer))) => (
                    Answer::key_set(),
                    answer,
                    Box::new(|body| fill_in_keys(body, kid)),
                ),
                (None, None) => return (404, "not found".into(), Answer::default()),
            };
        if let Some(outage) = &self.outage {
            return (outage.status, fill(&outage.body), outage.clone());
        }
        if answer.good > 0 {
            answer.good -= 1;
            return (200, fill(&good.body), good);
        }
        match &mut answer.times {
            Some(0) => *answer = good,
            Some(left) => *left -= 1,
            None => {}
        }
        let mut body = fill(&answer.body);
        body += &" ".repeat(answer.size.saturating_sub(body.len()));
        (answer.status, body, answer.clone())
    }
}

/// The running key server.
pub struct KeyServer {
    server: Server,
    state: Arc<Mutex<State>>,
}

impl KeyServer {
    /// Starts it on a free port, with no key.
    pub async fn start() -> KeyServer {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let server = Server::start(move |request| serve(Arc::clone(&shared), request)).await;
        KeyServer { server, state }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Serves `key` at `path` from now on.
    pub fn publish(&self, path: &str, key: &Key, answer: Answer) {
        self.state
            .lock()
            .expect("the keys")
            .keys
            .insert(path.to_owned(), (key.clone(), answer));
    }

    /// Serves a new key from now on.
    pub fn signer(&self, answer: Answer) -> Signer {
        let signer = Signer::new();
        self.publish(&signer.path(), &signer.key, answer);
        signer
    }

    /// Sends the held answers for this key, and holds no more.
    pub fn release(&self, signer: &Signer) {
        self.state
            .lock()
            .expect("the keys")
            .released
            .insert(signer.path());
    }

    /// The number of fetches of this key.
    pub fn fetches_of(&self, signer: &Signer) -> usize {
        let path = signer.path();
        self.state
            .lock()
            .expect("the keys")
            .fetches
            .iter()
            .filter(|fetch| fetch.path == path)
            .count()
    }

    /// Waits for this many fetches of this key.
    pub async fn until_fetched(&self, signer: &Signer, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.fetches_of(signer) < times {
            assert!(
                Instant::now() < deadline,
                "{} of {times} fetches",
                self.fetches_of(signer)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Serves the key set, with signing key `kid`, at `path` from now on.
    pub fn publish_set(&self, path: &str, kid: &str, answer: Answer) {
        self.state
            .lock()
            .expect("the keys")
            .sets
            .insert(path.to_owned(), (kid.to_owned(), answer));
    }

    /// The fetches so far, without clearing them.
    pub fn fetches(&self) -> Vec<Fetch> {
        self.state.lock().expect("the keys").fetches.clone()
    }

    /// Answers every fetch like this from now on; `None`: each key as published.
    pub fn set_outage(&self, outage: Option<Answer>) {
        self.state.lock().expect("the keys").outage = outage;
    }

    /// Whether `body` was ever served completely, with 200, as the key at `path`.
    pub fn gave(&self, path: &str, body: &str) -> bool {
        self.state
            .lock()
            .expect("the keys")
            .given
            .get(path)
            .is_some_and(|given| given.iter().any(|one| one == body))
    }

    /// Clears the fetches so far.
    pub fn forget_fetches(&self) {
        self.state.lock().expect("the keys").fetches.clear();
    }
}

async fn serve(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
        .collect();
    let host = headers
        .iter()
        .find(|(name, _)| name == "host")
        .map(|(_, value)| value.clone())
        .unwrap_or_default();
    let (method, path) = (request.method().to_string(), request.uri().to_string());
    let (status, body, answer) = {
        let mut state = state.lock().expect("the keys");
        let in_outage = state.outage.is_some();
        let again = state.given_to.contains(&(host.clone(), path.clone()));
        state.fetches.push(Fetch {
            method,
            path: path.clone(),
            host: host.clone(),
            headers,
            in_outage,
            again,
        });
        state.answer(&path)
    };
    tokio::time::sleep(Duration::from_millis(answer.delay_ms)).await;
    while answer.held && !state.lock().expect("the keys").released.contains(&path) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let body = match answer.fault {
        None => {
            if answer.status == 200 && body.len() < LARGEST_KEY {
                let mut state = state.lock().expect("the keys");
                state.given_to.insert((host, path.clone()));
                let given = state.given.entry(path).or_default();
                if !given.contains(&body) {
                    given.push(body.clone());
                }
            }
            full(body)
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Close) => return Err("closed".into()),
        Some(Fault::CutOff) => in_pieces(body, None),
        Some(Fault::Trickle) => in_pieces(body, Some(Duration::from_millis(answer.byte_ms))),
    };
    Ok(Response::builder()
        .status(status)
        .header("content-type", "text/plain")
        .body(body)?)
}

/// Sends the body byte by byte with this delay; or ten bytes of it and then a reset.
fn in_pieces(body: String, apart: Option<Duration>) -> Body {
    let (mut sender, channel) = Channel::<Bytes, Broken>::new(1);
    tokio::spawn(async move {
        for (count, byte) in body.into_bytes().into_iter().enumerate() {
            match apart {
                None if count == 10 => return sender.abort("cut off".into()),
                None => {}
                Some(apart) => tokio::time::sleep(apart).await,
            }
            if sender.send_data(Bytes::from(vec![byte])).await.is_err() {
                return;
            }
        }
    });
    channel.boxed()
}

fn fill_in(template: &str, key: &Key) -> String {
    let mut body = template
        .replace("{pem}", &key.pem())
        .replace("{pem_crlf}", &key.pem().replace('\n', "\r\n"))
        .replace("{pem_bare}", key.pem().trim_end())
        .replace("{der}", &key.der_base64())
        .replace("{off_curve}", &key.off_curve_pem())
        .replace("{infinity}", &Key::infinity_pem())
        .replace("{other}", &Key::generate().pem());
    while let Some((before, rest)) = body.split_once("{file:") {
        let (name, after) = rest.split_once('}').expect("`{file:NAME}`");
        let file = super::repository(&format!("tests/vectors/bad-keys/{name}.pem"));
        let pem = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        body = format!("{before}{pem}{after}");
    }
    body
}
