//! Tests of the gate: the order of its checks, and the edits of each decision.

use super::*;
use crate::crypto::es256::{P256_PROVIDER, P256Key};
use crate::keys::client_address::ClientAddress;
use crate::keys::source::FetchResult;
use crate::time::{Now, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey as _;
use serde_json::{Value, json};

const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
const KID: &str = "31d3e334-9a02-440a-867b-356248ecfb7d";
const EXPIRES: u64 = 2_000_000_000;
const STEADY: Timestamp = Timestamp::from_millis(1_000_000);

struct Setting {
    gate: Gate,
    keys: KeyCache,
}

fn signing_key() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

fn setting(change: impl FnOnce(&mut Value)) -> Setting {
    let mut config =
        json!({"loadBalancers": [{"arn": ARN, "issuer": "issuer", "clientId": "client"}]});
    change(&mut config);
    let config = Config::from_value(&config).unwrap();
    let keys = KeyCache::new(
        config.key_ttl,
        config.key_sources.iter().map(|source| source.timeout),
        0,
    );
    Setting {
        gate: Gate::new(config, Verifier::install(&P256_PROVIDER)),
        keys,
    }
}

fn with_key(mut setting: Setting) -> Setting {
    let Decision::NeedKey(name) = setting
        .decide(&[(OIDC_DATA, &token(json!({"email": "x"})))], 0)
        .0
    else {
        panic!()
    };
    setting
        .keys
        .wait(name, 1, || ClientAddress::Unknown, STEADY)
        .unwrap();
    setting.keys.tick(STEADY);
    let spki = signing_key().verifying_key().to_public_key_der().unwrap();
    setting.keys.answered(
        name,
        FetchResult::Key(PublicKey::P256(
            P256Key::from_spki(spki.as_bytes()).unwrap(),
        )),
        STEADY,
    );
    setting
}

fn now(seconds_before_expiry: u64) -> Timestamp {
    Timestamp::from_seconds(EXPIRES - seconds_before_expiry)
}

fn token(claims: Value) -> String {
    let header = json!({"alg": "ES256", "kid": KID, "signer": ARN, "iss": "issuer", "client": "client", "exp": EXPIRES});
    let signing_input = format!(
        "{}.{}",
        URL_SAFE.encode(header.to_string()),
        URL_SAFE.encode(claims.to_string())
    );
    let signature: Signature = signing_key().sign(signing_input.as_bytes());
    format!("{signing_input}.{}", URL_SAFE.encode(signature.to_bytes()))
}

fn head<'a>(headers: &[(&'a str, &'a str)]) -> RequestHead<'a> {
    RequestHead::new(
        headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect(),
    )
}

impl Setting {
    fn decide(&mut self, headers: &[(&str, &str)], seconds_before_expiry: u64) -> (Decision, Work) {
        self.gate.decide(
            &head(headers),
            &mut self.keys,
            &Now {
                wall: now(seconds_before_expiry),
                steady: STEADY,
            },
        )
    }

    fn strip(&self, headers: &[(&str, &str)]) -> Vec<HeaderEdit> {
        self.gate.strip(&head(headers))
    }
}

fn remove(name: &str) -> HeaderEdit {
    HeaderEdit::Remove(name.to_owned())
}

fn set(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit::Set(name.to_owned(), value.as_bytes().to_vec())
}

#[test]
fn sets_the_user_id_and_removes_the_verified_token() {
    let mut setting = with_key(setting(|_| {}));
    let token = token(json!({"email": "ann@example.com"}));
    let (decision, work) = setting.decide(
        &[
            (OIDC_DATA, &token),
            (ACCESS_TOKEN, "a"),
            (OIDC_IDENTITY, "s"),
        ],
        10,
    );
    let edits = vec![
        remove(OIDC_DATA),
        remove(ACCESS_TOKEN),
        remove(OIDC_IDENTITY),
        set("kubeflow-userid", "ann@example.com"),
    ];
    assert_eq!(decision, Decision::Admit(edits));
    assert_eq!(
        work,
        Work {
            token_cache_hit: false,
            signatures_checked: 1,
            dropped: 0
        }
    );
}

#[test]
fn verifies_a_cached_token_once_and_checks_its_expiry() {
    let mut setting = with_key(setting(|_| {}));
    let token = token(json!({"email": "ann@example.com", "exp": EXPIRES - 5}));
    let headers = [(OIDC_DATA, token.as_str())];
    let first = setting.decide(&headers, 10).0;
    let (second, work) = setting.decide(&headers, 10);
    assert_eq!(first, second);
    assert_eq!(
        work,
        Work {
            token_cache_hit: true,
            signatures_checked: 0,
            dropped: 0
        }
    );
    // The payload's `exp` is the earlier one; the clock skew is 30 s.
    let at = |setting: &mut Setting, millis| {
        setting
            .gate
            .decide(
                &head(&headers),
                &mut setting.keys,
                &Now {
                    wall: Timestamp::from_millis(millis),
                    steady: STEADY,
                },
            )
            .0
    };
    assert!(matches!(
        at(&mut setting, (EXPIRES + 25) * 1000 - 1),
        Decision::Admit(_)
    ));
    assert_eq!(
        at(&mut setting, (EXPIRES + 25) * 1000),
        Decision::Deny(Reason::TokenExpired)
    );
}

#[test]
fn verifies_a_cached_token_again_after_five_minutes() {
    let mut setting = with_key(setting(|_| {}));
    let token = token(json!({"email": "ann@example.com"}));
    let headers = [(OIDC_DATA, token.as_str())];
    let mut is_cached = |seconds_before_expiry| {
        let (decision, work) = setting.decide(&headers, seconds_before_expiry);
        assert!(matches!(decision, Decision::Admit(_)), "{decision:?}");
        work.token_cache_hit
    };
    assert!(!is_cached(10_000));
    assert!(is_cached(9_701));
    assert!(!is_cached(9_700));
    assert!(is_cached(9_401));
    // The key is gone: no cached token outlives it.
    setting.keys = self::setting(|_| {}).keys;
    assert!(matches!(
        setting.decide(&headers, 9_400).0,
        Decision::NeedKey(_)
    ));
}

#[test]
fn a_cached_token_with_one_byte_changed_is_another() {
    let mut setting = with_key(setting(|_| {}));
    let good = token(json!({"email": "ann@example.com"}));
    assert!(matches!(
        setting.decide(&[(OIDC_DATA, &good)], 10).0,
        Decision::Admit(_)
    ));
    let mut bad = good.into_bytes();
    bad[200] ^= 1;
    let bad = String::from_utf8(bad).unwrap();
    assert!(matches!(
        setting.decide(&[(OIDC_DATA, &bad)], 10).0,
        Decision::Deny(_)
    ));
}

#[test]
fn denies_without_a_fetch_what_needs_no_key() {
    let mut setting = setting(|_| {});
    let good = token(json!({}));
    let forged = good.replacen('.', "x.", 1);
    for (headers, reason) in [
        (vec![], Reason::TokenMissing),
        (vec![(OIDC_DATA, "")], Reason::TokenMissing),
        (
            vec![(OIDC_DATA, good.as_str()), (OIDC_DATA, good.as_str())],
            Reason::TokenDuplicate,
        ),
        (
            vec![(OIDC_DATA, ""), (OIDC_DATA, good.as_str())],
            Reason::TokenDuplicate,
        ),
        (vec![(OIDC_DATA, forged.as_str())], Reason::TokenMalformed),
    ] {
        assert_eq!(setting.decide(&headers, 10).0, Decision::Deny(reason));
    }
}

#[test]
fn strips_identity_headers_and_their_aliases() {
    let setting = setting(|config| config["userId"] = json!({"header": "x-user_id"}));
    let spoofed = [
        "x-user_id",
        "x-user-id",
        "x_user_id",
        "x_user-id",
        "x.user~id",
        "kubeflow-userid",
        "kubeflow_userid",
        "kubeflow.userid",
        "kubeflow-groups",
        "kubeflow_groups",
        "x_amzn_oidc_data",
        "x-amzn-oidc_identity",
        "x.amzn.oidc.data",
    ];
    let mut headers: Vec<_> = spoofed.iter().map(|name| (*name, "root")).collect();
    headers.extend([
        ("x-user-id", "again"),
        ("x-user-id2", "no"),
        (":path", "no"),
        (OIDC_DATA, "no"),
        ("cookie", "no"),
    ]);
    assert_eq!(setting.strip(&headers), spoofed.map(remove));
}

#[test]
fn strips_reserved_headers_and_their_aliases() {
    let long = format!("x-{}", "a".repeat(62));
    let setting = setting(|config| config["reservedHeaders"] = json!(["X-Machine-Client", long]));
    let spoofed = [
        "x-machine-client",
        "x_machine_client",
        "x.machine.client",
        &long,
    ];
    let mut headers: Vec<_> = spoofed.iter().map(|name| (*name, "root")).collect();
    headers.push(("x-machine-clients", "no"));
    assert_eq!(setting.strip(&headers), spoofed.map(remove));
    assert_eq!(
        setting.gate.strip_trailers(&head(&headers)),
        spoofed.map(remove)
    );
}

#[test]
fn strips_path_overrides_if_there_are_rules() {
    let rules = json!([{"match": {"paths": [{"prefix": "/public"}]}, "require": "none"}]);
    let headers = PATH_OVERRIDES.map(|name| (name, "/admin"));
    assert_eq!(setting(|_| {}).strip(&headers), []);
    let with_rules = |config: &mut Value| config["rules"] = rules.clone();
    assert_eq!(
        setting(with_rules).strip(&headers),
        PATH_OVERRIDES.map(remove)
    );
    assert_eq!(
        setting(with_rules)
            .strip(&[("script_name", "/a"), ("x.original_url", "/a")])
            .len(),
        2
    );
    let kept = setting(|config| {
        with_rules(config);
        config["forward"] = json!({"pathOverrides": true});
    });
    assert_eq!(kept.strip(&headers), []);
}

#[test]
fn strips_identity_trailers_and_those_of_the_alb() {
    let setting = setting(|_| {});
    let trailers = [
        ("kubeflow_userid", "root"),
        ("kubeflow-userid", "root"),
        (OIDC_DATA, "x"),
        ("grpc-status", "0"),
    ];
    let expected = ["kubeflow_userid", "kubeflow-userid", OIDC_DATA].map(remove);
    assert_eq!(setting.gate.strip_trailers(&head(&trailers)), expected);
}

#[test]
fn forwards_the_plain_identity_only_if_it_is_verified() {
    let mut setting =
        with_key(setting(
            |config| {
                config["forward"] =
                    json!({"oidcData": true, "accessToken": true, "sessionCookies": true})
            },
        ));
    let token = token(json!({"email": "ann", "sub": "1"}));
    let cookie = ("cookie", "AWSELBAuthSessionCookie-0=x");
    let headers = |identity| {
        [
            (OIDC_DATA, token.as_str()),
            (ACCESS_TOKEN, "a"),
            (OIDC_IDENTITY, identity),
            cookie,
        ]
    };
    assert_eq!(
        setting.decide(&headers("1"), 10).0,
        Decision::Admit(vec![set("kubeflow-userid", "ann")])
    );
    assert_eq!(
        setting.decide(&headers("2"), 10).0,
        Decision::Admit(vec![remove(OIDC_IDENTITY), set("kubeflow-userid", "ann")])
    );
}

#[test]
fn report_mode_passes_denials_without_identity() {
    let mut setting = setting(|config| {
        config["mode"] = json!("report");
        config["forward"] = json!({"oidcData": true, "accessToken": true});
    });
    let headers = [
        (OIDC_DATA, "forged"),
        (ACCESS_TOKEN, "a"),
        (OIDC_IDENTITY, "root"),
        ("cookie", "b=2"),
    ];
    let edits = [OIDC_DATA, ACCESS_TOKEN, OIDC_IDENTITY]
        .map(remove)
        .to_vec();
    assert_eq!(
        setting.decide(&headers, 10).0,
        Decision::Report(Reason::TokenMalformed, edits)
    );
    let broken = setting.gate.denial(&head(&headers), Reason::InternalError);
    assert_eq!(broken, Decision::Deny(Reason::InternalError));
}

#[test]
fn removes_session_cookies_from_every_cookie_header() {
    let mut setting = with_key(setting(|_| {}));
    let token = token(json!({"email": "ann"}));
    let mut cookies = |cookies: &[&'static str]| {
        let mut headers = vec![(OIDC_DATA, token.as_str())];
        headers.extend(cookies.iter().map(|cookie| ("cookie", *cookie)));
        let Decision::Admit(edits) = setting.decide(&headers, 10).0 else {
            panic!()
        };
        edits.into_iter().find(|edit| {
            *edit == remove("cookie")
                || matches!(edit, HeaderEdit::Set(name, _) if name == "cookie")
        })
    };
    assert_eq!(cookies(&["a=1", "b=2"]), None);
    assert_eq!(
        cookies(&["AWSELBAuthSessionCookie-0=x"]),
        Some(remove("cookie"))
    );
    assert_eq!(
        cookies(&[
            "a=1; AWSELBAuthSessionCookie-0=x",
            "AWSELBAuthSessionCookie-1=y",
            "b=2"
        ]),
        Some(set("cookie", "a=1; b=2"))
    );
}
