//! The format of the table of scenarios, `tests/scenarios/*.toml`, with defaults.
//! `tests/scenarios.rs` runs the rows.
//!
//! A file holds named configurations and rows:
//!
//! ```toml
//! [config.prefix]
//! plugin = '{"userId": {"prefix": "user:"}}'     # JSON, merged over the `default` configuration
//!
//! [config.okta]
//! page = "docs/providers.md#okta"                # the `pluginConfig` of this section
//!
//! [[row]]
//! name = "The user id starts with the configured prefix"
//! config = "prefix"
//! user = "user:ann@example.com"
//!
//! [[row]]
//! name = "A token without exp in its header is denied"
//! token = { header_without = ["exp"] }
//! deny = "token-malformed"
//! ```
//!
//! A row is one genuine request that is admitted as `ann@example.com`, with the row's changes. Each
//! row has its own key and kid, so rows are independent. With `requests = [{…}, {…}]` it is several
//! requests in order, and the row's request fields apply to each of them.

use super::access_token::AccessTokenSpec;
use super::envoy::Plugin;
use super::key_server::Answer;
use super::merge::merge;
use super::token::TokenSpec;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A number, or a range as `"1..=3"` if timing matters.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "toml::Value")]
pub struct Count {
    min: i64,
    max: i64,
}

impl Count {
    /// Exactly this number.
    pub fn exactly(count: i64) -> Count {
        Count {
            min: count,
            max: count,
        }
    }

    /// The sum of these and `others`.
    pub fn plus(self, others: Count) -> Count {
        Count {
            min: self.min + others.min,
            max: self.max + others.max,
        }
    }

    /// Whether `count` matches.
    pub fn holds(self, count: i64) -> bool {
        (self.min..=self.max).contains(&count)
    }
}

impl TryFrom<toml::Value> for Count {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Count, String> {
        let range = |text: &str| {
            let (min, max) = text.split_once("..=")?;
            Some(Count {
                min: min.parse().ok()?,
                max: max.parse().ok()?,
            })
        };
        match &value {
            toml::Value::Integer(count) => Ok(Count::exactly(*count)),
            toml::Value::String(text) => {
                range(text).ok_or_else(|| format!("not a range: {text:?}"))
            }
            other => Err(format!("not a count: {other}")),
        }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{}..={}", self.min, self.max)
        }
    }
}

/// All files of the table.
pub struct Table {
    /// Every configuration of a row, merged over `default`; several copies if its rows fetch much.
    pub plugins: Vec<Plugin>,
    pub rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    config: BTreeMap<String, Config>,
    #[serde(default)]
    row: Vec<toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `FILE#SECTION`: the `pluginConfig` of this section of a page, merged over the `default`
    /// configuration like `plugin`, and before it.
    page: Option<String>,
    /// JSON, merged over the `default` configuration (RFC 7396): objects are merged, null removes a
    /// member, anything else replaces it.
    #[serde(default = "no_changes")]
    plugin: String,
    /// Environment variables of the VM.
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// One scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Row {
    /// A sentence: the behaviour.
    pub name: String,
    /// Name of a configuration.
    pub config: String,
    /// The token; requests refer to it as `{token}`.
    pub token: TokenSpec,
    /// More tokens by name, signed with the row's key.
    pub tokens: BTreeMap<String, TokenSpec>,
    /// The access token, which requests then also carry; they refer to it as `{access_token}`.
    pub access_token: Option<AccessTokenSpec>,
    /// A second access token of the same provider: `{other_access_token}`.
    pub other_access_token: Option<AccessTokenSpec>,
    /// The id of its key in the pool's key set; `{uuid}` is a random one.
    pub access_kid: String,
    /// How the pool's key server answers.
    pub jwks: Answer,
    /// Requests for the key set. Unset: one when there is an access token and any request is
    /// admitted.
    pub jwks_fetches: Option<Count>,
    /// The key's id; `{uuid}` and `{UUID}` are a random one in lower and upper case.
    pub kid: String,
    /// How the key server answers for the row's kid.
    pub key: Answer,
    /// The path at which the module fetches the key.
    pub fetch_path: String,
    /// The `:authority` of the fetch.
    pub fetch_host: String,
    /// The cluster of the fetch: one of [`super::key_server::CLUSTERS`]. Only that one has the key.
    pub fetch_cluster: String,
    /// Other places at which the module fetches the key.
    pub elsewhere: Option<Elsewhere>,
    /// Requests to the key server. Unset: one when `verified` is not 0.
    pub fetches: Option<Count>,
    /// Verified signatures. Unset: one if any request is admitted. With an access token three: the
    /// first one is verified again once the key set arrives.
    pub verified: Option<Count>,
    /// Other counters that move. Unset: `key_fetch.ok` as `fetches`, `token_cache_hit` for each
    /// admission without verification. Counters that are neither listed nor default must not move.
    pub counters: BTreeMap<String, Count>,
    /// Texts in the log, with `{kid}` filled in.
    pub log_says: Vec<String>,
    /// The wait before the counters are checked.
    pub settle_ms: u64,
    #[serde(skip)]
    pub requests: Vec<Step>,
    /// The row's plugin: its configuration, or a copy.
    #[serde(skip)]
    pub plugin: String,
    /// Whether the plugin's configuration has `accessLog.user`.
    #[serde(skip)]
    pub logs_user: bool,
}

impl Default for Row {
    fn default() -> Self {
        Row {
            name: String::new(),
            config: "default".into(),
            token: TokenSpec::default(),
            tokens: BTreeMap::new(),
            access_token: None,
            other_access_token: None,
            access_kid: "{uuid}".into(),
            jwks: Answer::key_set(),
            jwks_fetches: None,
            kid: "{uuid}".into(),
            key: Answer::default(),
            fetch_path: "/{kid}".into(),
            fetch_host: "keys.test".into(),
            fetch_cluster: "keys".into(),
            elsewhere: None,
            fetches: None,
            verified: None,
            counters: BTreeMap::new(),
            log_says: Vec::new(),
            settle_ms: 0,
            requests: Vec::new(),
            plugin: String::new(),
            logs_user: false,
        }
    }
}

/// A key server that is asked for a key it does not have.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    pub cluster: String,
    pub path: String,
    pub host: String,
    pub fetches: Count,
}

/// The members of a row that are not about a request.
const ROW_MEMBERS: [&str; 20] = [
    "name",
    "config",
    "token",
    "tokens",
    "access_token",
    "other_access_token",
    "access_kid",
    "jwks",
    "jwks_fetches",
    "kid",
    "key",
    "fetch_path",
    "fetch_host",
    "fetch_cluster",
    "elsewhere",
    "fetches",
    "verified",
    "counters",
    "log_says",
    "settle_ms",
];

/// One request (or several identical ones), and its outcome. Texts may contain `{token}`,
/// `{access_token}`, `{NAME}`, `{NAME.header}`, `{NAME.payload}`, `{NAME.signature}`, `{kid}`,
/// `{id}` (the request's own id), `{shards}` (1,000 session cookies), `{dots}` (16,000 of them) and
/// `{climbs}` (a path with 70 ambiguous parent segments).
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// The wait before it is sent.
    pub after_ms: u64,
    /// Sends it this many times,
    pub times: usize,
    /// all at once instead of one after the other,
    pub at_once: bool,
    /// each with the same token or one of its own.
    pub mint: Mint,
    pub method: String,
    pub host: String,
    pub path: String,
    /// Values of `x-amzn-oidc-data`.
    pub oidc_data: Vec<String>,
    /// Values of `x-amzn-oidc-accesstoken`. Unset: the row's, if any.
    pub access_tokens: Option<Vec<String>>,
    /// Other headers, as `name: value`.
    pub headers: Vec<String>,
    pub body: String,
    /// The whole request, byte for byte, if HTTP libraries cannot send it.
    pub raw: Option<String>,
    /// The client closes the connection after this time; the request has no outcome.
    pub hang_up_ms: Option<u64>,

    /// Denied with this reason, or with one of several if timing decides (`"this, that"`). Unset:
    /// admitted.
    pub deny: Option<String>,
    /// Passed without an identity in report mode, instead of a denial with this reason.
    pub report: Option<String>,
    /// Passed without a token and an identity.
    pub skipped: bool,
    /// Answered by the module with this status, as a sign-out.
    pub signed_out: Option<u16>,
    /// Denied by Envoy itself with this status, before the module.
    pub refused: Option<u16>,
    /// The form of a denial.
    pub page: Page,
    /// The user id that upstream receives.
    pub user: String,
    /// Exact header values upstream, in order; `[]`: the header is absent.
    pub upstream: BTreeMap<String, Vec<String>>,
    /// All cookie headers upstream, joined.
    pub upstream_cookies: Option<String>,
    /// Header values that the client must receive.
    pub reply: BTreeMap<String, Vec<String>>,
    /// The names of the expired session cookies, in order.
    pub expired: Vec<String>,
    /// The exact body that the client receives, with `{id}` filled in.
    pub reply_body: Option<String>,
    /// Texts that the body must contain.
    pub body_says: Vec<String>,
    /// Texts that the body must not contain.
    pub body_lacks: Vec<String>,
    /// The time until the answer.
    pub took_ms: Option<Count>,
    /// What follows the request id in the log line of the denial.
    pub logged: Option<String>,
}

impl Default for Step {
    fn default() -> Self {
        Step {
            after_ms: 0,
            times: 1,
            at_once: false,
            mint: Mint::Once,
            method: "GET".into(),
            host: "gateway.test".into(),
            path: "/".into(),
            oidc_data: vec!["{token}".into()],
            access_tokens: None,
            headers: Vec::new(),
            body: String::new(),
            raw: None,
            hang_up_ms: None,
            deny: None,
            report: None,
            skipped: false,
            signed_out: None,
            refused: None,
            page: Page::Json,
            user: "ann@example.com".into(),
            upstream: BTreeMap::new(),
            upstream_cookies: None,
            reply: BTreeMap::new(),
            expired: Vec::new(),
            reply_body: None,
            body_says: Vec::new(),
            body_lacks: Vec::new(),
            took_ms: None,
            logged: None,
        }
    }
}

/// The token of a repeated request.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Mint {
    /// The row's token, every time.
    Once,
    /// A new token every time, with the row's key.
    EachTime,
    /// A new token with a new, unknown kid every time.
    EachKid,
}

/// The form of a denial.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Page {
    /// For programs.
    Json,
    /// For browsers.
    Html,
    /// For gRPC calls.
    Grpc,
    /// The answer to HEAD requests.
    NoBody,
}

impl Table {
    /// Reads every file of the folder, sorted by name.
    pub fn read(folder: &Path) -> Table {
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .expect("the folder of scenarios")
            .flatten()
            .map(|file| file.path())
            .collect();
        files.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        });
        files.sort();
        let (mut configs, mut rows) = (BTreeMap::new(), Vec::new());
        for path in files {
            let file = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let text = std::fs::read_to_string(&path).expect("a readable file");
            let found: File =
                toml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
            for (name, config) in found.config {
                assert!(
                    configs.insert(name.clone(), config).is_none(),
                    "{file}: configuration {name} is there twice"
                );
            }
            rows.extend(
                found.row.into_iter().map(|table| {
                    Row::read(table).unwrap_or_else(|error| panic!("{file}: {error}"))
                }),
            );
        }
        let default = configs
            .get("default")
            .expect("a configuration named default")
            .plugin
            .clone();
        let configs: BTreeMap<String, Plugin> = configs
            .into_iter()
            .map(|(name, config)| (name.clone(), config.plugin(&name, &default)))
            .collect();
        let mut names = BTreeSet::new();
        for row in &rows {
            assert!(names.insert(&row.name), "two rows are named {:?}", row.name);
        }
        let plugins = deal(&configs, &mut rows);
        Table { plugins, rows }
    }
}

/// Gives each row a plugin with its configuration that has not fetched much yet: each plugin has a
/// token bucket for fetches, and rows must be independent.
fn deal(configs: &BTreeMap<String, Plugin>, rows: &mut [Row]) -> Vec<Plugin> {
    const FETCHES_PER_PLUGIN: i64 = 15;
    let mut plugins: Vec<Plugin> = Vec::new();
    // The copies of each configuration so far, and the fetches of the last copy.
    let mut copies: BTreeMap<String, (usize, i64)> = BTreeMap::new();
    for row in rows {
        let config = configs
            .get(&row.config)
            .unwrap_or_else(|| panic!("{:?}: no configuration {}", row.name, row.config));
        let (copy, used) = copies.entry(row.config.clone()).or_default();
        if *copy == 0 || *used + row.most_fetches() > FETCHES_PER_PLUGIN {
            (*copy, *used) = (*copy + 1, 0);
            plugins.push(Plugin {
                name: format!("{}-{copy}", config.name),
                ..config.clone()
            });
        }
        *used += row.most_fetches();
        row.plugin = format!("{}-{copy}", config.name);
        row.logs_user = config.logs_user();
    }
    for name in configs.keys() {
        assert!(
            copies.contains_key(name),
            "no row uses configuration {name}"
        );
    }
    plugins
}

fn no_changes() -> String {
    "{}".into()
}

impl Config {
    fn plugin(self, name: &str, default: &str) -> Plugin {
        let parse = |text: &str| -> Value {
            serde_json::from_str(text)
                .unwrap_or_else(|error| panic!("configuration {name}: {error}"))
        };
        let mut config = parse(default);
        if let Some(page) = &self.page {
            merge(&mut config, super::page::plugin_config(page));
        }
        merge(&mut config, parse(&self.plugin));
        Plugin {
            env: self.env,
            ..Plugin::new(name, config)
        }
    }
}

impl Row {
    fn read(mut table: toml::Table) -> Result<Row, String> {
        let name = table
            .get("name")
            .and_then(toml::Value::as_str)
            .unwrap_or("a row without a name")
            .to_owned();
        let in_row = |error: toml::de::Error| format!("{name:?}: {error}");
        let requests: Vec<toml::Table> = match table.remove("requests") {
            Some(list) => list.try_into().map_err(in_row)?,
            None => vec![toml::Table::new()],
        };
        let (of_row, of_each): (toml::Table, toml::Table) = table
            .into_iter()
            .partition(|(key, _)| ROW_MEMBERS.contains(&key.as_str()));
        let mut row: Row = of_row.try_into().map_err(in_row)?;
        for own in requests {
            let mut request = of_each.clone();
            request.extend(own);
            row.requests.push(request.try_into().map_err(in_row)?);
        }
        Ok(row)
    }

    /// Every counter that must move, and by how much.
    pub fn expected_counters(&self, backend: &str) -> BTreeMap<String, Count> {
        let mut counters = BTreeMap::new();
        let (mut admitted, mut skipped, mut signed_out) = (0, 0, 0);
        for step in &self.requests {
            let times = i64::try_from(step.times).expect("a small number");
            if step.is_admitted() {
                admitted += times;
            }
            if step.skipped {
                skipped += times;
            }
            if step.signed_out.is_some() {
                signed_out += times;
            }
            if let Some(reason) = &step.report {
                let count = counters
                    .entry(format!("reported.{reason}"))
                    .or_insert(Count::exactly(0));
                *count = Count::exactly(count.max + times);
            }
            let reasons = step.reasons();
            for reason in &reasons {
                let count = counters
                    .entry(format!("denied.{reason}"))
                    .or_insert(Count::exactly(0));
                count.max += times;
                count.min += if reasons.len() == 1 { times } else { 0 };
            }
        }
        counters.insert("admitted".into(), Count::exactly(admitted));
        counters.insert("skipped".into(), Count::exactly(skipped));
        counters.insert("signed_out".into(), Count::exactly(signed_out));
        counters.insert(format!("verified.{backend}"), self.verified());
        let judged = if self.access_token.is_some() {
            self.verified().min / 3
        } else {
            self.verified().min
        };
        counters.insert(
            "token_cache_hit".into(),
            Count::exactly((admitted - judged).max(0)),
        );
        if !self
            .counters
            .keys()
            .any(|name| name.starts_with("key_fetch."))
        {
            counters.insert(
                "key_fetch.ok".into(),
                self.fetches().plus(self.jwks_fetches()),
            );
        }
        counters.extend(self.counters.clone());
        counters
    }

    /// Verified signatures.
    fn verified(&self) -> Count {
        let signatures = if self.access_token.is_some() { 3 } else { 1 };
        self.verified
            .unwrap_or(Count::exactly(if self.any_admitted() {
                signatures
            } else {
                0
            }))
    }

    /// Fetches that the module may attempt, including failed ones.
    fn most_fetches(&self) -> i64 {
        let attempts = self
            .counters
            .iter()
            .filter(|(name, _)| name.starts_with("key_fetch."));
        let elsewhere = self
            .elsewhere
            .as_ref()
            .map_or(0, |elsewhere| elsewhere.fetches.max);
        elsewhere
            + self
                .fetches()
                .plus(self.jwks_fetches())
                .max
                .max(attempts.map(|(_, count)| count.max).sum())
    }

    fn any_admitted(&self) -> bool {
        self.requests.iter().any(Step::is_admitted)
    }

    /// Requests for the pool's key set.
    pub fn jwks_fetches(&self) -> Count {
        let unset = self.access_token.is_some() && self.any_admitted();
        self.jwks_fetches
            .unwrap_or(Count::exactly(i64::from(unset)))
    }

    /// Requests to the key server.
    pub fn fetches(&self) -> Count {
        self.fetches
            .unwrap_or(Count::exactly(i64::from(!self.verified().holds(0))))
    }
}

impl Step {
    /// Whether it reaches upstream.
    pub fn passes(&self) -> bool {
        self.deny.is_none()
            && self.signed_out.is_none()
            && self.refused.is_none()
            && self.hang_up_ms.is_none()
    }

    /// Whether it reaches upstream with an identity.
    pub fn is_admitted(&self) -> bool {
        self.passes() && !self.skipped && self.report.is_none()
    }

    /// How it passes the filter, as the filter state `wasm.alb_oidc` has it.
    pub fn passed(&self) -> Option<&'static str> {
        match self {
            _ if !self.passes() => None,
            _ if self.skipped => Some("skipped"),
            _ if self.report.is_some() => Some("reported"),
            _ => Some("admitted"),
        }
    }

    /// The component that answered it, according to Envoy's access log.
    pub fn details(&self) -> Option<&'static str> {
        match self {
            _ if self.passes() => Some("via_upstream"),
            _ if self.deny.is_some() => Some("alb_oidc_REASON"),
            _ if self.signed_out.is_some() => Some("alb_oidc_signed_out"),
            _ => None,
        }
    }

    /// The possible reasons for its denial.
    pub fn reasons(&self) -> Vec<&str> {
        self.deny
            .iter()
            .flat_map(|reasons| reasons.split(", "))
            .collect()
    }
}
