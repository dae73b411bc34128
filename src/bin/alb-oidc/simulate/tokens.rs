//! The tokens of a signed-in user: the load balancer's, and the user pool's access token. No I/O.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::misbehave::Misbehaviour;
use super::state::{Simulator, lock, now};
use super::users::User;
use crate::mint::{AlbKey, AlbToken};

impl Simulator {
    /// The value of `x-amzn-oidc-data` for this user, with the misbehaviours that are switched on.
    pub(super) fn oidc_data(&self, user: &User) -> Result<String, String> {
        let options = &self.options;
        let choose = |misbehaviour, wrong: &str, right: &str| {
            if self.misbehaves(misbehaviour) {
                wrong.to_owned()
            } else {
                right.to_owned()
            }
        };
        let keys = lock(&self.keys);
        let Some(key) = keys.alb() else {
            return Err("there is no key to sign with".to_owned());
        };
        let expires = if self.misbehaves(Misbehaviour::ExpiredToken) {
            now().saturating_sub(3600)
        } else {
            now().saturating_add(options.token_lifetime)
        };
        let another = "arn:aws:elasticloadbalancing:us-west-2:999999999999:loadbalancer/app/another/0123456789abcdef";
        let token = AlbToken {
            kid: choose(
                Misbehaviour::BadKeyId,
                "../not-a-uuid",
                &key.id().to_string(),
            ),
            signer: choose(Misbehaviour::OtherSigner, another, &options.arn),
            issuer: choose(
                Misbehaviour::OtherIssuer,
                "https://issuer.example",
                &options.issuer,
            ),
            client: choose(Misbehaviour::OtherClient, "another-client", &options.client),
            expires,
            claims: user.userinfo(&options.issuer),
            padded: !self.misbehaves(Misbehaviour::NoPadding),
        };
        let minted = if self.misbehaves(Misbehaviour::WrongKey) {
            token.mint(&AlbKey::generate())
        } else {
            token.mint(key)
        };
        minted.map_err(|error| format!("cannot write the token: {error}"))
    }

    /// The value of `x-amzn-oidc-accesstoken` for this user, in the format of a Cognito user pool.
    pub(super) fn access_token(&self, user: &User) -> Result<String, String> {
        let options = &self.options;
        let keys = lock(&self.keys);
        let Some((kid, key)) = keys.pool() else {
            return Err("there is no key to sign with".to_owned());
        };
        let subject = if self.misbehaves(Misbehaviour::OtherAccessSubject) {
            Uuid::new_v4().to_string()
        } else {
            user.subject(&options.issuer)
        };
        let issued = now();
        let mut claims = json!({
            "sub": subject,
            "iss": options.issuer,
            "client_id": options.client,
            "token_use": "access",
            "scope": "openid profile email",
            "version": 2,
            "auth_time": issued,
            "iat": issued,
            "exp": issued.saturating_add(3600),
            "jti": Uuid::new_v4().to_string(),
            "username": user.name,
        });
        if let (Some(claims), false) = (claims.as_object_mut(), user.groups.is_empty()) {
            claims.insert("cognito:groups".to_owned(), json!(user.groups));
        }
        let header = json!({"kid": kid, "alg": "RS256"});
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signing_input = format!("{}.{}", encode(&header), encode(&claims));
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signing_input.as_bytes(),
            &mut signature,
        )
        .map_err(|error| format!("cannot sign the access token: {error}"))?;
        Ok(format!(
            "{signing_input}.{}",
            URL_SAFE_NO_PAD.encode(signature)
        ))
    }
}
