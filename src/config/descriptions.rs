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
        "ARN of the Application Load Balancer. Compared with `signer` of the JOSE header.",
    ),
    (
        "loadBalancers.issuer",
        "Compared with `iss` of the token, byte for byte.",
    ),
    (
        "loadBalancers.clientId",
        "Compared with `client` of the JOSE header.",
    ),
    (
        "loadBalancers.userId",
        "Overrides fields of `userId` for this entry, except `header`: [Several issuers](#several-issuers).",
    ),
    (
        "loadBalancers.groups",
        "Overrides fields of `groups` for this entry, except `header` and `memberHeaderPrefix`.",
    ),
    (
        "loadBalancers.accessToken",
        "Replaces `accessToken` for this entry.",
    ),
    (
        "sharedNames",
        "Allows users or groups of two issuers to have the same name.",
    ),
    (
        "publicKeys",
        "The key servers of the load balancers: [Key servers](#key-servers).",
    ),
    (
        "publicKeys.endpoint",
        "URL. The key id is appended as one path segment. Default: the key server that AWS documents for the region of each ARN.",
    ),
    (
        "publicKeys.cluster",
        "Envoy cluster of the endpoint. Default: Istio's name for it, `outbound|PORT||HOST`.",
    ),
    (
        "publicKeys.timeoutMs",
        "Deadline of one fetch, in milliseconds. A request waits for a key at most three times as long.",
    ),
    (
        "publicKeys.cacheTtlSeconds",
        "TTL of a fetched key: [Key servers](#key-servers).",
    ),
    (
        "clockSkewSeconds",
        "A token is valid until this many seconds after its `exp`.",
    ),
    ("userId", "Maps claims to the user id."),
    (
        "userId.claims",
        "The first of these claims that is a non-empty string is the user id. `a.b` is the member `b` of the claim `a`; a claim named `a.b` has precedence.",
    ),
    (
        "userId.header",
        "Request header of the user id. The filter removes a client's own, aliases included.",
    ),
    (
        "userId.prefix",
        "Added before the user id, after the transformers.",
    ),
    (
        "userId.lowercase",
        "Converts ASCII letters to lower case, before the transformers. Kubernetes RBAC compares letter case.",
    ),
    (
        "userId.requireVerifiedEmail",
        "Denies users whose `email_verified` is neither `true` nor `\"true\"`.",
    ),
    (
        "userId.provider",
        "Name of one identity provider of a Cognito user pool. Each `identities[].providerName`, and the part of `username` before its first `_`, must equal it. It has no `_`.",
    ),
    (
        "userId.transformers",
        "Regex replacements. The first one that matches the user id replaces all its matches; the others are not tried.",
    ),
    (
        "userId.transformers.matches",
        "Regex, not anchored: [syntax](https://docs.rs/regex-lite/0.1/regex_lite/#syntax).",
    ),
    (
        "userId.transformers.replaces",
        "Replacement of each match. `$1` and `${1}` are capture groups, `$$` is a dollar sign.",
    ),
    (
        "groups",
        "Maps claims to groups. Default: no groups. The filter removes a client's own `kubeflow-groups` in any case.",
    ),
    (
        "groups.claims",
        "The user's groups are those of all these claims: [Forms of a groups claim](#forms-of-a-groups-claim).",
    ),
    (
        "groups.separator",
        "Separates names in a claim that is a string.",
    ),
    (
        "groups.members",
        "Accepts objects: `keys` takes the keys of an object, `name` takes the `name` of each object in an array.",
    ),
    (
        "groups.decode",
        "A second encoding inside the claim. `form`: each name is form-encoded, as in multi-valued SAML attributes of Cognito. `json`: the only element of an array is a JSON array as a string, as in Entra ID v1. Does not apply to the access token.",
    ),
    (
        "groups.transformers",
        "As `userId.transformers`, for each group name. Applied before `keep` and `prefix`.",
    ),
    ("groups.transformers.matches", "Regex, not anchored."),
    ("groups.transformers.replaces", "Replacement of each match."),
    (
        "groups.header",
        "Request header of the groups, joined by commas. Absent if the user has none.",
    ),
    (
        "groups.prefix",
        "Added before each group name, such as `oidc:`.",
    ),
    (
        "groups.keep",
        "Regex, not anchored. Keeps only groups whose name without prefix matches. Empty: all.",
    ),
    (
        "groups.memberHeaderPrefix",
        "Adds one header for each group, such as `x-kubeflow-group-ml`. Ends with `-`: [Member headers](#member-headers). Empty: none.",
    ),
    (
        "claimHeaders",
        "Claims with a header of their own: [Claim headers](#claim-headers).",
    ),
    ("claimHeaders.claim", "Claim, as in `userId.claims`."),
    (
        "claimHeaders.header",
        "Header. Absent if the token has no such claim.",
    ),
    (
        "claimHeaders.encoding",
        "Percent-encodes the value, for applications that do not accept UTF-8.",
    ),
    (
        "accessToken",
        "Verifies the provider's access token too: [Access token](#access-token).",
    ),
    ("accessToken.issuer", "Compared with its `iss`."),
    (
        "accessToken.subject",
        "Claim of the access token that must equal `sub` of the load balancer's token, byte for byte. Okta: `uid`. Users must not be able to write it.",
    ),
    (
        "accessToken.jwksUri",
        "URL of its JWKS. Default: `accessToken.issuer` and `/.well-known/jwks.json`, as with Cognito.",
    ),
    (
        "accessToken.jwksCluster",
        "Envoy cluster of that URL. Default: `outbound|PORT||HOST`.",
    ),
    (
        "rules",
        "Requests that need a token, and users who may pass. The first rule that matches decides. Without a match, every user may pass: [Rules](#rules).",
    ),
    (
        "rules.match",
        "All conditions below must match. Empty: every request.",
    ),
    (
        "rules.match.hosts",
        "Hosts without port. `*.example.com` matches every host below. Default: every host.",
    ),
    (
        "rules.match.paths",
        "Paths without query, each by one of the four patterns below. Default: every path.",
    ),
    ("rules.match.paths.exact", "Matches this path only."),
    (
        "rules.match.paths.prefix",
        "Matches paths that start with this text. With `require: none` or `optional`, it matches whole segments: `/public` matches `/public/x`, not `/public.json`.",
    ),
    (
        "rules.match.paths.suffix",
        "Matches paths that end with this text.",
    ),
    (
        "rules.match.paths.regex",
        "Regex, not anchored: write `^` and `$`. Its size is limited: [Regexes](#regexes).",
    ),
    (
        "rules.match.methods",
        "Methods, in upper case. Default: every method.",
    ),
    (
        "rules.match.issuers",
        "Matches users of these issuers only. Such a rule needs a token.",
    ),
    (
        "rules.require",
        "`token`: the request needs a token. `none`: it passes without a token and without an identity. `optional`: it passes without a token, and a valid token gives an identity.",
    ),
    (
        "rules.allow",
        "Users who may pass: one match below is enough. Other users get 403. Default: every user.",
    ),
    (
        "rules.allow.users",
        "User ids, as in the header, prefix included.",
    ),
    (
        "rules.allow.domains",
        "Domains of the `email` claim, in any letter case. `*.example.com` matches every domain below. An email whose `email_verified` is present and not true never matches.",
    ),
    (
        "rules.allow.groups",
        "Groups, as in the header, prefix included. Needs `groups`.",
    ),
    (
        "logout",
        "Sign-out at the gateway: [Sign-out](#sign-out). Needs both `path` and `redirectTo`, or neither.",
    ),
    (
        "logout.path",
        "Path of sign-out, without query: letters, digits, `-`, `.`, `_`, `~` and `/`.",
    ),
    (
        "logout.redirectTo",
        "Absolute https URL of the provider's own sign-out. http is accepted for `localhost` and `127.0.0.1`.",
    ),
    (
        "logout.sessionCookie",
        "Session cookie names of the listener rules that lead to the gateway: one name, or an array. These cookies and `AWSALBAuthNonce` are removed from requests, even without `path`.",
    ),
    (
        "pages",
        "Text of the [page](operations.md#page-of-a-denied-request) of a denied request.",
    ),
    ("pages.title", "Name of the site, above the heading."),
    (
        "pages.contact",
        "E-mail address or https URL, shown as a link. Default: \"your administrator\".",
    ),
    (
        "upgrades",
        "Accepted protocol upgrades, in any letter case, such as `websocket` and `SPDY/3.1`. `connect` is the method CONNECT: [Upgrades](#upgrades).",
    ),
    (
        "reservedHeaders",
        "Headers that the filter removes from each request and its trailers, aliases included. For headers that a later filter sets and a route trusts. Headers of HTTP, Envoy and the load balancer, such as `cookie`, are rejected.",
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
        "Keeps the headers of [Path overrides](#path-overrides), which are removed if there are `rules`.",
    ),
    (
        "accessLog",
        "Fields for the [access log](monitoring.md#access-log).",
    ),
    (
        "accessLog.user",
        "Writes the user id of an admitted request into the filter state `wasm.alb_oidc_user`.",
    ),
    (
        "mode",
        "`report` admits requests that would be denied, without an identity, and counts and logs them: [Report mode](#report-mode).",
    ),
];
