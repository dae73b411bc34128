//! The config reference: each field's name, type, bounds, default and meaning, once. The reader takes names and bounds
//! from here, and a test compares the README's table with it.

/// One field of `pluginConfig`.
pub struct Field {
    /// Its path, without positions in arrays: `loadBalancers.arn`.
    pub path: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    /// What it is for, in Markdown.
    pub meaning: &'static str,
}

/// What a field holds when it is not given.
#[derive(Clone, Copy)]
pub(super) enum Default {
    /// It must be given.
    Required,
    /// It stays absent, and its meaning says what then happens.
    Absent,
    Boolean(bool),
    Number(u64),
    Text(&'static str),
    Texts(&'static [&'static str]),
    /// An object or array without members.
    Empty,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Boolean,
    Number { least: u64, most: u64 },
    String { least: usize, most: usize },
    StringOrNull { most: usize },
    Strings { least: usize, most: usize },
    Object,
    Objects { least: usize, most: usize },
}

/// Every field, parents before children.
pub static FIELDS: [Field; 23] = [
    Field {
        path: "loadBalancers",
        kind: Kind::Objects { least: 1, most: 64 },
        default: Default::Required,
        meaning: "Whose tokens are believed.",
    },
    Field {
        path: "loadBalancers.arn",
        kind: Kind::String { least: 1, most: 256 },
        default: Default::Required,
        meaning: "ARN of the Application Load Balancer: the `signer` of its tokens.",
    },
    Field {
        path: "loadBalancers.issuer",
        kind: Kind::StringOrNull { most: 512 },
        default: Default::Required,
        meaning: "The `iss` of its tokens; `null`: any.",
    },
    Field {
        path: "loadBalancers.clientId",
        kind: Kind::StringOrNull { most: 512 },
        default: Default::Required,
        meaning: "The `client` of its tokens; `null`: any.",
    },
    Field {
        path: "publicKeys",
        kind: Kind::Object,
        default: Default::Empty,
        meaning: "Where the load balancers' public keys are fetched.",
    },
    Field {
        path: "publicKeys.endpoint",
        kind: Kind::String { least: 1, most: 512 },
        default: Default::Absent,
        meaning: "URL to which the key id is appended as one path segment. Without it: the one that AWS documents for each ARN's region (partitions `aws` and `aws-us-gov`).",
    },
    Field {
        path: "publicKeys.cluster",
        kind: Kind::String { least: 1, most: 512 },
        default: Default::Absent,
        meaning: "Envoy cluster that reaches the endpoint. Without it: `outbound\\|PORT\\|\\|HOST` of the endpoint, which is Istio's name for it.",
    },
    Field {
        path: "publicKeys.timeoutMs",
        kind: Kind::Number { least: 100, most: 10_000 },
        default: Default::Number(1000),
        meaning: "How long one fetch may take, in milliseconds. A request waits for its key at most three times as long.",
    },
    Field {
        path: "publicKeys.cacheTtlSeconds",
        kind: Kind::Number { least: 1, most: 604_800 },
        default: Default::Number(86_400),
        meaning: "How long a fetched key is used, in seconds. It is fetched anew after four fifths of that; while the key server is down, the old one serves for another day.",
    },
    Field {
        path: "clockSkewSeconds",
        kind: Kind::Number { least: 0, most: 300 },
        default: Default::Number(30),
        meaning: "How long after its `exp` a token is still believed, in seconds.",
    },
    Field { path: "userId", kind: Kind::Object, default: Default::Empty, meaning: "How claims become the user id." },
    Field {
        path: "userId.claims",
        kind: Kind::Strings { least: 1, most: 16 },
        default: Default::Texts(&["email"]),
        meaning: "The first of these claims that is a non-empty string is the user id. Dots descend into objects; a claim with dots in its own name wins.",
    },
    Field {
        path: "userId.header",
        kind: Kind::String { least: 1, most: 64 },
        default: Default::Text("kubeflow-userid"),
        meaning: "The request header that carries the user id. Whatever a client sends in it, or in its `_` twin, is removed.",
    },
    Field {
        path: "userId.prefix",
        kind: Kind::String { least: 0, most: 64 },
        default: Default::Text(""),
        meaning: "Put before the user id, after the transformers.",
    },
    Field {
        path: "userId.lowercase",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
        meaning: "Lower-case the claim, before the transformers: to Kubernetes RBAC `Ann@x` and `ann@x` are two users.",
    },
    Field {
        path: "userId.requireVerifiedEmail",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
        meaning: "Refuse a user whose `email_verified` is neither `true` nor `\"true\"`.",
    },
    Field {
        path: "userId.transformers",
        kind: Kind::Objects { least: 0, most: 32 },
        default: Default::Empty,
        meaning: "AuthService's `USERID_TRANSFORMERS`: the first rule that matches anywhere in the user id replaces all its matches, and no later rule is tried.",
    },
    Field {
        path: "userId.transformers.matches",
        kind: Kind::String { least: 0, most: usize::MAX },
        default: Default::Required,
        meaning: "Regex, not anchored, of at most 1024 bytes ([syntax](https://docs.rs/regex-lite/0.1/regex_lite/#syntax): no Unicode classes).",
    },
    Field {
        path: "userId.transformers.replaces",
        kind: Kind::String { least: 0, most: usize::MAX },
        default: Default::Required,
        meaning: "What replaces each match, at most 320 bytes: `$1` and `${1}` are groups, `$$` is a dollar sign.",
    },
    Field {
        path: "forward",
        kind: Kind::Object,
        default: Default::Empty,
        meaning: "What upstream may see of the load balancer's own headers and cookies.",
    },
    Field {
        path: "forward.oidcData",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
        meaning: "`x-amzn-oidc-data`, and `x-amzn-oidc-identity` where it equals the verified `sub`.",
    },
    Field {
        path: "forward.accessToken",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
        meaning: "`x-amzn-oidc-accesstoken`. It is not verified.",
    },
    Field {
        path: "forward.sessionCookies",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
        meaning: "The cookies `AWSELBAuthSessionCookie-N`. Whoever has them is the user.",
    },
];

/// What the reader gets where it asks for a field that the reference does not list. A test sees that it never does.
static UNLISTED: Field = Field { path: "", kind: Kind::Object, default: Default::Absent, meaning: "" };

pub(super) fn field(path: &str) -> &'static Field {
    FIELDS.iter().find(|field| field.path == path).unwrap_or(&UNLISTED)
}

/// The fields of the object at `parent`; of the whole config where it is empty.
pub(super) fn children(parent: &str) -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().filter(move |field| field.path.rsplit_once('.').map_or("", |(above, _)| above) == parent)
}

impl Field {
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    pub(super) fn is_required(&self) -> bool {
        matches!(self.default, Default::Required)
    }

    pub(super) fn accepts_length(&self, length: usize) -> bool {
        match self.kind {
            Kind::String { least, most } | Kind::Strings { least, most } | Kind::Objects { least, most } => {
                (least..=most).contains(&length)
            }
            Kind::StringOrNull { most } => (1..=most).contains(&length),
            Kind::Boolean | Kind::Number { .. } | Kind::Object => true,
        }
    }

    /// What the field may hold, for a message.
    pub fn expected(&self) -> String {
        match self.kind {
            Kind::Boolean => "true or false".to_owned(),
            Kind::Number { least, most } => format!("a whole number from {least} to {most}"),
            Kind::String { most: usize::MAX, .. } => "a string".to_owned(),
            Kind::String { least, most } => format!("a string of {least} to {most} bytes"),
            Kind::StringOrNull { most } => format!("a string of 1 to {most} bytes, or null for any"),
            Kind::Strings { least, most } => format!("an array of {least} to {most} strings"),
            Kind::Object => "an object".to_owned(),
            Kind::Objects { least, most } => format!("an array of {least} to {most} objects"),
        }
    }

    /// The default as JSON, or the word for there being none.
    pub fn default_json(&self) -> String {
        match self.default {
            Default::Required => "required".to_owned(),
            Default::Absent => "derived".to_owned(),
            Default::Boolean(value) => value.to_string(),
            Default::Number(value) => value.to_string(),
            Default::Text(value) => serde_json::json!(value).to_string(),
            Default::Texts(values) => serde_json::json!(values).to_string(),
            Default::Empty if matches!(self.kind, Kind::Object) => "{}".to_owned(),
            Default::Empty => "[]".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_is_what_its_field_may_hold() {
        for field in &FIELDS {
            let fits = match (field.kind, field.default) {
                (_, Default::Required | Default::Absent) => true,
                (Kind::Boolean, Default::Boolean(_)) => true,
                (Kind::Number { least, most }, Default::Number(value)) => (least..=most).contains(&value),
                (Kind::String { .. }, Default::Text(text)) => field.accepts_length(text.len()),
                (Kind::Strings { .. }, Default::Texts(texts)) => field.accepts_length(texts.len()),
                (Kind::Object | Kind::Objects { least: 0, .. }, Default::Empty) => true,
                _ => false,
            };
            assert!(fits, "{}", field.path);
        }
    }

    #[test]
    fn each_field_stands_once_and_under_an_object() {
        for (position, field) in FIELDS.iter().enumerate() {
            assert!(
                !FIELDS[..position].iter().any(|earlier| earlier.path == field.path),
                "{} stands twice",
                field.path
            );
            if let Some((parent, _)) = field.path.rsplit_once('.') {
                assert!(
                    FIELDS[..position].iter().any(|earlier| earlier.path == parent),
                    "{} has no parent",
                    field.path
                );
            }
        }
    }
}
