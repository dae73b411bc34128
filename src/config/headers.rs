//! Header names in the plugin config: rejects reserved, malformed and conflicting names.

use super::reader::{Object, quoted};
use crate::headers::{KUBEFLOW_HEADERS, PATH_OVERRIDES, folded};
use crate::identity::IdentityRules;

/// Headers with a meaning in HTTP, in proxies or in this filter. The config cannot name them.
const FORBIDDEN_HEADERS: [&str; 38] = [
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
    "x-forwarded-by",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
];
const FORBIDDEN_HEADER_PREFIXES: [&str; 13] = [
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
    "x-http-method",
    "x-request-id",
];

/// The prefix of headers that the ALB sets from a client's certificate. They may be stripped, but
/// may not carry an identity.
const CLIENT_CERTIFICATE_PREFIX: &str = "x-amzn-mtls-";

/// Headers that some applications take as the request's path. They may be stripped, but may not
/// carry an identity.
const FORWARDED_PATHS: [&str; 3] = ["x-forwarded-path", "x-forwarded-prefix", "x-forwarded-uri"];

/// The name of a header that carries an identity. Empty only after a mistake.
pub(super) fn read_header(object: &Object<'_>, field: &str) -> String {
    let text = object.string(field);
    if text.is_empty() {
        return String::new();
    }
    let known = folded(text);
    if PATH_OVERRIDES
        .iter()
        .chain(&FORWARDED_PATHS)
        .any(|name| known == *name)
    {
        object.mistake(
            field,
            &quoted(text),
            "a header that no application takes as a path or method override",
        );
        return text.to_ascii_lowercase();
    }
    checked_header(object, field, text, false)
}

/// `reservedHeaders`, in lower case.
pub(super) fn read_reserved_headers(root: &Object<'_>) -> Vec<String> {
    let names = root.strings("reservedHeaders").into_iter().enumerate();
    names
        .map(|(position, name)| {
            let field = format!("reservedHeaders[{position}]");
            let may_be_named = folded(name).starts_with(CLIENT_CERTIFICATE_PREFIX);
            checked_header(root, &field, name, may_be_named)
        })
        .collect()
}

/// The header name `text` in lower case. Adds a mistake in `field` if it is malformed, or forbidden
/// and not `may_be_named`.
fn checked_header(object: &Object<'_>, field: &str, text: &str, may_be_named: bool) -> String {
    let name = text.to_ascii_lowercase();
    let known = folded(&name);
    let forbidden = FORBIDDEN_HEADERS.contains(&known.as_str())
        || FORBIDDEN_HEADER_PREFIXES
            .iter()
            .any(|prefix| known.starts_with(prefix));
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_token_byte) {
        object.mistake(
            field,
            &quoted(text),
            "a header name (RFC 9110, section 5.1) of 1 to 64 bytes",
        );
    } else if forbidden && !may_be_named {
        object.mistake(
            field,
            &quoted(text),
            "a header that HTTP, Envoy and the ALB do not use, such as \"kubeflow-userid\"",
        );
    }
    name
}

/// Checks that no two identity headers have the same name, and that no other header starts with the
/// member prefix. Otherwise one identity would overwrite another or pass for it.
pub(super) fn check_headers_are_distinct(root: &Object<'_>, rules: &IdentityRules) {
    let mut names: Vec<String> = Vec::new();
    for name in rules.header_names().map(folded) {
        let other = names.iter().position(|known| *known == name);
        if let Some(other) = other.filter(|_| !name.is_empty()) {
            root.conflict(
                &header_field(rules, names.len()),
                &header_field(rules, other),
                &format!("both set {}", quoted(&name)),
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
    let field = "groups.memberHeaderPrefix";
    let prefix = folded(given);
    let mut trusted = FORBIDDEN_HEADERS
        .iter()
        .chain(&FORBIDDEN_HEADER_PREFIXES)
        .chain(&KUBEFLOW_HEADERS)
        .chain(&PATH_OVERRIDES)
        .chain(&FORWARDED_PATHS);
    if !given.ends_with('-') || trusted.any(|name| name.starts_with(&prefix)) {
        let expected =
            "a prefix that ends in `-` and starts no header of HTTP, Envoy, the ALB or Kubeflow";
        root.mistake(field, &quoted(given), expected);
    } else if let Some(other) = names.iter().position(|name| name.starts_with(&prefix)) {
        let other = header_field(rules, other);
        let reason = format!("that header would start with {}", quoted(given));
        root.conflict(field, &other, &reason);
    }
}

/// The field of the header at this position in [`IdentityRules::header_names`].
fn header_field(rules: &IdentityRules, position: usize) -> String {
    let first_claim = if rules.groups.is_some() { 2 } else { 1 };
    match position.checked_sub(first_claim) {
        Some(entry) => format!("claimHeaders[{entry}].header"),
        None if position == 0 => "userId.header".to_owned(),
        None => "groups.header".to_owned(),
    }
}

/// Whether the byte is a `tchar` (RFC 9110, section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the text is printable ASCII without a leading space: safe at the start of a header
/// value.
pub(super) fn is_header_text(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !text.starts_with(' ')
}
