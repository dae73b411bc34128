//! Text for headers: whether a value is safe there and as a name that people compare, and
//! percent-encoding. No claims, no config.

/// The prefix of Kubernetes' own users and groups, such as `system:masters`. Kubernetes grants them
/// rights, so users and groups of an identity provider must not have it.
pub(crate) const KUBERNETES_PREFIX: &str = "system:";

/// Whether `value` is safe as a header value and as a name that people compare: not empty, without
/// leading or trailing spaces, control characters (the host accepts CR, LF and NUL) and invisible
/// or bidirectional formatting characters.
pub(super) fn is_safe_value(value: &str) -> bool {
    !value.is_empty()
        && value.trim() == value
        && !value.chars().any(|c| c.is_control() || is_invisible(c))
}

/// As [`is_safe_value`], for text that people only read. Joiners are allowed inside it: names in
/// Persian and in Indian scripts need them.
pub(super) fn is_safe_text(text: &str) -> bool {
    const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];
    !text.is_empty()
        && text.trim() == text
        && !text.starts_with(JOINERS)
        && !text.ends_with(JOINERS)
        && !text
            .chars()
            .any(|c| c.is_control() || (is_invisible(c) && !JOINERS.contains(&c)))
}

/// `text` in percent-encoding (RFC 3986, section 2.1), with hexadecimal digits in upper case. Bytes
/// that `is_kept` accepts stay.
pub(super) fn percent_encoded(text: &str, is_kept: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_kept(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn is_invisible(c: char) -> bool {
    matches!(c,
        // Format characters (Unicode category Cf) and others that are invisible, in numeric order.
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
        | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d159}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        // Private use: fonts show different signs or none.
        | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}'
        // Noncharacters.
        | '\u{fdd0}'..='\u{fdef}')
        || (u32::from(c) & 0xfffe) == 0xfffe
}
