//! Request headers: the request's head, edits of it, special names, and aliases: names that
//! upstream applications cannot tell apart. No I/O, no rules.

/// The ALB's token.
pub const OIDC_DATA: &str = "x-amzn-oidc-data";
/// The identity provider's access token, which the ALB adds.
pub const ACCESS_TOKEN: &str = "x-amzn-oidc-accesstoken";
/// The user's `sub` in plain text, unsigned.
pub const OIDC_IDENTITY: &str = "x-amzn-oidc-identity";

/// The headers that the ALB sets.
pub(crate) const ALB_HEADERS: [&str; 3] = [OIDC_DATA, ACCESS_TOKEN, OIDC_IDENTITY];

/// The headers that Kubeflow trusts. They are stripped from every request, even if the user id is
/// in another header.
pub(crate) const KUBEFLOW_HEADERS: [&str; 2] = ["kubeflow-userid", "kubeflow-groups"];

/// Headers that override the request's path or method in some applications: gunicorn and CGI
/// gateways (`SCRIPT_NAME`, `PATH_INFO`), WSGI middleware (`X-Script-Name`), Symfony and Zend
/// Framework (`X-Original-URL`, `X-Rewrite-URL`), and the method override of Express, Rails,
/// Laravel and others. See docs/configuration.md, Path overrides.
pub(crate) const PATH_OVERRIDES: [&str; 10] = [
    "path-info",
    "script-name",
    "x-forwarded-script-name",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-script-name",
    "x-traversal-path",
];

/// The head of a request: its headers in order, including duplicates, with names in lower case.
#[derive(Default)]
pub struct RequestHead<'a> {
    headers: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> RequestHead<'a> {
    /// A head with these names and values.
    pub fn new(headers: Vec<(&'a [u8], &'a [u8])>) -> Self {
        Self { headers }
    }

    /// Every value of `name` (lower case).
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |(found, _)| *found == name.as_bytes())
            .map(|(_, value)| *value)
    }

    /// Every name, duplicates included.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().map(|(name, _)| *name)
    }

    /// The first value of `name` (lower case).
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }
}

/// A change to the request's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Remove every header of this name.
    Remove(String),
    /// Replace all headers of this name with one.
    Set(String, Vec<u8>),
}

/// Whether the least precise upstream cannot tell `name` from `reserved`: [`without_sign`].
pub(crate) fn same_but_for_signs(name: &[u8], reserved: &str) -> bool {
    name.iter()
        .copied()
        .map(without_sign)
        .eq(reserved.bytes().map(without_sign))
}

/// A byte of a header name as the least precise upstream sees it: CGI and similar gateways cannot
/// tell `a-b` from `a_b`, and some of them from `a.b` or any other punctuation.
pub(crate) fn without_sign(byte: u8) -> u8 {
    // The colon of `:path` stays.
    if byte.is_ascii_alphanumeric() || byte == b':' {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

/// A header name as the least precise upstream sees it.
pub(crate) fn folded(name: &str) -> String {
    name.bytes()
        .map(|byte| char::from(without_sign(byte)))
        .collect()
}
