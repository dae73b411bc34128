//! Builds the Kubernetes resources of a plan in the form of Kubeflow's profile controller and
//! access management (KFAM). Omits the resources that those create. Decides on no access.

use serde_json::{Map, Value, json};

use super::plan::{Binding, MANAGED_BY, Plan, Tenant};

const RBAC: &str = "rbac.authorization.k8s.io";

impl Plan {
    /// All resources, by namespace.
    pub(crate) fn resources(&self) -> Vec<Value> {
        self.tenants
            .iter()
            .flat_map(|(namespace, tenant)| self.of(namespace, tenant))
            .collect()
    }

    fn of(&self, namespace: &str, tenant: &Tenant) -> Vec<Value> {
        let mut resources = vec![
            self.namespace(namespace, tenant),
            profile(namespace, tenant),
        ];
        for (name, binding) in &tenant.bindings {
            // KFAM identifies a RoleBinding's user by these annotations. It ignores groups so far.
            let subject = binding.subject.kind().to_ascii_lowercase();
            let metadata = json!({
                "name": name, "namespace": namespace, "labels": labels(),
                "annotations": {subject: binding.name, "role": binding.role.name()},
            });
            resources.push(role_binding(&metadata, binding));
            resources.push(self.authorization_policy(&metadata, binding));
        }
        resources
    }

    /// The profile controller would create the namespace later, so it is created here: resources in
    /// it can then be applied at once. The controller adopts it by its annotation and adds the
    /// labels of Kubeflow, but none of Istio: it labels only namespaces that it creates.
    fn namespace(&self, name: &str, tenant: &Tenant) -> Value {
        let mut annotations = kept();
        annotations.insert("owner".to_owned(), json!(tenant.owner));
        let mut labels = labels();
        for (name, value) in &self.namespace_labels {
            labels.insert(name.clone(), json!(value));
        }
        let metadata = json!({"name": name, "labels": labels, "annotations": annotations});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    }

    /// KFAM's policy: any path, if the request came through the gateway with the header.
    fn authorization_policy(&self, metadata: &Value, binding: &Binding) -> Value {
        let key = format!("request.headers[{}]", binding.header);
        let rule = json!({
            "from": [{"source": {"principals": self.principals}}],
            "when": [{"key": key, "values": [binding.value]}],
        });
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata,
            "spec": {"rules": [rule]},
        })
    }
}

fn labels() -> Map<String, Value> {
    [(MANAGED_BY.to_owned(), json!("alb-oidc"))]
        .into_iter()
        .collect()
}

/// Annotations that keep Argo CD and Flux from deleting a namespace, with all its content, once the
/// file no longer lists it.
fn kept() -> Map<String, Value> {
    let annotations = [
        ("argocd.argoproj.io/sync-options", "Prune=false"),
        ("kustomize.toolkit.fluxcd.io/prune", "disabled"),
    ];
    annotations
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect()
}

fn profile(name: &str, tenant: &Tenant) -> Value {
    let mut spec = Map::new();
    spec.insert(
        "owner".to_owned(),
        json!({"kind": "User", "name": tenant.owner}),
    );
    if !tenant.hard_quota.is_empty() {
        spec.insert(
            "resourceQuotaSpec".to_owned(),
            json!({"hard": tenant.hard_quota}),
        );
    }
    if !tenant.plugins.is_empty() {
        spec.insert("plugins".to_owned(), json!(tenant.plugins));
    }
    let metadata = json!({"name": name, "labels": labels(), "annotations": kept()});
    json!({"apiVersion": "kubeflow.org/v1", "kind": "Profile", "metadata": metadata, "spec": spec})
}

fn role_binding(metadata: &Value, binding: &Binding) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": format!("kubeflow-{}", binding.role.name())},
        "subjects": [{"apiGroup": RBAC, "kind": binding.subject.kind(), "name": binding.name}],
    })
}
