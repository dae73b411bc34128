//! Describes a valid config in words. Validates nothing.

use alb_oidc_filter::{
    Access, AccessRules, AccessTokenRules, Allow, ClaimHeader, Config, Decode, Forward,
    GroupClaimRules, GroupRules, IdentityRules, Members, PathPattern, Rule, SignOut, Transformer,
    UserIdRules,
};

use crate::input::PluginConfig;

/// Sentences that describe what the filter will do.
pub(super) fn words(plugin: &PluginConfig, config: &Config) -> Vec<String> {
    let mut words = tokens_in_words(plugin, config);
    words.push(user_id_in_words(&config.users.identity));
    words.extend(groups_in_words(&config.users.identity));
    words.extend(claims_in_words(config));
    words.extend(overrides_in_words(config));
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
        let issuer = load_balancer
            .issuer
            .as_deref()
            .map_or("ANY issuer".to_owned(), |issuer| format!("issuer {issuer}"));
        let client = load_balancer
            .client_id
            .as_deref()
            .map_or("ANY client".to_owned(), |id| format!("client {id}"));
        words.push(format!(
            "trusts tokens of {}, {issuer}, {client}",
            load_balancer.arn
        ));
    }
    for source in &config.key_sources {
        let url = plugin.key_url(source, "KID");
        words.push(format!(
            "fetches keys from {url} through the Envoy cluster {}",
            source.cluster
        ));
    }
    if let Some(AccessTokenRules {
        issuer, subject, ..
    }) = &config.users.access_token
    {
        words.push(format!(
            "requires a valid access token of {issuer} for the same user, by its claim `{subject}`; its claims are named `access:CLAIM`"
        ));
    }
    words.push(format!(
        "accepts a token until {} s after its `exp`",
        config.clock_skew.as_secs()
    ));
    words
}

fn user_id_in_words(identity: &IdentityRules) -> String {
    let UserIdRules {
        claims,
        prefix,
        lowercase,
        require_verified_email,
        provider,
        transformers,
    } = &identity.user_id;
    let mut user_id = format!("takes the user id from {}", alternatives(claims));
    if *require_verified_email {
        user_id += " (verified emails only)";
    } else if claims.iter().any(|claim| claim == "email") {
        user_id += " (verified or not)";
    }
    if let Some(provider) = provider {
        user_id += &format!(", only for users of the provider {provider}");
    }
    if *lowercase {
        user_id += ", in lower case";
    }
    user_id += &transformers_in_words(transformers);
    if !prefix.is_empty() {
        user_id += &format!(", with the prefix `{prefix}`");
    }
    format!(
        "{user_id}, and sends it in the header {}",
        identity.user_id_header
    )
}

fn transformers_in_words(transformers: &[Transformer]) -> String {
    let each = transformers
        .iter()
        .map(|Transformer { matches, replaces }| {
            if replaces.is_empty() {
                format!("`{matches}` removed")
            } else {
                format!("`{matches}` replaced by `{replaces}`")
            }
        });
    let each: Vec<_> = each.collect();
    match each.as_slice() {
        [] => String::new(),
        [one] => format!(", with {one}"),
        several => format!(", changed by the first match of: {}", several.join("; ")),
    }
}

/// The overrides for users of single load balancers.
fn overrides_in_words(config: &Config) -> Vec<String> {
    let mut words = Vec::new();
    for (load_balancer, rules) in config.load_balancers.iter().zip(&config.overrides) {
        let Some(rules) = rules else { continue };
        let issuer = load_balancer.issuer.as_deref().unwrap_or("any issuer");
        let of = format!("for users of {} and {issuer}", load_balancer.arn);
        let identity = &rules.identity;
        words.push(format!("{of}: {}", user_id_in_words(identity)));
        words.extend(
            groups_in_words(identity)
                .iter()
                .map(|words| format!("{of}: {words}")),
        );
        if let Some(AccessTokenRules {
            issuer, subject, ..
        }) = &rules.access_token
        {
            words.push(format!(
                "{of}: requires an access token of {issuer}, whose `{subject}` is the user's `sub`"
            ));
        }
    }
    words
}

fn groups_in_words(identity: &IdentityRules) -> Vec<String> {
    let Some(groups) = &identity.groups else {
        return vec!["sends no groups, and strips those that a client sends".to_owned()];
    };
    let GroupRules {
        claims,
        form,
        transformers,
        header,
        prefix,
        keep,
        member_header_prefix,
    } = groups;
    let claims: Vec<_> = claims.iter().map(|claim| format!("`{claim}`")).collect();
    let mut text = format!("takes groups from {}", claims.join(" and "));
    text += &transformers_in_words(transformers);
    if let Some(keep) = keep {
        text += &format!(", only those that match `{keep}`");
    }
    if !prefix.is_empty() {
        text += &format!(", with the prefix `{prefix}`");
    }
    text += &format!(", and sends them in the header {header}");
    if let Some(prefix) = member_header_prefix {
        text += &format!(" and each in a header {prefix}GROUP");
    }
    let GroupClaimRules {
        separator,
        members,
        decode,
    } = form;
    let members = members.map(|members| match members {
        Members::Keys => ", from the keys of objects",
        Members::Name => ", from the `name` of objects",
    });
    let decode = decode.map(|decode| match decode {
        Decode::Form => ", after form decoding",
        Decode::Json => ", from JSON in a string",
    });
    let form = format!(
        "reads groups separated by `{separator}`{}{}",
        members.unwrap_or_default(),
        decode.unwrap_or_default()
    );
    vec![text, form]
}

fn claims_in_words(config: &Config) -> Vec<String> {
    let claims = config.users.identity.claim_headers.iter().map(
        |ClaimHeader {
             claim,
             header,
             is_percent_encoded,
         }| {
            let encoded = if *is_percent_encoded {
                ", percent-encoded,"
            } else {
                ""
            };
            format!("sends the claim `{claim}`{encoded} in the header {header}")
        },
    );
    let reserved = &config.reserved_headers;
    let reserved =
        (!reserved.is_empty()).then(|| format!("also strips the client's {}", reserved.join(", ")));
    claims.chain(reserved).collect()
}

fn rules_in_words(config: &Config) -> Vec<String> {
    let rules = &config.access.rules;
    let others = if rules.is_empty() {
        "lets any user with such a token make every request"
    } else {
        "lets any user with such a token make all other requests"
    };
    let limit = config.access.longest_path();
    let paths = (limit < AccessRules::default().longest_path()).then(|| {
        format!("applies every rule to paths over {limit} bytes, and to shorter ones with several normalized forms, because regexes cost time")
    });
    let each = rules.iter().enumerate();
    let each =
        each.map(|(position, rule)| format!("by rules[{position}], {}", rule_in_words(rule)));
    each.chain([others.to_owned()]).chain(paths).collect()
}

fn session_in_words(config: &Config) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(SignOut { path, redirect_to }) = &config.sign_out {
        words.push(format!(
            "signs users out at {path}, and redirects them to {redirect_to}"
        ));
    }
    let names = config.session_cookies.configured().iter();
    words.extend(names.map(|name| {
        format!("treats cookies named {name} and {name}-N as the load balancer's session")
    }));
    words
}

fn forward_in_words(config: &Config) -> String {
    let Forward {
        oidc_data,
        access_token,
        session_cookies,
        path_overrides,
    } = config.forward;
    let shown: Vec<_> = [
        (oidc_data, "x-amzn-oidc-data"),
        (
            access_token && config.reads_access_tokens(),
            "x-amzn-oidc-accesstoken",
        ),
        (
            access_token && !config.reads_access_tokens(),
            "x-amzn-oidc-accesstoken (not verified)",
        ),
        (session_cookies, "the load balancer's session cookies"),
        (path_overrides, "headers that override the path or method"),
    ]
    .into_iter()
    .filter_map(|(shown, what)| shown.then_some(what))
    .collect();
    match shown.as_slice() {
        [] => "hides the load balancer's tokens and session cookies from upstream".to_owned(),
        shown => format!("forwards {} to upstream", shown.join(", ")),
    }
}

fn upgrades_in_words(config: &Config) -> String {
    match config.upgrades.allowed.as_slice() {
        [] => "denies every protocol upgrade, including WebSockets".to_owned(),
        allowed => format!("denies protocol upgrades other than {}", allowed.join(", ")),
    }
}

fn denials_in_words(config: &Config) -> String {
    if config.report_only {
        "REPORTS ONLY: counts and logs requests to deny, but forwards them without a user id"
            .to_owned()
    } else {
        "denies everything else with 401, 403 or 503".to_owned()
    }
}

fn alternatives(claims: &[String]) -> String {
    let claims: Vec<_> = claims.iter().map(|claim| format!("`{claim}`")).collect();
    match claims.as_slice() {
        [one] => format!("the claim {one}"),
        several => format!("the first present claim of {}", several.join(", ")),
    }
}

fn rule_in_words(rule: &Rule) -> String {
    let Rule {
        hosts,
        paths,
        methods,
        issuers,
        access,
    } = rule;
    let list = |what: &str, names: &[String]| {
        (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
    };
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path_in_words(path, access.opens()))
        .collect();
    let about = [
        list("for", methods),
        list("to", hosts),
        list("at", &paths),
        list("of users of", issuers),
    ];
    let about: Vec<_> = about.into_iter().flatten().collect();
    let about = if about.is_empty() {
        "everything".to_owned()
    } else {
        format!("requests {}", about.join(" "))
    };
    match access {
        Access::Open => format!("lets {about} pass without a token or a user id"),
        Access::Optional => {
            format!("lets {about} pass without a token, and with the user id of a valid one")
        }
        Access::AnyUser => format!("lets any user make {about}"),
        Access::Allow(Allow {
            users,
            domains,
            groups,
        }) => {
            let who = [
                list("users", users),
                list("email domains", domains),
                list("groups", groups),
            ];
            format!(
                "lets only {} make {about}",
                who.into_iter().flatten().collect::<Vec<_>>().join(" or ")
            )
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
