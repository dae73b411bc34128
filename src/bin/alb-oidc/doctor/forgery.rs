//! The headers of the forged request: a token of a key that no load balancer has, and an identity in
//! the user id header and its aliases. No I/O but the clock and a random key.

use alb_oidc_filter::{Config, OIDC_DATA, OIDC_IDENTITY};
use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, json};

use crate::clock;
use crate::mint::{AlbKey, AlbToken};
use crate::trouble::Trouble;

/// The forged identity. No provider can verify an address of `.invalid` (RFC 2606).
const USER: &str = "alb-oidc-doctor@probe.invalid";
/// Kubeflow's user id header.
const KUBEFLOW: &str = "kubeflow-userid";
/// Applications may take a header with another punctuation for the same one.
const SEPARATORS: [&str; 3] = ["-", "_", "."];
/// A load balancer that does not exist, for a gateway with an unknown config.
const NO_ARN: &str =
    "arn:aws:elasticloadbalancing:us-east-1:000000000000:loadbalancer/app/probe/0000000000000000";
const NO_ISSUER: &str = "https://issuer.invalid";
/// How long the forged token says that it is valid, in seconds.
const LIFETIME: u64 = 120;

/// Forged headers. With a config, the token names a load balancer, an issuer and a client that the
/// gateway trusts: only the key is wrong.
///
/// # Errors
/// The clock is set to a time before 1970, or the config has a name that cannot be a header.
pub(super) fn headers(config: Option<&Config>) -> Result<HeaderMap, Trouble> {
    let trouble = |error: &dyn std::fmt::Display| Trouble(format!("forged headers: {error}"));
    let trusted = config.and_then(|config| config.load_balancers.first());
    let or = |value: Option<&String>, default: &str| {
        value.map_or_else(|| default.to_owned(), Clone::clone)
    };
    let claims = json!({"sub": USER, "email": USER, "email_verified": "true"});
    let key = AlbKey::generate();
    let token = AlbToken {
        kid: key.id().to_string(),
        signer: or(trusted.map(|trusted| &trusted.arn), NO_ARN),
        issuer: or(
            trusted.and_then(|trusted| trusted.issuer.as_ref()),
            NO_ISSUER,
        ),
        client: or(
            trusted.and_then(|trusted| trusted.client_id.as_ref()),
            "probe",
        ),
        expires: clock::seconds()?.saturating_add(LIFETIME),
        claims: claims.as_object().map_or_else(Map::new, Clone::clone),
        padded: true,
    };
    let token = token.mint(&key).map_err(|error| trouble(&error))?;
    let token = HeaderValue::from_str(&token).map_err(|error| trouble(&error))?;
    let user = HeaderValue::from_static(USER);
    let mut headers = HeaderMap::new();
    headers.insert(OIDC_DATA, token);
    headers.insert(OIDC_IDENTITY, user.clone());
    let configured = config.map(|config| config.users.identity.user_id_header.as_str());
    for name in [KUBEFLOW].into_iter().chain(configured) {
        for separator in SEPARATORS {
            let name: HeaderName = name
                .replace('-', separator)
                .parse()
                .map_err(|error| trouble(&error))?;
            headers.insert(name, user.clone());
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alb_oidc_filter::{Timestamp, UntrustedToken};
    use std::time::Duration;

    #[test]
    fn token_passes_every_check_but_the_signature() {
        let arn = NO_ARN.replace("probe", "kubeflow");
        let config = json!({
            "loadBalancers": [{"arn": arn, "issuer": "https://issuer.example.com", "clientId": "c"}],
            "userId": {"header": "x-user-id"},
        });
        let config = Config::from_value(&config).expect("a good config");
        let headers = headers(Some(&config)).expect("headers");
        let now = Timestamp::from_seconds(clock::seconds().expect("a time"));
        let token = UntrustedToken::parse(headers[OIDC_DATA].as_bytes()).expect("a token");
        assert!(
            token
                .screen(&config.load_balancers, now, Duration::ZERO)
                .is_ok()
        );
        for name in [
            "kubeflow-userid",
            "kubeflow_userid",
            "kubeflow.userid",
            "x_user_id",
        ] {
            assert_eq!(headers[name], USER, "{name}");
        }
    }
}
