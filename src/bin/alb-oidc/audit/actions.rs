//! The actions of listeners and rules: which requests reach the targets without a session.

use super::Auditor;
use crate::aws::{Action, Located, Rule, SignIn, load_balancer_of};
use crate::finding::Code;

/// A path that no rule opens on purpose.
const ANY_PATH: &str = "/alb-oidc-audit";
const ANY_HOST: &str = "host.invalid";

impl Auditor<'_> {
    pub(super) fn actions(&mut self) {
        let snapshot = self.snapshot;
        for listener in &snapshot.listeners {
            let arn = &listener.value.listener_arn;
            if !load_balancer_of(arn).is_some_and(|arn| self.is_trusted(&arn)) {
                continue;
            }
            if Action::forwards_without_authentication(&listener.value.default_actions) {
                let code = if self.is_http(arn) {
                    Code::AlbHttpForwards
                } else {
                    Code::AlbDefaultForwards
                };
                let port = listener.value.port.unwrap_or_default();
                let message = format!("found forward on port {port}, expected no forward");
                self.add(code, listener, "DefaultActions", arn, &message);
            }
            let mut sign_ins = listener.value.default_actions.iter().filter_map(SignIn::of);
            if sign_ins.any(|sign_in| allows(&sign_in)) && !self.is_open("GET", ANY_HOST, ANY_PATH)
            {
                self.add(
                    Code::AlbUnauthenticatedAllowed,
                    listener,
                    "DefaultActions",
                    arn,
                    "found OnUnauthenticatedRequest allow, expected authenticate",
                );
            }
        }
        let rules: Vec<_> = snapshot
            .rules
            .iter()
            .filter(|rule| !rule.value.is_default())
            .filter(|rule| {
                load_balancer_of(&rule.value.rule_arn).is_some_and(|arn| self.is_trusted(&arn))
            })
            .collect();
        for rule in &rules {
            self.rule(rule);
            self.shadowed(rule, &rules);
        }
    }

    fn is_http(&self, listener: &str) -> bool {
        self.snapshot.listeners.iter().any(|known| {
            known.value.listener_arn == listener && known.value.protocol.as_deref() == Some("HTTP")
        })
    }

    fn rule(&mut self, at: &Located<Rule>) {
        let rule = &at.value;
        let is_http = rule.listener_arn().is_some_and(|arn| self.is_http(&arn));
        let arn = &rule.rule_arn;
        // Without values, a condition has regexes: it may match anything.
        let values = |field: &str, any: &'static str| {
            let values = rule.values(field).filter(|values| !values.is_empty());
            values.unwrap_or_else(|| vec![any])
        };
        let hosts = values("host-header", ANY_HOST);
        let paths = values("path-pattern", ANY_PATH);
        let is_open = values("http-request-method", "GET").iter().all(|method| {
            let is_open = |host: &&str| paths.iter().all(|path| self.is_open(method, host, path));
            hosts.iter().all(is_open)
        });
        if Action::forwards_without_authentication(&rule.actions) {
            let code = if is_http {
                Code::AlbHttpForwards
            } else {
                Code::AlbRuleUnauthenticated
            };
            if is_http || !is_open {
                let message = format!(
                    "found forward alone in the rule with priority {}, expected authentication before it",
                    rule.priority
                );
                self.add(code, at, "Actions", arn, &message);
            }
        }
        if rule
            .actions
            .iter()
            .filter_map(SignIn::of)
            .any(|sign_in| allows(&sign_in))
            && !is_open
        {
            let message = format!(
                "found OnUnauthenticatedRequest allow for {} {}, expected authenticate",
                hosts.join(", "),
                paths.join(", ")
            );
            self.add(
                Code::AlbUnauthenticatedAllowed,
                at,
                "Actions",
                arn,
                &message,
            );
        }
        let issuer = self.machine_clients("issuer").or_else(|| {
            self.machine_clients("host")?;
            self.config.load_balancers.first()?.issuer.as_deref()
        });
        let issuer = issuer
            .filter(|issuer| !issuer.is_empty())
            .map(str::to_owned);
        for (position, action) in rule.actions.iter().enumerate() {
            if let (Some(jwt), Some(issuer)) = (&action.jwt_validation_config, &issuer)
                && jwt.issuer != *issuer
            {
                let field = format!("Actions[{position}].JwtValidationConfig.Issuer");
                let message = format!("found {}, expected {issuer}", jwt.issuer);
                self.add(Code::AlbJwtIssuer, at, &field, arn, &message);
            }
        }
    }

    /// Whether a rule without authentication takes all requests of a rule that signs users in.
    fn shadowed(&mut self, at: &Located<Rule>, rules: &[&Located<Rule>]) {
        let rule = &at.value;
        if rule
            .actions
            .iter()
            .all(|action| SignIn::of(action).is_none())
        {
            return;
        }
        let Ok(priority) = rule.priority.parse::<u64>() else {
            return;
        };
        let earlier = rules.iter().map(|other| &other.value).find(|other| {
            other.listener_arn() == rule.listener_arn()
                && other
                    .priority
                    .parse::<u64>()
                    .is_ok_and(|other| other < priority)
                && other
                    .actions
                    .iter()
                    .all(|action| SignIn::of(action).is_none())
                && covers(other, rule)
        });
        if let Some(earlier) = earlier {
            let message = format!(
                "found priority {priority} after {}, which matches the same requests",
                earlier.priority
            );
            self.add(
                Code::AlbRuleShadowed,
                at,
                "Priority",
                &rule.rule_arn,
                &message,
            );
        }
    }
}

/// Whether requests without a session are forwarded.
fn allows(sign_in: &SignIn) -> bool {
    sign_in.on_unauthenticated == "allow"
}

/// Whether `earlier` certainly matches every request that `later` matches.
fn covers(earlier: &Rule, later: &Rule) -> bool {
    let fields = ["host-header", "path-pattern"];
    let mut conditions = earlier.conditions.iter();
    conditions.all(|condition| fields.contains(&condition.field.as_str()))
        && fields.iter().all(|field| {
            let Some(patterns) = earlier.values(field) else {
                return true;
            };
            let is_covered = |text: &str| patterns.iter().any(|pattern| matches(pattern, text));
            match later.values(field).filter(|values| !values.is_empty()) {
                Some(values) => values.iter().all(|value| is_covered(value)),
                None => patterns.iter().any(|pattern| ["*", "/*"].contains(pattern)),
            }
        })
}

/// Whether the pattern matches the text: `*` is any text, `?` one character.
fn matches(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut pieces: Vec<Vec<char>> = pattern
        .split('*')
        .map(|piece| piece.chars().collect())
        .collect();
    let last = pieces.pop().unwrap_or_default();
    let end = text.len().checked_sub(last.len());
    let Some((rest, tail)) = end.and_then(|end| text.split_at_checked(end)) else {
        return false;
    };
    if !begins(tail, &last) {
        return false;
    }
    let Some((first, between)) = pieces.split_first() else {
        // No `*`: the last piece is the pattern.
        return rest.is_empty();
    };
    let found = begins(rest, first)
        .then(|| rest.get(first.len()..))
        .flatten();
    let found = between.iter().fold(found, |rest, piece| {
        let mut rest = rest?;
        while !begins(rest, piece) {
            rest = rest.get(1..)?;
        }
        rest.get(piece.len()..)
    });
    found.is_some()
}

/// Whether the text begins with the piece, in which `?` is any character.
fn begins(text: &[char], piece: &[char]) -> bool {
    let fits = |(expected, found): (&char, &char)| *expected == '?' || expected == found;
    piece.len() <= text.len() && piece.iter().zip(text).all(fits)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_like_those_of_listener_rules() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("/*", "/a/b", true),
            ("/a?c", "/abc", true),
            ("/a?c", "/ac", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("/a*b*c", "/axbxbxc", true),
            ("/a*b*c", "/axbxbxd", false),
            ("/api/*", "/*", false),
            ("/a", "/ab", false),
            ("/ab", "/a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
