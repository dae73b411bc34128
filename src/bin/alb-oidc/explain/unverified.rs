//! Decodes an unverified token for display. Decides nothing and uses no config.

use alb_oidc_filter::{
    MAX_TOKEN_BYTES, Malformed, Reason, Timestamp, TokenError, claims_fault, decode_base64,
    header_fault,
};
use serde::Serialize;
use serde_json::Value;

/// A token as somebody pasted it.
pub(super) struct Pasted {
    pub(super) token: String,
    /// The text that was removed around it.
    pub(super) notes: Vec<String>,
}

impl Pasted {
    pub(super) fn new(text: &str) -> Self {
        let mut notes = Vec::new();
        let mut token = text.trim();
        let named = token
            .split_once(':')
            .map(|(name, value)| (name.trim_start_matches(['<', '>', ' ']).trim_end(), value));
        if let Some((name, value)) =
            named.filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-amzn-oidc-"))
        {
            notes.push(if name.eq_ignore_ascii_case("x-amzn-oidc-data") {
                format!("took `{name}:` away from before the token")
            } else {
                format!("took `{name}:` away from before the token; the filter reads x-amzn-oidc-data only")
            });
            token = value.trim();
        }
        let bare = token.trim_matches(['"', '\'']);
        if bare != token {
            notes.push("took the quotes from around the token".to_owned());
        }
        let token: String = bare.split_whitespace().collect();
        if token != bare {
            notes.push(
                "took white space out of the token, where a header has none: was it wrapped?"
                    .to_owned(),
            );
        }
        if lacks_padding(&token) {
            notes.push(
                "the token lacks the `=` at the end of its parts, which the load balancer writes and signs".to_owned(),
            );
        }
        Self { token, notes }
    }
}

/// The decoded parts of an unverified token.
#[derive(Serialize)]
pub(super) struct Unverified {
    pub(super) header: Option<Value>,
    pub(super) claims: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<String>,
}

impl Unverified {
    pub(super) fn decode(text: &str) -> Self {
        let object = |part: Option<&str>| -> Option<Value> {
            let value: Value = serde_json::from_slice(&decode_base64(part?)?).ok()?;
            value.is_object().then_some(value)
        };
        let mut parts = text.split('.');
        let (header, claims) = (object(parts.next()), object(parts.next()));
        Self {
            header,
            claims,
            signature: parts.next().map(str::to_owned),
        }
    }

    /// The text `name` of the header.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.header.as_ref()?.get(name)?.as_str()
    }
}

/// The value of the member `name` of header or claims.
pub(super) fn found_in(part: &Option<Value>, name: &str) -> String {
    match part.as_ref().and_then(|part| part.get(name)) {
        None => "nothing".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The form of the token `text` with this decoded header.
pub(super) fn form(text: &str, header: &Option<Value>) -> String {
    let names = header
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|header| header.keys());
    format!(
        "{} bytes, header with {}",
        text.len(),
        names.map(String::as_str).collect::<Vec<_>>().join(", ")
    )
}

/// The value found in the token `text` that fails with `error`, and the expected one. `part` is the
/// decoded header or claims that have the fault.
pub(super) fn malformation(
    error: TokenError,
    text: &str,
    part: &Option<Value>,
) -> (String, String) {
    let dots = text.matches('.').count();
    let malformed = match error {
        // The parser takes a further dot for a byte of the payload.
        TokenError::Malformed(Malformed::Signature | Malformed::Payload) if dots != 2 => {
            Malformed::Parts
        }
        TokenError::Malformed(malformed) => malformed,
        TokenError::Other(Reason::TokenTooLarge) => {
            let found = format!("{} bytes", text.len());
            return (found, format!("at most {MAX_TOKEN_BYTES}"));
        }
        TokenError::AccessToken(_) | TokenError::Other(_) => {
            return ("nothing".to_owned(), "a token".to_owned());
        }
    };
    let member = |name| format!("`{name}`: {}", found_in(part, name));
    let found = match malformed {
        Malformed::Utf8 => "something else".to_owned(),
        Malformed::Claims => part_fault(text, 1, claims_fault).unwrap_or_default(),
        Malformed::Parts => format!("{dots} dot(s)"),
        Malformed::Header => part_fault(text, 0, header_fault).unwrap_or_default(),
        Malformed::Parameter => form(text, part),
        Malformed::Type => member("typ"),
        Malformed::Expiry => member("exp"),
        Malformed::Signer => member("signer"),
        Malformed::Issuer => member("iss"),
        Malformed::Client => member("client"),
        Malformed::Signature => match text.rsplit('.').next().and_then(decode_base64) {
            Some(signature) => format!("a signature of {} bytes", signature.len()),
            None => "a signature that is no base64".to_owned(),
        },
        Malformed::Payload => "something else between the dots".to_owned(),
    };
    (found, malformed.to_string())
}

/// What is wrong with the JSON in this part of the token; `None`: nothing.
pub(super) fn part_fault(
    text: &str,
    part: usize,
    fault: fn(&[u8]) -> Option<String>,
) -> Option<String> {
    match text.split('.').nth(part).and_then(decode_base64) {
        Some(json) => fault(&json),
        None => Some("no base64".to_owned()),
    }
}

/// A time, and how long it is from `now`.
pub(super) fn ago(seconds: i64, now: Timestamp) -> String {
    let now = i64::try_from(now.millis() / 1000).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| seconds.to_string(), |time| time.to_string());
    let apart = now.abs_diff(seconds);
    let span = match (
        apart / 86_400,
        apart / 3_600 % 24,
        apart / 60 % 60,
        apart % 60,
    ) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} days {hours} h"),
    };
    if now >= seconds {
        format!("{time}, {span} ago")
    } else {
        format!("{time}, in {span}")
    }
}

/// Whether a part of the token lacks its `=`.
pub(super) fn lacks_padding(token: &str) -> bool {
    let parts: Vec<_> = token.split('.').collect();
    parts.len() == 3 && parts.iter().any(|part| part.len() % 4 != 0)
}
