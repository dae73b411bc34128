//! The alert rules and the dashboard of `istio/chart/monitoring`, evaluated by Prometheus's own
//! promtool on invented series: each alert fires on its metric and on no other, and each panel
//! shows its metric. `monitoring.rs` compares names.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use support::{read, repository};

/// An alert, what makes it fire, and after how many minutes.
const ALERTS: [(&str, &[&str], u32); 8] = [
    ("AlbOidcNoKey", &["denied_key_unavailable"], 8),
    (
        "AlbOidcKeyFetchFails",
        &["key_fetch_failed", "key_fetch_invalid"],
        20,
    ),
    ("AlbOidcInternalError", &["denied_internal_error"], 8),
    (
        "AlbOidcOtherLoadBalancer",
        &[
            "denied_signer_unknown",
            "denied_issuer_mismatch",
            "denied_client_mismatch",
        ],
        13,
    ),
    ("AlbOidcForgedTokens", &["denied_signature_invalid"], 13),
    ("AlbOidcVerifiesInModule", &["verified_module"], 13),
    ("AlbOidcManyWaiting", &["waiting"], 8),
    (
        "AlbOidcReportMode",
        &["reported_token_missing", "reported_user_not_allowed"],
        65,
    ),
];

/// Series of a gateway without faults. All but the gauge rise by 1 a second.
const HEALTHY: [&str; 8] = [
    "admitted",
    "skipped",
    "signed_out",
    "denied_token_missing",
    "denied_token_expired",
    "key_fetch_ok",
    "token_cache_hit",
    "verified_host",
];

fn read_yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).expect(path)
}

/// Two pods of one gateway, so that sums over pods are tested.
fn series(name: &str, values: &str) -> Vec<Value> {
    ["gateway-1", "gateway-2"]
        .map(|pod| {
            let labels =
                format!(r#"{{wasm_filter="alb_oidc",namespace="istio-system",pod="{pod}"}}"#);
            json!({"series": format!("{name}{labels}"), "values": values})
        })
        .into()
}

fn rising(name: &str) -> Vec<Value> {
    series(name, "0+60x120")
}

/// Runs promtool's tests of these rules.
fn test_rules(folder: &Path, rules: &Path, tests: &[Value]) {
    let file = folder.join("tests.json");
    let text = json!({"rule_files": [rules], "evaluation_interval": "1m", "tests": tests});
    std::fs::write(&file, text.to_string()).expect("the tests written");
    promtool(&["test", "rules"], &file);
}

fn promtool(arguments: &[&str], file: &Path) {
    let binary = std::env::var_os("ALB_OIDC_PROMTOOL").expect("promtool: run `make test-alerts`");
    let output = Command::new(&binary)
        .args(arguments)
        .arg(file)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn each_alert_fires_for_its_metrics_only() {
    let rules = read_yaml("istio/chart/monitoring/rules.yaml");
    let rules = rules["groups"][0]["rules"].as_array().expect("rules");
    let rules: BTreeMap<_, _> = rules
        .iter()
        .map(|rule| (rule["alert"].as_str().expect("an alert"), rule))
        .collect();
    let names: Vec<_> = ALERTS.iter().map(|(name, ..)| *name).collect();
    assert!(
        rules.len() == names.len() && names.iter().all(|name| rules.contains_key(name)),
        "{names:?}"
    );
    // The labels alone, on this test's copy: the values in the texts are not compared.
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("rules.json");
    let without_texts: Vec<_> = rules
        .values()
        .map(|rule| json!({"alert": rule["alert"], "expr": rule["expr"], "for": rule["for"], "labels": rule["labels"]}))
        .collect();
    let group = json!({"groups": [{"name": "alerts", "rules": without_texts}]});
    std::fs::write(&copy, group.to_string()).expect("the rules written");

    let healthy: Vec<_> = HEALTHY
        .iter()
        .flat_map(|name| rising(name))
        .chain(series("waiting", "0x120"))
        .collect();
    let expected = |fires: Option<&str>, minutes: u32| -> Vec<Value> {
        names
            .iter()
            .map(|name| {
                let labels = json!({"severity": rules[name]["labels"]["severity"], "namespace": "istio-system"});
                let alerts = match fires == Some(name) {
                    true => vec![json!({"exp_labels": labels})],
                    false => vec![],
                };
                json!({"eval_time": format!("{minutes}m"), "alertname": name, "exp_alerts": alerts})
            })
            .collect()
    };
    let mut tests = vec![
        json!({"name": "healthy", "interval": "1m", "input_series": healthy, "alert_rule_test": expected(None, 90)}),
    ];
    for (alert, metrics, minutes) in ALERTS {
        for metric in metrics {
            let fault = match *metric {
                "waiting" => series("waiting", "600x120"),
                _ => rising(metric),
            };
            let input: Vec<_> = HEALTHY
                .iter()
                .flat_map(|name| rising(name))
                .chain(fault)
                .collect();
            tests.push(json!({
                "name": format!("{alert} for {metric}"),
                "interval": "1m",
                "input_series": input,
                "alert_rule_test": expected(Some(alert), minutes),
            }));
        }
    }
    test_rules(folder.path(), &copy, &tests);
}

#[test]
fn texts_of_alerts_are_valid_templates() {
    let rules = repository("istio/chart/monitoring/rules.yaml");
    promtool(&["check", "rules", "--lint-fatal"], &rules);
}

#[test]
fn each_panel_shows_its_metric() {
    let text = read("istio/chart/monitoring/dashboard.json");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let input: Vec<_> = HEALTHY
        .iter()
        .copied()
        .chain(["reported_token_missing", "dropped"])
        .flat_map(rising)
        .chain(series("waiting", "3x120"))
        .collect();
    // What each panel shows of two pods: the values, sorted.
    let expected: BTreeMap<&str, &[f64]> = BTreeMap::from([
        ("Requests", &[2.0, 2.0, 2.0, 4.0, 2.0][..]),
        ("Denied, by reason", &[2.0, 2.0]),
        ("Would be denied, by reason", &[2.0]),
        ("Key fetches, by outcome", &[2.0]),
        ("Requests that wait for a key", &[6.0]),
        ("Token cache hit ratio", &[1.0]),
        ("Signature checks", &[2.0]),
        ("Dropped", &[2.0]),
    ]);
    let panels = dashboard["panels"].as_array().expect("panels");
    assert_eq!(panels.len(), expected.len());
    let mut checks = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        let mut values = expected[title].iter().copied();
        let targets = panel["targets"].as_array().expect("targets");
        for target in targets {
            let expression = target["expr"].as_str().expect("an expression");
            let expression = expression.replace("$__rate_interval", "5m");
            // One target with several series: their sum and their number.
            let of_target: Vec<f64> = match targets.len() {
                1 => values.by_ref().collect(),
                _ => values.by_ref().take(1).collect(),
            };
            for (function, value) in [
                ("sum", of_target.iter().sum::<f64>()),
                ("count", of_target.len() as f64),
            ] {
                let samples = json!([{"labels": "{}", "value": value}]);
                checks.push(json!({"expr": format!("round({function}({expression}), 0.001)"), "eval_time": "60m", "exp_samples": samples}));
            }
        }
        assert_eq!(values.next(), None, "{title}");
    }
    let tests = [
        json!({"name": "panels", "interval": "1m", "input_series": input, "promql_expr_test": checks}),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let rules = repository("istio/chart/monitoring/rules.yaml");
    test_rules(folder.path(), &rules, &tests);
}
