//! Path normalization: every form that an upstream may derive from a request's path (`%2e`, `//`,
//! `..`, `;`, `\`). No rules.

/// The most percent-decodings of one path.
const MAX_DECODINGS: usize = 3;
/// The most bytes of all normalized forms of one path together.
pub(super) const MAX_FORM_BYTES: usize = 2048;
/// The fixed cost of one form, in bytes: starting and ending a regex takes that long.
pub(super) const FORM_OVERHEAD: usize = 16;
/// The most normalized forms of one path.
const MAX_FORMS: usize = 48;

/// Whether a longer segment ends in `..`. A route that rewrites the text before the dots can turn
/// it into `..`: `/public/a..`, with `/public/a` replaced by `/app/`. The forms here do not show
/// that.
pub(super) fn has_hidden_parent(path: &str) -> bool {
    path.split('/')
        .any(|segment| segment.len() > 2 && segment.ends_with(".."))
}

/// Whether a path without query has a single normalized form, apart from letter case.
pub(crate) fn has_one_form(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,:=@".contains(&byte);
    path.starts_with('/')
        && path.bytes().all(is_plain)
        && !path.contains("//")
        && !path.contains("/.")
}

/// The normalized forms of `:path`: the path as sent, and the results of the [`STEPS`] in any order
/// with up to [`MAX_DECODINGS`] decodings. `None` if the path is invalid or exceeds a limit.
/// `most_bytes` limits the forms' cost for regexes.
pub(super) fn normal_forms(path: &str, most_bytes: usize) -> Option<Vec<String>> {
    let written = path.split('?').next().unwrap_or_default();
    let too_long = |bytes: usize, forms: usize| {
        bytes > MAX_FORM_BYTES
            || bytes.saturating_add(FORM_OVERHEAD.saturating_mul(forms)) > most_bytes
    };
    if !written.starts_with('/') || too_long(written.len(), 1) {
        return None;
    }
    if has_one_form(written) {
        return Some(vec![written.to_owned()]);
    }
    let mut forms = vec![(written.to_owned(), 0)];
    let mut next = 0;
    while let Some((form, decodings)) = forms.get(next).cloned() {
        let bytes = forms.iter().fold(0, |bytes: usize, (form, _)| {
            bytes.saturating_add(form.len())
        });
        if form
            .chars()
            .any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER)
            || forms.len() > MAX_FORMS
            || too_long(bytes, forms.len())
        {
            return None;
        }
        let mut add = |form: String, decodings: usize| {
            if !forms.iter().any(|(known, _)| *known == form) {
                forms.push((form, decodings));
            }
        };
        for step in STEPS {
            add(step(&form), decodings);
        }
        let decoded = percent_decoded(&form);
        if decoded != form && decodings >= MAX_DECODINGS {
            return None;
        }
        add(decoded, decodings.saturating_add(1));
        next = next.saturating_add(1);
    }
    Some(forms.into_iter().map(|(form, _)| form).collect())
}

/// Changes that upstreams make to a path, each in its own order.
const STEPS: [fn(&str) -> String; 8] = [
    |path| path.replace('\\', "/"),
    |path| path.split(['?', '#']).next().unwrap_or_default().to_owned(),
    without_parameters,
    without_authority,
    without_host,
    merged,
    resolved,
    |path| path.replace("%2e", ".").replace("%2E", "."),
];

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = match (byte, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// The path without the `;parameters` of its segments.
fn without_parameters(path: &str) -> String {
    let segments = path
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or_default());
    segments.collect::<Vec<_>>().join("/")
}

/// The path of `//authority/path` (RFC 3986, section 4.2).
fn without_authority(path: &str) -> String {
    match path.strip_prefix("//") {
        Some(rest) => rest
            .find('/')
            .and_then(|slash| rest.get(slash..))
            .unwrap_or("/")
            .to_owned(),
        None => path.to_owned(),
    }
}

/// The path of `//host/path` by the URL standard of browsers and Node: a URL parser with a base URL
/// skips more slashes before the host.
fn without_host(path: &str) -> String {
    if path.starts_with("//") {
        let rest = path.trim_start_matches('/');
        rest.find('/')
            .and_then(|slash| rest.get(slash..))
            .unwrap_or("/")
            .to_owned()
    } else {
        path.to_owned()
    }
}

/// The path with each run of slashes merged into one.
fn merged(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    merged
}

/// The path with `.` and `..` resolved (RFC 3986, section 5.2.4).
fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let is_folder = path.ends_with("/.") || path.ends_with("/..");
    let end = if is_folder && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_dots_as_rfc_3986() {
        for (path, expected) in [
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/admin//.", "/admin//"),
            ("/admin//x/..", "/admin//"),
            ("//.", "//"),
            ("/.", "/"),
            ("/..", "/"),
            ("/a/../..", "/"),
        ] {
            assert_eq!(resolved(path), expected, "{path}");
        }
    }

    #[test]
    fn drops_the_host_behind_any_number_of_slashes() {
        for (path, expected) in [
            ("/a//b", "/a//b"),
            ("//h/a", "/a"),
            ("///h/a", "/a"),
            ("////h//a", "//a"),
            ("///h", "/"),
            ("///", "/"),
        ] {
            assert_eq!(without_host(path), expected, "{path}");
        }
    }

    #[test]
    fn lists_every_combination_of_steps() {
        let mut steps: Vec<fn(&str) -> String> = STEPS.to_vec();
        steps.push(percent_decoded);
        for path in [
            "/a/%2e%2e;x/%2fb",
            "//h\\a/..;/b",
            "/a%2fb/..//%61;y/./c",
            "/%252e%252e/a?b",
            "/a;%2f/../b/",
            "/x%5c..%5cy",
            "///h//a",
        ] {
            let forms =
                normal_forms(path, usize::MAX).unwrap_or_else(|| panic!("{path} has no forms"));
            let mut reached = vec![path.split('?').next().unwrap().to_owned()];
            for _ in 0..4 {
                let further: Vec<_> = reached
                    .iter()
                    .flat_map(|form| steps.iter().map(move |step| step(form)))
                    .collect();
                reached.extend(further);
                reached.sort();
                reached.dedup();
            }
            for form in reached {
                assert!(forms.contains(&form), "{form} of {path}");
            }
        }
    }
}
