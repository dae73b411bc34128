//! Tests that the recorded checks and the decision agree, for each check that can fail.

use super::super::step::{CHECKS, Outcome};
use super::super::unverified::Unverified;
use super::*;
use crate::mint::{AlbKey, AlbToken};
use alb_oidc_filter::{HeaderEdit, PublicKey, Reason};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Map, Value, json};

const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
const NOW: u64 = 1_000_000;

fn config() -> Config {
    let config = json!({
        "loadBalancers": [{"arn": ARN, "issuer": "issuer", "clientId": "client"}],
        "userId": {"requireVerifiedEmail": true, "transformers": [{"matches": "^nobody$", "replaces": ""}]},
        "rules": [
            {"match": {"paths": [{"exact": "/healthz"}]}, "require": "none"},
            {"match": {"paths": [{"prefix": "/admin"}]}, "allow": {"users": ["root"]}},
        ],
    });
    Config::from_value(&config).unwrap()
}

fn token() -> AlbToken {
    AlbToken {
        kid: "31d3e334-9a02-440a-867b-356248ecfb7d".to_owned(),
        signer: ARN.to_owned(),
        issuer: "issuer".to_owned(),
        client: "client".to_owned(),
        expires: NOW + 100,
        claims: Map::from_iter([
            ("email".to_owned(), json!("ann")),
            ("email_verified".to_owned(), json!(true)),
        ]),
        padded: true,
    }
}

fn with(name: &str, value: Value) -> AlbToken {
    let mut token = token();
    token.claims.insert(name.to_owned(), value);
    token
}

fn public(key: &AlbKey) -> Option<FetchResult> {
    let key = P256Key::from_pem(key.public_pem().unwrap().as_bytes()).unwrap();
    Some(FetchResult::Key(PublicKey::P256(key)))
}

fn judged(text: &str, known: &dyn Fn() -> Option<FetchResult>, path: &str) -> Verdict {
    let request = Request {
        path,
        host: "a.example",
        method: "GET",
    };
    let now = Timestamp::from_seconds(NOW);
    let tokens = Tokens {
        text,
        decoded: &Unverified::decode(text),
        access: "",
        key_set: None,
    };
    judge(
        &config(),
        &[],
        &tokens,
        Some(&request),
        &|_| Ok(known()),
        now,
    )
    .unwrap()
}

/// The check that failed, of a trail whose checks stand in order: passed, at most one failed,
/// not reached.
fn failed(verdict: &Verdict) -> Option<&'static str> {
    assert_eq!(
        verdict
            .steps
            .iter()
            .map(|step| step.check)
            .collect::<Vec<_>>(),
        CHECKS
    );
    let mut rest = verdict
        .steps
        .iter()
        .skip_while(|step| step.outcome == Outcome::Passed)
        .peekable();
    let failed = rest
        .next_if(|step| step.outcome == Outcome::Failed)
        .map(|step| step.check);
    assert!(
        rest.all(|step| step.outcome == Outcome::NotReached),
        "{:?}",
        verdict.steps
    );
    failed
}

#[test]
fn gate_denies_for_the_check_that_failed() {
    let key = AlbKey::generate();
    let mint = |token: AlbToken| token.mint(&key).unwrap();
    let header = |text: &str| format!("{}.e30=.{}==", URL_SAFE.encode(text), "A".repeat(86));
    for (text, check, reason) in [
        (String::new(), "form", Reason::TokenMissing),
        ("x".repeat(20_000), "form", Reason::TokenTooLarge),
        ("a.b".to_owned(), "form", Reason::TokenMalformed),
        (
            header(r#"{"alg":"ES256","kid":"31d3e334-9a02-440a-867b-356248ecfb7d"}"#),
            "form",
            Reason::TokenMalformed,
        ),
        (
            header(r#"{"alg":"RS256"}"#),
            "algorithm",
            Reason::AlgorithmNotEs256,
        ),
        (
            mint(AlbToken {
                kid: "x".to_owned(),
                ..token()
            }),
            "key id",
            Reason::KeyIdInvalid,
        ),
        (
            mint(AlbToken {
                signer: "x".to_owned(),
                ..token()
            }),
            "signer",
            Reason::SignerUnknown,
        ),
        (
            mint(AlbToken {
                issuer: "x".to_owned(),
                ..token()
            }),
            "issuer",
            Reason::IssuerMismatch,
        ),
        (
            mint(AlbToken {
                client: "x".to_owned(),
                ..token()
            }),
            "client",
            Reason::ClientMismatch,
        ),
        (
            mint(AlbToken {
                expires: NOW - 31,
                ..token()
            }),
            "expiry",
            Reason::TokenExpired,
        ),
        (
            token().mint(&AlbKey::generate()).unwrap(),
            "signature",
            Reason::SignatureInvalid,
        ),
        (
            mint(with("exp", json!("x"))),
            "claims",
            Reason::TokenMalformed,
        ),
        (
            mint(with("exp", json!(NOW - 31))),
            "claims' expiry",
            Reason::TokenExpired,
        ),
        (
            mint(with("iss", json!("x"))),
            "claims' issuer",
            Reason::IssuerMismatch,
        ),
        (
            mint(with("email", json!(7))),
            "user id",
            Reason::UserIdMissing,
        ),
        (
            mint(with("email_verified", json!("no"))),
            "verified email",
            Reason::EmailUnverified,
        ),
        (
            mint(with("email", json!("nobody"))),
            "user id's form",
            Reason::UserIdInvalid,
        ),
        (
            mint(with("email", json!("system:masters"))),
            "user id's form",
            Reason::UserIdInvalid,
        ),
        (mint(token()), "rules", Reason::UserNotAllowed),
    ] {
        let verdict = judged(&text, &|| public(&key), "/admin");
        assert_eq!(
            (failed(&verdict), verdict.decision),
            (Some(check), Decision::Deny(reason)),
            "{text}"
        );
    }
    let absent: fn() -> Option<FetchResult> = || Some(FetchResult::NotFound);
    for (known, reason) in [
        (absent, Reason::KeyNotFound),
        (|| Some(FetchResult::Invalid), Reason::KeyInvalid),
    ] {
        let verdict = judged(&mint(token()), &known, "/admin");
        assert_eq!(
            (failed(&verdict), verdict.decision),
            (Some("key"), Decision::Deny(reason))
        );
    }
}

#[test]
fn gate_admits_if_all_checks_pass_and_else_needs_a_key() {
    let key = AlbKey::generate();
    let text = token().mint(&key).unwrap();
    let verdict = judged(&text, &|| public(&key), "/");
    assert!(
        verdict
            .steps
            .iter()
            .all(|step| step.outcome == Outcome::Passed),
        "{:?}",
        verdict.steps
    );
    assert!(
        matches!(verdict.decision, Decision::Admit(_)),
        "{:?}",
        verdict.decision
    );
    let verdict = judged(&text, &|| None, "/");
    assert!(failed(&verdict).is_none() && matches!(verdict.decision, Decision::NeedKey(_)));
    let verdict = judged("", &|| public(&key), "/healthz");
    assert!(failed(&verdict).is_none() && matches!(verdict.decision, Decision::Skip(_)));
}

#[test]
fn sign_out_needs_no_token() {
    let mut config = json!({"loadBalancers": [{"arn": ARN, "issuer": null, "clientId": null}]});
    config["logout"] = json!({"path": "/logout", "redirectTo": "https://idp.example/"});
    let tokens = Tokens {
        text: "x",
        decoded: &Unverified::decode("x"),
        access: "",
        key_set: None,
    };
    let request = Request {
        path: "/logout",
        host: "a.example",
        method: "GET",
    };
    let now = Timestamp::from_seconds(NOW);
    let find = |_| Ok(None);
    let verdict = judge(
        &Config::from_value(&config).unwrap(),
        &[],
        &tokens,
        Some(&request),
        &find,
        now,
    )
    .unwrap();
    assert!(
        verdict
            .steps
            .iter()
            .all(|step| step.outcome == Outcome::NotReached),
        "{:?}",
        verdict.steps
    );
    assert!(matches!(verdict.decision, Decision::SignOut(_)));
}

#[test]
fn checks_access_tokens_that_the_config_reads() {
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let config = Config::from_value(&json!({
        "loadBalancers": [{"arn": ARN, "issuer": "issuer", "clientId": "client"}],
        "accessToken": {"issuer": "https://idp.example"},
        "groups": {"claims": ["access:groups"]},
    }))
    .unwrap();
    let (alb, idp) = (
        AlbKey::generate(),
        RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
    );
    let modulus =
        URL_SAFE_NO_PAD.encode(idp.public_key().modulus().big_endian_without_leading_zero());
    let set = |kid: &str| {
        json!({"keys": [{"kty": "RSA", "kid": kid, "n": modulus, "e": "AQAB"}]}).to_string()
    };
    let access = |subject: &str| {
        let encode = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let header = encode(json!({"alg": "RS256", "kid": "k"}));
        let claims = json!({"iss": "https://idp.example", "sub": subject, "exp": NOW + 100, "groups": ["ml"]});
        let text = format!("{header}.{}", encode(claims));
        let mut signature = vec![0; idp.public_modulus_len()];
        idp.sign(
            &RSA_PKCS1_SHA256,
            &aws_lc_rs::rand::SystemRandom::new(),
            text.as_bytes(),
            &mut signature,
        )
        .unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let text = with("sub", json!("ann")).mint(&alb).unwrap();
    let judged = |access: &str, key_set: Option<&str>| {
        let tokens = Tokens {
            text: &text,
            decoded: &Unverified::decode(&text),
            access,
            key_set,
        };
        judge(
            &config,
            &[],
            &tokens,
            None,
            &|_| Ok(public(&alb)),
            Timestamp::from_seconds(NOW),
        )
        .unwrap()
    };

    let verdict = judged(&access("ann"), Some(&set("k")));
    assert_eq!(failed(&verdict), None);
    let groups = HeaderEdit::Set("kubeflow-groups".to_owned(), b"ml".to_vec());
    assert!(
        matches!(&verdict.decision, Decision::Admit(edits) if edits.contains(&groups)),
        "{:?}",
        verdict.decision
    );
    for (token, key_set, reason) in [
        (String::new(), set("k"), Reason::AccessTokenInvalid),
        (access("eve"), set("k"), Reason::AccessTokenInvalid),
        (access("ann"), set("other"), Reason::KeyNotFound),
        (access("ann"), "{}".to_owned(), Reason::KeyInvalid),
    ] {
        let verdict = judged(&token, Some(&key_set));
        assert_eq!(
            (failed(&verdict), verdict.decision),
            (Some("access token"), Decision::Deny(reason)),
            "{token}"
        );
    }
    let verdict = judged(&access("ann"), None);
    assert!(failed(&verdict).is_none() && matches!(verdict.decision, Decision::NeedKey(_)));
}
