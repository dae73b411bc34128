//! `alb-oidc init` and `alb-oidc audit` on the AWS CLI's output in `aws/`, with one mistake at a
//! time: each code has an input with it, and a similar one without.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use alb_oidc_filter::Config;
use serde_json::{Value, json};
use tempfile::TempDir;

const FILES: [&str; 9] = [
    "attributes.json",
    "listeners.json",
    "load-balancers.json",
    "rules-443.json",
    "rules-80.json",
    "security-groups.json",
    "target-groups.json",
    "target-health.json",
    "values.yaml",
];
const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
const ISSUER: &str = "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_AbCdEfGhI";

/// A replacement of text in a file.
type Change<'c> = (&'c str, &'c str, &'c str);
type OwnedChanges = Vec<(&'static str, String, String)>;

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/aws/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A directory with the files, changed. An empty text to replace is the whole file.
#[track_caller]
fn desk(changes: &[Change]) -> TempDir {
    let desk = TempDir::new().expect("a directory");
    let mut files: BTreeMap<&str, String> = FILES.map(|name| (name, fixture(name))).into();
    for (name, from, to) in changes {
        let text = files.get_mut(name).expect("a file");
        assert!(text.contains(from), "{name}: no {from:?}");
        *text = if from.is_empty() {
            (*to).to_owned()
        } else {
            text.replace(from, to)
        };
    }
    for (name, text) in files {
        std::fs::write(desk.path().join(name), text).expect("a file");
    }
    desk
}

fn run(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_alb-oidc"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .expect("alb-oidc runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code().expect("a status"),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Status and findings of `audit`.
#[track_caller]
fn audit(changes: &[Change], more: &[&str]) -> (i32, Vec<Value>) {
    let desk = desk(changes);
    let arguments = ["audit", "--config", "values.yaml", "--output", "json"];
    let arguments = [&arguments[..], &FILES[..8], more].concat();
    let (status, stdout, stderr) = run(desk.path(), &arguments);
    let output: Value =
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    (
        status,
        output["findings"].as_array().expect("findings").clone(),
    )
}

#[track_caller]
fn codes(changes: &[Change]) -> Vec<String> {
    let findings = audit(changes, &[]).1;
    let code = |finding: &Value| finding["code"].as_str().expect("a code").to_owned();
    let codes: BTreeSet<_> = findings.iter().map(code).collect();
    codes.into_iter().collect()
}

#[test]
fn finds_nothing_in_a_safe_load_balancer() {
    assert_eq!(audit(&[], &["--strict"]), (0, Vec::new()));
}

/// The load balancer of the fixtures, and another one with this security group.
fn two_load_balancers(group: &str) -> Value {
    let mut output: Value = serde_json::from_str(&fixture("load-balancers.json")).expect("JSON");
    let known = output["LoadBalancers"]
        .as_array_mut()
        .expect("load balancers");
    let mut second = known[0].clone();
    second["LoadBalancerArn"] = json!(ARN.replace("app/kubeflow", "app/other"));
    second["SecurityGroups"] = json!([group]);
    known.push(second);
    output
}

#[test]
fn judges_the_groups_of_two_load_balancers() {
    let codes = |group: &str| {
        let desk = desk(&[]);
        let mut groups: Value =
            serde_json::from_str(&fixture("security-groups.json")).expect("JSON");
        let open = json!({"GroupId": "sg-other", "IpPermissions": [
            {"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        ]});
        groups["SecurityGroups"]
            .as_array_mut()
            .expect("groups")
            .push(open);
        for (file, text) in [
            ("load-balancers.json", two_load_balancers(group)),
            ("security-groups.json", groups),
        ] {
            std::fs::write(desk.path().join(file), text.to_string()).expect("a file");
        }
        let arguments = ["audit", "--config", "values.yaml", "--output", "json"];
        let files = ["load-balancers.json", "security-groups.json"];
        let (_, stdout, stderr) = run(desk.path(), &[&arguments[..], &files].concat());
        let output: Value = serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        let findings = output["findings"].as_array().expect("findings").clone();
        findings
            .iter()
            .map(|finding| finding["code"].clone())
            .collect::<Vec<_>>()
    };
    // Another load balancer may listen on 8080; only with the group of the first does it reach the targets.
    assert_eq!(codes("sg-other"), [""; 0]);
    let found = codes("sg-5943793c");
    assert!(
        found.contains(&json!("alb-security-group-shared")),
        "{found:?}"
    );
    assert!(
        found.contains(&json!("alb-security-group-open")),
        "{found:?}"
    );
}

/// The listener rules, with a change to one of them.
fn rules(change: impl FnOnce(&mut Vec<Value>)) -> String {
    let mut output: Value = serde_json::from_str(&fixture("rules-443.json")).expect("JSON");
    change(output["Rules"].as_array_mut().expect("rules"));
    format!("{output:#}")
}

/// The rules with one more between sign-out and sign-in, which forwards without authentication.
fn with_open_rule(host: &str, path: &str) -> String {
    with_conditions(json!([
        {"Field": "host-header", "HostHeaderConfig": {"Values": [host]}},
        {"Field": "path-pattern", "PathPatternConfig": {"Values": [path]}},
    ]))
}

fn with_conditions(conditions: Value) -> String {
    rules(|rules| {
        let mut open = rules[0].clone();
        open["RuleArn"] = json!(
            rules[0]["RuleArn"]
                .as_str()
                .expect("an ARN")
                .replace("/a1", "/a5")
        );
        open["Actions"].as_array_mut().expect("actions").remove(0);
        open["Conditions"] = conditions;
        rules[2]["Priority"] = json!("4");
        open["Priority"] = json!("3");
        rules.push(open);
    })
}

/// The rules with one more on this listener, which redirects each request.
fn with_redirect(priority: &str, port: &str) -> String {
    rules(|rules| {
        let mut redirect = rules[0].clone();
        let arn = rules[0]["RuleArn"].as_str().expect("an ARN");
        let listeners = ("f2f7dc8efc522ab2", "0467ef3c8400ae65");
        let arn = match port {
            "80" => arn.replace(listeners.0, listeners.1),
            _ => arn.replace("/a1", "/a5"),
        };
        redirect["RuleArn"] = json!(arn);
        redirect["Priority"] = json!(priority);
        redirect["Actions"] = json!([{"Type": "redirect", "Order": 1}]);
        redirect["Conditions"] = json!([{"Field": "path-pattern", "Values": ["/*"]}]);
        rules[1]["Priority"] = json!("1");
        rules[0]["Priority"] = json!("4");
        rules.push(redirect);
    })
}

fn without_sign_in(position: usize) -> String {
    rules(|rules| {
        let actions = rules[position]["Actions"].as_array_mut();
        actions.expect("actions").remove(0);
    })
}

const FIXED: &str = "\"Type\": \"fixed-response\"";
const FORWARD: &str = "\"Type\": \"forward\", \"TargetGroupArn\": \"arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/istio/73e2d6bc24d8a067\"";
const REDIRECT: &str = "\"Type\": \"redirect\"";
const OPEN: &str = "pluginConfig:\n  rules: [{match: {hosts: [kubeflow.example.com], paths: [{prefix: /public}]}, require: none}]\n";

/// Each code: changes with these codes, and changes without any.
#[rustfmt::skip]
fn cases() -> Vec<(Vec<&'static str>, OwnedChanges, OwnedChanges)> {
    let change = |file, from: &str, to: &str| vec![(file, from.to_owned(), to.to_owned())];
    let of = |code, file, from: &str, bad: &str, good: &str| {
        (vec![code], change(file, from, bad), change(file, from, good))
    };
    let all = |file, text: String| vec![(file, String::new(), text)];
    let (rules_file, values) = ("rules-443.json", "values.yaml");
    let shared = format!("{ARN}\"\n      ,\"{}\"", ARN.replace("app/kubeflow", "app/other"));
    let open_path = {
        let mut changes = all(rules_file, with_open_rule("kubeflow.example.com", "/public/*"));
        changes.extend(change(values, "pluginConfig:\n", OPEN));
        changes
    };
    let open_sign_in = {
        let allow = rules(|rules| {
            rules[2]["Actions"][0]["AuthenticateCognitoConfig"]["OnUnauthenticatedRequest"] = json!("allow");
        });
        let mut open = all(rules_file, rules(|rules| {
            rules[1]["Conditions"][1] = json!({"Field": "path-pattern", "Values": ["/public/*"]});
        }));
        open.extend(change(values, "pluginConfig:\n", OPEN));
        (vec!["alb-unauthenticated-allowed"], all(rules_file, allow), open)
    };
    let default_sign_in = |unauthenticated: &str| {
        let rules: Value = serde_json::from_str(&fixture("rules-443.json")).expect("JSON");
        let mut listeners: Value = serde_json::from_str(&fixture("listeners.json")).expect("JSON");
        let mut actions = rules["Rules"][2]["Actions"].clone();
        actions[0]["AuthenticateCognitoConfig"]["OnUnauthenticatedRequest"] = json!(unauthenticated);
        listeners["Listeners"][0]["DefaultActions"] = actions;
        all("listeners.json", format!("{listeners:#}"))
    };
    let second_client = |client: &str| rules(|rules| {
        rules[1]["Actions"][0]["AuthenticateCognitoConfig"]["UserPoolClientId"] = json!(client);
    });
    let both_clients = format!("  loadBalancers:\n  - {{arn: {ARN}, issuer: {ISSUER}, clientId: second}}\n");
    let own_group = |port: &str| {
        let ports = |port: &str| format!("\"FromPort\": {port},\n          \"ToPort\": {port}");
        change("security-groups.json", &ports("443"), &ports(port))
    };
    let second_load_balancer =
        |group: &str| all("load-balancers.json", format!("{:#}", two_load_balancers(group)));
    let mut two = all(rules_file, second_client("second"));
    two.extend(change(values, "  loadBalancers:\n", &both_clients));
    vec![
        of("alb-arn-differs", "load-balancers.json", "app/kubeflow/50dc6c495c0c9188", "app/other/50dc6c495c0c9188", "app/kubeflow/50dc6c495c0c9188"),
        (vec!["alb-arn-differs", "alb-client-differs"], [change(values, "app/kubeflow/", "app/other/"), change(values, "clientId: 1example23456789", "clientId: another")].concat(), Vec::new()),
        of("alb-issuer-differs", rules_file, "us-west-2_AbCdEfGhI\",\n            \"UserPoolClientId", "us-west-2_Other\",\n            \"UserPoolClientId", "us-west-2_AbCdEfGhI\",\n            \"UserPoolClientId"),
        of("alb-client-differs", rules_file, "1example23456789", "another", "1example23456789"),
        (vec!["alb-two-clients"], two, all(rules_file, second_client("1example23456789"))),
        // Another application of the load balancer.
        (vec!["alb-two-clients"], all(rules_file, rules(|rules| {
            rules[1]["Actions"][0]["AuthenticateCognitoConfig"]["UserPoolClientId"] = json!("other");
            rules[1]["Actions"][0]["AuthenticateCognitoConfig"]["Scope"] = json!("openid");
            let target = format!("{ARN}2").replace("loadbalancer/app", "targetgroup");
            rules[1]["Actions"][1] = json!({"Type": "forward", "Order": 2, "TargetGroupArn": target});
        })), change(values, "  loadBalancers:\n", &format!("  loadBalancers:\n  - {{arn: {}, issuer: {ISSUER}, clientId: c}}\n", ARN.replace("app/kubeflow", "app/other")))),
        of("alb-scope", rules_file, "openid email profile", "openid", "openid email"),
        (vec!["alb-scope"], change(rules_file, "            \"Scope\": \"openid email profile\",\n", ""), vec![
            (rules_file, "            \"Scope\": \"openid email profile\",\n".to_owned(), String::new()),
            (values, "pluginConfig:\n".to_owned(), "pluginConfig:\n  userId: {claims: [sub]}\n".to_owned()),
        ]),
        (vec!["alb-cookie-differs"], change(rules_file, "AWSELBAuthSessionCookie", "Session"), vec![
            (rules_file, "AWSELBAuthSessionCookie".to_owned(), "Session".to_owned()),
            (values, "  logout:\n".to_owned(), "  logout:\n    sessionCookie: Session\n".to_owned()),
        ]),
        of("alb-session-timeout", rules_file, "604800", "604801", "3600"),
        (vec!["alb-rule-unauthenticated"], all(rules_file, without_sign_in(1).replace("/oauth2/sign_out", "/x")), all(rules_file, without_sign_in(1))),
        (vec!["alb-rule-unauthenticated"], all(rules_file, with_open_rule("kubeflow.example.com", "/public/*")), open_path),
        (vec!["alb-rule-unauthenticated"], [all(rules_file, without_sign_in(0)), change(values, "enabled: true", "enabled: false")].concat(), all(rules_file, without_sign_in(0))),
        (vec!["alb-rule-unauthenticated"], all(rules_file, with_conditions(json!([{"Field": "path-pattern", "PathPatternConfig": {"RegexValues": ["^/a"]}}]))), Vec::new()),
        (vec!["alb-rule-unauthenticated"], all(rules_file, with_conditions(json!([{"Field": "http-request-method", "HttpRequestMethodConfig": {"Values": ["OPTIONS"]}}]))), {
            let mut preflight = all(rules_file, with_conditions(json!([{"Field": "http-request-method", "HttpRequestMethodConfig": {"Values": ["OPTIONS"]}}])));
            preflight.extend(change(values, "pluginConfig:\n", "pluginConfig:\n  rules: [{match: {methods: [OPTIONS]}, require: none}]\n"));
            preflight
        }),
        (vec!["alb-rule-shadowed", "alb-rule-unauthenticated"], all(rules_file, with_open_rule("*.example.com", "/*")), all(rules_file, rules(|rules| rules.reverse()))),
        // Rules of another listener, and later ones, take no request.
        (vec!["alb-rule-shadowed"], all(rules_file, with_redirect("2", "443")), all(rules_file, with_redirect("9", "443"))),
        (vec!["alb-rule-shadowed"], all(rules_file, with_redirect("2", "443")), all(rules_file, with_redirect("2", "80"))),
        of("alb-default-forwards", "listeners.json", FIXED, FORWARD, FIXED),
        of("alb-http-forwards", "listeners.json", REDIRECT, FORWARD, REDIRECT),
        open_sign_in,
        (vec!["alb-unauthenticated-allowed"], default_sign_in("allow"), default_sign_in("authenticate")),
        of("alb-target-shared", "target-groups.json", &format!("{ARN}\""), &shared, &format!("{ARN}\"")),
        // The load balancer's own group may be open.
        (vec!["alb-security-group-open"], [own_group("8080"), change("security-groups.json", "sg-5943793c\",\n      \"GroupName", "sg-other\",\n      \"GroupName")].concat(), own_group("8443")),
        (vec!["alb-security-group-shared"], own_group("8080"), own_group("8443")),
        of("alb-security-group-shared", "security-groups.json", "\"GroupId\": \"sg-5943793c\",\n              ", "\"GroupId\": \"sg-bastion\", ", "\"GroupId\": \"sg-903004f8\", "),
        (vec!["alb-security-group-shared"], second_load_balancer("sg-5943793c"), second_load_balancer("sg-other")),
        of("alb-security-group-open", "security-groups.json", "\"IpRanges\": [],", "\"IpRanges\": [{\"CidrIp\": \"0.0.0.0/0\"}],", "\"IpRanges\": [{\"CidrIp\": \"10.0.0.0/8\"}],"),
        of("alb-security-group-open", "security-groups.json", "\"IpRanges\": [],", "\"IpRanges\": [{\"CidrIp\": \"0.0.0.0/1\"}, {\"CidrIp\": \"128.0.0.0/1\"}],", "\"IpRanges\": [{\"CidrIp\": \"172.16.0.0/12\"}],"),
        of("alb-security-group-open", "security-groups.json", "\"Ipv6Ranges\": [],\n          \"PrefixListIds\": [],\n          \"UserIdGroupPairs\": [\n", "\"Ipv6Ranges\": [{\"CidrIpv6\": \"2000::/3\"}], \"UserIdGroupPairs\": [", "\"Ipv6Ranges\": [{\"CidrIpv6\": \"fc00::/7\"}], \"UserIdGroupPairs\": ["),
        of("alb-security-group-open", "security-groups.json", "\"IpRanges\": [],\n          \"Ipv6Ranges\": []", "\"Ipv6Ranges\": [{\"CidrIpv6\": \"::/0\"}]", "\"Ipv6Ranges\": []"),
        of("alb-security-group-open", "security-groups.json", "\"IpProtocol\": \"tcp\",\n          \"FromPort\": 8080,\n          \"ToPort\": 8080,\n          \"IpRanges\": []", "\"IpProtocol\": \"-1\",\n          \"IpRanges\": [{\"CidrIp\": \"0.0.0.0/0\"}]", "\"IpProtocol\": \"udp\", \"IpRanges\": [{\"CidrIp\": \"0.0.0.0/0\"}]"),
        of("alb-invalid-headers", "attributes.json", "\"true\"", "\"false\"", "\"true\""),
        of("alb-idle-timeout", "attributes.json", "3600", "60", "61"),
        of("alb-health-check", "target-groups.json", "\"15021\"", "\"traffic-port\"", "\"15020\""),
        (vec!["alb-health-check"], change("target-groups.json", "\"15021\"", "\"8080\""), vec![
            ("target-groups.json", "\"15021\"".to_owned(), "\"8080\"".to_owned()),
            (values, "pluginConfig:\n".to_owned(), "pluginConfig:\n  rules: [{match: {paths: [{exact: /healthz/ready}]}, require: none}]\n".to_owned()),
        ]),
        of("alb-target-unhealthy", "target-health.json", "\"healthy\"", "\"unhealthy\"", "\"healthy\""),
        of("alb-jwt-issuer", values, "  enabled: true\n", "  enabled: true\n  issuer: https://issuer.example.com\n", &format!("  enabled: true\n  issuer: {ISSUER}\n")),
        // The library knows the partitions with a documented key server.
        of("config-invalid", values, "pluginConfig:\n", "pluginConfig:\n  publicKeys: {cacheTtlSeconds: 0}\n", "pluginConfig:\n  publicKeys: {cacheTtlSeconds: 60}\n"),
        (vec!["config-invalid"], change(values, "arn:aws:", "arn:aws-iso:"), Vec::new()),
    ]
}

#[test]
fn every_code_has_a_case_that_fails_and_one_that_passes() {
    let (mut wrong, mut tried) = (Vec::new(), BTreeSet::new());
    for (position, (expected, bad, good)) in cases().iter().enumerate() {
        tried.extend(expected.iter().map(|code| (*code).to_owned()));
        let of = |changes: &OwnedChanges| {
            let changes: Vec<Change> = changes
                .iter()
                .map(|(file, from, to)| (*file, from.as_str(), to.as_str()))
                .collect();
            codes(&changes)
        };
        let (bad, good) = (of(bad), of(good));
        if bad != *expected || !good.is_empty() {
            wrong.push(format!("{position} {expected:?}: {bad:?}, {good:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let desk = desk(&[]);
    let (_, log, _) = run(
        desk.path(),
        &[
            "audit",
            "--config",
            "values.yaml",
            "-o",
            "sarif",
            "listeners.json",
        ],
    );
    let log: Value = serde_json::from_str(&log).expect("JSON");
    let rules = log["runs"][0]["tool"]["driver"]["rules"]
        .as_array()
        .expect("rules");
    let of_load_balancer: BTreeSet<_> = rules
        .iter()
        .filter_map(|rule| rule["id"].as_str())
        .filter(|code| code.starts_with("alb-"))
        .map(str::to_owned)
        .collect();
    tried.remove("config-invalid");
    assert_eq!(tried, of_load_balancer);
}

#[test]
fn rules_alone_show_another_load_balancer() {
    let desk = desk(&[("values.yaml", "app/kubeflow/", "app/other/")]);
    for file in ["rules-443.json", "listeners.json"] {
        let arguments = ["audit", "--config", "values.yaml", file];
        let (status, text, _) = run(desk.path(), &arguments);
        let expected = format!("expected {ARN} [alb-arn-differs]");
        assert!(status == 1 && text.contains(&expected), "{file}: {text}");
    }
}

#[test]
fn findings_name_the_place_in_the_output() {
    let (status, findings) = audit(&[("attributes.json", "\"true\"", "\"false\"")], &[]);
    let expected = json!({
        "code": "alb-invalid-headers",
        "severity": "warning",
        "file": "attributes.json",
        "line": 9,
        "resource": "routing.http.drop_invalid_header_fields.enabled",
        "field": "Attributes[1].Value",
        "message": "Attributes[1].Value: found false, expected true",
        "fix": "Set routing.http.drop_invalid_header_fields.enabled to true.",
        "page": "docs/operations.md#alb-invalid-headers",
    });
    assert_eq!((status, findings), (0, vec![expected]));
    let strict = [("attributes.json", "\"true\"", "\"false\"")];
    assert_eq!(audit(&strict, &["--strict"]).0, 1);
    assert_eq!(audit(&[("listeners.json", REDIRECT, FORWARD)], &[]).0, 1);

    let desk = desk(&[("rules-443.json", "openid email profile", "openid")]);
    let (status, text, _) = run(
        desk.path(),
        &["audit", "--config", "values.yaml", "rules-443.json"],
    );
    assert!(
        status == 0
            && text.starts_with(
                "rules-443.json:83: warning: Rules[1].Actions[0].AuthenticateCognitoConfig.Scope: "
            ),
        "{text}"
    );
    assert!(text.ends_with("\n2 warnings\n"), "{text}");
    let (status, text, _) = run(
        desk.path(),
        &["audit", "--config", "values.yaml", "listeners.json"],
    );
    assert_eq!(
        (status, text.as_str()),
        (
            0,
            "no mistakes in the input, which has no rules: see --commands\n"
        )
    );
}

/// Issuer, client, scope and cookie of a sign-in in a listener's default action.
#[test]
fn compares_the_default_action() {
    let rules: Value = serde_json::from_str(&fixture("rules-443.json")).expect("JSON");
    let mut listeners: Value = serde_json::from_str(&fixture("listeners.json")).expect("JSON");
    let mut actions = rules["Rules"][2]["Actions"].clone();
    let codes = |actions: &Value, listeners: &mut Value, files: &[&str]| {
        listeners["Listeners"][0]["DefaultActions"] = actions.clone();
        let desk = desk(&[("listeners.json", "", &format!("{listeners:#}"))]);
        let arguments = ["audit", "--config", "values.yaml", "--output", "json"];
        let (_, stdout, error) = run(desk.path(), &[&arguments, files].concat());
        let output: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{error}"));
        let findings = output["findings"].as_array().expect("findings").clone();
        findings
            .iter()
            .map(|finding| format!("{} {}", finding["code"], finding["field"]).replace('"', ""))
            .collect::<Vec<_>>()
    };
    let alone = ["listeners.json"];
    assert_eq!(codes(&actions, &mut listeners, &alone), [""; 0]);
    let config = &mut actions[0]["AuthenticateCognitoConfig"];
    config["Scope"] = json!("openid");
    config["UserPoolClientId"] = json!("another");
    let field = "Listeners[0].DefaultActions[0].AuthenticateCognitoConfig";
    let expected = [
        format!("alb-scope {field}.Scope"),
        format!("alb-client-differs {field}.UserPoolClientId"),
    ];
    assert_eq!(codes(&actions, &mut listeners, &alone), expected);
    // The default rule has the same actions, and is judged in its place.
    let both = ["listeners.json", "rules-443.json"];
    assert_eq!(codes(&actions, &mut listeners, &both), [""; 0]);
}

#[test]
fn reports_unreadable_input_on_one_line() {
    let desk = desk(&[]);
    let put =
        |name: &str, text: &str| std::fs::write(desk.path().join(name), text).expect("a file");
    put("comma.json", "{\"Rules\": [1,]}");
    put("type.json", "{\n\"Rules\": [\n{\"RuleArn\": 7}]}");
    put("missing.json", "{\"Listeners\": [\n{\"Port\": 443}]}");
    put("empty.json", "{\n\"Listeners\": []}");
    put("other.json", "{\"Buckets\": []}");
    put("list.json", "[]");
    put("two.yaml", "loadBalancers: []\n---\nloadBalancers: []\n");
    for (file, expected) in [
        (
            "comma.json",
            "comma.json:1: found invalid text, expected YAML or JSON: trailing comma",
        ),
        (
            "type.json",
            "type.json:3: Rules[0].RuleArn: invalid type: integer `7`, expected a string",
        ),
        (
            "missing.json",
            "missing.json:2: Listeners[0]: missing field `ListenerArn`",
        ),
        (
            "empty.json",
            "empty.json:2: Listeners: found an empty list, expected at least one element",
        ),
        (
            "other.json",
            "other.json:1: found no output of the AWS CLI, expected one of LoadBalancers, ",
        ),
        ("list.json", "list.json:1: found no output of the AWS CLI"),
        ("nowhere.json", "nowhere.json: No such file"),
    ] {
        for command in [&["init"][..], &["audit", "--config", "values.yaml"]] {
            let (status, out, error) = run(desk.path(), &[command, &[file]].concat());
            assert_eq!(
                (status, out.as_str(), error.lines().count()),
                (2, "", 1),
                "{error}"
            );
            assert!(
                error.starts_with(&format!("alb-oidc: {expected}")),
                "{error}"
            );
        }
    }
    for arguments in [
        &["audit", "--config", "two.yaml", "listeners.json"][..],
        &["audit", "--config", "nowhere.yaml", "listeners.json"],
        &["audit", "listeners.json"],
        &["audit", "--config", "values.yaml"],
        &["init", "--arn", ARN],
        &["init", "--arn", "arn", "--issuer", "i", "--client-id", "c"],
        &["init", "listeners.json"],
        &["init", "rules-443.json", "--client-id", "another"],
    ] {
        let (status, out, error) = run(desk.path(), arguments);
        assert_eq!(
            (status, out.as_str(), error.lines().count()),
            (2, "", 1),
            "{arguments:?}: {error}"
        );
    }
}

/// The values that `init` prints.
#[track_caller]
fn init(directory: &Path, arguments: &[&str]) -> Value {
    let (status, text, error) = run(directory, &[&["init"], arguments].concat());
    assert_eq!(status, 0, "{error}");
    let values: Value = serde_saphyr::from_str(&text).expect("YAML");
    Config::from_value(&values["pluginConfig"]).expect("a good config");
    values
}

#[test]
fn init_writes_values_from_the_output() {
    let expected = json!({
        "image": {"url": ""},
        "alb": {"enabled": false, "hosts": ["kubeflow.example.com"]},
        "pluginConfig": {
            "loadBalancers": [{"arn": ARN, "issuer": ISSUER, "clientId": "1example23456789"}],
            "logout": {
                "path": "/oauth2/sign_out",
                "redirectTo": "https://kubeflow.auth.us-west-2.amazoncognito.com/logout?client_id=1example23456789&logout_uri=https%3A%2F%2Fkubeflow.example.com%2F",
            },
        },
    });
    let files = [
        "load-balancers.json",
        "listeners.json",
        "rules-443.json",
        "rules-80.json",
    ];
    assert_eq!(init(desk(&[]).path(), &files), expected);

    let changed = desk(&[
        ("rules-443.json", "AWSELBAuthSessionCookie", "Session"),
        ("rules-443.json", "/oauth2/sign_out", "/bye"),
        (
            "rules-443.json",
            "\"UserPoolDomain\": \"kubeflow\"",
            "\"UserPoolDomain\": \"login.example.com\"",
        ),
        (
            "rules-443.json",
            "arn:aws:cognito-idp:us-west-2",
            "arn:aws-us-gov:cognito-idp:us-gov-west-1",
        ),
    ]);
    let values = init(
        changed.path(),
        &["rules-443.json", "--host", "a.example.com"],
    );
    assert_eq!(values["alb"]["hosts"], json!(["a.example.com"]));
    assert_eq!(
        values["pluginConfig"]["logout"],
        json!({
            "path": "/bye",
            "redirectTo": "https://login.example.com/logout?client_id=1example23456789&logout_uri=https%3A%2F%2Fa.example.com%2F",
            "sessionCookie": "Session",
        })
    );
}

#[test]
fn init_knows_the_sign_in_host_of_govcloud() {
    let pool = "arn:aws:cognito-idp:us-west-2";
    let desk = desk(&[(
        "rules-443.json",
        pool,
        "arn:aws-us-gov:cognito-idp:us-gov-west-1",
    )]);
    let values = init(desk.path(), &["rules-443.json"]);
    let url = values["pluginConfig"]["logout"]["redirectTo"].as_str();
    let host = "https://kubeflow.auth-fips.us-gov-west-1.amazoncognito.com/logout?";
    assert!(url.is_some_and(|url| url.starts_with(host)), "{url:?}");
}

#[test]
fn init_asks_which_of_several() {
    let oidc = json!({"Type": "authenticate-oidc", "Order": 1, "AuthenticateOidcConfig": {
        "Issuer": "https://issuer.example.com", "ClientId": "other",
        "AuthorizationEndpoint": "https://issuer.example.com/authorize",
        "TokenEndpoint": "https://issuer.example.com/token",
        "UserInfoEndpoint": "https://issuer.example.com/userinfo",
    }});
    let two = rules(|rules| rules[1]["Actions"][0] = oidc);
    let desk = desk(&[("rules-443.json", "", &two)]);
    let (status, _, error) = run(desk.path(), &["init", "rules-443.json"]);
    assert_eq!(status, 2);
    assert!(
        error.contains("give --issuer") && error.contains(ISSUER),
        "{error}"
    );
    let values = init(
        desk.path(),
        &["rules-443.json", "--issuer", "https://issuer.example.com"],
    );
    assert_eq!(
        values["pluginConfig"]["loadBalancers"][0]["clientId"],
        "other"
    );
    assert_eq!(values["pluginConfig"].get("logout"), None);
}

#[test]
fn init_takes_flags_and_prints_commands() {
    let directory = TempDir::new().expect("a directory");
    let flags = [
        "--arn",
        ARN,
        "--issuer",
        "https://issuer.example.com",
        "--client-id",
        "c",
    ];
    let values = init(directory.path(), &flags);
    assert_eq!(
        values["pluginConfig"]["loadBalancers"][0]["issuer"],
        "https://issuer.example.com"
    );
    let more = [
        "--host",
        "a.example.com",
        "--cognito-host",
        "login.example.com",
        "--session-cookie",
        "S",
        "--image",
        "oci://r/a@sha256:1",
    ];
    let values = init(directory.path(), &[&flags[..], &more].concat());
    assert_eq!(values["image"]["url"], "oci://r/a@sha256:1");
    let logout = &values["pluginConfig"]["logout"];
    assert_eq!(logout["sessionCookie"], "S");
    assert!(
        logout["redirectTo"]
            .as_str()
            .is_some_and(|url| url.starts_with("https://login.example.com/logout?client_id=c&"))
    );

    let (_, text, _) = run(directory.path(), &[&["init"], &flags[..]].concat());
    assert!(
        text.contains("# Users cannot sign out: give --sign-out-url"),
        "{text}"
    );

    let (status, text, _) = run(directory.path(), &["init"]);
    assert_eq!(status, 0);
    for command in [
        "describe-load-balancers",
        "describe-listeners",
        "describe-rules",
        "alb-oidc init",
    ] {
        assert!(text.contains(command), "{text}");
    }
    let (_, text, _) = run(directory.path(), &["audit", "--commands"]);
    for command in [
        "describe-target-groups",
        "describe-target-health",
        "describe-load-balancer-attributes",
        "describe-security-groups",
    ] {
        assert!(text.contains(command), "{text}");
    }
}

/// Adds the fields of each object in `value`, by the field that contains it.
fn fields(value: &Value, of: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(elements) => elements
            .iter()
            .for_each(|element| fields(element, of, found)),
        Value::Object(members) => {
            for (name, member) in members {
                if !of.is_empty() {
                    found.insert(name.clone());
                }
                fields(member, name, found);
            }
        }
        _ => {}
    }
}

#[test]
fn readme_names_each_field_of_the_files() {
    let mut found = BTreeSet::new();
    for name in FILES.iter().filter(|name| name.ends_with(".json")) {
        let output: Value = serde_json::from_str(&fixture(name)).expect("JSON");
        fields(&output, "", &mut found);
    }
    let readme = fixture("README.md");
    let (_, table) = readme.split_once("<!-- fields: ").expect("a table");
    let rows = table.lines().skip(3).filter(|line| line.starts_with("| `"));
    let named: BTreeSet<_> = rows
        .filter_map(|row| row.split('|').nth(2))
        .flat_map(|cell| cell.split(','))
        .map(|name| name.trim().trim_matches('`').to_owned())
        .collect();
    assert_eq!(named, found);
}
