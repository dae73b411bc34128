//! The config reference: name, type, bounds and default of each field. The reader uses it, and
//! `make docs` writes it into `docs/configuration.md`. Reads no config.

use super::descriptions::DESCRIPTIONS;

/// One field of `pluginConfig`.
pub struct Field {
    /// Its path, without positions in arrays: `loadBalancers.arn`.
    pub path: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
}

/// The value of a field that is not given.
#[derive(Clone, Copy)]
pub(super) enum Default {
    /// None: the field must be given.
    Required,
    /// None: the field is optional.
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
    Number {
        least: u64,
        most: u64,
    },
    String {
        least: usize,
        most: usize,
    },
    StringOrNull {
        most: usize,
    },
    Choice(&'static [&'static str]),
    Strings {
        least: usize,
        most: usize,
    },
    /// One string of at most `bytes` bytes, or an array of at most `most`.
    StringOrStrings {
        bytes: usize,
        most: usize,
    },
    Object,
    Objects {
        least: usize,
        most: usize,
    },
}

/// Every field, parents before children. A load balancer's own `userId`, `groups` and
/// `accessToken` have those of the top level.
pub static FIELDS: &[Field] = &[
    Field {
        path: "loadBalancers",
        kind: Kind::Objects { least: 1, most: 64 },
        default: Default::Required,
    },
    Field {
        path: "loadBalancers.arn",
        kind: Kind::String {
            least: 1,
            most: 256,
        },
        default: Default::Required,
    },
    Field {
        path: "loadBalancers.issuer",
        kind: Kind::StringOrNull { most: 512 },
        default: Default::Required,
    },
    Field {
        path: "loadBalancers.clientId",
        kind: Kind::StringOrNull { most: 512 },
        default: Default::Required,
    },
    Field {
        path: "loadBalancers.userId",
        kind: Kind::Object,
        default: Default::Absent,
    },
    Field {
        path: "loadBalancers.groups",
        kind: Kind::Object,
        default: Default::Absent,
    },
    Field {
        path: "loadBalancers.accessToken",
        kind: Kind::Object,
        default: Default::Absent,
    },
    Field {
        path: "sharedNames",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
    },
    Field {
        path: "publicKeys",
        kind: Kind::Object,
        default: Default::Empty,
    },
    Field {
        path: "publicKeys.endpoint",
        kind: Kind::String {
            least: 1,
            most: 512,
        },
        default: Default::Absent,
    },
    Field {
        path: "publicKeys.cluster",
        kind: Kind::String {
            least: 1,
            most: 512,
        },
        default: Default::Absent,
    },
    Field {
        path: "publicKeys.timeoutMs",
        kind: Kind::Number {
            least: 100,
            most: 10_000,
        },
        default: Default::Number(1000),
    },
    Field {
        path: "publicKeys.cacheTtlSeconds",
        kind: Kind::Number {
            least: 1,
            most: 604_800,
        },
        default: Default::Number(86_400),
    },
    Field {
        path: "clockSkewSeconds",
        kind: Kind::Number {
            least: 0,
            most: 300,
        },
        default: Default::Number(30),
    },
    Field {
        path: "userId",
        kind: Kind::Object,
        default: Default::Empty,
    },
    Field {
        path: "userId.claims",
        kind: Kind::Strings { least: 1, most: 16 },
        default: Default::Texts(&["email"]),
    },
    Field {
        path: "userId.header",
        kind: Kind::String { least: 1, most: 64 },
        default: Default::Text("kubeflow-userid"),
    },
    Field {
        path: "userId.prefix",
        kind: Kind::String { least: 0, most: 64 },
        default: Default::Text(""),
    },
    Field {
        path: "userId.lowercase",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
    },
    Field {
        path: "userId.requireVerifiedEmail",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
    },
    Field {
        path: "userId.provider",
        kind: Kind::String { least: 1, most: 32 },
        default: Default::Absent,
    },
    Field {
        path: "userId.transformers",
        kind: Kind::Objects { least: 0, most: 32 },
        default: Default::Empty,
    },
    Field {
        path: "userId.transformers.matches",
        kind: Kind::String {
            least: 0,
            most: 1024,
        },
        default: Default::Required,
    },
    Field {
        path: "userId.transformers.replaces",
        kind: Kind::String {
            least: 0,
            most: 320,
        },
        default: Default::Required,
    },
    Field {
        path: "groups",
        kind: Kind::Object,
        default: Default::Absent,
    },
    Field {
        path: "groups.claims",
        kind: Kind::Strings { least: 1, most: 16 },
        default: Default::Texts(&["custom:groups"]),
    },
    Field {
        path: "groups.separator",
        kind: Kind::Choice(&[",", ";", "|", " "]),
        default: Default::Text(","),
    },
    Field {
        path: "groups.members",
        kind: Kind::Choice(&["keys", "name"]),
        default: Default::Absent,
    },
    Field {
        path: "groups.decode",
        kind: Kind::Choice(&["form", "json"]),
        default: Default::Absent,
    },
    Field {
        path: "groups.transformers",
        kind: Kind::Objects { least: 0, most: 32 },
        default: Default::Empty,
    },
    Field {
        path: "groups.transformers.matches",
        kind: Kind::String {
            least: 0,
            most: 1024,
        },
        default: Default::Required,
    },
    Field {
        path: "groups.transformers.replaces",
        kind: Kind::String {
            least: 0,
            most: 320,
        },
        default: Default::Required,
    },
    Field {
        path: "groups.header",
        kind: Kind::String { least: 1, most: 64 },
        default: Default::Text("kubeflow-groups"),
    },
    Field {
        path: "groups.prefix",
        kind: Kind::String { least: 0, most: 64 },
        default: Default::Text(""),
    },
    Field {
        path: "groups.keep",
        kind: Kind::String {
            least: 0,
            most: 1024,
        },
        default: Default::Text(""),
    },
    Field {
        path: "groups.memberHeaderPrefix",
        kind: Kind::String { least: 0, most: 64 },
        default: Default::Text(""),
    },
    Field {
        path: "claimHeaders",
        kind: Kind::Objects { least: 0, most: 32 },
        default: Default::Empty,
    },
    Field {
        path: "claimHeaders.claim",
        kind: Kind::String {
            least: 1,
            most: 128,
        },
        default: Default::Required,
    },
    Field {
        path: "claimHeaders.header",
        kind: Kind::String { least: 1, most: 64 },
        default: Default::Required,
    },
    Field {
        path: "claimHeaders.encoding",
        kind: Kind::Choice(&["percent"]),
        default: Default::Absent,
    },
    Field {
        path: "accessToken",
        kind: Kind::Object,
        default: Default::Absent,
    },
    Field {
        path: "accessToken.issuer",
        kind: Kind::String {
            least: 1,
            most: 512,
        },
        default: Default::Required,
    },
    Field {
        path: "accessToken.subject",
        kind: Kind::String {
            least: 1,
            most: 128,
        },
        default: Default::Text("sub"),
    },
    Field {
        path: "accessToken.jwksUri",
        kind: Kind::String {
            least: 1,
            most: 512,
        },
        default: Default::Absent,
    },
    Field {
        path: "accessToken.jwksCluster",
        kind: Kind::String {
            least: 1,
            most: 512,
        },
        default: Default::Absent,
    },
    Field {
        path: "rules",
        kind: Kind::Objects {
            least: 0,
            most: 128,
        },
        default: Default::Empty,
    },
    Field {
        path: "rules.match",
        kind: Kind::Object,
        default: Default::Empty,
    },
    Field {
        path: "rules.match.hosts",
        kind: Kind::Strings { least: 1, most: 64 },
        default: Default::Absent,
    },
    Field {
        path: "rules.match.paths",
        kind: Kind::Objects { least: 1, most: 64 },
        default: Default::Absent,
    },
    Field {
        path: "rules.match.paths.exact",
        kind: Kind::String {
            least: 1,
            most: 1024,
        },
        default: Default::Absent,
    },
    Field {
        path: "rules.match.paths.prefix",
        kind: Kind::String {
            least: 1,
            most: 1024,
        },
        default: Default::Absent,
    },
    Field {
        path: "rules.match.paths.suffix",
        kind: Kind::String {
            least: 1,
            most: 1024,
        },
        default: Default::Absent,
    },
    Field {
        path: "rules.match.paths.regex",
        kind: Kind::String {
            least: 1,
            most: 1024,
        },
        default: Default::Absent,
    },
    Field {
        path: "rules.match.methods",
        kind: Kind::Strings { least: 1, most: 16 },
        default: Default::Absent,
    },
    Field {
        path: "rules.match.issuers",
        kind: Kind::Strings { least: 1, most: 64 },
        default: Default::Absent,
    },
    Field {
        path: "rules.require",
        kind: Kind::Choice(&["none", "optional", "token"]),
        default: Default::Text("token"),
    },
    Field {
        path: "rules.allow",
        kind: Kind::Object,
        default: Default::Absent,
    },
    Field {
        path: "rules.allow.users",
        kind: Kind::Strings {
            least: 0,
            most: 1024,
        },
        default: Default::Empty,
    },
    Field {
        path: "rules.allow.domains",
        kind: Kind::Strings {
            least: 0,
            most: 256,
        },
        default: Default::Empty,
    },
    Field {
        path: "rules.allow.groups",
        kind: Kind::Strings {
            least: 0,
            most: 256,
        },
        default: Default::Empty,
    },
    Field {
        path: "logout",
        kind: Kind::Object,
        default: Default::Empty,
    },
    Field {
        path: "logout.path",
        kind: Kind::String {
            least: 2,
            most: 256,
        },
        default: Default::Absent,
    },
    Field {
        path: "logout.redirectTo",
        kind: Kind::String {
            least: 1,
            most: 2048,
        },
        default: Default::Absent,
    },
    Field {
        path: "logout.sessionCookie",
        kind: Kind::StringOrStrings { bytes: 64, most: 8 },
        default: Default::Text("AWSELBAuthSessionCookie"),
    },
    Field {
        path: "pages",
        kind: Kind::Object,
        default: Default::Empty,
    },
    Field {
        path: "pages.title",
        kind: Kind::String { least: 1, most: 64 },
        default: Default::Absent,
    },
    Field {
        path: "pages.contact",
        kind: Kind::String {
            least: 1,
            most: 256,
        },
        default: Default::Absent,
    },
    Field {
        path: "upgrades",
        kind: Kind::Strings { least: 0, most: 16 },
        default: Default::Texts(&["websocket"]),
    },
    Field {
        path: "reservedHeaders",
        kind: Kind::Strings { least: 0, most: 32 },
        default: Default::Empty,
    },
    Field {
        path: "forward",
        kind: Kind::Object,
        default: Default::Empty,
    },
    Field {
        path: "forward.oidcData",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
    },
    Field {
        path: "forward.accessToken",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
    },
    Field {
        path: "forward.sessionCookies",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
    },
    Field {
        path: "forward.pathOverrides",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
    },
    Field {
        path: "accessLog",
        kind: Kind::Object,
        default: Default::Empty,
    },
    Field {
        path: "accessLog.user",
        kind: Kind::Boolean,
        default: Default::Boolean(false),
    },
    Field {
        path: "mode",
        kind: Kind::Choice(&["enforce", "report"]),
        default: Default::Text("enforce"),
    },
];

/// The result for a field that the reference does not list.
static UNLISTED: Field = Field {
    path: "",
    kind: Kind::Object,
    default: Default::Absent,
};

/// The top-level fields that a load balancer can override, and the headers that it cannot: upstream
/// reads one header for all users.
const OVERRIDABLE: [&str; 3] = ["userId", "groups", "accessToken"];
const NOT_OVERRIDABLE: [&str; 3] = [
    "userId.header",
    "groups.header",
    "groups.memberHeaderPrefix",
];

/// The path of the top-level field that `path` overrides for one load balancer.
fn overridden(path: &str) -> Option<&str> {
    let path = path.strip_prefix("loadBalancers.")?;
    let top = path.split_once('.').map_or(path, |(top, _)| top);
    OVERRIDABLE.contains(&top).then_some(path)
}

pub(super) fn field(path: &str) -> &'static Field {
    let listed = |path: &str| FIELDS.iter().find(|field| field.path == path);
    listed(path)
        .or_else(|| listed(overridden(path)?))
        .unwrap_or(&UNLISTED)
}

/// The fields of the object at `parent`; of the whole config if it is empty.
pub(super) fn children(parent: &str) -> impl Iterator<Item = &'static Field> {
    let top = overridden(parent);
    let parent = top.unwrap_or(parent);
    FIELDS.iter().filter(move |field| {
        field.path.rsplit_once('.').map_or("", |(above, _)| above) == parent
            && (top.is_none() || !NOT_OVERRIDABLE.contains(&field.path))
    })
}

impl Field {
    pub(super) fn name(&self) -> &'static str {
        self.path
            .rsplit_once('.')
            .map_or(self.path, |(_, name)| name)
    }

    pub(super) fn is_required(&self) -> bool {
        matches!(self.default, Default::Required)
    }

    pub(super) fn accepts_length(&self, length: usize) -> bool {
        match self.kind {
            Kind::String { least, most }
            | Kind::Strings { least, most }
            | Kind::Objects { least, most } => (least..=most).contains(&length),
            Kind::StringOrNull { most } | Kind::StringOrStrings { most, .. } => {
                (1..=most).contains(&length)
            }
            Kind::Boolean | Kind::Number { .. } | Kind::Choice(_) | Kind::Object => true,
        }
    }

    pub(super) fn accepts_text(&self, text: &str) -> bool {
        match self.kind {
            Kind::Choice(words) => words.contains(&text),
            Kind::StringOrStrings { bytes, .. } => (1..=bytes).contains(&text.len()),
            _ => self.accepts_length(text.len()),
        }
    }

    /// The description in Markdown; empty if the field has none, which a test rejects.
    pub fn description(&self) -> &'static str {
        let mut described = DESCRIPTIONS.iter();
        described
            .find(|(path, _)| *path == self.path)
            .map_or("", |(_, description)| description)
    }

    /// The accepted values, for a message.
    pub fn expected(&self) -> String {
        match self.kind {
            Kind::Boolean => "true or false".to_owned(),
            Kind::Number { least, most } => format!("a whole number from {least} to {most}"),
            Kind::String { least, most } => format!("a string of {least} to {most} bytes"),
            Kind::StringOrNull { most } => {
                format!("a string of 1 to {most} bytes, or null for any")
            }
            Kind::Choice(words) => words
                .iter()
                .map(|word| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(" or "),
            Kind::Strings { least, most } => format!("an array of {least} to {most} strings"),
            Kind::StringOrStrings { bytes, most } => {
                format!("a string of 1 to {bytes} bytes, or an array of 1 to {most} of them")
            }
            Kind::Object => "an object".to_owned(),
            Kind::Objects { least, most } => format!("an array of {least} to {most} objects"),
        }
    }

    /// The accepted elements of an array of strings, for a message.
    pub(super) fn expected_element(&self) -> String {
        match self.kind {
            Kind::StringOrStrings { bytes, .. } => format!("a string of 1 to {bytes} bytes"),
            _ => "a string".to_owned(),
        }
    }

    /// The default as JSON, or `required` or `none`.
    pub fn default_json(&self) -> String {
        match self.default {
            Default::Required => "required".to_owned(),
            Default::Absent => "none".to_owned(),
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
    fn every_default_is_an_accepted_value() {
        for field in FIELDS {
            let fits = match (field.kind, field.default) {
                (_, Default::Required | Default::Absent) => true,
                (Kind::Boolean, Default::Boolean(_)) => true,
                (Kind::Number { least, most }, Default::Number(value)) => {
                    (least..=most).contains(&value)
                }
                (Kind::String { .. }, Default::Text(text)) => field.accepts_length(text.len()),
                (Kind::Strings { .. }, Default::Texts(texts)) => field.accepts_length(texts.len()),
                (Kind::Choice(_) | Kind::StringOrStrings { .. }, Default::Text(text)) => {
                    field.accepts_text(text)
                }
                (
                    Kind::Object | Kind::Objects { least: 0, .. } | Kind::Strings { least: 0, .. },
                    Default::Empty,
                ) => true,
                _ => false,
            };
            assert!(fits, "{}", field.path);
        }
    }

    #[test]
    fn every_field_has_one_description() {
        let paths: Vec<_> = FIELDS.iter().map(|field| field.path).collect();
        let described: Vec<_> = DESCRIPTIONS.iter().map(|(path, _)| *path).collect();
        assert_eq!(described, paths);
    }

    #[test]
    fn every_field_is_listed_once_after_its_parent() {
        for (position, field) in FIELDS.iter().enumerate() {
            assert!(
                !FIELDS[..position]
                    .iter()
                    .any(|earlier| earlier.path == field.path),
                "{} is listed twice",
                field.path
            );
            if let Some((parent, _)) = field.path.rsplit_once('.') {
                assert!(
                    FIELDS[..position]
                        .iter()
                        .any(|earlier| earlier.path == parent),
                    "{} has no parent",
                    field.path
                );
            }
        }
    }
}
