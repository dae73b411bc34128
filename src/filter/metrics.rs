//! The filter's counters in Envoy's stats, by name. Decides nothing.

use super::host;
use super::host_signature::Backend;
use crate::keys::source::FetchResult;
use crate::reason::Reason;

/// The prefix of each name. Istio exposes stats that begin with `wasm`.
pub const METRIC_PREFIX: &str = "wasm_filter.alb_oidc.";

/// The outcome of a key fetch, or of a request for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// The key.
    Ok,
    /// The key server has no such key.
    NotFound,
    /// Not one public key of the kind that its source has.
    Invalid,
    /// Time-out, reset, a server error, no such cluster.
    Failed,
    /// Not fetched: the rate limit was reached, or too many requests waited.
    OverBudget,
}

impl FetchOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Ok,
        Self::NotFound,
        Self::Invalid,
        Self::Failed,
        Self::OverBudget,
    ];

    pub(super) fn of(answer: &FetchResult) -> Self {
        match answer {
            FetchResult::Key(_) => Self::Ok,
            FetchResult::NotFound => Self::NotFound,
            FetchResult::Invalid => Self::Invalid,
            FetchResult::Failed => Self::Failed,
        }
    }

    /// Its name in the counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not-found",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
            Self::OverBudget => "over-budget",
        }
    }
}

/// The ids of the filter's metrics in this VM.
pub(super) struct Metrics {
    admitted: u32,
    skipped: u32,
    signed_out: u32,
    denied: Vec<(Reason, u32)>,
    reported: Vec<(Reason, u32)>,
    key_fetch: Vec<(FetchOutcome, u32)>,
    token_cache_hit: u32,
    verified: u32,
    dropped: u32,
    waiting: u32,
    waiting_published: i64,
}

impl Metrics {
    pub(super) fn define(backend: Backend) -> Result<Self, host::HostError> {
        let counter = |name: &str| host::define_counter(&format!("{METRIC_PREFIX}{name}"));
        let (mut denied, mut reported) = (Vec::new(), Vec::new());
        for reason in Reason::ALL {
            denied.push((reason, counter(&format!("denied.{}", reason.name()))?));
            reported.push((reason, counter(&format!("reported.{}", reason.name()))?));
        }
        let mut key_fetch = Vec::new();
        for outcome in FetchOutcome::ALL {
            key_fetch.push((outcome, counter(&format!("key_fetch.{}", outcome.name()))?));
        }
        Ok(Self {
            admitted: counter("admitted")?,
            skipped: counter("skipped")?,
            signed_out: counter("signed_out")?,
            denied,
            reported,
            key_fetch,
            token_cache_hit: counter("token_cache_hit")?,
            verified: counter(&format!("verified.{}", backend.name()))?,
            dropped: counter("dropped")?,
            waiting: host::define_gauge(&format!("{METRIC_PREFIX}waiting"))?,
            waiting_published: 0,
        })
    }

    pub(super) fn admitted(&self) {
        host::increment(self.admitted, 1);
    }

    pub(super) fn skipped(&self) {
        host::increment(self.skipped, 1);
    }

    pub(super) fn signed_out(&self) {
        host::increment(self.signed_out, 1);
    }

    pub(super) fn denied(&self, reason: Reason) {
        count(&self.denied, reason);
    }

    pub(super) fn reported(&self, reason: Reason) {
        count(&self.reported, reason);
    }

    pub(super) fn key_fetch(&self, outcome: FetchOutcome) {
        count(&self.key_fetch, outcome);
    }

    pub(super) fn token_cache_hit(&self) {
        host::increment(self.token_cache_hit, 1);
    }

    pub(super) fn verified(&self, signatures: usize) {
        add(self.verified, signatures);
    }

    pub(super) fn dropped(&self, count: usize) {
        add(self.dropped, count);
    }

    /// Updates this worker's share of the gauge to `waiting` requests.
    pub(super) fn waiting(&mut self, waiting: usize) {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        let change = waiting.saturating_sub(self.waiting_published);
        if change != 0 {
            host::increment(self.waiting, change);
            self.waiting_published = waiting;
        }
    }
}

fn add(metric: u32, count: usize) {
    if let Ok(count @ 1..) = i64::try_from(count) {
        host::increment(metric, count);
    }
}

fn count<K: PartialEq + Copy>(ids: &[(K, u32)], key: K) {
    if let Some((_, id)) = ids.iter().find(|(known, _)| *known == key) {
        host::increment(*id, 1);
    }
}
