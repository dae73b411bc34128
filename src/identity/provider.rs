//! The identity provider behind a Cognito user pool: `userId.provider` of the plugin config. Reads
//! claims only.

use serde_json::{Map, Value};

use crate::json;
use crate::token::claims::MAX_CLAIMS_DEPTH;

/// Whether the user with these `claims` of the load balancer's token signed in through `provider`.
///
/// Every entry of `identities` must have it as `providerName`, and `username` must begin with it
/// and `_`. Either alone proves nothing: a native user may choose the username `Okta_x`, and a
/// linked user has an entry for each provider.
pub(super) fn is_from(provider: &str, claims: &Map<String, Value>) -> bool {
    let username = claims.get("username").and_then(Value::as_str);
    let prefix = username.and_then(|name| name.split_once('_'));
    let identities = match claims.get("identities") {
        // Cognito's userinfo has the array as text.
        Some(Value::String(text)) => json::parse(text.as_bytes(), MAX_CLAIMS_DEPTH).ok(),
        other => other.cloned(),
    };
    let Some(Value::Array(identities)) = identities else {
        return false;
    };
    let is_named =
        |identity: &Value| identity.get("providerName").and_then(Value::as_str) == Some(provider);
    prefix.is_some_and(|(prefix, _)| prefix == provider)
        && !identities.is_empty()
        && identities.iter().all(is_named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn is_from_okta(claims: Value) -> bool {
        is_from("Okta", claims.as_object().unwrap())
    }

    #[test]
    fn demands_identities_and_username() {
        let okta = json!({"providerName": "Okta", "userId": "7", "primary": "true"});
        let both = |identities: Value| {
            is_from_okta(json!({"username": "Okta_ann", "identities": identities}))
        };
        assert!(both(json!([okta])));
        assert!(both(json!(json!([okta]).to_string())));
        for identities in [
            json!([]),
            json!([{"providerName": "Google"}]),
            json!([okta, {"providerName": "Google"}]),
            json!([okta, "Okta"]),
            json!([{"providerName": "okta"}]),
            json!([{"providerName": ["Okta"]}]),
            json!(okta),
            json!(null),
            json!("[{"),
            json!(r#"[{"providerName":"Google","providerName":"Okta"}]"#),
            json!("Okta"),
        ] {
            assert!(!both(identities.clone()), "{identities}");
        }
        assert!(!is_from_okta(json!({"username": "Okta_ann"})));
        assert!(!is_from_okta(json!({"identities": [okta]})));
        for username in [
            "ann",
            "Okta",
            "okta_ann",
            "Okta2_ann",
            "_Okta_ann",
            "Okta ann",
        ] {
            let claims = json!({"username": username, "identities": [okta]});
            assert!(!is_from_okta(claims), "{username}");
        }
    }
}
