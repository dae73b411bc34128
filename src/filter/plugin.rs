//! The state of one plugin config in one worker, and the host calls that carry out the decisions of
//! gate and key cache. Decides nothing.

use std::time::Duration;

use super::host::{self, HostClocks, Level, Part};
use super::host_signature::Backend;
use super::log_line;
use super::metrics::{FetchOutcome, Metrics};
use super::reply::{Denial, Reply, request_id};
use super::woken::WokenRequests;
use crate::config::Config;
use crate::crypto::PublicKey;
use crate::crypto::es256::P256Key;
use crate::gate::{Decision, Detail, Gate};
use crate::headers::{HeaderEdit, RequestHead};
use crate::keys::cache::{KeyCache, Woken};
use crate::keys::client_address::ClientAddress;
use crate::keys::jwks;
use crate::keys::shared::{FoundKey, Merged, SharedKeys};
use crate::keys::source::{FetchResult, KeyName};
use crate::keys::source::{KeyFormat, KeySource};
use crate::reason::Reason;
use crate::time::{Clocks as _, Timestamp};
use crate::token::verify::Verifier;

/// The longest accepted answer with one key, in bytes. A key in PEM has fewer than 200.
const MAX_PEM_BYTES: usize = 4096;

/// The body of Envoy's own 504, after a fetch's time-out. A connection that ends before the headers
/// is a 503, and one that ends in the body, by a time-out or a reset, leaves no headers.
const TIMED_OUT: &[u8] = b"upstream request timeout";

/// How long a worker resumes woken requests before it handles others. One verification may exceed
/// it.
const SLICE: Duration = Duration::from_millis(5);
/// The most requests in one go: as many as can be denied in a [`SLICE`]. This bounds the work even
/// if the clock stands still.
const SLICE_REQUESTS: usize = 200;

/// The most attempts to write a shared value. An attempt fails if another worker has written a
/// fetched key in between, so this many failures in a row do not occur.
const SHARING_ATTEMPTS: usize = 16;

/// The next tick while woken requests are left: at once, after the worker's other work.
const OVERDUE: Timestamp = Timestamp::from_millis(0);

/// The filter state `wasm.alb_oidc`, on each request that passes and on no other. The interlock, an
/// RBAC filter before the router, denies requests without it: see `envoy/envoy.yaml`. No client can
/// write a filter state.
const PASSED: &str = "alb_oidc";
/// The filter states for the access log: the user, and the reason of a denial.
const USER: &str = "alb_oidc_user";
const REASON: &str = "alb_oidc_reason";

/// The next step of a request's stream.
pub(super) enum Next {
    Continue,
    Wait,
    Answered,
}

/// How a request's waiting ended.
enum Ending {
    /// Its key is there.
    Ready(KeyName),
    /// The key server gave no key, or too late.
    Denied(Reason),
    /// Its key was not fetched: the limits of unknown keys.
    TurnedAway,
}

/// A fetch under way.
struct Call {
    /// The host's number for it.
    number: u32,
    name: KeyName,
    /// By the steady clock.
    sent: Timestamp,
}

pub(super) struct Plugin {
    root: u32,
    gate: Gate,
    keys: KeyCache,
    metrics: Metrics,
    /// Fetches under way.
    calls: Vec<Call>,
    /// Requests whose waiting is over.
    woken: WokenRequests<Ending>,
    /// When the host was asked to tick.
    tick_at: Option<Timestamp>,
}

impl Plugin {
    /// `seed` is a random number.
    pub(super) fn new(
        root: u32,
        config: Config,
        backend: Backend,
        seed: u64,
    ) -> Result<Self, host::HostError> {
        Ok(Self {
            root,
            keys: KeyCache::new(
                config.key_ttl,
                config.key_sources.iter().map(|source| source.timeout),
                seed,
            ),
            gate: Gate::new(config, Verifier::install(backend.provider())),
            metrics: Metrics::define(backend)?,
            calls: Vec::new(),
            woken: WokenRequests::default(),
            tick_at: None,
        })
    }

    /// A request's head has come; `id` is its context.
    pub(super) fn on_request(&mut self, id: u32) -> Next {
        let next = self.handle_request(id, None);
        self.sync_timer();
        next
    }

    /// The trailers of the request of the effective context have come.
    pub(super) fn on_trailers(&mut self) -> Next {
        let trailers = host::request(Part::Trailers).unwrap_or_default();
        let stripped = host::pairs(&trailers)
            .map(RequestHead::new)
            .is_some_and(|trailers| {
                let edits = self.gate.strip_trailers(&trailers);
                edits
                    .iter()
                    .all(|edit| host::edit_request(Part::Trailers, edit).is_ok())
            });
        if stripped {
            Next::Continue
        } else {
            self.deny(&RequestHead::default(), Reason::InternalError)
        }
    }

    /// The request `id` is over, by client, upstream or filter.
    pub(super) fn on_gone(&mut self, id: u32) {
        self.keys.leave(id);
        self.woken.leave(id);
        self.sync_timer();
    }

    pub(super) fn on_tick(&mut self) {
        let Some(now) = HostClocks::default().steady() else {
            return;
        };
        let due = self.keys.tick(now);
        // The host repeats the old period until a new one is set.
        self.tick_at = Some(Timestamp::from_millis(u64::MAX));
        self.end_waiting(due.woken);
        for name in due.fetch {
            if let Some(number) = self.fetch(name) {
                self.calls.push(Call {
                    number,
                    name,
                    sent: now,
                });
            } else {
                self.metrics.key_fetch(FetchOutcome::Failed);
                self.fetched(name, FetchResult::Failed, now);
            }
        }
        self.resume_waiters(now);
        self.sync_timer();
    }

    /// The fetch `call` has ended. Without `headers`, it has no answer.
    pub(super) fn on_answer(&mut self, call: u32, headers: usize, body_size: usize) {
        let Some(place) = self
            .calls
            .iter()
            .position(|under_way| under_way.number == call)
        else {
            return;
        };
        let Call { name, sent, .. } = self.calls.swap_remove(place);
        let Some(now) = HostClocks::default().steady() else {
            return;
        };
        let status = if headers == 0 {
            None
        } else {
            host::call_response_status()
        };
        let timed_out = status == Some(504)
            && body_size == TIMED_OUT.len()
            && host::call_response_body(body_size).is_ok_and(|body| body == TIMED_OUT);
        let answer = match status {
            Some(200) => self.read_answer(name, body_size),
            Some(403 | 404 | 410) => FetchResult::NotFound,
            _ => FetchResult::Failed,
        };
        let outcome = FetchOutcome::of(&answer);
        self.metrics.key_fetch(outcome);
        if outcome != FetchOutcome::Ok {
            let place = self.place(name);
            host::log(
                Level::Warn,
                &log_line::failed_fetch(outcome, status, timed_out, &place, name.id),
            );
        }
        // The opposite answer to a later fetch is the true one, so this one counts as failed.
        let answer = match self.share(name, &answer, sent) {
            true => answer,
            false => FetchResult::Failed,
        };
        self.fetched(name, answer, now);
        self.resume_waiters(now);
        self.sync_timer();
    }

    /// Hands the result of a fetch to the key cache.
    fn fetched(&mut self, name: KeyName, answer: FetchResult, now: Timestamp) {
        let has_failed = matches!(answer, FetchResult::Invalid | FetchResult::Failed);
        let woken = self.keys.answered(name, answer, now);
        // The key server may have told another worker that it has withdrawn the key.
        if has_failed
            && self
                .shared_keys(name)
                .is_some_and(|keys| keys.is_withdrawn(name.id))
        {
            self.keys.withdraw(name);
        }
        self.wake(name, woken);
    }

    /// The key `name` in the body of the answer to its fetch.
    fn read_answer(&self, name: KeyName, size: usize) -> FetchResult {
        let Some(source) = self.gate.config().key_source(name.source) else {
            return FetchResult::Invalid;
        };
        let most = match source.format {
            KeyFormat::Pem => MAX_PEM_BYTES,
            KeyFormat::KeySet => jwks::MAX_SET_BYTES,
        };
        let body = if size <= most {
            host::call_response_body(size).ok()
        } else {
            None
        };
        let Some(body) = body else {
            return FetchResult::Invalid;
        };
        match source.format {
            KeyFormat::Pem => P256Key::from_pem(&body).map_or(FetchResult::Invalid, |key| {
                FetchResult::Key(PublicKey::P256(key))
            }),
            KeyFormat::KeySet => jwks::find_in_key_set(&body, name.id),
        }
    }

    /// Decides on the request `id`, whose context is effective, and carries the decision out.
    /// `waited_for`: the key that it has waited for.
    fn handle_request(&mut self, id: u32, waited_for: Option<KeyName>) -> Next {
        let headers = host::request(Part::Headers).unwrap_or_default();
        let Some(head) = host::pairs(&headers).map(RequestHead::new) else {
            return self.deny(&RequestHead::default(), Reason::InternalError);
        };
        // Before any other decision: identity headers of the client.
        if self
            .gate
            .strip(&head)
            .iter()
            .any(|edit| host::edit_request(Part::Headers, edit).is_err())
        {
            return self.deny(&head, Reason::InternalError);
        }
        let clocks = HostClocks::default();
        let mut decision = self.decide(&head, &clocks);
        if let Decision::NeedKey(name) = decision
            && !self.keys.is_fetching(name)
            && let Some(now) = clocks.steady()
            && let Some(FoundKey {
                key,
                fetched,
                withdrawn,
            }) = self.shared(name)
        {
            let key = PublicKey::P256(key);
            let woken = self.keys.adopt(name, key, fetched, withdrawn, now);
            self.wake(name, woken);
            decision = self.decide(&head, &clocks);
        }
        if let Decision::NeedKey(name) = decision {
            let Some(now) = clocks.steady() else {
                return self.deny(&head, Reason::InternalError);
            };
            let may_wait = name.may_be_waited_for_after(waited_for);
            let waits = match may_wait {
                true => self.keys.wait(name, id, client_address, now),
                false => Err(Reason::KeyUnavailable),
            };
            let Err(reason) = waits else {
                return Next::Wait;
            };
            if may_wait {
                self.metrics.key_fetch(FetchOutcome::OverBudget);
            }
            decision = self.gate.denial(&head, reason);
        }
        self.carry_out(&head, decision)
    }

    fn carry_out(&mut self, head: &RequestHead<'_>, decision: Decision) -> Next {
        match decision {
            Decision::Admit(edits) => {
                if self.gate.config().log_user
                    && let Some(user_id) = self.gate.user_id(&edits)
                {
                    log_to_access_log(USER, user_id);
                }
                self.pass(head, &edits, "admitted", Metrics::admitted)
            }
            Decision::Skip(edits) => self.pass(head, &edits, "skipped", Metrics::skipped),
            Decision::Report(reason, edits) => {
                let detail = self.gate.take_detail();
                log_reason("would deny", reason, head, detail.as_ref());
                log_to_access_log(REASON, reason.name().as_bytes());
                self.pass(head, &edits, "reported", |metrics| metrics.reported(reason))
            }
            Decision::Deny(reason) => self.deny(head, reason),
            Decision::SignOut(cookies) => self.sign_out(head, &cookies),
            // Waiting is over, or did not begin.
            Decision::NeedKey(_) => self.deny(head, Reason::KeyUnavailable),
        }
    }

    fn pass(
        &mut self,
        head: &RequestHead<'_>,
        edits: &[HeaderEdit],
        how: &str,
        count: impl FnOnce(&Metrics),
    ) -> Next {
        let is_edited = edits
            .iter()
            .all(|edit| host::edit_request(Part::Headers, edit).is_ok());
        if !is_edited || host::set_filter_state(PASSED, how.as_bytes()).is_err() {
            return self.deny(head, Reason::InternalError);
        }
        count(&self.metrics);
        Next::Continue
    }

    fn decide(&mut self, head: &RequestHead<'_>, clocks: &HostClocks) -> Decision {
        let (decision, work) = self.gate.decide(head, &mut self.keys, clocks);
        if work.token_cache_hit {
            self.metrics.token_cache_hit();
        }
        self.metrics.verified(work.signatures_checked);
        self.metrics.dropped(work.dropped);
        decision
    }

    fn deny(&mut self, head: &RequestHead<'_>, reason: Reason) -> Next {
        self.metrics.denied(reason);
        let detail = self.gate.take_detail();
        send_denial(head, reason, detail.as_ref(), Some(self.gate.config()));
        Next::Answered
    }

    fn sign_out(&mut self, head: &RequestHead<'_>, cookies: &[String]) -> Next {
        let Some(sign_out) = &self.gate.config().sign_out else {
            return self.deny(head, Reason::InternalError);
        };
        send(
            &Reply::signed_out(head, sign_out, cookies),
            "alb_oidc_signed_out",
        );
        self.metrics.signed_out();
        Next::Answered
    }

    /// Ends the waiting of requests for the key `name`, in the order in which they came.
    fn wake(&mut self, name: KeyName, woken: Woken) {
        woken
            .ready
            .iter()
            .for_each(|id| self.woken.push(*id, Ending::Ready(name)));
        self.end_waiting(woken);
    }

    /// Ends the waiting of requests that get no key.
    fn end_waiting(&mut self, woken: Woken) {
        woken
            .refused
            .into_iter()
            .for_each(|(id, reason)| self.woken.push(id, Ending::Denied(reason)));
        woken
            .turned_away
            .into_iter()
            .for_each(|id| self.woken.push(id, Ending::TurnedAway));
    }

    /// Resumes woken requests for a [`SLICE`], so that other requests of the worker do not wait for
    /// all of them. Each request is decided again from its head, without any kept state.
    fn resume_waiters(&mut self, now: Timestamp) {
        let end = now.plus(SLICE);
        for _ in 0..SLICE_REQUESTS {
            let Some((id, ending)) = self.woken.pop() else {
                break;
            };
            if host::set_effective_context(id).is_ok() {
                let next = match ending {
                    Ending::Ready(name) => self.handle_request(id, Some(name)),
                    Ending::Denied(reason) => self.reject_waiter(reason),
                    Ending::TurnedAway => {
                        self.metrics.key_fetch(FetchOutcome::OverBudget);
                        self.reject_waiter(Reason::KeyUnavailable)
                    }
                };
                resume(next);
            }
            if HostClocks::default().steady().is_some_and(|now| now >= end) {
                break;
            }
        }
        let _ = host::set_effective_context(self.root);
    }

    /// Denies the request of the effective context, or reports it: its key did not come.
    fn reject_waiter(&mut self, reason: Reason) -> Next {
        let headers = host::request(Part::Headers).unwrap_or_default();
        match host::pairs(&headers).map(RequestHead::new) {
            Some(head) => {
                let decision = self.gate.denial(&head, reason);
                self.carry_out(&head, decision)
            }
            None => self.deny(&RequestHead::default(), Reason::InternalError),
        }
    }

    /// Sends the GET for a key; `None` if the host would not.
    fn fetch(&self, name: KeyName) -> Option<u32> {
        let source = self.gate.config().key_source(name.source)?;
        let path = key_path(source, name);
        let headers = vec![
            (":method", "GET"),
            (":path", path.as_str()),
            (":authority", source.authority.as_str()),
        ];
        // The SDK's own call, not one of `host`: it alone tells the SDK's dispatcher which context
        // the answer is for. Its panic on a status that Envoy does not have is argued in
        // tests/panic_free.rs.
        match proxy_wasm::hostcalls::dispatch_http_call(
            &source.cluster,
            headers,
            None,
            Vec::new(),
            source.timeout,
        ) {
            Ok(call) => Some(call),
            Err(status) => {
                host::log(
                    Level::Error,
                    &format!(
                        "alb-oidc: key fetch failed: Envoy has no host in a cluster {} (status {}) url={}{path}",
                        source.cluster, status as u32, source.authority
                    ),
                );
                None
            }
        }
    }

    /// The URL of the key's fetch, without its scheme: Envoy's cluster decides about TLS.
    fn place(&self, name: KeyName) -> String {
        let source = self.gate.config().key_source(name.source);
        source.map_or_else(String::new, |source| {
            format!("{}{}", source.authority, key_path(source, name))
        })
    }

    /// Brings gauge and timer up to date with the key cache.
    fn sync_timer(&mut self) {
        if !self.keys.has_changed() {
            return;
        }
        self.metrics
            .waiting(self.keys.waiting().saturating_add(self.woken.len()));
        let next = if self.woken.is_empty() {
            self.keys.next_tick()
        } else {
            Some(OVERDUE)
        };
        let is_armed = match (self.tick_at, next) {
            (None, None) => true,
            // Re-arming the timer for each request that joins would starve it; too early a tick
            // finds nothing due.
            (Some(armed), Some(next)) => armed <= next,
            _ => false,
        };
        if !is_armed {
            // If the host call fails, the next request tries again.
            let Some(now) = HostClocks::default().steady() else {
                return;
            };
            if host::set_tick(next.map(|next| now.until(next))).is_err() {
                return;
            }
            self.tick_at = next;
        }
        self.keys.settled();
    }

    fn shared_name(&self, name: KeyName) -> Option<String> {
        let source = self.gate.config().key_source(name.source)?;
        let KeySource {
            cluster,
            authority,
            path,
            format: KeyFormat::Pem,
            timeout: _,
        } = source
        else {
            return None;
        };
        // No field can hold a line break.
        Some(format!("alb-oidc/keys/3\n{cluster}\n{authority}{path}"))
    }

    fn shared_keys(&self, name: KeyName) -> Option<SharedKeys> {
        let (value, _) = host::shared_data(&self.shared_name(name)?)?;
        Some(SharedKeys::from_bytes(&value))
    }

    /// The key as another worker, or this one before its VM was rebuilt, fetched it.
    fn shared(&self, name: KeyName) -> Option<FoundKey> {
        self.shared_keys(name)?.get(name.id)
    }

    /// Shares the answer to a fetch that was sent at `sent`. Returns whether it counts: no other
    /// worker has the opposite answer to a later fetch.
    ///
    /// Keys of a set are not shared: a pool has two, and each worker asks for them once a day.
    fn share(&self, name: KeyName, answer: &FetchResult, sent: Timestamp) -> bool {
        let Some(shared_name) = self.shared_name(name) else {
            return true;
        };
        for _ in 0..SHARING_ATTEMPTS {
            let (value, version) = host::shared_data(&shared_name).unwrap_or_default();
            let mut keys = SharedKeys::from_bytes(&value);
            let merged = match answer {
                FetchResult::Key(PublicKey::P256(key)) => keys.put(name.id, key, sent),
                FetchResult::NotFound => keys.withdraw(name.id, sent),
                _ => return true,
            };
            match merged {
                Merged::Outdated => return false,
                Merged::Unchanged => return true,
                Merged::Changed => {}
            }
            if host::set_shared_data(&shared_name, &keys.to_bytes(), version).is_ok() {
                return true;
            }
        }
        true
    }
}

/// `:path` of the key's fetch.
fn key_path(source: &KeySource, name: KeyName) -> String {
    match source.format {
        KeyFormat::Pem => format!("{}{}", source.path, name.id),
        KeyFormat::KeySet => source.path.clone(),
    }
}

/// The address of the client of the effective context's request.
fn client_address() -> ClientAddress {
    host::client_address().map_or(ClientAddress::Unknown, |address| {
        ClientAddress::parse(&address)
    })
}

/// Lets the paused request of the effective context go on, if it may.
fn resume(next: Next) {
    if matches!(next, Next::Continue) {
        let _ = host::resume_request();
    }
}

fn log_reason(what: &str, reason: Reason, head: &RequestHead<'_>, detail: Option<&Detail>) {
    host::log(
        Level::Warn,
        &log_line::denial(what, reason, request_id(head), detail),
    );
}

/// Sets a filter state that only the access log reads. A failure loses a field of a log line, which
/// is no reason to deny the request.
fn log_to_access_log(name: &str, value: &[u8]) {
    let _ = host::set_filter_state(name, value);
}

/// Denies the request of the effective context, and logs why.
pub(super) fn send_denial(
    head: &RequestHead<'_>,
    reason: Reason,
    detail: Option<&Detail>,
    config: Option<&Config>,
) {
    log_reason("denied", reason, head, detail);
    log_to_access_log(REASON, reason.name().as_bytes());
    let denial = Denial {
        reason,
        user_id: match detail {
            Some(Detail::User(user)) => Some(&user.user_id),
            _ => None,
        },
        config,
    };
    send(&Reply::denial(head, denial), &format!("alb_oidc_{reason}"));
}

fn send(reply: &Reply, details: &str) {
    let headers: Vec<_> = reply
        .headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    if host::reply(reply.status, details, &headers, reply.body.as_bytes()).is_err() {
        host::log(Level::Error, "alb-oidc: the host refused the answer");
    }
}
