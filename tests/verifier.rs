//! Both verifiers on a real Envoy: the host's BoringSSL and the module's `p256` must agree with
//! every Wycheproof vector. Prints the time of each.

use serde_json::{Value, json};
use support::envoy::{Envoy, Plugin, Setup};
use support::upstream::Upstream;

/// The number of verifications in a time measurement.
const ROUNDS: u32 = 200;

/// The vectors in the form of the probe's configuration, and the expected verdicts.
fn vectors() -> (Vec<Value>, String) {
    let file = support::repository("tests/vectors/ecdsa_secp256r1_sha256_p1363_test.json");
    let file: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut vectors = Vec::new();
    let mut verdicts = String::new();
    for group in file["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            vectors.push(json!({"spki": group["publicKeyDer"], "message": test["msg"], "signature": test["sig"]}));
            verdicts.push(if test["result"] == "valid" { '1' } else { '0' });
        }
    }
    (vectors, verdicts)
}

#[tokio::test]
async fn both_verifiers_agree_with_wycheproof() {
    let (vectors, expected) = vectors();
    assert_eq!(
        (expected.matches('1').count(), expected.matches('0').count()),
        (173, 89)
    );
    let upstream = Upstream::start().await;
    for binary in support::envoys() {
        let mut probe = Plugin::new("probe", json!({"vectors": vectors, "rounds": ROUNDS}));
        probe.module = support::verifier_probe();
        let setup = Setup {
            plugins: vec![probe],
            ..Setup::new(&binary, upstream.address(), upstream.address())
        };
        let envoy = Envoy::must_start(&setup).await;
        let log = envoy.log();
        let start = log
            .find("{\"host\"")
            .expect("the probe's report in the log");
        let report = log[start..].lines().next().unwrap();
        let report: Value = serde_json::from_str(report).unwrap();
        let version = support::version(&binary);
        for verifier in ["host", "module"] {
            assert_eq!(
                report[verifier], expected,
                "verdicts of the {verifier} on Envoy {version}"
            );
        }
        let micros = |field: &str| report[field].as_f64().unwrap() / f64::from(ROUNDS) / 1000.0;
        let (host, module) = (micros("hostNanos"), micros("moduleNanos"));
        println!(
            "envoy {version}: {} vectors; one verification takes the host {host:.0} µs, the module {module:.0} µs: {:.1} times as long",
            vectors.len(),
            module / host
        );
        envoy.stop().await;
    }
}
