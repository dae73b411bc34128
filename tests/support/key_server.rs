//! The stand-in for `public-keys.auth.elb.REGION.amazonaws.com`: serves registered keys as PEM,
//! remembers each fetch, and misbehaves for one key where a test tells it to.

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

/// The clusters that have a key server behind them, each its own. The latter two are those that
/// Istio makes of the endpoints that AWS documents.
pub const CLUSTERS: [&str; 3] = [
    "keys",
    "outbound|443||public-keys.auth.elb.us-west-2.amazonaws.com",
    "outbound|443||s3-us-gov-west-1.amazonaws.com",
];

/// What is longer is not remembered as given.
const LARGEST_KEY: usize = 4096;
/// A fetch that has not come by then never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// How one key is served. The default is the right answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body, with `{pem}`, `{pem_crlf}`, `{pem_bare}` (no last line end), `{der}` (base64),
    /// `{off_curve}`, `{infinity}`, `{other}` (another key's PEM) or `{file:NAME}` for
    /// `tests/vectors/bad-keys/NAME.pem` filled in.
    pub body: String,
    /// Fills the body up with spaces to this many bytes.
    pub size: usize,
    /// Waits before it answers.
    pub delay_ms: u64,
    /// Waits for [`KeyServer::release`].
    #[serde(skip)]
    pub held: bool,
    /// Breaks the exchange.
    pub fault: Option<Fault>,
    /// Between two bytes, where they come one by one.
    pub byte_ms: u64,
    /// Serves the key so many times before it misbehaves.
    pub good: usize,
    /// Misbehaves for this many fetches only, then serves the key.
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
    /// The right answer where a key set is asked for.
    pub fn key_set() -> Answer {
        Answer {
            body: r#"{"keys":[{first},{key}]}"#.into(),
            ..Answer::default()
        }
    }
}

/// Ways in which an exchange breaks.
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

/// A load balancer's key, and the id that the key server has it by.
pub struct Signer {
    pub kid: String,
    pub key: Key,
}

impl Signer {
    /// A key that nobody has seen yet.
    pub fn new() -> Signer {
        Signer {
            kid: uuid::Uuid::new_v4().to_string(),
            key: Key::generate(),
        }
    }

    /// Where it is fetched from.
    pub fn path(&self) -> String {
        format!("/{}", self.kid)
    }
}

/// One request that the key server got.
#[derive(Clone, Debug)]
pub struct Fetch {
    pub method: String,
    pub path: String,
    pub host: String,
    /// Every header, in order.
    pub headers: Vec<(String, String)>,
    /// An outage answered it, not what is published there.
    pub in_outage: bool,
    /// Whoever asks with this host had been given what is published there before.
    pub again: bool,
}

#[derive(Default)]
struct State {
    keys: HashMap<String, (Key, Answer)>,
    /// By path, with the id of the key that signs.
    sets: HashMap<String, (String, Answer)>,
    fetches: Vec<Fetch>,
    /// What every key is answered with, instead of its own answer.
    outage: Option<Answer>,
    /// What was answered with 200, whole, by path.
    given: HashMap<String, Vec<String>>,
    /// The same by host and path.
    given_to: HashSet<(String, String)>,
    /// The paths whose answers are held no longer.
    released: HashSet<String>,
}

impl State {
    /// How the key at `path` is served now; counts an answer that misbehaves a limited number of
    /// times.
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

    /// Where it listens.
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

    /// Gives the answers for this key that were held, and holds none from now on.
    pub fn release(&self, signer: &Signer) {
        self.state
            .lock()
            .expect("the keys")
            .released
            .insert(signer.path());
    }

    /// How often this key was asked for.
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

    /// Waits until this key was asked for so many times.
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

    /// Serves the key set whose signing key is `kid` at `path` from now on.
    pub fn publish_set(&self, path: &str, kid: &str, answer: Answer) {
        self.state
            .lock()
            .expect("the keys")
            .sets
            .insert(path.to_owned(), (kid.to_owned(), answer));
    }

    /// The fetches so far, without forgetting them.
    pub fn fetches(&self) -> Vec<Fetch> {
        self.state.lock().expect("the keys").fetches.clone()
    }

    /// Has every key answered like this from now on; `None`: each as it is published.
    pub fn set_outage(&self, outage: Option<Answer>) {
        self.state.lock().expect("the keys").outage = outage;
    }

    /// Whether `body` was ever given, whole and with 200, as the key at `path`.
    pub fn gave(&self, path: &str, body: &str) -> bool {
        self.state
            .lock()
            .expect("the keys")
            .given
            .get(path)
            .is_some_and(|given| given.iter().any(|one| one == body))
    }

    /// Forgets the fetches so far.
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

/// Sends the body byte by byte, so far apart; or ten bytes of it and then a reset.
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
