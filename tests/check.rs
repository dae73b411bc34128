//! `alb-oidc check` on the chart's resources, with one mistake at a time: each code has an input
//! with it, and a similar one without. The other tests cover the forms of input and output.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Replacements of text. Each text is in the input.
type Changes<'c> = &'c [(&'c str, &'c str)];

struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

fn run(directory: &Path, arguments: &[&str], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_alb-oidc"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("alb-oidc runs");
    let mut stdin = child.stdin.take().expect("its input");
    // A command that does not read its input closes it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    Ran {
        status: output.status.code().expect("a status"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// The rendered example with real values, and without `userId`, which the cases add.
fn applied() -> String {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/istio/kubeflow-cognito.rendered.yaml"
    );
    let text = std::fs::read_to_string(path).expect("the example");
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let user_id = "    userId:\n      requireVerifiedEmail: true\n";
    assert!(text.contains(user_id));
    text.replace("_EXAMPLE", "_AbCdEfGhI")
        .replace(digest, &"1b".repeat(32))
        .replace(user_id, "")
}

#[track_caller]
fn changed(text: &str, changes: Changes) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "no {from:?}");
        text.replace(from, to)
    })
}

/// Status and findings of `check` on this input.
#[track_caller]
fn check(input: &str, more: &[&str]) -> (i32, Vec<Value>) {
    let arguments = [&["check", "-", "--output", "json"], more].concat();
    let ran = run(Path::new("."), &arguments, input);
    let output: Value = serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", ran.stdout, ran.stderr));
    let findings = output["findings"].as_array().expect("findings").clone();
    (ran.status, findings)
}

#[track_caller]
fn codes(input: &str) -> Vec<String> {
    let findings = check(input, &[]).1;
    let code = |finding: &Value| finding["code"].as_str().expect("a code").to_owned();
    findings.iter().map(code).collect()
}

/// The rules of the SARIF output: every code.
fn rules() -> Vec<Value> {
    let ran = run(Path::new("."), &["check", "-", "-o", "sarif"], &applied());
    let log: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let rules = &log["runs"][0]["tool"]["driver"]["rules"];
    rules.as_array().expect("rules").clone()
}

const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
const TARGET: &str = "  workloadSelector:\n    labels:\n      istio: ingressgateway";
const SELECTOR: &str =
    "  selector:\n    matchLabels:\n      istio: ingressgateway\n  phase: AUTHN  ";
const CONFIG: &str = "  pluginConfig:\n";
const GROUPS: &str = "      - access:cognito:groups\n";
const AT_END: &str = "    - x-machine-client\n";
const KEY_SERVER_RULE: &str = "  host: \"public-keys.auth.elb.us-west-2.amazonaws.com\"";
const KEY_SERVER_TLS: &str = "      mode: SIMPLE\n      sni: \"public-keys";

/// A policy at the gateway.
fn policy(action: &str, rules: &str) -> String {
    format!(
        "{AT_END}---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: other, namespace: istio-system}}\nspec:\n  \
         selector: {{matchLabels: {{app: istio-ingressgateway}}}}\n  action: {action}\n  rules: {rules}\n"
    )
}

/// An EnvoyFilter at the gateway that adds an upgrade type.
fn upgrade(labels: &str, name: &str) -> String {
    format!(
        "{AT_END}---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\n\
         metadata: {{name: upgrades, namespace: istio-system}}\nspec:\n  \
         workloadSelector: {{labels: {{{labels}}}}}\n  configPatches:\n  - applyTo: NETWORK_FILTER\n    \
         patch:\n      operation: MERGE\n      value: {{typed_config: {{upgrade_configs: [{{upgrade_type: {name}}}]}}}}\n"
    )
}

/// The whole input without one resource, by its kind and the start of its name.
fn without(kind: &str, name: &str) -> String {
    let text = applied();
    let is_it = |part: &&str| {
        part.contains(&format!("\nkind: {kind}\n")) && part.contains(&format!("\n  name: \"{name}"))
    };
    let parts: Vec<_> = text.split("\n---\n").collect();
    let rest: Vec<_> = parts.iter().copied().filter(|part| !is_it(part)).collect();
    assert_eq!(rest.len() + 1, parts.len(), "{kind} {name}");
    rest.join("\n---\n")
}

/// The input with Cognito's resource of this kind in another namespace.
fn hidden(kind: &str, export_to: &str) -> String {
    let text = applied();
    let parts = text.split("\n---\n").map(|part| {
        let is_it =
            part.contains(&format!("\nkind: {kind}\n")) && part.contains("alb-oidc-cognito");
        if is_it {
            changed(
                part,
                &[
                    ("namespace: \"istio-system\"", "namespace: other"),
                    ("exportTo: [\".\"]", &format!("exportTo: {export_to}")),
                ],
            )
        } else {
            part.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join("\n---\n")
}

/// The last resource of the input again, with changes: the extension.
fn second_extension(changes: Changes) -> String {
    let text = applied();
    let (_, extension) = text.rsplit_once("\n---\n").expect("an extension");
    format!("{text}---\n{}", changed(extension, changes))
}

/// Each code: an input with this finding alone, and one without any.
#[rustfmt::skip]
fn cases() -> Vec<(&'static str, String, String)> {
    let base = applied();
    let of = |code, bad: Changes, good: Changes| (code, changed(&base, bad), changed(&base, good));
    let config = |code, bad: &str, good: &str| {
        let add = |more: &str| changed(&base, &[(CONFIG, &format!("{CONFIG}{more}"))]);
        (code, add(bad), add(good))
    };
    let rules = |code, bad: &str, good: &str| {
        config(code, &format!("    rules: {bad}\n"), &format!("    rules: {good}\n"))
    };
    let at_gateway = |code, bad: String, good: String| {
        (code, changed(&base, &[(AT_END, &bad)]), changed(&base, &[(AT_END, &good)]))
    };
    let gateway = |protocol: &str| format!(
        "---\nkind: Gateway\napiVersion: networking.istio.io/v1\nmetadata: {{name: g, namespace: kubeflow}}\n\
         spec:\n  selector: {{istio: ingressgateway}}\n  servers: [{{port: {{number: 80, name: a, protocol: {protocol}}}, hosts: ['*']}}]\n"
    );
    let deny_path = policy("DENY", "[{to: [{operation: {paths: [/admin*]}}]}]");
    let open = |host: &str| format!("[{{match: {{hosts: [{host}]}}, require: none}}]");
    let guard = policy(
        "DENY",
        "[{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {hosts: [m.example.com], notPorts: ['9443']}}]}]",
    );
    vec![
        config("config-invalid", "    clockSkewSeconds: 3601\n", "    clockSkewSeconds: 3\n"),
        of("fail-open", &[("FAIL_RELOAD", "FAIL_OPEN")], &[("FAIL_RELOAD", "FAIL_CLOSE")]),
        of("phase-wrong", &[("phase: AUTHN ", "phase: AUTHZ ")], &[]),
        of("phase-wrong", &[("  phase: AUTHN                # before RequestAuthentication and AuthorizationPolicy\n", "")], &[]),
        of("match-server", &[("mode: CLIENT ", "mode: SERVER ")], &[("mode: CLIENT ", "mode: CLIENT_AND_SERVER ")]),
        of("match-ports", &[("- mode: CLIENT ", "- ports: [{number: 8080}] ")], &[("- mode: CLIENT ", "- mode: CLIENT\n  - ports: [{number: 8080}] ")]),
        of("target-missing", &[(TARGET, "  targetRefs: []"), (SELECTOR, "  phase: AUTHN  ")], &[]),
        ("two-filters", second_extension(&[("name: \"alb-oidc\"", "name: second")]), changed(&second_extension(&[("name: \"alb-oidc\"", "name: second"), ("namespace: \"istio-system\"", "namespace: other"), ("istio: ingressgateway", "istio: another")]), &[("exportTo: [\".\"]", "exportTo: [\"*\"]")])+ &second_interlock()),
        of("image-unpinned", &[("alb-oidc-filter@sha256:", "alb-oidc-filter:v")], &[("oci://registry.example.com/alb-oidc-filter@sha256:", "file:///opt/")]),
        of("image-unpinned", &[("oci://registry.example.com/alb-oidc-filter@sha256:", "https://files.example.com/")], &[("  url: \"oci://registry.example.com/alb-oidc-filter@sha256:", "  sha256: abc\n  url: \"https://files.example.com/")]),
        of("placeholder", &[("registry.example.com", "REGISTRY")], &[("registry.example.com", "registry.internal")]),
        of("placeholder", &[("clientId: 1example23456789", "clientId: <client id>")], &[("clientId: 1example23456789", "clientId: a < b > c|d")]),
        of("placeholder", &[("clientId: 1example23456789", "clientId: ${CLIENT}")], &[(CONFIG, "  pluginConfig:\n    userId: {transformers: [{matches: '^(?P<name>.*)$', replaces: '${name}'}]}\n")]),
        of("placeholder", &[("clientId: 1example23456789", "clientId: '{{ .Values.client }}'")], &[("clientId: 1example23456789", "clientId: '{}'")]),
        of("placeholder", &[("_AbCdEfGhI", "_EXAMPLE")], &[]),
        ("interlock-missing", without("EnvoyFilter", "alb-oidc-interlock"), base.clone()),
        of("interlock-open", &[("INSERT_BEFORE", "INSERT_FIRST")], &[]),
        of("interlock-open", &[("context: GATEWAY", "context: GATEWAY\n      routeConfiguration: {portNumber: 443}")], &[]),
        of("interlock-open", &[("rules:              #", "shadow_rules:       #")], &[]),
        of("interlock-open", &[("rules:              #", "matcher: {on_no_match: {}}\n          rules:  #")], &[("rules:              #", "shadow_matcher: {}\n          rules:  #")]),
        of("interlock-open", &[("          rules:              #", "          rules:  #"), ("        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac", "        disabled: true\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac")], &[]),
        of("interlock-open", &[("rules:              #", "rules:\n            action: DENY #")], &[("rules:              #", "rules:\n            action: ALLOW #")]),
        of("interlock-open", &[("                - filter_state: {key: wasm.alb_oidc, string_match: {exact: skipped}}", "                - any: true")], &[("exact: skipped", "exact: reported")]),
        of("interlock-open", &[("exact: skipped", "prefix: s")], &[]),
        of("target-differs", &[(TARGET, "  workloadSelector:\n    labels:\n      istio: another")], &[(TARGET, "  workloadSelector:\n    labels:\n      app: istio-ingressgateway")]),
        of("target-differs", &[(TARGET, "  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}]"), (SELECTOR, "  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: b}]\n  phase: AUTHN  ")],
           &[(TARGET, "  workloadSelector: {labels: {gateway.networking.k8s.io/gateway-name: a}}"), (SELECTOR, "  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}]\n  phase: AUTHN  ")]),
        at_gateway("target-differs",
            policy("ALLOW", "[{}]").replace("{name: other,", "{name: other, labels: {app.kubernetes.io/name: alb-oidc-filter},").replace("app: istio-ingressgateway", "istio: another"),
            policy("ALLOW", "[{}]").replace("{name: other,", "{name: other, labels: {app.kubernetes.io/name: alb-oidc-filter},")),
        ("extension-missing", without("WasmPlugin", "alb-oidc"), base.clone()),
        ("key-server-missing", without("ServiceEntry", "alb-oidc-cognito"), base.clone()),
        of("key-server-missing", &[("hosts: [\"public-keys.auth.elb.us-west-2.amazonaws.com\"]", "hosts: [public-keys.auth.elb.us-east-1.amazonaws.com]")], &[]),
        ("key-server-missing", base.replacen("{number: 443,", "{number: 8443,", 1), base.clone()),
        ("key-server-missing", hidden("ServiceEntry", "[\".\"]"), hidden("ServiceEntry", "[istio-system]")),
        ("key-server-tls", hidden("DestinationRule", "[\".\"]"), hidden("DestinationRule", "['*']")),
        ("key-server-tls", without("DestinationRule", "alb-oidc-public-keys"), base.clone()),
        of("key-server-tls", &[(KEY_SERVER_TLS, &KEY_SERVER_TLS.replace("SIMPLE", "DISABLE"))], &[]),
        of("key-server-tls", &[(KEY_SERVER_TLS, &KEY_SERVER_TLS.replace("SIMPLE", "SIMPLE\n      insecureSkipVerify: true"))], &[(KEY_SERVER_TLS, &KEY_SERVER_TLS.replace("SIMPLE", "SIMPLE\n      insecureSkipVerify: false"))]),
        of("key-server-tls", &[(KEY_SERVER_RULE, "  host: another.example.com")], &[]),
        of("key-server-unverified", &[("subjectAltNames: [\"cognito-idp", "subjectAltNames: [\"other")], &[]),
        ("key-server-unverified", base.replacen("      caCertificates: \"system\"\n", "", 1), base.replacen("\"system\"", "/etc/ca.crt", 1)),
        (
            "key-server-http",
            changed(&base, &[(CONFIG, "  pluginConfig:\n    publicKeys: {endpoint: 'http://public-keys.auth.elb.us-west-2.amazonaws.com:443/a'}\n")]),
            changed(&base, &[(CONFIG, "  pluginConfig:\n    publicKeys: {endpoint: 'http://keys.svc.cluster.local/a', cluster: own}\n")]),
        ),
        at_gateway("policy-denies-tcp", deny_path.clone(), policy("DENY", "[{to: [{operation: {paths: [/admin*], notPorts: ['9443']}}]}]")),
        at_gateway("policy-denies-tcp", format!("{deny_path}{}", gateway("TCP")), format!("{deny_path}{}", gateway("HTTP"))),
        at_gateway("policy-denies-tcp", format!("{deny_path}{}", gateway("HTTPS}, tls: {mode: PASSTHROUGH")), format!("{deny_path}{}", gateway("HTTPS}, tls: {mode: SIMPLE"))),
        at_gateway("policy-denies-tcp", policy("DENY", "[{when: [{key: 'request.headers[x]', values: [a]}]}]"), policy("DENY", "[{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]")),
        at_gateway("policy-demands-jwt", policy("DENY", "[{from: [{source: {notRequestPrincipals: ['*']}}]}]") + &gateway("HTTP"), guard.clone()),
        at_gateway("policy-demands-jwt", policy("DENY", "[{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {notPaths: [/dex/*]}}]}]") + &gateway("HTTP"), policy("DENY", "[{from: [{source: {notRequestPrincipals: ['*']}}]}]").replace("security.istio.io/v1", "policy.example.com/v1")),
        at_gateway("policy-custom", policy("CUSTOM", "[{}]"), policy("CUSTOM", "[{}]").replace("app: istio-ingressgateway", "app: another")),
        at_gateway("upgrade-type", upgrade("istio: ingressgateway", "spdy/3.1"), upgrade("istio: ingressgateway", "websocket")),
        at_gateway("upgrade-type", upgrade("", "CONNECT"), upgrade("app: another", "CONNECT")),
        config("upgrade-type", "    upgrades: [websocket, SPDY/3.1]\n", "    upgrades: [websocket]\n"),
        of("issuer-null", &[("      issuer: https://cognito-idp.us-west-2.amazonaws.com/us-west-2_AbCdEfGhI\n    logout", "      issuer: null\n    logout"), ("    accessToken:\n      issuer: https://cognito-idp.us-west-2.amazonaws.com/us-west-2_AbCdEfGhI\n", ""), (GROUPS, "      - groups\n")], &[]),
        of("client-null", &[("clientId: 1example23456789", "clientId: null")], &[]),
        config("mode-report", "    mode: report\n", "    mode: enforce\n"),
        config("session-cookies-forwarded", "    forward: {sessionCookies: true}\n", "    forward: {oidcData: true}\n"),
        rules("regex-size", "[{match: {paths: [{regex: '^/[a-z]{1,26}$'}]}, require: none}]", "[{match: {paths: [{regex: '^/[a-z]{1,2}$'}]}, require: none}]"),
        rules("group-case", "[{match: {paths: [{prefix: /a}]}, allow: {groups: [Admins, admins]}}]", "[{match: {paths: [{prefix: /a}]}, allow: {groups: [Admins, admin]}}]"),
        rules("rule-never-applies", "[{require: token}, {match: {paths: [{prefix: /a}]}, require: none}]", "[{match: {paths: [{prefix: /a}]}, require: none}, {require: token}]"),
        rules("rule-opens-all", &open("m.example.com"), "[{match: {paths: [{prefix: /a}]}, require: none}]"),
        ("rule-opens-all",
            changed(&base, &[(CONFIG, &format!("{CONFIG}    rules: {}\n", open("other.example.com"))), (AT_END, &guard)]),
            changed(&base, &[(CONFIG, &format!("{CONFIG}    rules: {}\n", open("m.example.com"))), (AT_END, &guard)])),
        rules("rule-opens-regex", "[{match: {paths: [{regex: /public/}]}, require: none}]", "[{match: {paths: [{regex: '^/public/[a-z]+$'}]}, require: none}]"),
        rules("rule-opens-suffix", "[{match: {paths: [{suffix: .css}]}, require: optional}]", "[{match: {paths: [{suffix: .css}]}, require: token}]"),
        rules("allow-exact", "[{match: {paths: [{exact: /admin}]}, allow: {groups: [a]}}]", "[{match: {paths: [{prefix: /admin}]}, allow: {groups: [a]}}]"),
        rules("allow-methods", "[{match: {methods: [POST]}, allow: {groups: [a]}}]", "[{match: {methods: [POST]}, require: token}]"),
        config("transformer-unanchored", "    userId: {transformers: [{matches: '@example\\.com', replaces: ''}]}\n", "    userId: {transformers: [{matches: '@example\\.com$', replaces: ''}]}\n"),
        config("transformer-unanchored", "    userId: {transformers: [{matches: '^system:', replaces: ''}]}\n", "    userId: {transformers: [{matches: '^system:.*', replaces: ''}]}\n"),
        of("transformer-unanchored", &[(GROUPS, &format!("{GROUPS}      transformers: [{{matches: '^a:', replaces: ''}}]\n"))], &[(GROUPS, &format!("{GROUPS}      transformers: [{{matches: '^a:(.*)$', replaces: '$1'}}]\n"))]),
        config("claim-writable", "    userId: {claims: [sub, preferred_username]}\n", "    userId: {claims: [preferred_username]}\n"),
        config("claim-writable", "    userId: {claims: [upn, email]}\n", "    userId: {claims: [upn, email], requireVerifiedEmail: true}\n"),
        of("subject-writable", &[("    accessToken:\n", "    accessToken:\n      subject: email\n")], &[("    accessToken:\n", "    accessToken:\n      subject: uid\n")]),
        of("subject-writable", &[("    accessToken:\n", "    accessToken:\n      subject: 'custom:id'\n")], &[]),
        of("cognito-issuer-slash", &[("      issuer: https://cognito-idp.us-west-2.amazonaws.com/us-west-2_AbCdEfGhI\n    logout", "      issuer: https://cognito-idp.us-west-2.amazonaws.com/us-west-2_AbCdEfGhI/\n    logout")], &[]),
        of("cognito-groups", &[(GROUPS, "      - cognito:groups\n")], &[]),
    ]
}

/// The interlock of the second extension's gateway.
fn second_interlock() -> String {
    let text = applied();
    let mut parts = text.split("\n---\n");
    let interlock = parts.find(|part| part.contains("\nkind: EnvoyFilter\n"));
    let interlock = changed(
        interlock.expect("the interlock"),
        &[
            ("namespace: \"istio-system\"", "namespace: other"),
            ("istio: ingressgateway", "istio: another"),
        ],
    );
    format!("---\n{interlock}\n")
}

#[test]
fn every_code_has_a_case_that_fails_and_one_that_passes() {
    let (mut wrong, mut tried) = (Vec::new(), BTreeSet::new());
    for (position, (code, bad, good)) in cases().iter().enumerate() {
        tried.insert((*code).to_owned());
        let (bad, good) = (codes(bad), codes(good));
        if bad != [*code] || !good.is_empty() {
            wrong.push(format!("{position} {code}: {bad:?}, {good:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all: BTreeSet<_> = rules()
        .iter()
        .map(|rule| rule["id"].as_str().expect("an id").to_owned())
        // `audit` has the codes of the load balancer, `doctor` those of a live cluster.
        .filter(|code| !code.starts_with("alb-") && !code.starts_with("live-"))
        .collect();
    assert_eq!(tried, all);
}

#[test]
fn findings_name_the_place_and_the_fix() {
    let input = changed(&applied(), &[("FAIL_RELOAD", "FAIL_OPEN")]);
    let line = input.lines().position(|line| line.contains("FAIL_OPEN"));
    let (status, findings) = check(&input, &[]);
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    let expected = json!({
        "code": "fail-open",
        "severity": "error",
        "file": "standard input",
        "line": line.expect("a line") + 1,
        "resource": "WasmPlugin istio-system/alb-oidc",
        "field": "spec.failStrategy",
        "message": "WasmPlugin istio-system/alb-oidc: spec.failStrategy: found FAIL_OPEN, expected FAIL_RELOAD or FAIL_CLOSE",
        "fix": "Set failStrategy to FAIL_RELOAD, or to FAIL_CLOSE before Istio 1.27.",
        "page": "docs/operations.md#fail-open",
    });
    assert_eq!((status, finding), (1, &expected));

    let text = run(Path::new("."), &["check", "-"], &input).stdout;
    let first = format!(
        "standard input:{}: error: {} [fail-open]\n    fix: {}\n1 error\n",
        expected["line"],
        expected["message"].as_str().expect("text"),
        expected["fix"].as_str().expect("text"),
    );
    assert!(text.starts_with(&first), "{text}");
}

#[test]
fn strict_fails_for_warnings() {
    let warning = changed(&applied(), &[("_AbCdEfGhI", "_EXAMPLE")]);
    assert_eq!(check(&warning, &[]).0, 0);
    assert_eq!(check(&warning, &["--strict"]).0, 1);
    assert_eq!(check(&applied(), &["--strict"]).0, 0);
}

#[test]
fn partial_input_has_no_missing_parts() {
    let text = applied();
    let (_, extension) = text.rsplit_once("\n---\n").expect("an extension");
    let (status, findings) = check(extension, &["--partial"]);
    assert_eq!((status, findings.as_slice()), (0, &[][..]));
    let all = ["interlock-missing", "key-server-missing", "key-server-tls"];
    let found: BTreeSet<_> = codes(extension).into_iter().collect();
    assert_eq!(found, all.map(str::to_owned).into());
    // A mistake is one in a part, too.
    let open = changed(extension, &[("FAIL_RELOAD", "FAIL_OPEN")]);
    assert_eq!(check(&open, &["--partial"]).0, 1);
}

#[test]
fn sarif_has_the_findings_and_their_rules() {
    let input = changed(
        &applied(),
        &[
            ("phase: AUTHN ", "phase: STATS "),
            ("_AbCdEfGhI", "_EXAMPLE"),
        ],
    );
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("a b.yaml"), &input).expect("a file");
    let ran = run(
        directory.path(),
        &["check", "--output", "sarif", "a b.yaml"],
        "",
    );
    let log: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((ran.status, &log["version"]), (1, &json!("2.1.0")));
    let results = log["runs"][0]["results"].as_array().expect("results");
    assert_eq!(results.len(), 2);
    let result = &results[0];
    assert_eq!(
        (&result["ruleId"], &result["level"]),
        (&json!("phase-wrong"), &json!("error"))
    );
    let line = input.lines().position(|line| line.contains("phase: STATS"));
    assert_eq!(
        result["locations"][0]["physicalLocation"],
        json!({"artifactLocation": {"uri": "a%20b.yaml"}, "region": {"startLine": line.expect("a line") + 1}})
    );
    for rule in rules() {
        for text in [
            "/shortDescription/text",
            "/help/text",
            "/defaultConfiguration/level",
        ] {
            let text = rule.pointer(text).and_then(Value::as_str);
            assert!(text.is_some_and(|text| text.len() > 4), "{rule}");
        }
    }
}

#[test]
fn reads_directories_and_several_files() {
    let directory = TempDir::new().expect("a directory");
    let put = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    };
    let text = applied();
    let (others, extension) = text.rsplit_once("\n---\n").expect("an extension");
    put("all/a/others.yaml", others);
    put(
        "all/extension.yml",
        &changed(extension, &[("FAIL_RELOAD", "FAIL_OPEN")]),
    );
    put("all/notes.txt", "{");
    put("all/.git/a.yaml", "{");
    std::os::unix::fs::symlink("..", directory.path().join("all/a/up")).expect("a link");
    put("all/kustomization.yaml", "resources: [extension.yml]\n");
    let of = |arguments: &[&str], input: &str| {
        let ran = run(directory.path(), &[&["check"], arguments].concat(), input);
        (
            ran.status,
            ran.stdout.lines().next().unwrap_or_default().to_owned(),
            ran.stderr,
        )
    };
    for paths in [&["all"][..], &["all/extension.yml", "all/a/others.yaml"]] {
        let (status, first, _) = of(paths, "");
        assert!(
            status == 1 && first.starts_with("all/extension.yml:20: error: "),
            "{first}"
        );
    }
    let (status, _, _) = of(&["all/a/others.yaml", "-"], extension);
    assert_eq!(status, 0);

    put("broken/a.yaml", "a: [\n");
    put("chart/Chart.yaml", "name: a\n");
    put("empty/notes.txt", "");
    put("other/a.yaml", "kind: Secret\n");
    for (path, expected) in [
        (
            "broken",
            "alb-oidc: broken/a.yaml:1: found invalid text, expected YAML or JSON",
        ),
        (
            "chart",
            "alb-oidc: chart: found a Helm chart, expected its rendered resources",
        ),
        ("empty", "alb-oidc: empty: found no YAML or JSON file"),
        ("other", "alb-oidc: other: found no plugin config"),
        ("missing", "alb-oidc: missing: No such file"),
    ] {
        let (status, out, error) = of(&[path], "");
        assert_eq!(
            (status, out.as_str(), error.lines().count()),
            (2, "", 1),
            "{error}"
        );
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn reads_the_values_of_the_chart() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/istio/chart/examples/okta.yaml"
    );
    let values = std::fs::read_to_string(path).expect("the example");
    let found = codes(&values);
    assert_eq!(found, ["placeholder"]);
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let values = changed(&values, &[(digest, &"1b".repeat(32))]);
    assert_eq!(check(&values, &["--strict"]), (0, Vec::new()));
    let bad = changed(&values, &[("    claims: [email]", "    claims: []")]);
    let line = bad.lines().position(|line| line.contains("claims: []"));
    let (status, findings) = check(&bad, &[]);
    let place = (&findings[0]["line"], &findings[0]["field"]);
    assert_eq!(status, 1);
    assert_eq!(
        place,
        (&json!(line.expect("a line") + 1), &json!("userId.claims"))
    );
}

#[test]
fn key_servers_on_the_same_machine_need_no_tls() {
    let of = |endpoint: &str| {
        codes(&format!(
            "loadBalancers: [{{arn: '{ARN}', issuer: 'https://issuer.internal', clientId: c}}]\npublicKeys: {{endpoint: '{endpoint}'}}\n"
        ))
    };
    for endpoint in ["http://127.0.0.1:9000/a", "http://localhost/a"] {
        assert_eq!(of(endpoint), [""; 0], "{endpoint}");
    }
    assert_eq!(of("http://10.0.0.1:9000/a"), ["key-server-http"]);
}

#[test]
fn reads_unusual_scalars_of_other_resources() {
    let other = "---\nkind: ConfigMap\ndata:\n  80: a\n  1.5: b\n  true: c\n  d: 0x1F\n  e: 12345678901234567890123\n  f: !!binary aGk=\n  g: 2020-01-01\n  h: &x [1]\n  i: *x\n  j: =\n";
    assert_eq!(check(&(applied() + other), &["--strict"]), (0, Vec::new()));
}

/// Resources of the root namespace apply to every namespace.
#[test]
fn interlock_of_the_root_namespace_is_enough() {
    let text = applied();
    let text = changed(&text, &[("exportTo: [\".\"]", "exportTo: [\"*\"]")]);
    let (others, extension) = text.rsplit_once("\n---\n").expect("an extension");
    let of = |others: &str, namespace: &str| {
        let moved = changed(extension, &[("namespace: \"istio-system\"", namespace)]);
        codes(&format!("{others}\n---\n{moved}"))
    };
    assert_eq!(of(others, "namespace: gateways"), [""; 0]);
    let moved = changed(
        others,
        &[("namespace: \"istio-system\"", "namespace: other")],
    );
    assert_eq!(of(&moved, "namespace: gateways"), ["target-differs"]);
}

/// The subset of an egress gateway makes the cluster.
#[test]
fn judges_key_servers_behind_an_egress_gateway() {
    let rule = |tls: &str| {
        format!(
            "{AT_END}---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {{name: e, namespace: istio-system}}\n\
             spec:\n  host: egress.istio-system.svc.cluster.local\n  subsets: [{{name: alb, trafficPolicy: {{tls: {{{tls}}}}}}}]\n"
        )
    };
    let own = "  pluginConfig:\n    publicKeys: {cluster: 'outbound|443|alb|egress.istio-system.svc.cluster.local'}\n";
    let of = |tls: &str| codes(&changed(&applied(), &[(CONFIG, own), (AT_END, &rule(tls))]));
    assert_eq!(of("mode: ISTIO_MUTUAL"), [""; 0]);
    assert_eq!(of("mode: DISABLE"), ["key-server-tls"]);
    let none = codes(&changed(&applied(), &[(CONFIG, own)]));
    assert_eq!(none, ["key-server-tls"]);
}
