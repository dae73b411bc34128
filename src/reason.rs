//! The closed list of reasons for a denial. Each has one name in the log, the counters, the
//! response and `docs/monitoring.md`.

/// The reason why a request was denied, in the order of the checks. [`Reason::name`] is its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A protocol upgrade that `upgrades` does not list.
    UpgradeNotAllowed,
    /// More than one `x-amzn-oidc-data`.
    TokenDuplicate,
    /// No `x-amzn-oidc-data`, or an empty one.
    TokenMissing,
    /// Longer than [`crate::MAX_TOKEN_BYTES`].
    TokenTooLarge,
    /// Not a JWS in compact form with a JOSE header and claims of the expected types.
    TokenMalformed,
    /// `alg` is not `ES256`.
    AlgorithmNotEs256,
    /// `kid` is not a UUID.
    KeyIdInvalid,
    /// `signer` is not a configured load balancer.
    SignerUnknown,
    /// `iss` is not the issuer configured for that load balancer.
    IssuerMismatch,
    /// `client` is not the client id configured for that load balancer.
    ClientMismatch,
    /// `exp` of the JOSE header or of the payload has passed.
    TokenExpired,
    /// The key server has no key with that id.
    KeyNotFound,
    /// The key server's answer is not a single public key of the right kind.
    KeyInvalid,
    /// The key server failed or was slow, or the limits of fetches were reached before it was
    /// asked.
    KeyUnavailable,
    /// The signature does not verify.
    SignatureInvalid,
    /// The access token is not a valid one of the same user's sign-in.
    AccessTokenInvalid,
    /// The user did not sign in through the identity provider of `userId.provider`.
    ProviderMismatch,
    /// No configured claim contains a user id.
    UserIdMissing,
    /// `email_verified` is not true, and `requireVerifiedEmail` is set.
    EmailUnverified,
    /// The user id is not safe as a header value.
    UserIdInvalid,
    /// The rule's `allow` has no entry for the user.
    UserNotAllowed,
    /// An internal error: the host rejected a call that always succeeds.
    InternalError,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 22] = [
        Self::UpgradeNotAllowed,
        Self::TokenDuplicate,
        Self::TokenMissing,
        Self::TokenTooLarge,
        Self::TokenMalformed,
        Self::AlgorithmNotEs256,
        Self::KeyIdInvalid,
        Self::SignerUnknown,
        Self::IssuerMismatch,
        Self::ClientMismatch,
        Self::TokenExpired,
        Self::KeyNotFound,
        Self::KeyInvalid,
        Self::KeyUnavailable,
        Self::SignatureInvalid,
        Self::AccessTokenInvalid,
        Self::ProviderMismatch,
        Self::UserIdMissing,
        Self::EmailUnverified,
        Self::UserIdInvalid,
        Self::UserNotAllowed,
        Self::InternalError,
    ];

    /// The kebab-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UpgradeNotAllowed => "upgrade-not-allowed",
            Self::TokenDuplicate => "token-duplicate",
            Self::TokenMissing => "token-missing",
            Self::TokenTooLarge => "token-too-large",
            Self::TokenMalformed => "token-malformed",
            Self::AlgorithmNotEs256 => "algorithm-not-es256",
            Self::KeyIdInvalid => "key-id-invalid",
            Self::SignerUnknown => "signer-unknown",
            Self::IssuerMismatch => "issuer-mismatch",
            Self::ClientMismatch => "client-mismatch",
            Self::TokenExpired => "token-expired",
            Self::KeyNotFound => "key-not-found",
            Self::KeyInvalid => "key-invalid",
            Self::KeyUnavailable => "key-unavailable",
            Self::SignatureInvalid => "signature-invalid",
            Self::AccessTokenInvalid => "access-token-invalid",
            Self::ProviderMismatch => "provider-mismatch",
            Self::UserIdMissing => "user-id-missing",
            Self::EmailUnverified => "email-unverified",
            Self::UserIdInvalid => "user-id-invalid",
            Self::UserNotAllowed => "user-not-allowed",
            Self::InternalError => "internal-error",
        }
    }

    /// The HTTP status of the answer: 401 for the token, 403 for the user or an upgrade, 503 if a
    /// retry may help.
    pub const fn status(self) -> u16 {
        match self {
            Self::KeyUnavailable | Self::InternalError => 503,
            Self::UpgradeNotAllowed
            | Self::ProviderMismatch
            | Self::UserIdMissing
            | Self::UserIdInvalid
            | Self::EmailUnverified
            | Self::UserNotAllowed => 403,
            _ => 401,
        }
    }

    /// Whether the load balancer's token was verified before: the client is signed in.
    pub const fn is_signed_in(self) -> bool {
        matches!(
            self,
            Self::AccessTokenInvalid
                | Self::ProviderMismatch
                | Self::UserIdMissing
                | Self::EmailUnverified
                | Self::UserIdInvalid
                | Self::UserNotAllowed
        )
    }

    /// One sentence for the user. Reveals no more than the reason.
    pub const fn message(self) -> &'static str {
        match self {
            Self::UpgradeNotAllowed => "the gateway does not allow this protocol upgrade",
            Self::TokenDuplicate => "the request carries more than one sign-in token",
            Self::TokenMissing => "it did not come through the load balancer's sign-in",
            Self::TokenTooLarge => "the sign-in token is too large",
            Self::TokenMalformed => "the sign-in token is malformed",
            Self::AlgorithmNotEs256 => "the sign-in token is not signed with ES256",
            Self::KeyIdInvalid => "the sign-in token names no valid key id",
            Self::SignerUnknown => {
                "the sign-in token was not signed by a load balancer of this gateway"
            }
            Self::IssuerMismatch => "the sign-in token is from another issuer",
            Self::ClientMismatch => "the sign-in token is for another client",
            Self::TokenExpired => "the sign-in token has expired",
            Self::KeyNotFound => "the key that the sign-in token names does not exist",
            Self::KeyInvalid => "the key of the sign-in token is not a usable public key",
            Self::KeyUnavailable => {
                "the key of the sign-in token could not be fetched; try again shortly"
            }
            Self::SignatureInvalid => "the signature of the sign-in token is invalid",
            Self::AccessTokenInvalid => "the access token is not a valid one of this sign-in",
            Self::ProviderMismatch => "the user signed in through another identity provider",
            Self::UserIdMissing => "the signed-in user has no user id",
            Self::EmailUnverified => "the signed-in user's email address is not verified",
            Self::UserIdInvalid => "the signed-in user's id cannot be used",
            Self::UserNotAllowed => "the signed-in user may not open this page",
            Self::InternalError => {
                "the gateway could not check the sign-in token; try again shortly"
            }
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> =
            Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
