//! Tests of the rules: matching of hosts, paths and users, and the regex budget.

use super::*;

fn rule(paths: &[PathPattern], access: Access) -> Rule {
    Rule {
        hosts: Vec::new(),
        paths: paths.to_vec(),
        methods: Vec::new(),
        issuers: Vec::new(),
        access,
    }
}

fn prefix(text: &str) -> PathPattern {
    PathPattern::Prefix(text.to_owned())
}

fn admins() -> Access {
    Access::Allow(Allow {
        users: Vec::new(),
        domains: Vec::new(),
        groups: vec!["admins".to_owned()],
    })
}

fn head(path: &'static str) -> RequestHead<'static> {
    RequestHead::new(vec![
        (b":method", b"GET"),
        (b":authority", b"a.example:443"),
        (b":path", path.as_bytes()),
    ])
}

/// The demand of each form of the path, for a user of any issuer.
fn accesses(rules: &AccessRules, path: &'static str) -> Vec<Access> {
    let demands = rules.requirement(&head(path)).0;
    let accesses = demands.iter().map(|demand| demand.access_for(None));
    accesses.cloned().collect()
}

fn identity(user_id: &str, domain: Option<&str>, groups: &[&str]) -> Identity {
    Identity {
        load_balancer: 0,
        user_id: user_id.to_owned(),
        email_domain: domain.map(str::to_owned),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        subject: None,
        headers: Vec::new(),
        dropped: 0,
    }
}

#[test]
fn without_rules_any_user_may_pass() {
    let rules = AccessRules::default();
    let requirement = rules.requirement(&head("/"));
    assert!(!requirement.is_open() && requirement.admits(&identity("ann", None, &[]), None));
}

#[test]
fn first_matching_rule_decides() {
    let rules = AccessRules {
        rules: vec![
            rule(&[prefix("/a/b")], Access::AnyUser),
            rule(&[prefix("/a")], admins()),
        ],
    };
    assert_eq!(accesses(&rules, "/a/b/c?/x"), [Access::AnyUser]);
    assert_eq!(accesses(&rules, "/a/c?x=/a/b"), [admins()]);
    assert_eq!(accesses(&rules, "/c"), [Access::AnyUser]);
}

#[test]
fn open_rule_opens_no_protected_path() {
    let rules = AccessRules {
        rules: vec![rule(&[prefix("/public")], Access::Open)],
    };
    assert!(rules.requirement(&head("/public/x.css?y=..")).is_open());
    for path in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/%2E%2e%2fadmin",
        "/public/%252e%252e/admin",
        "/public/..;/admin",
        "/public/..;x=1/admin",
        "/public;/../admin",
        "/public/..\\admin",
        "/public/..%5cadmin",
        "/public//../../admin",
        "/./admin",
        "/admin/..;/public",
        "/PUBLIC/x",
        "/public%2f..%2fadmin",
        "/public/%25252e%25252e/admin",
        "/public/%2e%2e%3b/admin",
        "/x/../public/y/../../admin",
        "/public/a%2fb/%2e%2e/%2e%2e/admin",
        "/public/;%2fx/%2e%2e/admin",
        "/public/;%252fx/%252e%252e/admin",
        "/public/#/../../admin",
        "/public/%2525252e%2525252e/admin",
        "/public/%c0%ae%c0%ae/admin",
        "/public/..%00/admin",
        "/public/.%09./admin",
        "/public/x%0a",
        "/",
        "",
        "*",
    ] {
        assert!(!rules.requirement(&head(path)).is_open(), "{path}");
    }
}

#[test]
fn open_prefix_ends_at_a_segment() {
    let open = |text| AccessRules {
        rules: vec![rule(&[prefix(text)], Access::Open)],
    };
    for (text, path, expected) in [
        ("/public", "/public", true),
        ("/public", "/public?x", true),
        ("/public", "/public/", true),
        ("/public", "/public/a/b.css", true),
        ("/public", "/public//a", true),
        ("/public", "/public/a;x/b", true),
        ("/public", "/publicity", false),
        ("/public", "/public.json", false),
        ("/public", "/public..", false),
        ("/public", "/public../admin", false),
        ("/public", "/public%2e%2e/admin", false),
        ("/public", "/public%252e./admin", false),
        ("/public", "/public..;x/admin", false),
        ("/public", "/public..\\admin", false),
        ("/public", "/public;x", false),
        ("/public", "/public%2fa", false),
        ("/public/", "/public/a", true),
        ("/public/", "/public/", true),
        ("/public/", "/public", false),
        ("/public/", "/public..", false),
        ("/", "/a", true),
        ("/", "/", true),
    ] {
        assert_eq!(
            open(text).requirement(&head(path)).is_open(),
            expected,
            "{text} {path}"
        );
    }
}

#[test]
fn protecting_prefix_ends_anywhere() {
    let rules = AccessRules {
        rules: vec![
            rule(&[prefix("/admin")], admins()),
            rule(&[prefix("/")], Access::Open),
        ],
    };
    for path in [
        "/admin",
        "/admin/",
        "/admin.json",
        "/administrator",
        "/admin..",
        "/admin;x",
        "/x/../admin.json",
    ] {
        assert!(
            !rules
                .requirement(&head(path))
                .admits(&identity("ann", None, &[]), None),
            "{path}"
        );
    }
}

/// A route may replace `/public/a` with `/app/`.
#[test]
fn rules_open_no_path_with_hidden_parent() {
    let regex = PathPattern::Regex(PathRegex::new("^/public/").unwrap());
    let suffix = PathPattern::Suffix("/admin".to_owned());
    for pattern in [
        prefix("/public"),
        suffix,
        regex,
        PathPattern::Exact("/public/a../admin".to_owned()),
    ] {
        let rules = AccessRules {
            rules: vec![rule(&[pattern], Access::Open)],
        };
        for path in [
            "/public/a../admin",
            "/public/a%2e./admin",
            "/public/a..;x/admin",
            "/public/a..%5cadmin",
        ] {
            let requirement = rules.requirement(&head(path));
            assert!(
                !requirement.is_open() && requirement.admits(&identity("ann", None, &[]), None),
                "{path}"
            );
        }
    }
    let rules = [
        rule(&[prefix("/public")], Access::Open),
        rule(&[prefix("/admin")], admins()),
    ]
    .to_vec();
    let requirement = AccessRules { rules };
    let requirement = requirement.requirement(&head("/public/a../admin"));
    assert!(
        !requirement.admits(&identity("ann", None, &[]), None)
            && requirement.admits(&identity("ann", None, &["admins"]), None)
    );
    let rules = AccessRules {
        rules: vec![rule(&[prefix("/public")], Access::Open)],
    };
    assert!(
        rules
            .requirement(&head("/public/a..b/..c/...d/./x"))
            .is_open()
    );
}

#[test]
fn spelling_does_not_bypass_a_rule() {
    let rules = AccessRules {
        rules: vec![rule(&[prefix("/admin")], admins())],
    };
    for path in [
        "//admin/../x",
        "/%2fadmin/%2e%2e/x",
        "//x/admin",
        "/\\x/admin",
        "/a%2fb/%2e%2e/admin",
        "/x;%2fy/%2e%2e/admin",
        "/a%2fb/../%61dmin",
        "/admin%00.css",
        "/admin%0a",
        "*",
        "/admin",
        "/Admin",
        "/ADMIN/x",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/%2561dmin",
        "/x/..;/admin",
        "/;a=b/admin",
        "/x/%2e%2e/admin",
        "\\admin",
        "/x\\..\\admin",
        "/admin;x",
        "/%2fadmin",
        "/a/b/../../admin?x",
        "/admin#x",
        "/admin%3fx",
    ] {
        assert!(
            !rules
                .requirement(&head(path))
                .admits(&identity("ann", None, &["users"]), None),
            "{path}"
        );
        assert!(
            rules
                .requirement(&head(path))
                .admits(&identity("ann", None, &["admins"]), None),
            "{path}"
        );
    }
    assert!(
        rules
            .requirement(&head("/adm"))
            .admits(&identity("ann", None, &[]), None)
    );
}

#[test]
fn empty_segments_are_kept_and_merged() {
    let rules = AccessRules {
        rules: vec![rule(&[prefix("/api/admin")], admins())],
    };
    for path in [
        "/api//../admin",
        "/api/x/..//admin",
        "//api/admin",
        "//host/api/admin",
    ] {
        assert!(
            !rules
                .requirement(&head(path))
                .admits(&identity("ann", None, &[]), None),
            "{path}"
        );
    }
}

#[test]
fn unreadable_request_must_satisfy_every_rule() {
    let mut of_a_host = rule(&[prefix("/x")], admins());
    of_a_host.hosts = vec!["argocd.example".to_owned()];
    let rules = AccessRules {
        rules: vec![rule(&[prefix("/public")], Access::Open), of_a_host],
    };
    let long = format!("/public/{}/%2e", "a".repeat(MAX_FORM_BYTES / 2));
    let many = "//h;a/%2e%2e/b%2f..;/c\\d//%252e%252e/e%253bf/./g%5c..%2f;h";
    assert!(normal_forms(many, usize::MAX).is_none());
    for (authority, path) in [
        ("x@argocd.example", "/public"),
        ("argocd.example:443:80", "/public"),
        ("argocd.example..", "/public"),
        ("argocd.example,b", "/public"),
        ("argocd.example b", "/public"),
        ("", "/public"),
        ("a.example", "/public/%00"),
        ("a.example", &long),
        ("a.example", many),
        ("a.example", "/public/%2525252e"),
    ] {
        let head: Vec<(&[u8], &[u8])> = vec![
            (b":authority", authority.as_bytes()),
            (b":path", path.as_bytes()),
        ];
        let head = RequestHead::new(head);
        let requirement = rules.requirement(&head);
        assert!(!requirement.is_open(), "{authority} {path}");
        assert!(
            !requirement.admits(&identity("ann", None, &["users"]), None),
            "{authority} {path}"
        );
        assert!(
            requirement.admits(&identity("ann", None, &["admins"]), None),
            "{authority} {path}"
        );
    }
}

#[test]
fn skips_regexes_on_a_path_that_is_too_long() {
    let regex = |text: &str| PathPattern::Regex(PathRegex::new(text).unwrap());
    let mut elsewhere = rule(&[regex("^/a[0-9]{1,20}$")], Access::Open);
    elsewhere.hosts = vec!["b.example".to_owned()];
    let open = rule(&[regex("^/[a-z]{1,12}[a-z]*$")], Access::Open);
    let rules = AccessRules {
        rules: vec![elsewhere, open, rule(&[prefix("/admin")], admins())],
    };
    let most = MAX_REGEX_WORK / rules.rules[1].regex_size() - FORM_OVERHEAD;
    assert!((256..2000).contains(&most), "{most} bytes");
    let of = |host: &str, bytes: usize| {
        let path = format!("/{}", "a".repeat(bytes - 1));
        let head = RequestHead::new(vec![
            (b":authority", host.as_bytes()),
            (b":path", path.as_bytes()),
        ]);
        (
            rules.requirement(&head).is_open(),
            rules
                .requirement(&head)
                .admits(&identity("ann", None, &[]), None),
        )
    };
    // Rules of another host do not count.
    assert!(rules.longest_path() < most);
    assert_eq!(of("a.example", most), (true, true));
    assert_eq!(of("a.example", most + 1), (false, false));
    assert_eq!(of("b.example", most), (false, false));
    assert_eq!(of("b.example", rules.longest_path()), (true, true));
}

#[test]
fn only_open_rules_compare_the_case_of_methods() {
    let of = |access| {
        let mut rule = rule(&[], access);
        rule.methods = vec!["DELETE".to_owned()];
        AccessRules { rules: vec![rule] }
    };
    let head = RequestHead::new(vec![
        (b":method", b"delete"),
        (b":authority", b"a"),
        (b":path", b"/"),
    ]);
    assert!(
        !of(admins())
            .requirement(&head)
            .admits(&identity("ann", None, &[]), None)
    );
    assert!(!of(Access::Open).requirement(&head).is_open());
}

#[test]
fn matches_exact_prefix_suffix_and_regex() {
    let regex = |text: &str| PathPattern::Regex(PathRegex::new(text).unwrap());
    for (pattern, open, closed) in [
        (PathPattern::Exact("/a".to_owned()), "/a?b", "/a/"),
        (prefix("/a"), "/a/b", "/b/a"),
        (
            PathPattern::Suffix(".css".to_owned()),
            "/a/b.css",
            "/a.css/b",
        ),
        (regex("^/v[0-9]+/health$"), "/v12/health", "/v12/health/x"),
    ] {
        let rules = AccessRules {
            rules: vec![rule(&[pattern], Access::Open)],
        };
        assert!(rules.requirement(&head(open)).is_open(), "{open}");
        assert!(!rules.requirement(&head(closed)).is_open(), "{closed}");
    }
}

#[test]
fn compares_hosts_without_case_port_and_dot() {
    for (authority, expected) in [
        ("A.Example:443", "a.example"),
        ("a.example.", "a.example"),
        ("a.example.:80", "a.example"),
        ("[::1]:80", "[::1]"),
    ] {
        assert_eq!(canonical_host(authority).as_deref(), Some(expected));
    }
    assert!(is_within("b.a.example", "*.a.example") && is_within("a.example", "a.example"));
    assert!(
        !is_within("a.example", "*.a.example")
            && !is_within("xa.example", "*.a.example")
            && !is_within("x.a.example.evil", "*.a.example")
    );
}

#[test]
fn selects_rules_by_host_and_method() {
    let mut open = rule(&[], Access::Open);
    open.hosts = vec!["*.example".to_owned()];
    open.methods = vec!["GET".to_owned()];
    let rules = AccessRules {
        rules: vec![open.clone()],
    };
    assert!(rules.requirement(&head("/")).is_open());
    open.methods = vec!["OPTIONS".to_owned()];
    assert!(
        !AccessRules { rules: vec![open] }
            .requirement(&head("/"))
            .is_open()
    );
}

#[test]
fn admits_by_user_domain_or_group() {
    let allow = Allow {
        users: vec!["ann".to_owned()],
        domains: vec!["example.com".to_owned(), "*.example.org".to_owned()],
        groups: vec!["admins".to_owned()],
    };
    for (user, domain, groups, admitted) in [
        ("ann", None, &[][..], true),
        ("Ann", None, &[], false),
        ("bob", Some("example.com"), &[], true),
        ("bob", Some("eu.example.org"), &[], true),
        ("bob", Some("example.org"), &[], false),
        ("bob", Some("evil-example.com"), &["users", "admins"], true),
        ("bob", Some("evil-example.com"), &["admins,x"], false),
    ] {
        assert_eq!(
            allow.admits(&identity(user, domain, groups)),
            admitted,
            "{user} {domain:?} {groups:?}"
        );
    }
}

#[test]
fn passes_without_token_if_every_form_is_optional() {
    let rules = AccessRules {
        rules: vec![
            rule(&[prefix("/admin")], admins()),
            rule(&[prefix("/open")], Access::Open),
            rule(&[prefix("/maybe")], Access::Optional),
        ],
    };
    let of = |path: &'static str| {
        let head = head(path);
        let requirement = rules.requirement(&head);
        (requirement.is_open(), requirement.is_optional())
    };
    assert_eq!(of("/open/a"), (true, true));
    assert_eq!(of("/maybe"), (false, true));
    assert_eq!(of("/maybe/a"), (false, true));
    // A prefix that opens ends at a segment.
    assert_eq!(of("/maybes"), (false, false));
    // Every normalized form of the path must be open or optional.
    assert_eq!(of("/maybe/../open/a"), (false, true));
    assert_eq!(of("/maybe/..%2fadmin"), (false, false));
    assert_eq!(of("/other"), (false, false));
}

#[test]
fn a_rule_for_an_issuer_applies_to_its_users_only() {
    let mut of_partner = rule(&[prefix("/admin")], Access::AnyUser);
    of_partner.issuers = vec!["https://partner.example".to_owned()];
    let rules = AccessRules {
        rules: vec![
            of_partner,
            rule(&[prefix("/admin")], admins()),
            rule(&[prefix("/")], Access::Open),
        ],
    };
    let admits = |path: &'static str, issuer: Option<&str>| {
        let head = head(path);
        let requirement = rules.requirement(&head);
        assert!(
            !requirement.is_open() && !requirement.is_optional(),
            "{path}"
        );
        requirement.admits(&identity("ann", None, &[]), issuer)
    };
    assert!(admits("/admin", Some("https://partner.example")));
    for issuer in [
        None,
        Some("https://other.example"),
        Some("https://partner.example/"),
    ] {
        assert!(!admits("/admin", issuer), "{issuer:?}");
    }
    // A request without a token names no issuer: the rule that opens does not apply to it.
    let mut restricted = rule(&[], Access::AnyUser);
    restricted.issuers = vec!["https://partner.example".to_owned()];
    let rules = AccessRules {
        rules: vec![restricted, rule(&[prefix("/")], Access::Open)],
    };
    let head = head("/a");
    assert!(!rules.requirement(&head).is_open());
}
