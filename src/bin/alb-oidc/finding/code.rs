//! The codes of findings. `docs/operations.md` has a section for each.

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The gateway is open, shut or broken, or requests evade the sign-in.
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

            /// The problem, in one sentence.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Self::$code => $title),* }
            }

            /// The remedy.
            pub(crate) fn fix(self) -> &'static str {
                match self { $(Self::$code => $fix),* }
            }
        }
    };
}

impl Code {
    /// The section of the page that describes the code.
    pub(crate) fn page(self) -> String {
        format!("docs/operations.md#{}", self.name())
    }
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
        "The filter does not run on other ports of the gateway, and the interlock denies requests there.",
        "Remove ports from match.";
    TargetMissing: Warning, "target-missing",
        "Every proxy of the namespace, or of the mesh, runs the filter.",
        "Set selector to the labels of the gateway's pods, or targetRefs to the Gateway.";
    TwoFilters: Error, "two-filters",
        "Two extensions run the filter: the first removes the token, the second answers 401.",
        "Delete one of the two.";
    ImageUnpinned: Warning, "image-unpinned",
        "A user who can push to the registry can replace the module.",
        "Pin the digest: oci://REGISTRY/REPOSITORY@sha256:DIGEST, or sha256 for https://.";
    Placeholder: Warning, "placeholder",
        "A placeholder was not replaced.",
        "Write the value of your installation.";
    // The interlock.
    InterlockMissing: Error, "interlock-missing",
        "Without the filter, the gateway forwards clients' own identity headers.",
        "Apply the interlock of istio/chart, or pass its file. For a part of the resources, use --partial.";
    InterlockOpen: Error, "interlock-open",
        "The interlock admits requests that the filter did not admit.",
        "Use the EnvoyFilter that istio/chart renders.";
    TargetDiffers: Error, "target-differs",
        "Two resources that belong together select different gateways.",
        "Give both the same namespace and the same selector or targetRefs.";
    ExtensionMissing: Warning, "extension-missing",
        "The interlock shuts the gateway: no extension loads the filter.",
        "Set pluginConfig.loadBalancers of the chart, or pass the extension's file.";
    // Key servers.
    KeyServerMissing: Error, "key-server-missing",
        "The filter cannot fetch keys: the key server has no cluster.",
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
        "An external authorizer runs before the filter and sees the clients' own identity headers.",
        "Remove the CUSTOM policy, or let the authorizer ignore these headers.";
    UpgradeType: Warning, "upgrade-type",
        "Before Envoy 1.38.4 and 1.39.3, such an upgrade can hide a second request with a forged user id.",
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
        "Applications receive cookies and can impersonate the user.",
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
        "The regex matches anywhere in the path and opens further paths.",
        "Anchor the regex: ^/path$.";
    RuleOpensSuffix: Warning, "rule-opens-suffix",
        "The suffix opens every directory. Some applications ignore text after a path.",
        "Use exact or prefix.";
    AllowExact: Warning, "allow-exact",
        "Any user may request the paths below this path and other spellings of it.",
        "Use prefix.";
    AllowMethods: Warning, "allow-methods",
        "Any user may use the other methods.",
        "Remove methods from match, or add a rule for the others.";
    TransformerUnanchored: Warning, "transformer-unanchored",
        "The transformer also changes names that contain the match: two users can get one name.",
        "End the regex with $.";
    ClaimWritable: Warning, "claim-writable",
        "A user without the first claim takes the user id from a claim that users may write at many providers.",
        "Name one claim that only the identity provider writes, such as sub, or email with requireVerifiedEmail.";
    SubjectWritable: Warning, "subject-writable",
        "Users may write this attribute at many providers, and could add the access token claims of another user to their own.",
        "Set accessToken.subject to an id that the provider assigns, such as sub or uid.";
    CognitoIssuerSlash: Warning, "cognito-issuer-slash",
        "Cognito's issuers have no trailing slash: no token matches.",
        "Remove the slash.";
    CognitoGroups: Warning, "cognito-groups",
        "The load balancer's token has no cognito:groups: users get no groups.",
        "Set accessToken.issuer, and write access:cognito:groups.";
    // The load balancer.
    AlbArnDiffers: Error, "alb-arn-differs",
        "The config trusts a load balancer that is not in the input: tokens of the others are denied.",
        "Set loadBalancers[].arn to that of the load balancer in front of the gateway.";
    AlbIssuerDiffers: Error, "alb-issuer-differs",
        "The config does not trust the issuer of a listener rule.",
        "Set loadBalancers[].issuer to that of the rule, byte for byte.";
    AlbClientDiffers: Error, "alb-client-differs",
        "The config does not trust the client of a listener rule.",
        "Set loadBalancers[].clientId to that of the rule.";
    AlbTwoClients: Warning, "alb-two-clients",
        "The load balancer signs users in with several clients.",
        "Use one client, or list each in loadBalancers on purpose.";
    AlbScope: Warning, "alb-scope",
        "The scope lacks the claim of the user id: the filter denies with user-id-missing.",
        "Set Scope to openid email profile. A session keeps the scope of its sign-in.";
    AlbCookieDiffers: Warning, "alb-cookie-differs",
        "The session cookie has another name: sign-out does not end the session, and applications receive it.",
        "Set logout.sessionCookie to SessionCookieName of the rule.";
    AlbSessionTimeout: Warning, "alb-session-timeout",
        "A session lasts longer than seven days, AWS's default.",
        "Set SessionTimeout to at most 604800.";
    AlbRuleUnauthenticated: Error, "alb-rule-unauthenticated",
        "A listener rule forwards requests without authentication.",
        "Add authenticate-cognito or authenticate-oidc before forward, or open the path in rules of pluginConfig.";
    AlbRuleShadowed: Error, "alb-rule-shadowed",
        "A rule with a higher precedence matches all requests of an authenticating rule.",
        "Give the authenticating rule the lower priority number, or narrow the other one.";
    AlbDefaultForwards: Error, "alb-default-forwards",
        "The default action forwards requests with any other Host, without authentication.",
        "Set the default action to fixed-response 404, or authenticate before forward.";
    AlbHttpForwards: Error, "alb-http-forwards",
        "An HTTP listener forwards requests, without authentication and in plain text.",
        "Redirect to HTTPS.";
    AlbUnauthenticatedAllowed: Warning, "alb-unauthenticated-allowed",
        "A rule with OnUnauthenticatedRequest allow forwards requests without a session.",
        "Set authenticate, except for the sign-out path and paths that rules of pluginConfig open.";
    AlbTargetShared: Error, "alb-target-shared",
        "A load balancer that the config does not trust forwards to the gateway.",
        "Remove the target group from the other load balancer.";
    AlbSecurityGroupOpen: Error, "alb-security-group-open",
        "The Internet can connect to the targets, past the load balancer.",
        "Admit only the security group of the load balancer.";
    AlbSecurityGroupShared: Warning, "alb-security-group-shared",
        "Other resources than the load balancer can connect to the targets.",
        "Give the load balancer a security group of its own, and admit only that group.";
    AlbInvalidHeaders: Warning, "alb-invalid-headers",
        "The load balancer forwards headers with invalid names, which applications may take for others.",
        "Set routing.http.drop_invalid_header_fields.enabled to true.";
    AlbIdleTimeout: Warning, "alb-idle-timeout",
        "The load balancer ends quiet WebSockets of notebooks after a minute or less.",
        "Set idle_timeout.timeout_seconds to 3600.";
    AlbHealthCheck: Warning, "alb-health-check",
        "The filter answers the health check with 401: targets become unhealthy.",
        "Use path /healthz/ready on port 15021.";
    AlbTargetUnhealthy: Warning, "alb-target-unhealthy",
        "No target is healthy.",
        "See the reason in TargetHealth. A NetworkPolicy may block the load balancer.";
    AlbJwtIssuer: Warning, "alb-jwt-issuer",
        "The action jwt-validation has another issuer than machineClients.",
        "Set its Issuer to machineClients.issuer.";
    // A live cluster.
    LiveUnread: Warning, "live-unread",
        "The state of a part of the cluster could not be read.",
        "Grant list on the resources, and get on pods/proxy.";
    LiveGatewayMissing: Error, "live-gateway-missing",
        "No running pod has the labels of the extension.",
        "Set gateway of the chart to the labels of the gateway's pods, or start the gateway.";
    LiveNoEnvoy: Error, "live-no-envoy",
        "The extension selects a pod without Envoy: nothing there runs the filter.",
        "Select the pods of Istio's gateway only.";
    LiveConfigRejected: Error, "live-config-rejected",
        "Envoy does not run the filter: it rejected the config, or has no module.",
        "See the lines with alb-oidc: in the log of the pod.";
    LiveKeyFetchFails: Error, "live-key-fetch-fails",
        "The gateway cannot fetch keys: users get 503.",
        "See docs/operations.md#key-server-down. The pods need a route to the key server.";
    LiveAllDenied: Warning, "live-all-denied",
        "The pod has denied every request since it started.",
        "See the reason in docs/monitoring.md#reasons.";
    LiveNetworkShut: Warning, "live-network-shut",
        "NetworkPolicies shut out load balancers that connect to pods (target type ip).",
        "Set networkPolicy.enabled and networkPolicy.albSubnets of the chart.";
    LiveTrustedProxies: Warning, "live-trusted-proxies",
        "The number of trusted proxies is wrong: applications see a wrong client address.",
        "Set numTrustedProxies to 1, as in docs/install.md#numtrustedproxies.";
    LiveProfileWithoutSidecars: Warning, "live-profile-without-sidecars",
        "Istio injects no sidecar into the pods of a profile: its policies do not apply there.",
        "Label the namespace istio-injection: enabled, and restart its pods.";
    LiveUserIdWritten: Warning, "live-user-id-written",
        "Another resource writes the user id header at the gateway.",
        "Remove the header from the resource.";
    LiveProbeAdmitted: Error, "live-probe-admitted",
        "A request without a valid token passed the gateway.",
        "Correct what doctor finds in the cluster. If rules of pluginConfig open the path, probe another path.";
    LiveProbeUnclear: Warning, "live-probe-unclear",
        "The answer to the probe does not show whether the filter runs.",
        "Probe the URL that users open, or the gateway through kubectl port-forward.";
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
                    format!("{severity}. {}\n{}", code.title(), code.fix()),
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
