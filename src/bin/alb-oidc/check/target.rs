//! The gateway that a resource selects.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::input::Object;

/// The label of the pods of a Gateway of the Gateway API.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Istio's root namespace, unless meshConfig names another. Its resources apply to all namespaces.
const ROOT_NAMESPACE: &str = "istio-system";
/// Both labels are on the pods of Istio's ingress gateway.
const INGRESS_GATEWAY: [(&str, &str); 2] =
    [("app", "istio-ingressgateway"), ("istio", "ingressgateway")];

/// Pods of one namespace, by their labels. No labels: all pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Target {
    /// The targets of an extension, an EnvoyFilter, or a policy. At least one.
    pub(crate) fn of(object: &Object) -> Vec<Self> {
        let one = object.at("/spec/targetRef");
        let several = object.elements("/spec/targetRefs");
        let refs: Vec<_> = several
            .iter()
            .chain(one.is_object().then_some(one))
            .collect();
        if !refs.is_empty() {
            return refs
                .into_iter()
                .map(|to| Self::of_ref(object, to))
                .collect();
        }
        let labels = [
            "/spec/selector/matchLabels",
            "/spec/workloadSelector/labels",
        ];
        let labels = labels.iter().find_map(|at| object.at(at).as_object());
        let labels = labels.into_iter().flatten();
        let labels = labels.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
        vec![Self::new(&object.namespace, labels)]
    }

    /// The pods of a Gateway of `networking.istio.io` or of the Gateway API.
    pub(super) fn of_gateway(object: &Object) -> Self {
        match object.at("/spec/selector").as_object() {
            Some(labels) => {
                let labels = labels.iter();
                Self::new(
                    &object.namespace,
                    labels.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))),
                )
            }
            None => Self::new(&object.namespace, [(GATEWAY_NAME, object.name.as_str())]),
        }
    }

    fn of_ref(object: &Object, to: &Value) -> Self {
        let text = |name| to.get(name).and_then(Value::as_str).unwrap_or_default();
        let label = if text("kind") == "Gateway" {
            GATEWAY_NAME
        } else {
            // A Service or a ServiceEntry: no gateway.
            text("kind")
        };
        Self::new(&object.namespace, [(label, text("name"))])
    }

    fn new<'l>(namespace: &str, labels: impl IntoIterator<Item = (&'l str, &'l str)>) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let mut labels: BTreeMap<_, _> = labels.into_iter().map(owned).collect();
        let is_ingress =
            |(name, value): &(&str, &str)| labels.get(*name).map(String::as_str) == Some(*value);
        if INGRESS_GATEWAY.iter().any(is_ingress) {
            labels.extend(INGRESS_GATEWAY.map(owned));
        }
        Self {
            namespace: namespace.to_owned(),
            labels,
        }
    }

    /// Whether a resource with this target certainly applies to all pods of `other`.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let in_namespace = self.namespace == other.namespace || self.namespace == ROOT_NAMESPACE;
        in_namespace && self.selects(other)
    }

    /// Whether a resource with this target applies to the same pods as one with `other`.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let in_namespace = self.namespace == other.namespace || self.namespace == ROOT_NAMESPACE;
        in_namespace && self.labels == other.labels
    }

    /// Whether all labels are among those of `other`, in any namespace.
    pub(crate) fn selects(&self, other: &Self) -> bool {
        let mut labels = self.labels.iter();
        labels.all(|(name, value)| other.labels.get(name) == Some(value))
    }

    /// In words.
    pub(crate) fn words(&self) -> String {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let pods = if labels.is_empty() {
            "all pods".to_owned()
        } else {
            format!("pods with {}", labels.join(", "))
        };
        match self.namespace.as_str() {
            "" => pods,
            namespace => format!("{pods} in {namespace}"),
        }
    }
}
