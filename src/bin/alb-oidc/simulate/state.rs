//! The state that all routes of `alb-oidc simulate` share.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use alb_oidc_filter::Config;
use axum::body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use super::keys::Keys;
use super::misbehave::Misbehaviour;
use super::options::Simulate;
use super::seal::Sealer;
use super::users::Users;
use super::users_by_id::UsersById;
use crate::clock;
use crate::input::Trouble;

/// The state of a running simulator.
pub(super) struct Simulator {
    pub(super) options: Simulate,
    pub(super) sealer: Sealer,
    pub(super) keys: Mutex<Keys>,
    pub(super) misbehaviours: Mutex<BTreeSet<Misbehaviour>>,
    pub(super) users: Mutex<Users>,
    /// The identity provider's authorization codes. Each works once.
    pub(super) codes: Mutex<UsersById>,
    /// The identity provider's own sessions.
    pub(super) idp_sessions: Mutex<UsersById>,
    /// The connections to the gateway.
    pub(super) gateway: Client<HttpConnector, Body>,
}

impl Simulator {
    /// The state at the start: new keys, no sessions.
    ///
    /// # Errors
    /// An option is invalid, or the file of users cannot be read.
    pub(super) fn new(mut options: Simulate) -> Result<Self, Trouble> {
        // Reject options that are invalid in the config of a gateway.
        let config = json!({
            "loadBalancers": [{"arn": options.arn, "issuer": options.issuer, "clientId": options.client}],
            "publicKeys": {"endpoint": "http://localhost"},
            "logout": {"sessionCookie": options.session_cookie},
        });
        Config::from_value(&config).map_err(|mistakes| {
            Trouble(
                mistakes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; "),
            )
        })?;
        let misbehaviours =
            Mutex::new(std::mem::take(&mut options.misbehave).into_iter().collect());
        Ok(Self {
            sealer: Sealer::new().map_err(Trouble)?,
            keys: Mutex::new(Keys::generate().map_err(Trouble)?),
            users: Mutex::new(Users::read(options.users.clone()).map_err(Trouble)?),
            codes: Mutex::default(),
            idp_sessions: Mutex::default(),
            gateway: Client::builder(TokioExecutor::new()).build_http(),
            misbehaviours,
            options,
        })
    }

    /// Whether this misbehaviour is switched on.
    pub(super) fn misbehaves(&self, how: Misbehaviour) -> bool {
        lock(&self.misbehaviours).contains(&how)
    }

    /// The last path segment of the issuer: Cognito's name for the user pool.
    pub(super) fn pool(&self) -> &str {
        self.options
            .issuer
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
    }
}

/// Locks `mutex`. A panic while it was locked does not matter: no change leaves the value half
/// done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    clock::seconds().unwrap_or_default()
}
