//! The prober: sends forged requests to each listener for as long as it lives, and finds those that
//! reached the upstream with an identity.

use crate::world::{BROWSERS, MACHINE, MACHINES, mint};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::client::{Request, send};
use support::key_server::Signer;
use support::upstream::Seen;
use tokio::task::JoinHandle;

/// The header that names the listener and the probe.
pub(crate) const MARK: &str = "x-probe";
/// The headers that name somebody to the upstream or to the route, with the values of a forgery.
const FORGED: [(&str, &str); 2] = [
    ("kubeflow-userid", "mallory@example.com"),
    ("x-machine-client", MACHINE),
];
/// The user whose genuine token some forged requests have.
const OTHER: &str = "bob@example.com";
/// The user of the genuine requests.
const GENUINE: &str = "ann@example.com";
/// Each listener gets 20 forged requests a second, and 10 genuine ones.
const PERIOD: Duration = Duration::from_millis(50);
const GENUINE_PERIOD: Duration = Duration::from_millis(100);

/// One kind of forged request.
struct Probe {
    name: &'static str,
    host: &'static str,
    forged: &'static [(&'static str, &'static str)],
    with_token: bool,
    preflight: bool,
}

const fn probe(
    name: &'static str,
    host: &'static str,
    forged: &'static [(&'static str, &'static str)],
) -> Probe {
    Probe {
        name,
        host,
        forged,
        with_token: false,
        preflight: false,
    }
}

static PROBES: [Probe; 8] = [
    probe("user id", BROWSERS, FORGED.split_at(1).0),
    probe("machine client", BROWSERS, FORGED.split_at(1).1),
    probe("user id at machines", MACHINES, FORGED.split_at(1).0),
    probe("machine client at machines", MACHINES, FORGED.split_at(1).1),
    Probe {
        with_token: true,
        ..probe("another user's token", BROWSERS, &FORGED)
    },
    Probe {
        with_token: true,
        ..probe("another user's token at machines", MACHINES, &FORGED)
    },
    Probe {
        preflight: true,
        ..probe("preflight", BROWSERS, &FORGED)
    },
    Probe {
        preflight: true,
        ..probe("preflight at machines", MACHINES, &FORGED)
    },
];

/// The answer to one request; no status where the connection failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) listener: SocketAddr,
    pub(crate) at: Instant,
    pub(crate) forged: bool,
    pub(crate) status: Option<u16>,
}

/// The running prober.
pub(crate) struct Prober {
    tasks: Vec<JoinHandle<()>>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

impl Prober {
    /// Starts it. The signer mints the tokens of the requests that have one.
    pub(crate) fn start(listeners: &[SocketAddr], signer: &Arc<Signer>) -> Prober {
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for listener in listeners {
            for (period, forged) in [(PERIOD, true), (GENUINE_PERIOD, false)] {
                let (listener, signer) = (*listener, Arc::clone(signer));
                let outcomes = Arc::clone(&outcomes);
                tasks.push(tokio::spawn(async move {
                    let mut ticks = tokio::time::interval(period);
                    for number in 0.. {
                        ticks.tick().await;
                        let request = if forged {
                            PROBES[number % PROBES.len()].request(listener, &signer)
                        } else {
                            genuine(&signer)
                        };
                        let outcomes = Arc::clone(&outcomes);
                        tokio::spawn(async move {
                            let at = Instant::now();
                            let reply = send(listener, &request).await;
                            let status = reply.ok().map(|reply| reply.status);
                            outcomes.lock().expect("the outcomes").push(Outcome {
                                listener,
                                at,
                                forged,
                                status,
                            });
                        });
                    }
                }));
            }
        }
        Prober { tasks, outcomes }
    }

    /// The outcomes since the last call, in the order of the requests.
    pub(crate) fn take_outcomes(&self) -> Vec<Outcome> {
        let mut outcomes = std::mem::take(&mut *self.outcomes.lock().expect("the outcomes"));
        outcomes.sort_by_key(|outcome| outcome.at);
        outcomes
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Probe {
    fn request(&self, listener: SocketAddr, signer: &Signer) -> Request {
        let mark = mark(listener, self.name);
        let token = mint(signer, OTHER);
        let mut headers = vec![("host", self.host), (MARK, &mark)];
        headers.extend(self.forged);
        if self.with_token {
            headers.push(("x-amzn-oidc-data", &token));
        }
        if self.preflight {
            headers.push(("origin", "https://app.example.com"));
            headers.push(("access-control-request-method", "POST"));
        }
        let method = if self.preflight { "OPTIONS" } else { "GET" };
        Request {
            method: method.into(),
            ..Request::get("/", &headers)
        }
    }
}

fn mark(listener: SocketAddr, probe: &str) -> String {
    format!("{listener} {probe}")
}

fn genuine(signer: &Signer) -> Request {
    let token = mint(signer, GENUINE);
    let headers = [
        ("host", BROWSERS),
        (MARK, "genuine"),
        ("x-amzn-oidc-data", &token),
    ];
    Request::get("/", &headers)
}

/// Whether a request of the prober reached the upstream as somebody that its sender is not.
pub(crate) fn is_impostor(seen: &Seen) -> bool {
    let mark = seen.header(MARK).concat();
    let probe = PROBES.iter().find(|probe| {
        mark.split_once(' ')
            .is_some_and(|mark| mark.1 == probe.name)
    });
    let own = match probe {
        Some(probe) => probe.with_token.then_some(OTHER),
        None => Some(GENUINE),
    };
    FORGED
        .iter()
        .flat_map(|(name, _)| seen.header(name))
        .any(|value| !value.is_empty() && Some(value) != own)
}

/// The probes that an open gateway lets through as somebody to the browsers' host, and those that
/// the route of machine clients does without the filter and the policies.
pub(crate) const AT_BROWSERS: [&str; 4] = [
    "user id",
    "machine client",
    "another user's token",
    "preflight",
];
pub(crate) const AT_MACHINES: [&str; 3] = [
    "machine client at machines",
    "another user's token at machines",
    "preflight at machines",
];

/// The marks of these probes at these listeners.
pub(crate) fn marks(listeners: &[SocketAddr], probes: &[&str]) -> BTreeSet<String> {
    let of = |listener: &SocketAddr| {
        let listener = *listener;
        probes.iter().map(move |probe| mark(listener, probe))
    };
    listeners.iter().flat_map(of).collect()
}
