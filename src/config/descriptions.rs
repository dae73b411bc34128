//! The description of each field of `pluginConfig`, in Markdown. Links are relative to
//! `docs/configuration.md`, whose table `make docs` writes. Not part of the module.

/// Path and description, in the order of [`super::reference::FIELDS`].
pub(super) static DESCRIPTIONS: &[(&str, &str)] = &[
    (
        "loadBalancers",
        "The load balancers whose tokens are trusted.",
    ),
    (
        "loadBalancers.arn",
        "ARN of the load balancer. Compared with `signer` of the JOSE header.",
    ),
    (
        "loadBalancers.issuer",
        "Compared with `iss`, byte for byte. null: any.",
    ),
    (
        "loadBalancers.clientId",
        "Compared with `client` of the JOSE header. null: any.",
    ),
    (
        "loadBalancers.userId",
        "Overrides fields of `userId`, except `header`: [Several issuers](#several-issuers).",
    ),
    (
        "loadBalancers.groups",
        "Overrides fields of `groups`, except `header` and `memberHeaderPrefix`.",
    ),
    ("loadBalancers.accessToken", "Replaces `accessToken`."),
    (
        "sharedNames",
        "Allows users or groups of two issuers to have the same name.",
    ),
    (
        "publicKeys",
        "[Key servers](#key-servers) of the load balancers.",
    ),
    (
        "publicKeys.endpoint",
        "URL. The key id is appended as one path segment. Default: AWS's key server.",
    ),
    (
        "publicKeys.cluster",
        "Envoy cluster of `endpoint`. Default: Istio's name, `outbound|PORT||HOST`.",
    ),
    (
        "publicKeys.timeoutMs",
        "Deadline of one fetch, in milliseconds. A request waits at most three times as long.",
    ),
    (
        "publicKeys.cacheTtlSeconds",
        "TTL of a fetched key, [withdrawn keys](operations.md#withdrawn-keys) included.",
    ),
    (
        "clockSkewSeconds",
        "A token is valid until this many seconds after its `exp`.",
    ),
    ("userId", "Maps claims to the [user id](#user-id)."),
    (
        "userId.claims",
        "The first non-empty string is the user id. `a.b` is the claim `a.b`, or else member `b` \
         of `a`.",
    ),
    ("userId.header", "Request header of the user id."),
    ("userId.prefix", "Added after the transformers."),
    (
        "userId.lowercase",
        "Converts ASCII letters before the transformers. Kubernetes RBAC is case-sensitive.",
    ),
    (
        "userId.requireVerifiedEmail",
        "Denies users whose `email_verified` is neither `true` nor `\"true\"`.",
    ),
    (
        "userId.provider",
        "Provider of a Cognito user pool. Each `identities[].providerName`, and `username` \
         before its first `_`, must equal it.",
    ),
    (
        "userId.transformers",
        "The first one that matches replaces all its matches. The others are not tried.",
    ),
    (
        "userId.transformers.matches",
        "Regex, not anchored: [syntax](https://docs.rs/regex-lite/0.1/regex_lite/#syntax).",
    ),
    (
        "userId.transformers.replaces",
        "`$1` and `${1}` are capture groups, `$$` is a dollar sign.",
    ),
    (
        "groups",
        "Maps claims to [groups](#forms-of-a-groups-claim).",
    ),
    (
        "groups.claims",
        "The user has the groups of all these claims.",
    ),
    (
        "groups.separator",
        "Separates names in a claim that is a string.",
    ),
    (
        "groups.members",
        "Accepts an object (`keys`), or an array of objects with a `name`.",
    ),
    (
        "groups.decode",
        "Second encoding. `form`: names are form-encoded. `json`: the only element of an array is \
         a JSON array. Not for the access token.",
    ),
    (
        "groups.transformers",
        "As `userId.transformers`, for each group, before `keep` and `prefix`.",
    ),
    ("groups.transformers.matches", "Regex, not anchored."),
    ("groups.transformers.replaces", "Replacement of each match."),
    (
        "groups.header",
        "Request header of the groups, joined by commas. Absent without groups.",
    ),
    ("groups.prefix", "Added before each group, such as `oidc:`."),
    (
        "groups.keep",
        "Regex, not anchored. Keeps only groups that match without prefix.",
    ),
    (
        "groups.memberHeaderPrefix",
        "Adds a [header for each group](#member-headers). Ends with `-`.",
    ),
    (
        "claimHeaders",
        "[Claims with a header](#claim-headers) of their own.",
    ),
    ("claimHeaders.claim", "As in `userId.claims`."),
    (
        "claimHeaders.header",
        "Absent if the token has no such claim.",
    ),
    (
        "claimHeaders.encoding",
        "Percent-encodes the value, for applications that reject UTF-8.",
    ),
    (
        "accessToken",
        "Verifies the provider's [access token](#access-token) too.",
    ),
    ("accessToken.issuer", "Compared with its `iss`."),
    (
        "accessToken.subject",
        "Claim that must equal `sub` of the load balancer's token. Users must not be able to \
         write it.",
    ),
    (
        "accessToken.jwksUri",
        "URL of its JWKS. Default: `issuer` and `/.well-known/jwks.json`.",
    ),
    (
        "accessToken.jwksCluster",
        "Envoy cluster of `jwksUri`. Default: `outbound|PORT||HOST`.",
    ),
    (
        "rules",
        "The first rule that matches decides. Without a match, every user may pass.",
    ),
    (
        "rules.match",
        "Every given condition must match. Empty: every request.",
    ),
    (
        "rules.match.hosts",
        "Without port. `*.example.com` matches every host below.",
    ),
    (
        "rules.match.paths",
        "Without query. Each has one of the four patterns below.",
    ),
    ("rules.match.paths.exact", "This path only."),
    (
        "rules.match.paths.prefix",
        "Start of the path. With `require: none` or `optional`, whole segments: not \
         `/public.json` for `/public`.",
    ),
    ("rules.match.paths.suffix", "End of the path."),
    (
        "rules.match.paths.regex",
        "Not anchored: write `^` and `$`. [Limits](#regexes).",
    ),
    ("rules.match.methods", "In upper case."),
    (
        "rules.match.issuers",
        "Users of these issuers only. Such a rule needs a token.",
    ),
    (
        "rules.require",
        "Whether requests need a token: [Rules](#rules).",
    ),
    (
        "rules.allow",
        "Users who may pass: one match is enough. Others get 403. Default: every user.",
    ),
    ("rules.allow.users", "User ids, prefix included."),
    (
        "rules.allow.domains",
        "Domains of `email`, in any letter case; `*.example.com` for those below. \
         Never matches if `email_verified` is present and not true.",
    ),
    (
        "rules.allow.groups",
        "Groups, prefix included. Needs `groups`.",
    ),
    (
        "logout",
        "[Sign-out](#sign-out). Needs both `path` and `redirectTo`, or neither.",
    ),
    (
        "logout.path",
        "Without query: letters, digits, `-`, `.`, `_`, `~` and `/`.",
    ),
    (
        "logout.redirectTo",
        "https URL of the provider's sign-out. http only for `localhost` and `127.0.0.1`.",
    ),
    (
        "logout.sessionCookie",
        "Cookie names of the listener rules. They and `AWSALBAuthNonce` are removed from requests, \
         even without `path`.",
    ),
    (
        "pages",
        "Text of the [page](operations.md#page-of-a-denied-request) of a denied request.",
    ),
    ("pages.title", "Name of the site, above the heading."),
    (
        "pages.contact",
        "E-mail address or https URL. Default: \"your administrator\".",
    ),
    (
        "upgrades",
        "Accepted [protocol upgrades](#upgrades), in any letter case.",
    ),
    (
        "reservedHeaders",
        "Headers that the filter removes, aliases and trailers included. Not those of HTTP, \
         Envoy and the load balancer.",
    ),
    (
        "forward",
        "Headers and cookies of the load balancer that applications receive.",
    ),
    (
        "forward.oidcData",
        "`x-amzn-oidc-data`, and `x-amzn-oidc-identity` if it equals the verified `sub`.",
    ),
    (
        "forward.accessToken",
        "`x-amzn-oidc-accesstoken`. Without `accessToken`, it is not verified.",
    ),
    (
        "forward.sessionCookies",
        "The session cookies. An application that has them can act as the user.",
    ),
    (
        "forward.pathOverrides",
        "Keeps the headers of [Path overrides](#path-overrides).",
    ),
    (
        "accessLog",
        "Fields of the [access log](monitoring.md#access-log).",
    ),
    (
        "accessLog.user",
        "Writes an admitted user id into the filter state `wasm.alb_oidc_user`.",
    ),
    (
        "mode",
        "`report` admits denied requests without an identity: [Report mode](#report-mode).",
    ),
];
