//! The keys of the load balancer and of the user pool: the tokens that they sign, and the key servers that publish them. The
//! only part that signs. Nothing here knows who is signed in.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::misbehave::Misbehaviour;
use super::users::User;
use super::{Simulator, lock, now};
use crate::mint::{AlbKey, AlbToken};

/// How many keys of each kind stay published. AWS never takes one back.
const KEPT: usize = 64;

/// What the filter's default patience allows.
const SLOW: Duration = Duration::from_millis(500);
/// What no patience allows.
const HANGING: Duration = Duration::from_secs(60);

/// Every key that was ever used, the current one last.
pub(super) struct Keys {
    alb: Vec<AlbKey>,
    pool: Vec<(String, RsaKeyPair)>,
}

impl Keys {
    pub(super) fn generate() -> Result<Self, String> {
        let mut keys = Self { alb: Vec::new(), pool: Vec::new() };
        keys.rotate()?;
        Ok(keys)
    }

    /// Signs with new keys from now on. The old ones stay published.
    pub(super) fn rotate(&mut self) -> Result<(), String> {
        let pool =
            RsaKeyPair::generate(KeySize::Rsa2048).map_err(|error| format!("cannot make an RSA key: {error}"))?;
        self.alb.push(AlbKey::generate());
        self.pool.push((Uuid::new_v4().to_string(), pool));
        self.alb.drain(..self.alb.len().saturating_sub(KEPT));
        self.pool.drain(..self.pool.len().saturating_sub(KEPT));
        Ok(())
    }

    /// The ids of the load balancer's keys, the current one first.
    pub(super) fn ids(&self) -> impl Iterator<Item = String> {
        self.alb.iter().rev().map(|key| key.id().to_string())
    }

    fn pem(&self, kid: &str) -> Option<String> {
        self.alb.iter().find(|key| key.id().to_string() == kid).and_then(|key| key.public_pem().ok())
    }

    fn jwks(&self) -> Value {
        let keys = self.pool.iter().rev().map(|(kid, key)| {
            let public = key.public_key();
            let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            json!({
                "kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig",
                "n": number(public.modulus().big_endian_without_leading_zero()),
                "e": number(public.exponent().big_endian_without_leading_zero()),
            })
        });
        json!({"keys": keys.collect::<Vec<_>>()})
    }
}

impl Simulator {
    /// `x-amzn-oidc-data` for this user, as wrong as it is asked for.
    pub(super) fn oidc_data(&self, user: &User) -> Result<String, String> {
        let options = &self.options;
        let or = |misbehaviour, wrong: &str, right: &str| {
            if self.misbehaves(misbehaviour) { wrong.to_owned() } else { right.to_owned() }
        };
        let keys = lock(&self.keys);
        let Some(key) = keys.alb.last() else { return Err("there is no key to sign with".to_owned()) };
        let expires = if self.misbehaves(Misbehaviour::ExpiredToken) {
            now().saturating_sub(3600)
        } else {
            now().saturating_add(options.token_lifetime)
        };
        let another = "arn:aws:elasticloadbalancing:us-west-2:999999999999:loadbalancer/app/another/0123456789abcdef";
        let token = AlbToken {
            kid: or(Misbehaviour::BadKeyId, "../not-a-uuid", &key.id().to_string()),
            signer: or(Misbehaviour::OtherSigner, another, &options.arn),
            issuer: or(Misbehaviour::OtherIssuer, "https://issuer.example", &options.issuer),
            client: or(Misbehaviour::OtherClient, "another-client", &options.client),
            expires,
            claims: user.userinfo(&options.issuer),
            padded: !self.misbehaves(Misbehaviour::NoPadding),
        };
        let minted =
            if self.misbehaves(Misbehaviour::WrongKey) { token.mint(&AlbKey::generate()) } else { token.mint(key) };
        minted.map_err(|error| format!("cannot write the token: {error}"))
    }

    /// `x-amzn-oidc-accesstoken` for this user: what a Cognito user pool signs.
    pub(super) fn access_token(&self, user: &User) -> Result<String, String> {
        let options = &self.options;
        let keys = lock(&self.keys);
        let Some((kid, key)) = keys.pool.last() else { return Err("there is no key to sign with".to_owned()) };
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
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signing_input.as_bytes(), &mut signature)
            .map_err(|error| format!("cannot sign the access token: {error}"))?;
        Ok(format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The key servers: of all load balancers of the region, and of the user pool.
pub(super) fn routes() -> Router<Arc<Simulator>> {
    Router::new().route("/{kid}", get(pem)).route("/{pool}/.well-known/jwks.json", get(jwks))
}

async fn pem(State(simulator): State<Arc<Simulator>>, Path(kid): Path<String>) -> Response {
    let found = lock(&simulator.keys).pem(&kid);
    let found = found.map(|pem| ([(CONTENT_TYPE, "binary/octet-stream")], pem).into_response());
    published(&simulator, found).await
}

async fn jwks(State(simulator): State<Arc<Simulator>>, Path(pool): Path<String>) -> Response {
    let found = (pool == simulator.pool()).then(|| Json(lock(&simulator.keys).jwks()).into_response());
    published(&simulator, found).await
}

/// The answer of a key server that may misbehave.
async fn published(simulator: &Simulator, found: Option<Response>) -> Response {
    if simulator.misbehaves(Misbehaviour::KeySlow) {
        tokio::time::sleep(SLOW).await;
    }
    if simulator.misbehaves(Misbehaviour::KeyHang) {
        tokio::time::sleep(HANGING).await;
    }
    if simulator.misbehaves(Misbehaviour::KeyError) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if simulator.misbehaves(Misbehaviour::KeyGarbage) {
        return "<html>this is no key</html>".into_response();
    }
    found.filter(|_| !simulator.misbehaves(Misbehaviour::KeyMissing)).unwrap_or(StatusCode::NOT_FOUND.into_response())
}
