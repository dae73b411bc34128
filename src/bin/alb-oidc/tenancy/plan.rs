//! Maps users and groups to namespaces with their owners, contributors and groups. Reports all
//! mistakes at once. Builds no resources.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use alb_oidc_filter::{Dropped, IdentityRules};
use regex_lite::Regex;

use super::file::{Contributor, File, Group, Plugin, ResourceQuotaSpec, Role, User};

/// A field and its mistake.
pub(crate) type Mistake = (String, String);

/// Kubernetes' notation of a quantity.
const QUANTITY: &str = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$";

/// The longest name of a RoleBinding and its AuthorizationPolicy, in bytes.
const MAX_NAME_BYTES: usize = 253;

/// The label of every resource that `alb-oidc` prints.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// All namespaces by name, and their common settings.
pub(crate) struct Plan {
    pub(crate) principals: Vec<String>,
    /// Labels of each namespace.
    pub(crate) namespace_labels: BTreeMap<String, String>,
    pub(crate) tenants: BTreeMap<String, Tenant>,
}

/// One namespace.
pub(crate) struct Tenant {
    /// The owner's user name in Kubeflow and Kubernetes.
    pub(crate) owner: String,
    pub(crate) hard_quota: BTreeMap<String, String>,
    pub(crate) plugins: Vec<Plugin>,
    /// By KFAM's name for the resources.
    pub(crate) bindings: BTreeMap<String, Binding>,
    /// Its field in the file.
    field: String,
}

/// A user or group with access to a namespace, besides the owner.
pub(crate) struct Binding {
    pub(crate) subject: Subject,
    /// The name in Kubeflow and Kubernetes.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The header that identifies the user or group, and its required value; `*`: any.
    pub(crate) header: String,
    pub(crate) value: String,
}

#[derive(Clone, Copy)]
pub(crate) enum Subject {
    User,
    Group,
}

impl Subject {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
        }
    }
}

impl Binding {
    /// KFAM's name for it: ASCII letters and digits, with dashes for all other characters.
    fn resource_name(&self) -> String {
        let words = [
            self.subject.kind(),
            &self.name,
            "clusterrole",
            self.role.name(),
        ]
        .join("-")
        .to_ascii_lowercase();
        let words = words
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("-")
    }
}

impl Plan {
    /// The plan for `file`, with user ids and groups from `identity`.
    ///
    /// # Errors
    /// All mistakes.
    pub(crate) fn new(file: &File, identity: &IdentityRules) -> Result<Plan, Vec<Mistake>> {
        let mut planner = Planner {
            file,
            identity,
            seen: BTreeMap::new(),
            tenants: BTreeMap::new(),
            mistakes: vec![],
        };
        if file.users.is_empty() && file.groups.is_empty() {
            planner.mistake("", "found no users and no groups, expected at least one");
        }
        planner.principals();
        planner.namespace_labels();
        for (position, user) in file.users.iter().enumerate() {
            planner.user(&format!("users[{position}]"), user);
        }
        for (position, group) in file.groups.iter().enumerate() {
            planner.group(&format!("groups[{position}]"), group);
        }
        let Planner {
            tenants, mistakes, ..
        } = planner;
        if mistakes.is_empty() {
            Ok(Plan {
                principals: file.kubeflow.principals.clone(),
                namespace_labels: file.kubeflow.namespace_labels.clone(),
                tenants,
            })
        } else {
            Err(mistakes)
        }
    }
}

struct Planner<'a> {
    file: &'a File,
    identity: &'a IdentityRules,
    /// The users and groups that have a namespace, and their fields in the file.
    seen: BTreeMap<(&'static str, String), String>,
    tenants: BTreeMap<String, Tenant>,
    mistakes: Vec<Mistake>,
}

impl Planner<'_> {
    fn mistake(&mut self, field: &str, what: impl Into<String>) {
        self.mistakes.push((field.to_owned(), what.into()));
    }

    /// Validates the principals: with none, or with `*`, any workload could impersonate users.
    fn principals(&mut self) {
        let principals = &self.file.kubeflow.principals;
        if principals.is_empty() {
            self.mistake("kubeflow.principals", "found none, expected at least one");
        }
        for (position, principal) in principals
            .iter()
            .enumerate()
            .filter(|(_, principal)| !is_principal(principal))
        {
            let what = format!(
                "found {principal:?}, expected TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT without `*`"
            );
            self.mistake(&format!("kubeflow.principals[{position}]"), what);
        }
    }

    /// Istio enforces the policies of a namespace only where it has a proxy for its pods.
    fn namespace_labels(&mut self) {
        let labels = &self.file.kubeflow.namespace_labels;
        if !labels.iter().any(|(name, value)| adds_to_mesh(name, value)) {
            let what = "found no label that adds a namespace to the mesh, expected istio-injection: enabled, istio.io/rev or \
                        istio.io/dataplane-mode: ambient: without it, none of its policies is enforced";
            self.mistake("kubeflow.namespaceLabels", what);
            return;
        }
        for (name, value) in labels {
            let field = format!("kubeflow.namespaceLabels.{name}");
            if name == MANAGED_BY {
                self.mistake(&field, "found a label of alb-oidc's own, expected another");
            } else if !is_label_name(name) {
                let what = format!("found {name:?}, expected the name of a Kubernetes label");
                self.mistake(&field, what);
            } else if !is_label_value(value) {
                let what = format!("found {value:?}, expected the value of a Kubernetes label");
                self.mistake(&field, what);
            }
        }
    }

    fn user(&mut self, field: &str, user: &User) {
        let User {
            user: claim,
            namespace,
            resource_quota_spec,
            plugins,
            contributors,
        } = user;
        let Some(owner) = self.user_name(&format!("{field}.user"), claim) else {
            return;
        };
        if !self.is_first(field, "user", &owner) {
            return;
        }
        let namespace = namespace
            .clone()
            .unwrap_or_else(|| dashboards_namespace(&owner));
        let mut tenant = self.tenant(field, owner, resource_quota_spec.as_ref(), plugins);
        self.contributors(field, &mut tenant, contributors);
        self.add(namespace, tenant);
    }

    fn group(&mut self, field: &str, group: &Group) {
        let Group {
            group: name,
            role,
            owner,
            namespace,
            resource_quota_spec,
            plugins,
            contributors,
        } = group;
        let owner = match owner {
            Some(claim) => self.user_name(&format!("{field}.owner"), claim),
            // No user has this name: the filter and HTTP both exclude a trailing space.
            None => Some(format!(" group {name} ")),
        };
        let (Some(owner), Some(binding)) =
            (owner, self.members(&format!("{field}.group"), name, *role))
        else {
            return;
        };
        if !self.is_first(field, "group", &binding.name) {
            return;
        }
        let namespace = namespace
            .clone()
            .unwrap_or_else(|| dashboards_namespace(name));
        let mut tenant = self.tenant(field, owner, resource_quota_spec.as_ref(), plugins);
        self.bind(field, &mut tenant, binding);
        self.contributors(field, &mut tenant, contributors);
        self.add(namespace, tenant);
    }

    fn is_first(&mut self, field: &str, kind: &'static str, name: &str) -> bool {
        let Some(earlier) = self.seen.insert((kind, name.to_owned()), field.to_owned()) else {
            return true;
        };
        self.mistake(
            &format!("{field}.{kind}"),
            format!("found {name:?}, the {kind} of {earlier}, expected another"),
        );
        false
    }

    /// The user's name in Kubeflow and Kubernetes: the user id without Kubeflow's prefix.
    fn user_name(&mut self, field: &str, claim: &str) -> Option<String> {
        let id = match self.identity.user_id.made_of(claim) {
            Ok(id) => id,
            Err(reason) => {
                self.mistake(
                    field,
                    format!(
                        "found {claim:?}, which the filter denies ({reason}), expected a visible user id that does not start with `system:`"
                    ),
                );
                return None;
            }
        };
        // In a policy, `*` would match other users too.
        if id.starts_with('*') || id.ends_with('*') {
            self.mistake(
                field,
                format!("found the user id {id:?}, expected one without `*` at its start or end"),
            );
            return None;
        }
        let prefix = &self.file.kubeflow.user_id_prefix;
        match id
            .strip_prefix(prefix.as_str())
            .filter(|name| !name.is_empty() && name.trim() == *name)
        {
            // The filter checked the id with its prefix, but Kubernetes sees the name without it.
            Some(name) if name.starts_with("system:") => {
                self.mistake(
                    field,
                    format!("found {name:?}, expected a name that does not start with `system:`"),
                );
                None
            }
            Some(name) => Some(name.to_owned()),
            None => {
                self.mistake(
                    field,
                    format!("found the user id {id:?}, expected one with the prefix {prefix:?}"),
                );
                None
            }
        }
    }

    /// The members of the group with this `name` in claims.
    fn members(&mut self, field: &str, name: &str, role: Role) -> Option<Binding> {
        let Some(rules) = &self.identity.groups else {
            self.mistake(
                field,
                "found a group, expected a plugin config with `groups`, given with --config",
            );
            return None;
        };
        let what = match rules.made_of(name) {
            Ok(group) => match rules.member_header(&group) {
                Some(header) => {
                    return Some(Binding {
                        subject: Subject::Group,
                        name: group,
                        role,
                        header,
                        value: "*".to_owned(),
                    });
                }
                None => "found a group, expected a plugin config with `groups.memberHeaderPrefix`"
                    .to_owned(),
            },
            Err(Dropped::NotKept) => {
                format!(
                    "found {name:?}, expected a group that `groups.keep` of the plugin config matches"
                )
            }
            Err(_) => format!(
                "found {name:?}, which the filter drops, expected a visible group without outer spaces that does not start with `system:`"
            ),
        };
        self.mistake(field, what);
        None
    }

    fn tenant(
        &mut self,
        field: &str,
        owner: String,
        quota: Option<&ResourceQuotaSpec>,
        plugins: &[Plugin],
    ) -> Tenant {
        let mut hard_quota = BTreeMap::new();
        for (resource, value) in quota.iter().flat_map(|quota| &quota.hard) {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            if Regex::new(QUANTITY).is_ok_and(|quantity| quantity.is_match(&text)) {
                hard_quota.insert(resource.clone(), text);
            } else {
                let field = format!("{field}.resourceQuotaSpec.hard.{resource}");
                self.mistake(
                    &field,
                    format!("found {value}, expected a quantity such as 4, 500m or 16Gi"),
                );
            }
        }
        for (position, Plugin::AwsIamForServiceAccount(plugin)) in plugins.iter().enumerate() {
            let role = &plugin.aws_iam_role;
            if !(role.starts_with("arn:") && role.contains(":role/")) {
                let field = format!("{field}.plugins[{position}].spec.awsIamRole");
                self.mistake(
                    &field,
                    format!("found {role:?}, expected the ARN of an IAM role"),
                );
            }
        }
        Tenant {
            owner,
            hard_quota,
            plugins: plugins.to_vec(),
            bindings: BTreeMap::new(),
            field: field.to_owned(),
        }
    }

    fn contributors(&mut self, field: &str, tenant: &mut Tenant, contributors: &[Contributor]) {
        for (position, Contributor { user, role }) in contributors.iter().enumerate() {
            let field = format!("{field}.contributors[{position}].user");
            let Some(name) = self.user_name(&field, user) else {
                continue;
            };
            if name == tenant.owner {
                self.mistake(
                    &field,
                    format!("found {name:?}, the owner of the namespace, expected another user"),
                );
                continue;
            }
            let value = format!("{}{name}", self.file.kubeflow.user_id_prefix);
            let header = self.identity.user_id_header.clone();
            self.bind(
                &field,
                tenant,
                Binding {
                    subject: Subject::User,
                    name,
                    role: *role,
                    header,
                    value,
                },
            );
        }
    }

    fn bind(&mut self, field: &str, tenant: &mut Tenant, binding: Binding) {
        let resource_name = binding.resource_name();
        if resource_name.len() > MAX_NAME_BYTES {
            let name = &binding.name;
            self.mistake(
                field,
                format!(
                    "found {name:?}, expected a shorter name: {resource_name} has more than {MAX_NAME_BYTES} bytes"
                ),
            );
            return;
        }
        let is_named_as_well = |earlier: &Binding| earlier.name == binding.name;
        let name = &binding.name;
        if tenant.bindings.values().any(is_named_as_well) {
            self.mistake(
                field,
                format!("found {name:?} again, expected each name once"),
            );
            return;
        }
        match tenant.bindings.entry(resource_name) {
            Entry::Vacant(place) => drop(place.insert(binding)),
            Entry::Occupied(earlier) => {
                let (name, resource, earlier) = (&binding.name, earlier.key(), &earlier.get().name);
                let what = format!(
                    "found {name:?}, expected a name other than {earlier:?} in Kubeflow: both are {resource}"
                );
                self.mistake(field, what);
            }
        }
    }

    fn add(&mut self, namespace: String, tenant: Tenant) {
        let field = format!("{}.namespace", tenant.field);
        let expected = match namespace.as_str() {
            name if is_the_clusters(name) => Some("one that the cluster does not reserve"),
            name if is_label(name) => None,
            _ => Some("1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends"),
        };
        if let Some(expected) = expected {
            self.mistake(&field, format!("found {namespace:?}, expected {expected}"));
            return;
        }
        match self.tenants.entry(namespace) {
            Entry::Vacant(place) => drop(place.insert(tenant)),
            Entry::Occupied(earlier) => {
                let what = format!(
                    "found {:?}, the namespace of {}, expected another",
                    earlier.key(),
                    earlier.get().field
                );
                self.mistake(&field, what);
            }
        }
    }
}

/// Whether Istio injects a sidecar, or its ambient mode takes the pods, by this label.
fn adds_to_mesh(name: &str, value: &str) -> bool {
    match name {
        "istio-injection" => value == "enabled",
        "istio.io/rev" => !value.is_empty(),
        "istio.io/dataplane-mode" => value == "ambient",
        _ => false,
    }
}

/// A label's name: a part of 1 to 63 bytes, after an optional DNS subdomain and `/`.
fn is_label_name(name: &str) -> bool {
    let (prefix, name) = match name.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, name),
    };
    let is_prefix =
        |prefix: &str| prefix.len() <= MAX_NAME_BYTES && prefix.split('.').all(is_label);
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_prefix)
}

/// A label's value: up to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at each end.
fn is_label_value(value: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && bytes.iter().copied().all(inner)
        && is_end(bytes.first())
        && is_end(bytes.last())
}

fn is_principal(text: &str) -> bool {
    let parts: Vec<_> = text.split('/').collect();
    matches!(parts[..], [domain, "ns", namespace, "sa", account]
        if ![domain, namespace, account].iter().any(|part| part.is_empty() || part.contains(['*', ':'])))
}

/// Whether the cluster or Kubeflow uses the namespace itself. The profile controller would transfer
/// it to its new owner.
fn is_the_clusters(namespace: &str) -> bool {
    let names = [
        "argocd",
        "auth",
        "cert-manager",
        "default",
        "kubeflow",
        "kubeflow-system",
        "monitoring",
        "oauth2-proxy",
    ];
    let beginnings = ["flux-", "istio-", "knative-", "kube-"];
    names.contains(&namespace)
        || beginnings
            .iter()
            .any(|beginning| namespace.starts_with(beginning))
}

/// The namespace that Kubeflow's dashboard proposes: the user name before the `@` in lower case,
/// without `_`, and with dashes for all other characters but letters and digits.
fn dashboards_namespace(name: &str) -> String {
    let name = name
        .split('@')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let dashed = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '-'
        }
    };
    name.chars()
        .map(dashed)
        .collect::<String>()
        .trim_matches('-')
        .replace('_', "")
}

/// Whether it is a label (RFC 1123).
fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_namespaces_like_the_dashboard() {
        for (user, namespace) in [
            ("ann@example.com", "ann"),
            ("Ann.Smith@example.com", "ann-smith"),
            ("ann_smith+ml@example.com", "annsmith-ml"),
            (".ann.", "ann"),
            ("a@b@c", "a"),
            ("Zoë", "zo"),
            ("@example.com", ""),
        ] {
            assert_eq!(dashboards_namespace(user), namespace, "{user}");
        }
    }

    #[test]
    fn names_bindings_like_kubeflow() {
        for (subject, name, role, expected) in [
            (
                Subject::User,
                "bob@example.com",
                Role::Edit,
                "user-bob-example-com-clusterrole-edit",
            ),
            (
                Subject::User,
                "Bob.B+ml@Example.com",
                Role::View,
                "user-bob-b-ml-example-com-clusterrole-view",
            ),
            (
                Subject::User,
                "_Zoë_",
                Role::Admin,
                "user-zo-clusterrole-admin",
            ),
            (
                Subject::Group,
                "oidc:ML ops",
                Role::Edit,
                "group-oidc-ml-ops-clusterrole-edit",
            ),
        ] {
            let binding = Binding {
                subject,
                name: name.to_owned(),
                role,
                header: String::new(),
                value: String::new(),
            };
            assert_eq!(binding.resource_name(), expected);
        }
    }
}
