//! Compares observations after a request or row with the table, and names each difference.

use super::client::{Reply, Request, to_text};
use super::key_server::Fetch;
use super::table::{Count, Page, Step};
use super::upstream::Seen;
use serde_json::Value;
use std::collections::BTreeMap;

/// The identity headers, and aliases that some servers cannot tell apart: only the module may set
/// them.
const IDENTITY: [&str; 4] = [
    "kubeflow-userid",
    "kubeflow-groups",
    "kubeflow_userid",
    "kubeflow_groups",
];
/// The attributes that expire a session cookie.
const EXPIRED: &str =
    "=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=None";
/// Headers that the ALB sends to the gateway only.
const TOKENS: [&str; 3] = [
    "x-amzn-oidc-data",
    "x-amzn-oidc-accesstoken",
    "x-amzn-oidc-identity",
];

/// A sent request.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The value of its `x-row` header, which identifies upstream's record.
    pub id: String,
    pub request: Request,
    /// The sent bytes, instead of `request`.
    pub raw: Option<String>,
    /// `Step::upstream` with its templates filled in.
    pub upstream: BTreeMap<String, Vec<String>>,
}

/// An expected denial in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// A denial that report mode only reports.
    pub report: bool,
    /// Any of these.
    pub reasons: Vec<String>,
    /// The request id in the line; `None`: any.
    pub request_id: Option<String>,
    /// The last field of the line; `None`: any that the reason may have.
    pub detail: Option<String>,
}

/// The name of the field that follows the request id. No other reason has one: of a token, nothing
/// else may be logged.
fn detail_of(reason: &str) -> Option<&'static str> {
    match reason {
        "signer-unknown" => Some("signer="),
        "issuer-mismatch" => Some("iss="),
        "client-mismatch" => Some("client="),
        "access-token-invalid" => Some("check="),
        _ => None,
    }
}

/// An expected line in the access log.
#[derive(Clone, Debug)]
pub struct Access {
    /// `Sent::id`.
    pub id: String,
    /// How the request passed the filter; `None`: it did not.
    pub passed: Option<&'static str>,
    /// The user of an admitted request.
    pub user: Option<String>,
    /// The possible reasons; empty: no reason.
    pub reasons: Vec<String>,
    /// The component that answered; `None`: any.
    pub details: Option<String>,
}

/// The differences in the outcome of one request. `reply` is `None` if the client hung up first.
pub fn request(
    sent: &Sent,
    step: &Step,
    reply: Option<Result<Reply, String>>,
    seen: &[Seen],
) -> Vec<String> {
    let seen: Vec<&Seen> = seen
        .iter()
        .filter(|seen| seen.header("x-row") == [sent.id.as_str()])
        .collect();
    let mut wrong = match (reply, step.hang_up_ms) {
        (Some(Ok(reply)), None) => answer(sent, step, &reply),
        (Some(Err(error)), None) => vec![error],
        (Some(_), Some(_)) => vec!["answered before the client hung up".into()],
        (None, _) => Vec::new(),
    };
    match (&seen[..], step.passes()) {
        ([seen], true) => wrong.extend(upstream(sent, step, seen)),
        ([], false) => {}
        (found, true) => wrong.push(format!(
            "expected one request upstream, found {}",
            found.len()
        )),
        (found, false) => wrong.push(format!("expected nothing upstream, found {found:?}")),
    }
    wrong
        .into_iter()
        .map(|wrong| format!("{}: {wrong}", sent.id))
        .collect()
}

fn answer(sent: &Sent, step: &Step, reply: &Reply) -> Vec<String> {
    let mut wrong = Vec::new();
    let reasons = step.reasons();
    let reason = reasons
        .iter()
        .find(|reason| reply.body.contains(*reason))
        .or(reasons.first())
        .copied();
    let status = match (reason, step.refused.or(step.signed_out)) {
        (_, Some(status)) => status,
        (Some(_), None) if step.page == Page::Grpc => 200,
        (Some(reason), None) => status_of(reason),
        (None, None) => 200,
    };
    differ(&mut wrong, "status", &status, &reply.status);
    for (name, values) in &step.reply {
        differ(
            &mut wrong,
            name,
            &values.iter().map(String::as_str).collect::<Vec<_>>(),
            &reply.header(name),
        );
    }
    if let Some(range) = step.took_ms {
        let took = i64::try_from(reply.took.as_millis()).unwrap_or(i64::MAX);
        if !range.holds(took) {
            wrong.push(format!(
                "expected an answer within {range} ms, took {took} ms"
            ));
        }
    }
    let expired: Vec<String> = step
        .expired
        .iter()
        .map(|name| format!("{name}{EXPIRED}"))
        .collect();
    differ(
        &mut wrong,
        "set-cookie",
        &expired.iter().map(String::as_str).collect(),
        &reply.header("set-cookie"),
    );
    if step.signed_out.is_some() {
        differ(
            &mut wrong,
            "cache-control",
            &vec!["no-store"],
            &reply.header("cache-control"),
        );
    }
    if let Some(body) = &step.reply_body {
        let body = body.replace("{id}", &sent.id);
        differ(&mut wrong, "body", &body.as_str(), &reply.body.as_str());
    }
    for (texts, there) in [(&step.body_says, true), (&step.body_lacks, false)] {
        for text in texts
            .iter()
            .filter(|text| reply.body.contains(text.as_str()) != there)
        {
            wrong.push(format!(
                "expected {text:?} in the body: {there}, found {:?}",
                reply.body
            ));
        }
    }
    if let Some(reason) = reason {
        wrong.extend(denial(sent, step.page, reason, reply));
    }
    wrong
}

/// The status of each reason, according to the contract.
fn status_of(reason: &str) -> u16 {
    match reason {
        "token-missing"
        | "token-duplicate"
        | "token-too-large"
        | "token-malformed"
        | "algorithm-not-es256"
        | "key-id-invalid"
        | "signer-unknown"
        | "issuer-mismatch"
        | "client-mismatch"
        | "token-expired"
        | "key-not-found"
        | "key-invalid"
        | "signature-invalid"
        | "access-token-invalid" => 401,
        "user-id-missing"
        | "user-id-invalid"
        | "provider-mismatch"
        | "email-unverified"
        | "user-not-allowed"
        | "upgrade-not-allowed" => 403,
        "key-unavailable" => 503,
        other => panic!("no such reason: {other}"),
    }
}

fn denial(sent: &Sent, page: Page, reason: &str, reply: &Reply) -> Vec<String> {
    let mut wrong = Vec::new();
    differ(
        &mut wrong,
        "cache-control",
        &vec!["no-store"],
        &reply.header("cache-control"),
    );
    let retry: Vec<&str> = if reason == "key-unavailable" {
        vec!["1"]
    } else {
        vec![]
    };
    differ(
        &mut wrong,
        "retry-after",
        &retry,
        &reply.header("retry-after"),
    );
    match page {
        Page::Json => {
            differ(
                &mut wrong,
                "content-type",
                &vec!["application/json"],
                &reply.header("content-type"),
            );
            let body: BTreeMap<String, Value> =
                serde_json::from_str(&reply.body).unwrap_or_default();
            let told = body.get("reason").and_then(Value::as_str) == Some(reason);
            let id = body.get("requestId").and_then(Value::as_str);
            let own_ids = sent.request.headers.iter();
            let is_own = sent.raw.is_none()
                && own_ids
                    .filter(|(name, _)| name == "x-request-id")
                    .all(|(_, id)| *id == sent.id);
            let id_holds = id.is_some_and(|id| !is_own || id == sent.id);
            let has_error = body.get("error").is_some_and(Value::is_string);
            if !told || !id_holds || body.len() != 3 || !has_error {
                wrong.push(format!(
                    "expected a body of `error`, the `reason` {reason} and the `requestId`, found {:?}",
                    reply.body
                ));
            }
        }
        Page::Html => {
            if !reply
                .header("content-type")
                .iter()
                .all(|kind| kind.starts_with("text/html"))
                || reply.header("content-type").len() != 1
            {
                wrong.push(format!(
                    "expected a content-type of text/html, found {:?}",
                    reply.header("content-type")
                ));
            }
            if !reply.body.starts_with("<!doctype html>")
                && !reply.body.starts_with("<!DOCTYPE html>")
                || !reply.body.contains(reason)
            {
                wrong.push(format!(
                    "expected a page with {reason}, found {:?}",
                    reply.body
                ));
            }
        }
        Page::NoBody => differ(&mut wrong, "body", &"", &reply.body.as_str()),
        Page::Grpc => {
            let code = match status_of(reason) {
                401 => "16",
                403 => "7",
                _ => "14",
            };
            differ(
                &mut wrong,
                "grpc-status",
                &vec![code],
                &reply.header("grpc-status"),
            );
        }
    }
    wrong
}

fn upstream(sent: &Sent, step: &Step, seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    if sent.raw.is_none() {
        differ(
            &mut wrong,
            "upstream's method",
            &sent.request.method,
            &seen.method,
        );
        differ(
            &mut wrong,
            "upstream's path",
            &sent.request.path,
            &seen.path,
        );
        differ(
            &mut wrong,
            "upstream's body",
            &sent.request.body,
            &seen.body,
        );
    }
    let mut expected: BTreeMap<&str, Vec<&str>> = IDENTITY
        .iter()
        .chain(&TOKENS)
        .map(|name| (*name, vec![]))
        .collect();
    if step.is_admitted() {
        expected.insert("kubeflow-userid", vec![&step.user]);
    }
    expected.extend(
        sent.upstream
            .iter()
            .map(|(name, values)| (name.as_str(), values.iter().map(String::as_str).collect())),
    );
    if let Some(cookies) = &step.upstream_cookies {
        differ(
            &mut wrong,
            "upstream's cookies",
            cookies,
            &seen.header("cookie").join("; "),
        );
    }
    for (name, values) in expected {
        differ(
            &mut wrong,
            &format!("upstream's {name}"),
            &values,
            &seen.header(name),
        );
    }
    wrong
}

/// Counters that moved differently than expected. A counter without an expectation must not move.
pub fn counters(
    expected: &BTreeMap<String, Count>,
    before: &BTreeMap<String, i64>,
    after: &BTreeMap<String, i64>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let none = Count::exactly(0);
    for name in expected
        .keys()
        .chain(after.keys().filter(|name| !expected.contains_key(*name)))
    {
        let value = |stats: &BTreeMap<String, i64>| stats.get(name).copied().unwrap_or(0);
        // A gauge: no request may be left waiting.
        let moved = if name == "waiting" {
            value(after)
        } else {
            value(after) - value(before)
        };
        let expected = expected.get(name).unwrap_or(&none);
        if !expected.holds(moved) {
            wrong.push(format!(
                "counter {name}: expected +{expected}, found +{moved}"
            ));
        }
    }
    wrong
}

/// Unexpected fetches: too many or few, or not in the form of a key request.
pub fn fetches(expected: Count, path: &str, host: &str, found: &[Fetch]) -> Vec<String> {
    let mut wrong = Vec::new();
    if !expected.holds(i64::try_from(found.len()).unwrap_or(i64::MAX)) {
        let paths: Vec<&str> = found
            .iter()
            .map(|fetch| fetch.path.as_str())
            .take(5)
            .collect();
        wrong.push(format!(
            "expected {expected} fetches, found {}: {paths:?}",
            found.len()
        ));
    }
    for fetch in found {
        differ(
            &mut wrong,
            "a fetch's method",
            &"GET",
            &fetch.method.as_str(),
        );
        differ(&mut wrong, "a fetch's host", &host, &fetch.host.as_str());
        if !path.is_empty() {
            differ(&mut wrong, "a fetch's path", &path, &fetch.path.as_str());
        }
        // The client's headers must not reach the key server.
        for name in IDENTITY
            .iter()
            .chain(&TOKENS)
            .chain(&["cookie", "authorization", "x-row"])
        {
            if fetch.headers.iter().any(|(found, _)| found == name) {
                wrong.push(format!("a fetch carried {name}"));
            }
        }
    }
    wrong
}

/// Differences between the expected denials and those in this part of the log.
pub fn denials(expected: &[Denial], log: &str) -> Vec<String> {
    let mut lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("alb-oidc: denied") || line.contains("alb-oidc: would deny"))
        .collect();
    let mut wrong = Vec::new();
    for denial in expected {
        let holds = |line: &&str| {
            // Each field once: a client's text must not look like one.
            let field = |name: &str| {
                let mut values = line
                    .split_whitespace()
                    .filter_map(|word| word.strip_prefix(name));
                values.next().filter(|_| values.next().is_none())
            };
            let reason = field("reason=")
                .filter(|reason| denial.reasons.iter().any(|expected| expected == reason));
            let id = field("request-id=");
            let detail = line
                .split_once(" request-id=")
                .and_then(|(_, rest)| Some(rest.split_once(' ')?.1));
            let detail_holds = match (&denial.detail, reason.and_then(detail_of)) {
                (Some(expected), _) => detail.unwrap_or_default() == expected,
                (None, Some(name)) => {
                    detail.is_some_and(|detail| detail.starts_with(name) && !detail.contains(' '))
                }
                (None, None) => detail.is_none(),
            };
            reason.is_some()
                && detail_holds
                && line.contains("alb-oidc: would deny") == denial.report
                && id.is_some()
                && (denial.request_id.is_none() || id == denial.request_id.as_deref())
                && line.contains("[warning]")
        };
        match lines.iter().position(holds) {
            Some(found) => drop(lines.swap_remove(found)),
            None => wrong.push(format!("expected a log line of {denial:?}")),
        }
    }
    wrong.extend(
        lines
            .into_iter()
            .map(|line| format!("not expected in the log: {line}")),
    );
    wrong
}

/// Differences between the access log's lines about these requests and the expectation.
pub fn accesses(expected: &[Access], log: &str) -> Vec<String> {
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let mut wrong = Vec::new();
    for access in expected {
        let of_this: Vec<&Value> = lines
            .iter()
            .filter(|line| line["row"] == access.id.as_str())
            .collect();
        let [line] = of_this[..] else {
            wrong.push(format!(
                "{}: expected one line in the access log, found {}",
                access.id,
                of_this.len()
            ));
            continue;
        };
        differ(
            &mut wrong,
            "the filter state wasm.alb_oidc",
            &access.passed,
            &line["passed"].as_str(),
        );
        let user = line["user"].as_str().map(|user| to_text(user.as_bytes()));
        differ(&mut wrong, "the access log's user", &access.user, &user);
        let reason = line["reason"].as_str();
        if !reason.map_or(access.reasons.is_empty(), |found| {
            access.reasons.iter().any(|expected| expected == found)
        }) {
            wrong.push(format!(
                "the access log's reason: expected one of {:?}, found {reason:?}",
                access.reasons
            ));
        }
        let details = access
            .details
            .as_ref()
            .map(|details| details.replace("REASON", reason.unwrap_or("none")));
        if details.is_some() {
            differ(
                &mut wrong,
                "the access log's details",
                &details.as_deref(),
                &line["details"].as_str(),
            );
        }
    }
    wrong
}

fn differ<T: PartialEq + std::fmt::Debug>(
    wrong: &mut Vec<String>,
    what: &str,
    expected: &T,
    found: &T,
) {
    if expected != found {
        wrong.push(format!("{what}: expected {expected:?}, found {found:?}"));
    }
}
