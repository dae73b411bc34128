//! Has the gate judge a request, with an observer that records each check. The keys come from the
//! command line in place of the key server.

use alb_oidc_filter::{
    ACCESS_TOKEN, ClientAddress, Config, Decision, FetchResult, Gate, KeyCache, KeyFormat, KeyId,
    KeyName, Now, OIDC_DATA, P256Key, RequestHead, Timestamp, find_in_key_set,
};

use super::observer::{Observer, Tokens};
use super::rules::RulesAt;
use super::step::Step;
use crate::input::Trouble;
use crate::native::verifier;

/// The request that carries the token.
pub(super) struct Request<'a> {
    pub(super) path: &'a str,
    pub(super) host: &'a str,
    pub(super) method: &'a str,
}

/// The checks, and what the gate decides.
pub(super) struct Verdict {
    pub(super) steps: Vec<Step>,
    pub(super) decision: Decision,
    /// The rule for requests without a token.
    pub(super) rule: String,
    /// The key that the signature was checked with.
    pub(super) key: Option<P256Key>,
}

/// The key cache's clock stands still.
const STEADY: Timestamp = Timestamp::from_millis(0);

/// Runs the gate on the request. `lines`: the line of each rule in the config's file. `find` takes
/// the place of the load balancer's key server, and returns `None` if no key is given.
pub(super) fn judge(
    config: &Config,
    lines: &[u64],
    tokens: &Tokens<'_>,
    request: Option<&Request<'_>>,
    find: &dyn Fn(KeyId) -> Result<Option<FetchResult>, Trouble>,
    now: Timestamp,
) -> Result<Verdict, Trouble> {
    let mut fields = vec![(OIDC_DATA, tokens.text)];
    if !tokens.access.is_empty() {
        fields.push((ACCESS_TOKEN, tokens.access));
    }
    if let Some(Request { path, host, method }) = request {
        fields.extend([
            (":path", *path),
            (":authority", *host),
            (":method", *method),
        ]);
    }
    let head = RequestHead::new(
        fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect(),
    );
    let mut keys = KeyCache::new(
        config.key_ttl,
        config.key_sources.iter().map(|source| source.timeout),
        0,
    );
    let mut gate = Gate::new(config.clone(), verifier());
    let requirement = config.access.requirement(&head);
    let rules = RulesAt {
        rules: &config.access,
        lines,
    };
    let time = Now {
        wall: now,
        steady: STEADY,
    };
    let mut waited_for = None;
    loop {
        let mut observer = Observer::new(config, rules, &requirement, tokens, now);
        let decision = gate.decide_traced(&head, &mut keys, &time, &mut observer);
        if let Decision::NeedKey(name) = decision
            && name.may_be_waited_for_after(waited_for)
            && let Some(answer) = answer(config, tokens, find, name)?
        {
            supply(&mut keys, name, answer);
            waited_for = Some(name);
            continue;
        }
        return Ok(Verdict {
            key: observer.key.take(),
            steps: observer.into_steps(),
            decision,
            rule: rules.deciding(&requirement, None),
        });
    }
}

/// The answer of the key server of `name`; `None` if no replacement was given.
fn answer(
    config: &Config,
    tokens: &Tokens<'_>,
    find: &dyn Fn(KeyId) -> Result<Option<FetchResult>, Trouble>,
    name: KeyName,
) -> Result<Option<FetchResult>, Trouble> {
    match config.key_source(name.source).map(|source| source.format) {
        Some(KeyFormat::KeySet) => Ok(tokens
            .key_set
            .map(|set| find_in_key_set(set.as_bytes(), name.id))),
        _ => find(name.id),
    }
}

/// Has the key cache take the key server's `answer`, as if a request had waited for it.
fn supply(keys: &mut KeyCache, name: KeyName, answer: FetchResult) {
    // The cache is empty, so the request may wait.
    let _ = keys.wait(name, 1, || ClientAddress::Unknown, STEADY);
    keys.tick(STEADY);
    keys.answered(name, answer, STEADY);
}

#[cfg(test)]
mod tests;
