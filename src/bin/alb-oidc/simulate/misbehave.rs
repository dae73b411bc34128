//! What the stand-in can be told to do wrong. Only the list: each is done where the right thing is done otherwise.

use clap::ValueEnum;

/// One thing done wrong. The text is what `--help` and the operator's page say of it: what is done, and what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Misbehaviour {
    /// Tokens that expired an hour ago: 401, token-expired
    ExpiredToken,
    /// Tokens that another load balancer signed: 401, signer-unknown
    OtherSigner,
    /// Tokens of another identity provider: 401, issuer-mismatch
    OtherIssuer,
    /// Tokens of another client: 401, client-mismatch
    OtherClient,
    /// Tokens signed by another key than the published one: 401, signature-invalid
    WrongKey,
    /// A key id that is no UUID: 401, key-id-invalid
    BadKeyId,
    /// Base64 without padding, signed so: let in all the same
    NoPadding,
    /// No token at all, as of a listener rule without authentication: 401, token-missing
    NoToken,
    /// A client's own x-amzn-oidc-* headers are passed on beside the load balancer's: 401, token-duplicate, if it sends any
    KeepClientHeaders,
    /// An access token of another subject: 401, access-token-invalid, where it is read
    OtherAccessSubject,
    /// The key server answers after half a second: let in, later. New keys only
    KeySlow,
    /// The key server has no such key: 401, key-not-found. New keys only
    KeyMissing,
    /// The key server answers 500: 503, key-unavailable. New keys only
    KeyError,
    /// The key server answers something that is no key: 401, key-invalid. New keys only
    KeyGarbage,
    /// The key server does not answer for a minute: 503, key-unavailable. New keys only
    KeyHang,
}

impl Misbehaviour {
    /// Whether the key server does it. A key that the gateway knows already is not fetched again.
    pub(crate) fn is_of_the_key_server(self) -> bool {
        self >= Self::KeySlow
    }

    /// Its name, and what comes of it.
    pub(crate) fn describe(self) -> (String, String) {
        let value = self.to_possible_value();
        let name = value.as_ref().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let text = value.as_ref().and_then(|value| value.get_help()).map(ToString::to_string).unwrap_or_default();
        (name, text)
    }
}
