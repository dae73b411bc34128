//! Access rules and the readings of a path: nobody gets past a rule by spelling its path differently.

use alb_oidc_filter::config::Config;
use alb_oidc_filter::gate::RequestHead;
use alb_oidc_filter::identity::Identity;
use arbitrary::{Result, Unstructured};
use serde_json::json;

use crate::judge::access::{self, Demand};
use crate::judge::identity as judged;
use crate::mint::{self, ARNS};
use crate::seeds;

/// How many bytes choose the rules.
const RULES: usize = 48;

/// The paths of the scenarios, under rules by chance.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut paths = seeds::scenarios(&["path", "paths", "skipped", "exact", "prefix"]);
    for raw in seeds::scenarios(&["raw"]) {
        paths.extend(raw.split(' ').nth(1).map(str::to_owned));
    }
    paths.extend(
        ["/public/a%2fb/%2e%2e/%2e%2e/admin", "//host/..;x/%61dmin", "/public/..%5cadmin/%252e%252e/", "/API/v1/./x"]
            .map(str::to_owned),
    );
    let rules = seeds::random(paths.len(), RULES);
    paths.iter().zip(rules).map(|(path, rules)| [&rules, path.as_bytes()].concat()).collect()
}

/// Rules, method and host from the first bytes; the rest is the path.
pub fn run(data: &[u8]) {
    let (rules, path) = data.split_at(RULES.min(data.len()));
    let _ = judge(&mut Unstructured::new(rules), path);
}

fn judge(u: &mut Unstructured<'_>, path: &[u8]) -> Result<()> {
    let (method, authority) = mint::target(u)?;
    let config = json!({
        "loadBalancers": [{"arn": ARNS[0], "issuer": null, "clientId": null}],
        "groups": {},
        "rules": mint::rules(u, true)?,
    });
    let parsed =
        Config::parse(config.to_string().as_bytes()).unwrap_or_else(|mistakes| panic!("{config}: {mistakes:?}"));
    let head = RequestHead::new(vec![
        (b":method", method.as_bytes()),
        (b":authority", authority.as_bytes()),
        (b":path", path),
    ]);
    let requirement = parsed.access.requirement(&head);
    let demands = access::demands(&config, &method, &authority, path);
    let about = || format!("{method} {authority} {}\n{}", String::from_utf8_lossy(path), config["rules"]);
    let agrees = |found: bool, expected: &dyn Fn(&[Demand<'_>]) -> bool| {
        let strictly = (!demands.is_unreadable).then(|| expected(&demands.each));
        let at_worst = demands.may_be_unreadable.then(|| expected(&demands.all));
        strictly == Some(found) || at_worst == Some(found)
    };
    // What cannot be read is never let pass without a token.
    assert!(agrees(requirement.is_open(), &access::is_open), "open: {}\n{}", requirement.is_open(), about());
    for (user_id, domain, groups) in [
        ("nobody", None, &[][..]),
        ("ann@example.com", Some("example.com"), &["admins"]),
        ("user:ann", Some("sub.example.com"), &["oidc:admins", "g-ml"]),
        ("bob", Some("ops.example.org"), &[]),
    ] {
        let groups: Vec<String> = groups.iter().map(|group: &&str| (*group).to_owned()).collect();
        let domain = domain.map(str::to_owned);
        let found = requirement.admits(&Identity {
            user_id: user_id.to_owned(),
            email_domain: domain.clone(),
            groups: groups.clone(),
            subject: None,
            headers: Vec::new(),
            left_out: 0,
        });
        let user = judged::Identity { user_id: user_id.to_owned(), domain, groups, subject: None, headers: Vec::new() };
        let expected = |demands: &[Demand<'_>]| access::admits(demands, &user);
        assert!(agrees(found, &expected), "{user_id}: {found}\n{}", about());
    }
    Ok(())
}
