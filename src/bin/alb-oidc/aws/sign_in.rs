//! Issuer, client and session of an authenticating action.

use super::model::Action;

/// The cookie of `API_AuthenticateOidcActionConfig` without `SessionCookieName`.
pub(crate) const DEFAULT_COOKIE: &str = "AWSELBAuthSessionCookie";
/// Its scope without `Scope`.
const DEFAULT_SCOPE: &str = "openid";
/// Its session timeout without `SessionTimeout`, in seconds.
pub(crate) const DEFAULT_TIMEOUT: u64 = 604_800;
/// Its behaviour without `OnUnauthenticatedRequest`.
const DEFAULT_BEHAVIOUR: &str = "authenticate";

/// An authenticating action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignIn {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    /// The prefix of the session cookies' names.
    pub(crate) cookie: String,
    pub(crate) scope: String,
    /// The longest session, in seconds.
    pub(crate) session_timeout: u64,
    /// `deny`, `allow` or `authenticate`.
    pub(crate) on_unauthenticated: String,
    /// The host of a user pool's sign-in pages.
    pub(crate) cognito_host: Option<String>,
}

impl SignIn {
    /// `None` for another action, and for a user pool with another form of ARN.
    pub(crate) fn of(action: &Action) -> Option<Self> {
        let or = |value: &Option<String>, default: &str| {
            value.clone().unwrap_or_else(|| default.to_owned())
        };
        if let Some(oidc) = &action.authenticate_oidc_config {
            return Some(Self {
                issuer: oidc.issuer.clone(),
                client_id: oidc.client_id.clone(),
                cookie: or(&oidc.session_cookie_name, DEFAULT_COOKIE),
                scope: or(&oidc.scope, DEFAULT_SCOPE),
                session_timeout: oidc.session_timeout.unwrap_or(DEFAULT_TIMEOUT),
                on_unauthenticated: or(&oidc.on_unauthenticated_request, DEFAULT_BEHAVIOUR),
                cognito_host: None,
            });
        }
        let cognito = action.authenticate_cognito_config.as_ref()?;
        let (issuer, region) = user_pool(&cognito.user_pool_arn)?;
        Some(Self {
            issuer,
            client_id: cognito.user_pool_client_id.clone(),
            cookie: or(&cognito.session_cookie_name, DEFAULT_COOKIE),
            scope: or(&cognito.scope, DEFAULT_SCOPE),
            session_timeout: cognito.session_timeout.unwrap_or(DEFAULT_TIMEOUT),
            on_unauthenticated: or(&cognito.on_unauthenticated_request, DEFAULT_BEHAVIOUR),
            cognito_host: Some(cognito_host(&cognito.user_pool_domain, region)),
        })
    }
}

/// Issuer and region of a user pool: `arn:aws:cognito-idp:REGION:ACCOUNT:userpool/POOL`.
fn user_pool(arn: &str) -> Option<(String, &str)> {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let ["arn", partition, "cognito-idp", region, _account, pool] = parts.as_slice() else {
        return None;
    };
    let pool = pool.strip_prefix("userpool/")?;
    let domain = if *partition == "aws-cn" {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    Some((
        format!("https://cognito-idp.{region}.{domain}/{pool}"),
        region,
    ))
}

/// The host of the sign-in pages. A custom domain is a host already.
pub(crate) fn cognito_host(domain: &str, region: &str) -> String {
    if domain.contains('.') {
        return domain.to_owned();
    }
    // GovCloud has FIPS endpoints only.
    let service = if region.starts_with("us-gov-") {
        "auth-fips"
    } else {
        "auth"
    };
    format!("{domain}.{service}.{region}.amazoncognito.com")
}
