//! The list of misbehaviours. The routes and the tokens implement them.

use clap::ValueEnum;

/// A misbehaviour. `--help` and the control page show its text: the misbehaviour, and the response
/// of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Misbehaviour {
    /// The token expired an hour ago: 401, token-expired
    ExpiredToken,
    /// The token is from another load balancer: 401, signer-unknown
    OtherSigner,
    /// The token is from another identity provider: 401, issuer-mismatch
    OtherIssuer,
    /// The token is for another client: 401, client-mismatch
    OtherClient,
    /// The signature is from another key than the published one: 401, signature-invalid
    WrongKey,
    /// The key id is not a UUID: 401, key-id-invalid
    BadKeyId,
    /// The token's base64 has no padding: admitted
    NoPadding,
    /// There is no token, as with a listener rule without authentication: 401, token-missing
    NoToken,
    /// A client's own x-amzn-oidc-* headers are forwarded, too: 401, token-duplicate, if it sends
    /// any
    KeepClientHeaders,
    /// The access token has another subject: 401, access-token-invalid, if the filter reads it
    OtherAccessSubject,
    /// The key server answers after half a second: admitted, with a delay. New keys only
    KeySlow,
    /// The key server does not have the key: 401, key-not-found. New keys only
    KeyMissing,
    /// The key server answers 500: 503, key-unavailable. New keys only
    KeyError,
    /// The key server answers with something other than a key: 401, key-invalid. New keys only
    KeyGarbage,
    /// The key server does not answer for a minute: 503, key-unavailable. New keys only
    KeyHang,
}

impl Misbehaviour {
    /// Whether it is about the key server. The gateway fetches only keys that are not in its cache.
    pub(crate) fn is_of_the_key_server(self) -> bool {
        self >= Self::KeySlow
    }

    /// Its name and its text.
    pub(crate) fn describe(self) -> (String, String) {
        let value = self.to_possible_value();
        let name = value
            .as_ref()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default();
        let text = value
            .as_ref()
            .and_then(|value| value.get_help())
            .map(ToString::to_string)
            .unwrap_or_default();
        (name, text)
    }
}
