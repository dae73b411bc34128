//! Access rules and path normalization: spelling a path differently does not bypass a rule.

use alb_oidc_filter::{Config, Identity, RequestHead, Rule};
use arbitrary::{Result, Unstructured};
use serde_json::{Value, json};
use std::sync::LazyLock;

use crate::judge::access;
use crate::judge::identity as judged;
use crate::mint::{self, ARNS, ISSUERS};
use crate::seeds;

/// The first byte that selects random rules: their number in [`TELLING`].
const RANDOM: u8 = 7;
/// The bytes for random rules.
const RULES: usize = 48;

/// Rules for which the forms of a path matter: few open and few protected paths, with patterns of
/// each kind.
static TELLING: LazyLock<[Value; 7]> = LazyLock::new(|| {
    let admins = json!({"groups": ["admins"]});
    [
        json!([{"match": {"paths": [{"prefix": "/public/"}]}, "require": "none"}]),
        json!([{"match": {"paths": [{"prefix": "/public"}, {"suffix": "/admin"}]}, "require": "none"}]),
        json!([{"match": {"paths": [{"prefix": "/admin"}]}, "allow": admins}, {"match": {"paths": [{"prefix": "/"}]}, "require": "none"}]),
        json!([
            {"match": {"paths": [{"regex": "^/api/+admin"}, {"exact": "/Open"}]}, "allow": admins},
            {"match": {"paths": [{"suffix": ".css"}, {"exact": "/"}, {"regex": "^/v[0-9]+/open$"}]}, "require": "none"},
        ]),
        json!([
            {"match": {"paths": [{"prefix": "/public/"}]}, "require": "none"},
            {"match": {"paths": [{"prefix": "/public"}, {"suffix": "/open"}]}, "require": "optional"},
            {"match": {"methods": ["GET"], "paths": [{"prefix": "/api"}]}, "require": "optional"},
        ]),
        json!([
            {"match": {"issuers": [ISSUERS[1]], "paths": [{"prefix": "/admin"}]}, "allow": admins},
            {"match": {"paths": [{"prefix": "/admin"}, {"prefix": "/public"}]}, "require": "none"},
            {"match": {"issuers": [ISSUERS[0]], "paths": [{"prefix": "/"}]}, "allow": {"users": ["bob"]}},
            {"match": {"paths": [{"suffix": "/open"}]}, "require": "optional"},
        ]),
        json!([{"match": {"paths": [{"suffix": "//"}]}, "allow": admins}]),
    ]
});

/// The paths of the scenarios under these rules; pieces under these and random rules.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut paths = seeds::scenarios(&["path", "paths", "skipped", "exact", "prefix"]);
    for raw in seeds::scenarios(&["raw"]) {
        paths.extend(raw.split(' ').nth(1).map(str::to_owned));
    }
    // Each once bypassed a rule, or could have.
    for path in [
        "/public/a%2fb/%2e%2e/%2e%2e/admin",
        "//host/..;x/%61dmin",
        "/public/..%5cadmin/%252e%252e/",
        "//admin/../x",
        "/public//../../admin",
        "/API/v1/./x",
        "/public../admin",
        "/public/a%2e./admin",
        "/publicity",
        "/admin//.",
        "/admin//x/..",
    ] {
        paths.push(path.to_owned());
    }
    let written = paths
        .iter()
        .flat_map(|path| (0..RANDOM).map(move |rules| [&[rules, 0], path.as_bytes()].concat()));
    let pieced = (0..)
        .zip(seeds::random(120, RULES + 40))
        .map(|(number, bytes)| [&[number % (RANDOM + 1), 1], &bytes[..]].concat());
    written.chain(pieced).collect()
}

/// The first byte selects the rules. The second selects whether the rest is the path, or a choice
/// of pieces.
pub fn run(data: &[u8]) {
    let [choice, kind, rest @ ..] = data else {
        return;
    };
    let choice = choice % (RANDOM + 1);
    let (head, rest) = match choice {
        RANDOM => rest.split_at(RULES.min(rest.len())),
        _ => (&[][..], rest),
    };
    let path = if kind % 2 == 0 {
        Ok(rest.to_vec())
    } else {
        mint::path(&mut Unstructured::new(rest))
    };
    let _ = path.and_then(|path| match TELLING.get(usize::from(choice)) {
        Some(rules) => judge(rules, "GET", "gateway", &path),
        None => {
            let mut head = Unstructured::new(head);
            let (method, authority) = mint::target(&mut head)?;
            judge(
                &mint::rules(&mut head, true, &ISSUERS)?,
                &method,
                &authority,
                &path,
            )
        }
    });
}

fn judge(rules: &Value, method: &str, authority: &str, path: &[u8]) -> Result<()> {
    let config = json!({
        "loadBalancers": [
            {"arn": ARNS[0], "issuer": ISSUERS[0], "clientId": null},
            {"arn": ARNS[0], "issuer": ISSUERS[1], "clientId": null},
            {"arn": ARNS[1], "issuer": "https://third.example", "clientId": null},
        ],
        "sharedNames": true,
        "groups": {},
        "rules": rules,
    });
    let parsed = match Config::parse(config.to_string().as_bytes()) {
        Ok(parsed) => parsed,
        // Too many random regexes.
        Err(mistakes)
            if mistakes
                .iter()
                .all(|mistake| mistake.to_string().contains(" bytes compiled, ")) =>
        {
            return Ok(());
        }
        Err(mistakes) => panic!("{config}: {mistakes:?}"),
    };
    let head = RequestHead::new(vec![
        (b":method", method.as_bytes()),
        (b":authority", authority.as_bytes()),
        (b":path", path),
    ]);
    let requirement = parsed.access.requirement(&head);
    let sizes: Vec<usize> = parsed.access.rules.iter().map(Rule::regex_size).collect();
    let expected = access::requirement(&config, &sizes, method, authority, path);
    let about = || {
        format!(
            "{method} {authority} {}\n{}",
            String::from_utf8_lossy(path),
            config["rules"]
        )
    };
    // An unreadable path never passes without a token.
    assert!(
        requirement.is_open() == expected.is_open()
            && requirement.is_optional() == expected.is_optional(),
        "open: {}, optional: {}\n{}",
        requirement.is_open(),
        requirement.is_optional(),
        about()
    );
    for (user_id, domain, groups) in [
        ("nobody", None, &[][..]),
        ("ann@example.com", Some("example.com"), &["admins"]),
        (
            "user:ann",
            Some("sub.example.com"),
            &["oidc:admins", "g-ml"],
        ),
        ("bob", Some("ops.example.org"), &[]),
    ] {
        let groups: Vec<String> = groups
            .iter()
            .map(|group: &&str| (*group).to_owned())
            .collect();
        let domain = domain.map(str::to_owned);
        let identity = Identity {
            load_balancer: 0,
            user_id: user_id.to_owned(),
            email_domain: domain.clone(),
            groups: groups.clone(),
            subject: None,
            headers: Vec::new(),
            dropped: 0,
        };
        let user = judged::Identity {
            user_id: user_id.to_owned(),
            domain,
            groups,
            subject: None,
            headers: Vec::new(),
        };
        for issuer in [None, Some(ISSUERS[0]), Some(ISSUERS[1])] {
            let found = requirement.admits(&identity, issuer);
            assert!(
                found == expected.admits(&user, issuer),
                "{user_id} of {issuer:?}: {found}\n{}",
                about()
            );
        }
    }
    Ok(())
}
