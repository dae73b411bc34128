//! `alb-oidc check`: what is wrong with a plugin config, by line and field; or, where nothing is, what the filter will do
//! with it, in words. The library judges; this file words it, and warns of what is allowed and seldom meant.

use std::path::PathBuf;
use std::process::ExitCode;

use alb_oidc_filter::{
    Access, AccessRules, AccessTokenRules, Allow, Config, MAX_REGEX_SIZE, PathPattern, RequestHead, Rule, SignOut,
};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::input::{PluginConfig, Trouble, read_configs};
use crate::output::{BAD, GOOD, LOUD, TITLE, print, printable, styled};

const EXAMPLES: &str = r#"Examples:
  alb-oidc check wasm-plugin.yaml
  alb-oidc check - < wasm-plugin.yaml"#;

/// Say what is wrong with a plugin config, or what the filter will do with it
///
/// Exit status: 0 where the config is good, 1 where it is wrong, 2 where it cannot be read.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Check {
    /// A pluginConfig, or the WasmPlugin or TrafficExtension that holds it, in YAML or JSON; `-`: standard input
    config: PathBuf,
    /// Print JSON, for machines: an array with one object for each plugin config
    #[arg(long)]
    json: bool,
}

/// What there is to say of one plugin config.
#[derive(Serialize)]
struct Report {
    file: String,
    resource: Option<String>,
    good: bool,
    mistakes: Vec<Finding>,
    warnings: Vec<Finding>,
    meaning: Vec<String>,
}

#[derive(Serialize)]
struct Finding {
    line: u64,
    field: String,
    message: String,
}

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode, Trouble> {
        let reports: Vec<_> = read_configs(&self.config)?.iter().map(Report::new).collect();
        let text = if self.json {
            let json = serde_json::to_string_pretty(&reports).map_err(|error| Trouble(error.to_string()))?;
            format!("{json}\n")
        } else {
            reports.iter().map(Report::text).collect::<Vec<_>>().join("\n")
        };
        print(&text)?;
        Ok(if reports.iter().all(|report| report.good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Report {
    fn new(plugin: &PluginConfig) -> Self {
        let (mut mistakes, mut warnings, mut meaning) = (Vec::new(), warnings_of_resource(plugin), Vec::new());
        match &plugin.outcome {
            Ok(config) => {
                warnings.extend(warnings_of_config(plugin, config));
                meaning = words(plugin, config);
            }
            Err(errors) => {
                mistakes.extend(errors.iter().map(|error| Finding {
                    line: plugin.line(error.path()),
                    field: error.path().to_owned(),
                    message: error.to_string(),
                }));
            }
        }
        mistakes.sort_by_key(|mistake| mistake.line);
        warnings.sort_by_key(|warning| warning.line);
        let good = plugin.outcome.is_ok();
        Self { file: plugin.file.clone(), resource: plugin.resource.clone(), good, mistakes, warnings, meaning }
    }

    fn text(&self) -> String {
        let Self { file, resource, good, mistakes, warnings, meaning } = self;
        let of = |finding: &Finding| format!("{file}:{}: ", finding.line);
        let mut lines: Vec<_> =
            mistakes.iter().map(|mistake| format!("{}{}", of(mistake), printable(&mistake.message))).collect();
        let warning = styled(LOUD, "warning:");
        lines
            .extend(warnings.iter().map(|finding| format!("{}{warning} {}", of(finding), printable(&finding.message))));
        let name = resource.as_ref().map_or_else(String::new, |resource| format!("{}: ", printable(resource)));
        let verdict = match (good, mistakes.len()) {
            (true, _) => styled(GOOD, "the config is good"),
            (false, 1) => styled(BAD, "the config is wrong in 1 place"),
            (false, count) => styled(BAD, &format!("the config is wrong in {count} places")),
        };
        lines.push(format!("{file}: {name}{verdict}"));
        if *good {
            lines.push(format!("\n{}", styled(TITLE, "The filter")));
            lines.extend(meaning.iter().map(|sentence| format!("  - {}", printable(sentence))));
        }
        lines.join("\n") + "\n"
    }
}

/// What the filter will do.
fn words(plugin: &PluginConfig, config: &Config) -> Vec<String> {
    let mut words = tokens_in_words(plugin, config);
    words.push(user_id_in_words(config));
    words.extend(groups_and_claims_in_words(config));
    words.extend(rules_in_words(config));
    words.extend(session_in_words(config));
    words.push(upgrades_in_words(config));
    words.push(forward_in_words(config));
    words.push(denials_in_words(config));
    words
}

fn tokens_in_words(plugin: &PluginConfig, config: &Config) -> Vec<String> {
    let mut words = Vec::new();
    for load_balancer in &config.load_balancers {
        let issuer = load_balancer.issuer.as_deref().unwrap_or("ANY issuer");
        let client =
            load_balancer.client_id.as_deref().map_or("for ANY client".to_owned(), |id| format!("for client {id}"));
        words.push(format!("believes tokens of {}, issued by {issuer}, {client}", load_balancer.arn));
    }
    for source in &config.key_sources {
        let url = plugin.key_url(source, "KID");
        words.push(format!("fetches keys from {url} through the Envoy cluster {}", source.cluster));
    }
    if let Some(AccessTokenRules { issuer, .. }) = &config.access_token {
        words.push(format!(
            "reads the access token of {issuer} too, which must be there and of the same user; its claims are `access:CLAIM`"
        ));
    }
    words.push(format!("believes a token until {} s after its `exp`", config.clock_skew.as_secs()));
    words
}

fn user_id_in_words(config: &Config) -> String {
    let rules = &config.identity.user_id;
    let mut user_id = format!("takes the user id from {}", alternatives(&rules.claims));
    if rules.require_verified_email {
        user_id += ", of users whose email is verified only";
    } else if rules.claims.iter().any(|claim| claim == "email") {
        user_id += ", be the email verified or not";
    }
    if rules.lowercase {
        user_id += ", in lower case";
    }
    let transformers: Vec<_> = rules
        .transformers
        .iter()
        .map(|transformer| match transformer.replaces.as_str() {
            "" => format!("`{}` removed", transformer.matches),
            replaces => format!("`{}` replaced by `{replaces}`", transformer.matches),
        })
        .collect();
    match transformers.as_slice() {
        [] => {}
        [one] => user_id += &format!(", with {one}"),
        several => user_id += &format!(", with the first of these that matches: {}", several.join("; ")),
    }
    if !rules.prefix.is_empty() {
        user_id += &format!(", after the prefix `{}`", rules.prefix);
    }
    format!("{user_id}, and sets it in the header {}", config.identity.user_id_header)
}

fn groups_and_claims_in_words(config: &Config) -> Vec<String> {
    let groups = match &config.identity.groups {
        None => "reads no groups, and removes those that a client sends".to_owned(),
        Some(groups) => {
            let mut text = format!(
                "takes groups from {}",
                groups.claims.iter().map(|claim| format!("`{claim}`")).collect::<Vec<_>>().join(" and ")
            );
            if let Some(keep) = &groups.keep {
                text += &format!(", those that match `{keep}`");
            }
            if !groups.prefix.is_empty() {
                text += &format!(", after the prefix `{}`", groups.prefix);
            }
            text += &format!(", and sets them in the header {}", groups.header);
            if let Some(prefix) = &groups.member_header_prefix {
                text += &format!(" and each in a header {prefix}GROUP");
            }
            text
        }
    };
    let claims = config.identity.claim_headers.iter();
    let claims = claims.map(|entry| format!("sets the claim `{}` in the header {}", entry.claim, entry.header));
    std::iter::once(groups).chain(claims).collect()
}

fn rules_in_words(config: &Config) -> Vec<String> {
    let rules = &config.access.rules;
    let others = if rules.is_empty() {
        "lets any user with such a token pass"
    } else {
        "lets any user with such a token pass where no rule matches"
    };
    let limit = config.access.longest_path();
    let paths = (limit < AccessRules::default().longest_path()).then(|| {
        format!("takes paths of more than {limit} bytes, or several readings of fewer, to match every rule: regexes cost time")
    });
    let each = rules.iter().enumerate();
    let each = each.map(|(position, rule)| format!("by rules[{position}], {}", rule_in_words(rule)));
    each.chain([others.to_owned()]).chain(paths).collect()
}

fn session_in_words(config: &Config) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(SignOut { path, redirect_to }) = &config.sign_out {
        words.push(format!("signs out who gets or posts {path}, and sends them to {redirect_to}"));
    }
    words.push(format!("takes cookies named {0} and {0}-N for the load balancer's session", config.session_cookie));
    words
}

fn forward_in_words(config: &Config) -> String {
    let forward = config.forward;
    let shown: Vec<_> = [
        (forward.oidc_data, "x-amzn-oidc-data"),
        (forward.access_token && config.access_token.is_some(), "x-amzn-oidc-accesstoken"),
        (forward.access_token && config.access_token.is_none(), "x-amzn-oidc-accesstoken (not verified)"),
        (forward.session_cookies, "the load balancer's session cookies"),
    ]
    .into_iter()
    .filter_map(|(shown, what)| shown.then_some(what))
    .collect();
    match shown.as_slice() {
        [] => "hides the load balancer's tokens and session cookies from upstream".to_owned(),
        shown => format!("lets upstream see {}", shown.join(", ")),
    }
}

fn upgrades_in_words(config: &Config) -> String {
    match config.upgrades.allowed.as_slice() {
        [] => "denies every protocol upgrade, WebSockets too".to_owned(),
        allowed => format!("denies protocol upgrades other than {}", allowed.join(", ")),
    }
}

fn denials_in_words(config: &Config) -> String {
    if config.report_only {
        "REPORTS ONLY: counts and logs what it would deny, and lets it pass without a user id".to_owned()
    } else {
        "answers everything else itself, with 401, 403 or 503".to_owned()
    }
}

fn alternatives(claims: &[String]) -> String {
    let claims: Vec<_> = claims.iter().map(|claim| format!("`{claim}`")).collect();
    match claims.as_slice() {
        [one] => format!("the claim {one}"),
        several => format!("the first of the claims {} that is there", several.join(", ")),
    }
}

fn rule_in_words(rule: &Rule) -> String {
    let list = |what: &str, names: &[String]| (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")));
    let paths: Vec<_> = rule.paths.iter().map(|path| path_in_words(path, rule.access == Access::Open)).collect();
    let about = [list("for", &rule.methods), list("to", &rule.hosts), list("at", &paths)];
    let about: Vec<_> = about.into_iter().flatten().collect();
    let about = if about.is_empty() { "everything".to_owned() } else { format!("requests {}", about.join(" ")) };
    match &rule.access {
        Access::Open => format!("lets {about} pass without a token, and without a user id"),
        Access::AnyUser => format!("lets any user make {about}"),
        Access::Allow(Allow { users, domains, groups }) => {
            let who = [list("users", users), list("email domains", domains), list("groups", groups)];
            format!("lets only {} make {about}", who.into_iter().flatten().collect::<Vec<_>>().join(" or "))
        }
    }
}

fn path_in_words(path: &PathPattern, opens: bool) -> String {
    match path {
        PathPattern::Exact(text) => text.clone(),
        PathPattern::Prefix(text) if opens && !text.ends_with('/') => format!("{text} and below"),
        PathPattern::Prefix(text) => format!("{text}..."),
        PathPattern::Suffix(text) => format!("...{text}"),
        PathPattern::Regex(regex) => format!("paths that match `{}`", regex.exact()),
    }
}

fn warnings_of_config(plugin: &PluginConfig, config: &Config) -> Vec<Finding> {
    let mut warnings = Vec::new();
    let mut warn = |field: String, message: &str| {
        warnings.push(Finding { line: plugin.line(&field), message: format!("{field}: {message}"), field });
    };
    for (position, load_balancer) in config.load_balancers.iter().enumerate() {
        if load_balancer.issuer.is_none() {
            warn(format!("loadBalancers[{position}].issuer"), "found null, so the token's issuer is not checked");
        }
        if load_balancer.client_id.is_none() {
            let message = "found null, so tokens for every application of the issuer are believed";
            warn(format!("loadBalancers[{position}].clientId"), message);
        }
    }
    if config.report_only {
        warn(
            "mode".to_owned(),
            "found \"report\", so nothing is denied, and who has no good token passes without a user id",
        );
    }
    for (position, name) in config.upgrades.allowed.iter().enumerate().filter(|(_, name)| *name != "websocket") {
        let message = format!(
            "found {name}: before Envoy 1.38.4 and 1.39.3, a client can hide a second request with its own user id behind it"
        );
        warn(format!("upgrades[{position}]"), &message);
    }
    if config.forward.session_cookies {
        warn("forward.sessionCookies".to_owned(), "found true, so upstream sees cookies with which it can be the user");
    }
    let rules = &config.access.rules;
    let regexes = rules.iter().map(Rule::regex_size).fold(0, usize::saturating_add);
    if regexes > MAX_REGEX_SIZE / 4 * 3 {
        let message = format!(
            "found regexes of {regexes} bytes once compiled, by an estimate: the module may count up to a third more, and rejects the \
             config above {MAX_REGEX_SIZE} bytes; write fewer and shorter ones"
        );
        warn("rules".to_owned(), &message);
    }
    for (position, rule) in rules.iter().enumerate() {
        let earlier = rules.iter().take(position).position(|earlier| covers(earlier, rule));
        if let Some(earlier) = earlier {
            warn(format!("rules[{position}]"), &format!("never decides: rules[{earlier}] matches all that it matches"));
        } else if opens_any_path(config, rule) {
            warn(
                format!("rules[{position}]"),
                &format!("opens every path, such as {PROBE_PATH}, to requests without a token"),
            );
        }
    }
    warnings
}

/// A path that nobody opens on purpose.
const PROBE_PATH: &str = "/alb-oidc-check";

fn opens_any_path(config: &Config, rule: &Rule) -> bool {
    let method = rule.methods.iter().map(String::as_str).find(|method| !["OPTIONS", "HEAD"].contains(method));
    let method = if rule.methods.is_empty() { "GET" } else { method.unwrap_or_default() };
    let host = rule.hosts.first().map_or_else(|| "host.invalid".to_owned(), |host| host.replace('*', "any"));
    let head = [(":method", method), (":authority", host.as_str()), (":path", PROBE_PATH)];
    let head = RequestHead::new(head.map(|(name, value)| (name.as_bytes(), value.as_bytes())).to_vec());
    rule.access == Access::Open && !method.is_empty() && config.access.requirement(&head).is_open()
}

/// Whether `earlier` surely matches whatever `later` matches.
fn covers(earlier: &Rule, later: &Rule) -> bool {
    let names = |earlier: &[String], later: &[String]| {
        earlier.is_empty() || (!later.is_empty() && later.iter().all(|name| earlier.contains(name)))
    };
    let by_segment = earlier.access == Access::Open;
    let is_covered = |covered: &PathPattern| {
        let opens = later.access == Access::Open;
        earlier.paths.iter().any(|earlier| path_covers(earlier, by_segment, covered, opens))
    };
    let paths = earlier.paths.is_empty() || (!later.paths.is_empty() && later.paths.iter().all(is_covered));
    // A rule that lets pass wants its methods as they are written; any other takes `get` too.
    let spelling = earlier.methods.is_empty() || earlier.access != Access::Open || later.access == Access::Open;
    spelling && paths && names(&earlier.hosts, &later.hosts) && names(&earlier.methods, &later.methods)
}

/// `earlier_opens`, `later_opens`: a prefix in a rule that opens matches whole segments only.
fn path_covers(earlier: &PathPattern, earlier_opens: bool, later: &PathPattern, later_opens: bool) -> bool {
    match (earlier, later) {
        (PathPattern::Prefix(prefix), PathPattern::Prefix(text)) if earlier_opens && !prefix.ends_with('/') => text
            .strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.starts_with('/') || rest.is_empty() && later_opens),
        (PathPattern::Prefix(prefix), PathPattern::Exact(text)) if earlier_opens && !prefix.ends_with('/') => {
            text.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('/') || rest.is_empty())
        }
        (PathPattern::Prefix(earlier), PathPattern::Prefix(later) | PathPattern::Exact(later)) => {
            later.starts_with(earlier)
        }
        (PathPattern::Suffix(earlier), PathPattern::Suffix(later) | PathPattern::Exact(later)) => {
            later.ends_with(earlier)
        }
        (PathPattern::Exact(earlier), PathPattern::Exact(later)) => earlier == later,
        (PathPattern::Regex(earlier), PathPattern::Regex(later)) => earlier.exact().as_str() == later.exact().as_str(),
        (PathPattern::Regex(earlier), PathPattern::Exact(later)) => earlier.exact().is_match(later),
        _ => false,
    }
}

/// What the Istio resource around the config should say, and does not.
fn warnings_of_resource(plugin: &PluginConfig) -> Vec<Finding> {
    let Some(resource) = &plugin.resource else { return Vec::new() };
    let mut warnings = Vec::new();
    let mut warn = |field: &str, message: &str| {
        warnings.push(Finding {
            line: plugin.spec_line(field),
            field: format!("spec.{field}"),
            message: format!("spec.{field}: {message}"),
        });
    };
    let spec = &plugin.spec;
    // A TrafficExtension keeps the module's own settings apart.
    let fail_strategy = if resource.starts_with("WasmPlugin") { "failStrategy" } else { "wasm.failStrategy" };
    let strategy = spec.pointer(&format!("/{}", fail_strategy.replace('.', "/"))).and_then(Value::as_str);
    if strategy == Some("FAIL_OPEN") {
        warn(
            fail_strategy,
            "found FAIL_OPEN, so where the filter fails everybody passes; expected FAIL_RELOAD or FAIL_CLOSE",
        );
    }
    match spec.get("phase").and_then(Value::as_str) {
        Some("AUTHN") => {}
        Some(phase) => {
            warn("phase", &format!("found {phase}, expected AUTHN: the policies that read its headers come after that"))
        }
        None => warn(
            "phase",
            "found nothing, expected AUTHN: else the filter runs after the policies that read its headers",
        ),
    }
    let modes = spec.get("match").and_then(Value::as_array).into_iter().flatten();
    let modes: Vec<_> = modes.map(|entry| entry.get("mode").and_then(Value::as_str)).collect();
    if !modes.is_empty() && modes.iter().all(|mode| *mode == Some("SERVER")) {
        warn("match", "found SERVER, which never matches on a gateway; expected CLIENT");
    }
    if ["selector", "targetRefs", "targetRef"].iter().all(|field| spec.get(field).is_none()) {
        warn(
            "selector",
            "found nothing, so every proxy of the namespace runs the filter; expected the gateway's labels, or targetRefs",
        );
    }
    warnings
}
