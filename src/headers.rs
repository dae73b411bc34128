//! Request headers: the head of a request, the edits that the filter makes to it, the names that
//! mean something here, and which names upstream applications cannot tell apart. No I/O and no
//! rules.

/// The ALB's token.
pub const OIDC_DATA: &str = "x-amzn-oidc-data";
/// The IdP's own access token, passed on by the ALB.
pub const ACCESS_TOKEN: &str = "x-amzn-oidc-accesstoken";
/// The user's `sub` in plain text, signed by nobody.
pub const OIDC_IDENTITY: &str = "x-amzn-oidc-identity";

pub(crate) const ALB_HEADERS: [&str; 3] = [OIDC_DATA, ACCESS_TOKEN, OIDC_IDENTITY];

/// The headers that Kubeflow believes. Whatever a client sends in them is removed, whichever header
/// the user id goes into.
pub(crate) const KUBEFLOW_HEADERS: [&str; 2] = ["kubeflow-userid", "kubeflow-groups"];

/// Headers by which an application takes another path or method than those of the request line,
/// which the rules judged: gunicorn and CGI gateways (`SCRIPT_NAME`, `PATH_INFO`), WSGI middleware
/// (`X-Script-Name`), Symfony and Zend Framework (`X-Original-URL`, `X-Rewrite-URL`), and the
/// method override of Express, Rails, Laravel and others. README, Path overrides.
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

/// The head of a request: its headers in order, names in lower case, duplicates and all.
#[derive(Default)]
pub struct RequestHead<'a> {
    headers: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> RequestHead<'a> {
    /// A head of these names and values.
    pub fn new(headers: Vec<(&'a [u8], &'a [u8])>) -> Self {
        Self { headers }
    }

    /// Every value of `name`, which is lower case.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |(found, _)| *found == name.as_bytes())
            .map(|(_, value)| *value)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().map(|(name, _)| *name)
    }

    /// The first value of `name`, which is lower case.
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }
}

/// A change to the request's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Remove each header of this name.
    Remove(String),
    /// Put this one header in place of all of its name.
    Set(String, Vec<u8>),
}

pub(crate) fn same_but_for_signs(name: &[u8], reserved: &str) -> bool {
    name.iter()
        .copied()
        .map(without_sign)
        .eq(reserved.bytes().map(without_sign))
}

/// A byte of a header's name as the most careless upstream reads it: CGI and its kin cannot tell
/// `a-b` from `a_b`, some of them neither from `a.b` nor from any other sign.
pub(crate) fn without_sign(byte: u8) -> u8 {
    // The colon of `:path` is none of them.
    if byte.is_ascii_alphanumeric() || byte == b':' {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

/// A header's name as the most careless upstream reads it.
pub(crate) fn folded(name: &str) -> String {
    name.bytes()
        .map(|byte| char::from(without_sign(byte)))
        .collect()
}
