//! The codes of findings. `docs/operations.md` has a section for each.

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The gateway is open, shut or broken.
    Error,
    /// Valid, but risky or useless.
    Warning,
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Defines the codes: name, severity, title, fix.
macro_rules! codes {
    ($($code:ident: $severity:ident, $name:literal, $title:literal, $fix:literal;)*) => {
        /// The kind of a finding. Its name never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $($code),* }

        impl Code {
            /// Every code, in the order of the page.
            pub(crate) const ALL: &[Self] = &[$(Self::$code),*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$code => $name),* }
            }

            pub(crate) fn severity(self) -> Severity {
                match self { $(Self::$code => Severity::$severity),* }
            }

            /// What is wrong, in one sentence.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Self::$code => $title),* }
            }

            /// What to do.
            pub(crate) fn fix(self) -> &'static str {
                match self { $(Self::$code => $fix),* }
            }
        }
    };
}

codes! {
    // The extension.
    ConfigInvalid: Error, "config-invalid",
        "The filter rejects the config.",
        "Correct the field. `alb-oidc schema` prints types and bounds.";
    FailOpen: Error, "fail-open",
        "Every request passes the filter when it fails.",
        "Set failStrategy to FAIL_RELOAD, or to FAIL_CLOSE before Istio 1.27.";
    PhaseWrong: Error, "phase-wrong",
        "The filter runs after policies that read its headers.",
        "Set phase to AUTHN.";
    MatchServer: Error, "match-server",
        "The filter never runs: SERVER never matches on a gateway.",
        "Set match to [{mode: CLIENT}].";
    MatchPorts: Warning, "match-ports",
        "The filter does not run on other ports of the gateway.",
        "Remove ports from match. The interlock denies requests on the other ports.";
    TargetMissing: Warning, "target-missing",
        "Every proxy of the namespace, or of the mesh, runs the filter.",
        "Set selector to the labels of the gateway's pods, or targetRefs to the Gateway.";
    TwoFilters: Error, "two-filters",
        "Two extensions run the filter on one gateway: the first removes the token, the second answers 401.",
        "Delete one of the two.";
    ImageUnpinned: Warning, "image-unpinned",
        "A user who can push to the registry can replace the module.",
        "Pin the digest: oci://REGISTRY/REPOSITORY@sha256:DIGEST, or sha256 for https://.";
    Placeholder: Warning, "placeholder",
        "A placeholder was not replaced.",
        "Write the value of your installation.";
    // The interlock.
    InterlockMissing: Error, "interlock-missing",
        "Without the filter, the gateway forwards the identity headers that clients send.",
        "Apply the interlock of istio/chart, or pass the file that contains it. With --partial, check reports nothing that is missing.";
    InterlockOpen: Error, "interlock-open",
        "The interlock lets requests pass that the filter did not let pass.",
        "Use the EnvoyFilter that istio/chart renders.";
    TargetDiffers: Error, "target-differs",
        "Two resources that belong together select different gateways.",
        "Give all of them the same namespace and the same selector or targetRefs.";
    ExtensionMissing: Warning, "extension-missing",
        "The interlock shuts the gateway: no extension loads the filter.",
        "Set pluginConfig.loadBalancers of the chart, or pass the file with the extension.";
    // Key servers.
    KeyServerMissing: Error, "key-server-missing",
        "The filter cannot fetch keys: Istio makes no cluster for the key server.",
        "Add a ServiceEntry with this host and port. istio/chart makes one.";
    KeyServerTls: Error, "key-server-tls",
        "Envoy fetches the keys without TLS, or does not verify the certificate.",
        "Add a DestinationRule for the host with tls: {mode: SIMPLE, sni: HOST, subjectAltNames: [HOST], caCertificates: system}.";
    KeyServerUnverified: Warning, "key-server-unverified",
        "The DestinationRule does not say which certificate is valid.",
        "Set tls.subjectAltNames to the host, and tls.caCertificates to system.";
    KeyServerHttp: Warning, "key-server-http",
        "An attacker on the network can replace the keys.",
        "Use https.";
    // Other resources at the gateway.
    PolicyDeniesTcp: Warning, "policy-denies-tcp",
        "A DENY policy with HTTP attributes also denies TCP and passthrough TLS.",
        "Set to.operation.notPorts to the ports of TCP. In istio/chart: gateway.tcpPorts.";
    PolicyDemandsJwt: Error, "policy-demands-jwt",
        "The policy denies users of the load balancer: Istio has verified no JWT of theirs.",
        "Delete the policy. For Kubeflow, use the component istio/kubeflow.";
    PolicyCustom: Warning, "policy-custom",
        "An external authorizer runs before the filter and sees the identity headers that clients send.",
        "Remove the CUSTOM policy from the gateway, or let the authorizer ignore these headers.";
    UpgradeType: Warning, "upgrade-type",
        "Before Envoy 1.38.4 and 1.39.3, a client can hide a second request with a forged user id behind such an upgrade.",
        "Allow only websocket.";
    // The plugin config.
    IssuerNull: Warning, "issuer-null",
        "Tokens of any issuer are trusted.",
        "Set issuer to the issuer of the listener rule.";
    ClientNull: Warning, "client-null",
        "Tokens for every application of the issuer are trusted.",
        "Set clientId to the client id of the listener rule.";
    ModeReport: Warning, "mode-report",
        "No request is denied.",
        "Set mode to enforce when the reports are as expected.";
    SessionCookiesForwarded: Warning, "session-cookies-forwarded",
        "Applications receive cookies with which they can impersonate the user.",
        "Set forward.sessionCookies to false.";
    RegexSize: Warning, "regex-size",
        "The module may reject the regexes of the rules.",
        "Shorten the regexes, or use prefix, suffix and exact.";
    GroupCase: Warning, "group-case",
        "Two groups of the rules differ in case only.",
        "Write the group as the identity provider does.";
    RuleNeverApplies: Warning, "rule-never-applies",
        "An earlier rule matches all requests of this rule.",
        "Move the rule up, or remove it.";
    RuleOpensAll: Warning, "rule-opens-all",
        "The rule opens every path to requests without a token.",
        "Add paths to match, or narrow them.";
    RuleOpensRegex: Warning, "rule-opens-regex",
        "The regex matches anywhere in the path, and so opens more paths than intended.",
        "Anchor the regex: ^/path$.";
    RuleOpensSuffix: Warning, "rule-opens-suffix",
        "The suffix opens every directory. Some applications ignore what follows a path.",
        "Use exact or prefix.";
    AllowExact: Warning, "allow-exact",
        "The rule restricts one path only. Any user may request the paths below it and other spellings of it.",
        "Use prefix.";
    AllowMethods: Warning, "allow-methods",
        "The rule restricts some methods only. Any user may use the others.",
        "Remove methods from match, or add a rule for the other methods.";
    TransformerUnanchored: Warning, "transformer-unanchored",
        "The transformer also changes names that only contain the match: two users can get the same name.",
        "End the regex with $.";
    ClaimWritable: Warning, "claim-writable",
        "A user without the first claim takes the user id from a claim that users may write at many providers.",
        "Name one claim that only the identity provider writes, such as sub, or email with requireVerifiedEmail.";
    CognitoIssuerSlash: Warning, "cognito-issuer-slash",
        "Cognito's issuers have no trailing slash: no token matches.",
        "Remove the slash.";
    CognitoGroups: Warning, "cognito-groups",
        "The load balancer's token has no cognito:groups: users get no groups.",
        "Set accessToken.issuer, and write access:cognito:groups.";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sections of the page: the code, and the first two lines.
    fn sections() -> Vec<(String, String)> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
        let page = std::fs::read_to_string(path).expect("the page");
        let (_, page) = page.split_once("\n## Findings\n").expect("the section");
        let page = page.split("\n## ").next().expect("text");
        let sections = page.split("\n### ").skip(1);
        sections
            .map(|section| {
                let (code, text) = section.split_once("\n\n").expect("a text");
                let lines: Vec<_> = text.lines().take(2).collect();
                (code.to_owned(), lines.join("\n"))
            })
            .collect()
    }

    #[test]
    fn page_has_a_section_for_each_code() {
        let expected: Vec<_> = Code::ALL
            .iter()
            .map(|code| {
                let severity = match code.severity() {
                    Severity::Error => "Error",
                    Severity::Warning => "Warning",
                };
                (
                    code.name().to_owned(),
                    format!("{severity}. {}\nFix: {}", code.title(), code.fix()),
                )
            })
            .collect();
        assert_eq!(sections(), expected);
    }

    #[test]
    fn names_are_kebab_case_and_distinct() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        let is_word = |c: char| c.is_ascii_lowercase() || c == '-';
        assert!(names.iter().all(|name| name.chars().all(is_word)));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
