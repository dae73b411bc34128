//! Header names in the plugin config: which ones may carry an identity, and that no two collide.

use super::reader::{Object, quoted};
use crate::headers::{KUBEFLOW_HEADERS, PATH_OVERRIDES, folded};
use crate::identity::IdentityRules;

/// Headers that a request cannot do without, that say how its body is framed or where it came from,
/// or that this filter reads: no identity may be written into them.
const FORBIDDEN_HEADERS: [&str; 27] = [
    "alt-used",
    "authorization",
    "b3",
    "baggage",
    "cache-control",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "from",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "referer",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];
const FORBIDDEN_HEADER_PREFIXES: [&str; 14] = [
    ":",
    "accept",
    "access-control-",
    "content-",
    "grpc-",
    "if-",
    "proxy-",
    "sec-",
    "x-amzn-",
    "x-b3-",
    "x-envoy-",
    "x-forwarded-",
    "x-http-method",
    "x-request-id",
];

/// The `x-forwarded-*` headers that Envoy and the ALB do not use but some applications trust. They
/// may be stripped, but may not carry an identity.
const FORWARDED_BY_OTHERS: [&str; 8] = [
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-name",
    "x-forwarded-path",
    "x-forwarded-preferred-username",
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "x-forwarded-user",
];

/// The name of a header that carries an identity.
pub(super) fn read_header(object: &Object<'_>, field: &str) -> String {
    let name = checked_header(object, field, object.string(field), &[]);
    if PATH_OVERRIDES.contains(&folded(&name).as_str()) {
        object.mistake(
            field,
            quoted(&name),
            "a header from which no application takes the path or the method",
        );
    }
    name
}

pub(super) fn read_reserved_headers(root: &Object<'_>) -> Vec<String> {
    let names = root.strings("reservedHeaders").into_iter().enumerate();
    names
        .map(|(position, name)| {
            let field = format!("reservedHeaders[{position}]");
            checked_header(root, &field, name, &FORWARDED_BY_OTHERS)
        })
        .collect()
}

/// The header name `text` in lower case. Adds a mistake in `field` if it is malformed, or forbidden
/// and not in `allowed`.
fn checked_header(object: &Object<'_>, field: &str, text: &str, allowed: &[&str]) -> String {
    let name = text.to_ascii_lowercase();
    let known = folded(&name);
    let forbidden = FORBIDDEN_HEADERS.contains(&known.as_str())
        || FORBIDDEN_HEADER_PREFIXES
            .iter()
            .any(|prefix| known.starts_with(prefix));
    let forbidden = forbidden && !allowed.contains(&known.as_str());
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_token_byte) {
        object.mistake(
            field,
            quoted(text),
            "a header name (RFC 9110, section 5.1) of 1 to 64 bytes",
        );
    } else if forbidden {
        object.mistake(
            field,
            quoted(text),
            "a header that neither HTTP, Envoy nor the ALB gives a meaning, such as \"kubeflow-userid\"",
        );
    }
    name
}

/// Two kinds of identity in one header would overwrite each other, or one of them pass for the
/// other.
pub(super) fn check_headers_are_distinct(root: &Object<'_>, rules: &IdentityRules) {
    let mut names: Vec<String> = Vec::new();
    for name in rules
        .header_names()
        .map(folded)
        .filter(|name| !name.is_empty())
    {
        if names.contains(&name) {
            root.mistake(
                "",
                format!("the header {} twice", quoted(&name)),
                "user id, groups and each claim in a header of its own",
            );
        }
        names.push(name);
    }
    let Some(given) = rules
        .groups
        .as_ref()
        .and_then(|groups| groups.member_header_prefix.as_deref())
    else {
        return;
    };
    let prefix = folded(given);
    let mut trusted = FORBIDDEN_HEADERS
        .iter()
        .chain(&FORBIDDEN_HEADER_PREFIXES)
        .chain(&KUBEFLOW_HEADERS);
    if !given.ends_with('-') || trusted.any(|name| name.starts_with(&prefix)) {
        let expected = "a prefix that ends in `-` and that no header of HTTP, Envoy, the ALB or Kubeflow begins with";
        root.mistake("groups.memberHeaderPrefix", quoted(given), expected);
    }
    if names.iter().any(|name| name.starts_with(&prefix)) {
        let expected = "a prefix that the header of user id, groups and claims does not begin with";
        root.mistake("groups.memberHeaderPrefix", quoted(given), expected);
    }
}

/// Whether the byte may stand in a token (RFC 9110, section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Text that may stand at the start of a header's value.
pub(super) fn is_header_text(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !text.starts_with(' ')
}
