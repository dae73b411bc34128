//! The format of the operator's file: users, groups and their namespaces, in Kubeflow's terms.
//! Validates no names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[serde(default)]
    pub(crate) kubeflow: Kubeflow,
    #[serde(default)]
    pub(crate) users: Vec<User>,
    #[serde(default)]
    pub(crate) groups: Vec<Group>,
}

/// Settings of the Kubeflow installation.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Kubeflow {
    /// `USERID_PREFIX`: the prefix of user names in the header only.
    pub(crate) user_id_prefix: String,
    /// The workloads that may forward the user id header: `ISTIO_INGRESS_GATEWAY_PRINCIPAL` and
    /// `KFP_UI_PRINCIPAL`.
    pub(crate) principals: Vec<String>,
    /// Labels of each namespace: they add its pods to the mesh.
    pub(crate) namespace_labels: BTreeMap<String, String>,
}

impl Default for Kubeflow {
    fn default() -> Self {
        let of = |namespace, account| format!("cluster.local/ns/{namespace}/sa/{account}");
        let principals = vec![
            of("istio-system", "istio-ingressgateway-service-account"),
            of("kubeflow", "ml-pipeline-ui"),
        ];
        Self {
            user_id_prefix: String::new(),
            principals,
            namespace_labels: [("istio-injection".to_owned(), "enabled".to_owned())].into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct User {
    pub(crate) user: String,
    pub(crate) namespace: Option<String>,
    pub(crate) resource_quota_spec: Option<ResourceQuotaSpec>,
    #[serde(default)]
    pub(crate) plugins: Vec<Plugin>,
    #[serde(default)]
    pub(crate) contributors: Vec<Contributor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Group {
    pub(crate) group: String,
    #[serde(default)]
    pub(crate) role: Role,
    /// The user who adds and removes contributors in the dashboard.
    pub(crate) owner: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) resource_quota_spec: Option<ResourceQuotaSpec>,
    #[serde(default)]
    pub(crate) plugins: Vec<Plugin>,
    #[serde(default)]
    pub(crate) contributors: Vec<Contributor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contributor {
    pub(crate) user: String,
    #[serde(default)]
    pub(crate) role: Role,
}

/// Kubeflow's roles. Each has a ClusterRole.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Admin,
    #[default]
    Edit,
    View,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Edit => "edit",
            Self::View => "view",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResourceQuotaSpec {
    pub(crate) hard: BTreeMap<String, Value>,
}

/// A plugin of the profile controller.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, tag = "kind", content = "spec")]
pub(crate) enum Plugin {
    AwsIamForServiceAccount(AwsIamForServiceAccount),
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AwsIamForServiceAccount {
    pub(crate) aws_iam_role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotate_only: Option<bool>,
}
