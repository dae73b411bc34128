//! Judges the state of a cluster. No I/O.

use alb_oidc_filter::Config;
use serde_json::Value;

use super::cluster::{Cluster, Metrics, PodMetrics};
use crate::check;
use crate::check::interlock::is_interlock;
use crate::check::target::Target;
use crate::check::walk::first;
use crate::finding::{Code, Finding};
use crate::input::{Applied, Object, PluginConfig, Trouble};

/// The container that runs Envoy in a pod of Istio.
const PROXY: &str = "istio-proxy";
/// The label of Kubeflow's profile namespaces.
const PROFILE: (&str, &str) = ("app.kubernetes.io/part-of", "kubeflow-profile");
/// Kinds that `check` judges.
const CHECKED: [&str; 8] = [
    "WasmPlugin",
    "TrafficExtension",
    "EnvoyFilter",
    "ServiceEntry",
    "DestinationRule",
    "Gateway",
    "AuthorizationPolicy",
    "RequestAuthentication",
];

/// The resources of a cluster in the form that `check` judges, and the others.
pub(super) struct Live {
    applied: Applied,
    others: Applied,
}

impl Live {
    /// Sorts the resources of `cluster`.
    ///
    /// # Errors
    /// A resource is not valid.
    pub(super) fn of(cluster: &Cluster) -> Result<Self, Trouble> {
        let (mut applied, mut others) = (Applied::default(), Applied::default());
        for resource in &cluster.resources {
            let text = |pointer| resource.pointer(pointer).and_then(Value::as_str);
            let kind = text("/kind").unwrap_or_default();
            let parts = [text("/metadata/namespace"), text("/metadata/name")];
            let name: Vec<_> = parts.into_iter().flatten().collect();
            let name = format!("{}/{}", kind.to_ascii_lowercase(), name.join("/"));
            if CHECKED.contains(&kind) {
                applied.add_resource(&name, resource)?;
            } else {
                others.add_resource(&name, resource)?;
            }
        }
        let applied = applied.without_other_plugins();
        Ok(Self { applied, others })
    }

    /// Each extension with its plugin config.
    fn extensions(&self) -> impl Iterator<Item = (&Object, &PluginConfig)> {
        let configs = self.applied.configs.iter();
        configs.filter_map(|plugin| Some((plugin.object.as_ref()?, plugin)))
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Object> {
        let all = self.applied.objects.iter().chain(&self.others.objects);
        all.filter(move |object| object.kind == kind)
    }

    /// The first valid plugin config.
    pub(super) fn into_config(self) -> Option<Config> {
        let mut configs = self.applied.configs.into_iter();
        configs.find_map(|plugin| plugin.outcome.ok())
    }

    /// The running pods that an extension selects.
    pub(super) fn gateway_pods(&self) -> Vec<&Object> {
        let targets: Vec<_> = self
            .extensions()
            .flat_map(|(extension, _)| Target::of(extension))
            .filter(|target| !target.labels.is_empty())
            .collect();
        self.of_kind("Pod")
            .filter(|pod| is_running(pod) && targets.iter().any(|target| has(target, pod)))
            .collect()
    }
}

/// Every finding about `cluster`.
///
/// # Errors
/// A resource is not valid.
pub(super) fn judge(cluster: &Cluster) -> Result<Vec<Finding>, Trouble> {
    let live = Live::of(cluster)?;
    let mut findings = check::findings(&live.applied, false);
    findings.extend(cluster.unread.iter().map(|what| Finding {
        code: Code::LiveUnread,
        file: "cluster".to_owned(),
        line: 1,
        resource: None,
        field: String::new(),
        message: what.clone(),
    }));
    if live.extensions().next().is_none() && !live.applied.objects.iter().any(is_interlock) {
        return Err(Trouble(
            "cluster: found neither the filter's extension nor its interlock, expected one: see docs/install.md".to_owned(),
        ));
    }
    for (extension, plugin) in live.extensions() {
        findings.extend(gateway(&live, extension));
        if let Ok(config) = &plugin.outcome {
            findings.extend(writers(&live, extension, config));
        }
    }
    for pod in live.gateway_pods() {
        findings.extend(network(&live, pod));
        findings.extend(trusted_proxies(cluster, pod));
        let metrics = cluster.metrics.iter().find(|metrics| is_of(metrics, pod));
        findings.extend(metrics.and_then(|metrics| running(pod, metrics)));
    }
    findings.extend(live.of_kind("Namespace").filter_map(profile));
    Ok(findings)
}

fn is_of(metrics: &PodMetrics, pod: &Object) -> bool {
    metrics.namespace == pod.namespace && metrics.pod == pod.name
}

fn is_running(pod: &Object) -> bool {
    pod.at("/status/phase") == "Running"
}

/// Whether the pod is in the namespace and has all labels.
fn has(target: &Target, pod: &Object) -> bool {
    let labels = pod.at("/metadata/labels");
    let mut wanted = target.labels.iter();
    target.namespace == pod.namespace
        && wanted.all(|(name, value)| labels.get(name).is_some_and(|found| found == value))
}

/// Whether a container of Istio's proxy is in the pod, as a sidecar too.
fn has_proxy(pod: &Object) -> bool {
    proxy(pod).is_some()
}

fn proxy(pod: &Object) -> Option<&Value> {
    let containers = pod.elements("/spec/containers").iter();
    let mut all = containers.chain(pod.elements("/spec/initContainers"));
    all.find(|container| container.get("name").is_some_and(|name| name == PROXY))
}

/// An extension without a running gateway that is an Envoy.
fn gateway(live: &Live, extension: &Object) -> Vec<Finding> {
    let mut findings = Vec::new();
    for target in Target::of(extension) {
        if target.labels.is_empty() {
            continue;
        }
        let pods: Vec<_> = live
            .of_kind("Pod")
            .filter(|pod| is_running(pod) && has(&target, pod))
            .collect();
        if pods.is_empty() {
            let message = format!("found no running pod, expected {}", target.words());
            let code = Code::LiveGatewayMissing;
            findings.push(Finding::in_object(extension, code, "spec", &message));
        }
        findings.extend(pods.into_iter().filter(|pod| !has_proxy(pod)).map(|pod| {
            let message = format!("found no container {PROXY}");
            Finding::in_object(pod, Code::LiveNoEnvoy, "spec.containers", &message)
        }));
    }
    findings
}

/// What the metrics of a pod say.
fn running(pod: &Object, metrics: &PodMetrics) -> Option<Finding> {
    let found = |code, message: &str| Some(Finding::in_object(pod, code, "metrics", message));
    let metrics = match &metrics.outcome {
        Ok(metrics) => metrics,
        Err(problem) => return found(Code::LiveUnread, problem),
    };
    if metrics.is_empty() {
        let message = "found no metric of the filter in Envoy";
        return found(Code::LiveConfigRejected, message);
    }
    let count = |name: &str| metrics.get(name).copied().unwrap_or_default();
    let fetched = count("key_fetch_ok");
    let failed = count("key_fetch_failed");
    if failed > fetched {
        let message = format!("found {failed} failed key fetches and {fetched} good ones");
        return found(Code::LiveKeyFetchFails, &message);
    }
    let (reason, denied) = most_frequent(metrics)?;
    if count("admitted") == 0.0 && denied > 0.0 {
        let reason = reason.replace('_', "-");
        let message = format!("found no admitted request, and {denied} denied with {reason}");
        return found(Code::LiveAllDenied, &message);
    }
    None
}

/// The most frequent reason of a denial.
fn most_frequent(metrics: &Metrics) -> Option<(&str, f64)> {
    let reasons = metrics
        .iter()
        .filter_map(|(name, count)| Some((name.strip_prefix("denied_")?, *count)));
    reasons.max_by(|one, other| one.1.total_cmp(&other.1))
}

/// NetworkPolicies select the pod, and none admits connections from outside the cluster.
fn network(live: &Live, pod: &Object) -> Option<Finding> {
    let selects = |policy: &&Object| {
        let labels = policy.at("/spec/podSelector/matchLabels").as_object();
        let expressions = policy.elements("/spec/podSelector/matchExpressions");
        let own = pod.at("/metadata/labels");
        let mut labels = labels.into_iter().flatten();
        let types = policy.elements("/spec/policyTypes");
        policy.namespace == pod.namespace
            && expressions.is_empty()
            && (types.is_empty() || types.iter().any(|kind| kind == "Ingress"))
            && labels.all(|(name, value)| own.get(name) == Some(value))
    };
    let policies: Vec<_> = live.of_kind("NetworkPolicy").filter(selects).collect();
    let first = policies.first()?;
    let mut rules = policies
        .iter()
        .flat_map(|policy| policy.elements("/spec/ingress"));
    let is_open = rules.any(|rule| {
        let sources = rule.get("from").and_then(Value::as_array);
        sources.is_none_or(|from| {
            from.is_empty() || from.iter().any(|source| source.get("ipBlock").is_some())
        })
    });
    (!is_open).then(|| {
        let message = format!(
            "found no source outside of the cluster for pod {}/{}, expected the load balancer's subnets",
            pod.namespace, pod.name
        );
        Finding::in_object(first, Code::LiveNetworkShut, "spec.ingress", &message)
    })
}

/// The number of proxies in front of the pod, from its environment, its annotation or the mesh.
fn trusted_proxies(cluster: &Cluster, pod: &Object) -> Option<Finding> {
    let environment = proxy(pod).and_then(|proxy| {
        let mut variables = proxy.get("env")?.as_array()?.iter();
        let config =
            variables.find(|one| one.get("name").is_some_and(|name| name == "PROXY_CONFIG"))?;
        config.get("value")?.as_str()
    });
    let annotation = pod
        .at("/metadata/annotations")
        .get("proxy.istio.io/config")
        .and_then(Value::as_str);
    let parsed = |text: Option<&str>| -> Option<Value> { serde_saphyr::from_str(text?).ok() };
    let number = |config: &Value, pointer| config.pointer(pointer).and_then(Value::as_u64);
    let of_proxy = "/gatewayTopology/numTrustedProxies";
    let of_mesh = "/defaultConfig/gatewayTopology/numTrustedProxies";
    let found = parsed(environment)
        .and_then(|config| number(&config, of_proxy))
        .or_else(|| number(&parsed(annotation)?, of_proxy))
        .or_else(|| number(&parsed(cluster.mesh.as_deref())?, of_mesh))
        .unwrap_or_default();
    (found != 1).then(|| {
        let message = format!("found {found}, expected 1 for a load balancer alone");
        let field = "numTrustedProxies";
        Finding::in_object(pod, Code::LiveTrustedProxies, field, &message)
    })
}

/// A profile namespace into whose pods Istio injects no sidecar.
fn profile(namespace: &Object) -> Option<Finding> {
    let labels = namespace.at("/metadata/labels");
    let is = |name: &str, value: &str| labels.get(name).is_some_and(|found| found == value);
    let is_injected = is("istio-injection", "enabled")
        || (labels.get("istio.io/rev").is_some() && !is("istio-injection", "disabled"));
    let is_ambient = is("istio.io/dataplane-mode", "ambient");
    (is(PROFILE.0, PROFILE.1) && !is_injected && !is_ambient).then(|| {
        let message = "found no istio-injection: enabled and no istio.io/rev";
        let field = "metadata.labels";
        Finding::in_object(namespace, Code::LiveProfileWithoutSidecars, field, message)
    })
}

/// `value` without the headers that a route copies from another header: the members of `set` in a
/// VirtualService, and the elements in an HTTPRoute.
fn without_copies(value: &Value, is_copied: &dyn Fn(&Value) -> bool) -> Value {
    match value {
        Value::Array(elements) => {
            let elements = elements.iter();
            elements
                .map(|element| match element.get("value") {
                    // Keeps the positions of the others.
                    Some(copied) if is_copied(copied) => Value::Null,
                    _ => without_copies(element, is_copied),
                })
                .collect()
        }
        Value::Object(members) => {
            let others = members.iter().filter(|(_, member)| !is_copied(member));
            others
                .map(|(name, member)| (name.clone(), without_copies(member, is_copied)))
                .collect()
        }
        scalar => scalar.clone(),
    }
}

/// Other resources at the gateway that write the user id header.
fn writers(live: &Live, extension: &Object, config: &Config) -> Vec<Finding> {
    let header = config.users.identity.user_id_header.as_str();
    let is_header = |text: &str| text.eq_ignore_ascii_case(header);
    let is_written = |path: &str, value: &Value| {
        let is_value = value.as_str().is_some_and(is_header);
        let key = path.rsplit('.').next().unwrap_or_default();
        let writes = path.contains("set") || path.contains("add");
        is_value || (is_header(key) && writes)
    };
    let targets = Target::of(extension);
    let is_at_gateway = |object: &Object| {
        let own = Target::of(object);
        targets
            .iter()
            .any(|target| own.iter().any(|other| other.covers(target)))
    };
    let routes = live.of_kind("VirtualService").filter(|object| {
        let mut gateways = object.elements("/spec/gateways").iter();
        gateways.any(|gateway| gateway != "mesh")
    });
    let filters = ["EnvoyFilter", "RequestAuthentication"]
        .into_iter()
        .flat_map(|kind| live.of_kind(kind))
        .filter(|object| is_at_gateway(object) && !is_interlock(object));
    let all = routes.chain(live.of_kind("HTTPRoute")).chain(filters);
    // The filter removes reserved headers of clients: later filters alone can have set them.
    let is_reserved = |value: &Value| {
        let name = value.as_str().and_then(|text| text.strip_prefix("%REQ("));
        let name = name.and_then(|text| text.strip_suffix(")%"));
        let mut reserved = config.reserved_headers.iter();
        name.is_some_and(|name| reserved.any(|reserved| name.eq_ignore_ascii_case(reserved)))
    };
    all.filter_map(|object| {
        let spec = without_copies(object.at("/spec"), &is_reserved);
        // A match or a removal of the header writes nothing.
        let (path, _) = first(&spec, "spec", &|path, value| {
            let reads =
                path.contains(".match") || path.contains(".matches") || path.contains("remove");
            !reads && is_written(path, value)
        })?;
        let message = format!("found {header}, expected only the filter to write it");
        Some(Finding::in_object(
            object,
            Code::LiveUserIdWritten,
            &path,
            &message,
        ))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    type Change = fn(&mut Cluster);

    /// The resources of the chart's example.
    fn chart() -> Vec<Value> {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/istio/kubeflow-cognito.rendered.yaml"
        );
        let text = std::fs::read_to_string(path).expect("the example");
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        documents
            .into_iter()
            .filter(|document| document["kind"] != "NetworkPolicy")
            .collect()
    }

    fn network_policy(ingress: &Value) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "policy", "namespace": "istio-system"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": ingress},
        })
    }

    fn namespace(labels: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ann", "labels": labels}})
    }

    fn route(gateway: &str, headers: &Value) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "route", "namespace": "kubeflow"},
            "spec": {"gateways": [gateway], "http": [{"headers": {"request": headers}}]},
        })
    }

    fn http_route(set: &Value) -> Value {
        let filter =
            json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": set}});
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "route", "namespace": "kubeflow"},
            "spec": {"parentRefs": [{"name": "gateway"}], "rules": [{"filters": [filter]}]},
        })
    }

    /// A cluster without a finding of doctor's own.
    fn sound() -> Cluster {
        let mut resources = chart();
        let labels = json!({"app": "istio-ingressgateway", "istio": "ingressgateway"});
        resources.push(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "gateway-1", "namespace": "istio-system", "labels": labels},
            "spec": {"containers": [{"name": "istio-proxy", "env": []}]},
            "status": {"phase": "Running"},
        }));
        let subnet = json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0/20"}}]}]);
        resources.push(network_policy(&subnet));
        let profile = "kubeflow-profile";
        resources.push(namespace(
            &json!({"app.kubernetes.io/part-of": profile, "istio-injection": "enabled"}),
        ));
        resources.push(route("mesh", &json!({"set": {"kubeflow-userid": "x"}})));
        resources.push(route(
            "kubeflow/gateway",
            &json!({"remove": ["kubeflow-userid"]}),
        ));
        let counts = [("admitted", 5.0), ("denied_token_missing", 9.0)];
        Cluster {
            resources,
            mesh: Some("defaultConfig: {gatewayTopology: {numTrustedProxies: 1}}".to_owned()),
            metrics: vec![PodMetrics {
                namespace: "istio-system".to_owned(),
                pod: "gateway-1".to_owned(),
                outcome: Ok(counts.map(|(name, count)| (name.to_owned(), count)).into()),
            }],
            unread: Vec::new(),
        }
    }

    fn pod(cluster: &mut Cluster) -> &mut Value {
        let mut all = cluster.resources.iter_mut();
        all.find(|resource| resource["kind"] == "Pod")
            .expect("a pod")
    }

    fn replace(cluster: &mut Cluster, with: Value) {
        cluster
            .resources
            .retain(|resource| resource["kind"] != with["kind"]);
        cluster.resources.push(with);
    }

    fn counts(cluster: &mut Cluster, counts: &[(&str, f64)]) {
        let counts = counts
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        cluster.metrics[0].outcome = Ok(counts.collect());
    }

    /// The codes of doctor's own findings.
    fn codes(cluster: &Cluster) -> Vec<&'static str> {
        let findings = judge(cluster).expect("valid resources");
        let names = findings.iter().map(|finding| finding.code.name());
        names.filter(|name| name.starts_with("live-")).collect()
    }

    #[test]
    fn finds_each_mistake() {
        assert_eq!(codes(&sound()), [""; 0]);
        let cases: &[(&str, Change, &[&str])] = &[
            (
                "an unread kind",
                |c| c.unread.push("pods: forbidden".to_owned()),
                &["live-unread"],
            ),
            (
                "no answer of the pod",
                |c| c.metrics[0].outcome = Err("forbidden".to_owned()),
                &["live-unread"],
            ),
            (
                "a pending pod",
                |c| pod(c)["status"]["phase"] = json!("Pending"),
                &["live-gateway-missing"],
            ),
            (
                "a pod in another namespace",
                |c| pod(c)["metadata"]["namespace"] = json!("other"),
                &["live-gateway-missing"],
            ),
            (
                "a pod with other labels",
                |c| pod(c)["metadata"]["labels"]["istio"] = json!("egress"),
                &["live-gateway-missing"],
            ),
            (
                "a pod without Envoy",
                |c| pod(c)["spec"]["containers"][0]["name"] = json!("nginx"),
                &["live-no-envoy"],
            ),
            (
                "an Envoy without the filter",
                |c| counts(c, &[]),
                &["live-config-rejected"],
            ),
            (
                "failed key fetches",
                |c| counts(c, &[("admitted", 1.0), ("key_fetch_failed", 2.0)]),
                &["live-key-fetch-fails"],
            ),
            (
                "one failed key fetch among good ones",
                |c| {
                    counts(
                        c,
                        &[
                            ("admitted", 1.0),
                            ("key_fetch_ok", 2.0),
                            ("key_fetch_failed", 1.0),
                        ],
                    )
                },
                &[],
            ),
            (
                "no admitted request",
                |c| counts(c, &[("admitted", 0.0), ("denied_signer_unknown", 3.0)]),
                &["live-all-denied"],
            ),
            (
                "no request at all",
                |c| counts(c, &[("admitted", 0.0), ("denied_signer_unknown", 0.0)]),
                &[],
            ),
            (
                "a NetworkPolicy for one namespace",
                |c| replace(c, network_policy(&json!([{"from": [{"podSelector": {}}]}]))),
                &["live-network-shut"],
            ),
            (
                "a NetworkPolicy without rules",
                |c| replace(c, network_policy(&json!([]))),
                &["live-network-shut"],
            ),
            (
                "a NetworkPolicy that admits every source",
                |c| replace(c, network_policy(&json!([{}]))),
                &[],
            ),
            (
                "a mesh without numTrustedProxies",
                |c| c.mesh = None,
                &["live-trusted-proxies"],
            ),
            (
                "the pod's environment overrides the mesh",
                |c| {
                    let config = r#"{"gatewayTopology": {"numTrustedProxies": 2}}"#;
                    let variable = json!({"name": "PROXY_CONFIG", "value": config});
                    pod(c)["spec"]["containers"][0]["env"] = json!([variable]);
                },
                &["live-trusted-proxies"],
            ),
            (
                "the pod's annotation is enough",
                |c| {
                    c.mesh = None;
                    let config = "gatewayTopology: {numTrustedProxies: 1}";
                    pod(c)["metadata"]["annotations"] = json!({"proxy.istio.io/config": config});
                },
                &[],
            ),
            (
                "a profile without injection",
                |c| {
                    let labels = json!({"app.kubernetes.io/part-of": "kubeflow-profile"});
                    replace(c, namespace(&labels));
                },
                &["live-profile-without-sidecars"],
            ),
            (
                "a namespace that is no profile",
                |c| replace(c, namespace(&json!({}))),
                &[],
            ),
            (
                "a route at the gateway that sets the user id",
                |c| {
                    replace(
                        c,
                        route(
                            "kubeflow/gateway",
                            &json!({"set": {"Kubeflow-Userid": "x"}}),
                        ),
                    )
                },
                &["live-user-id-written"],
            ),
            (
                "a route that copies a header that the filter reserves",
                |c| {
                    let copy = "%REQ(X-Machine-Client)%";
                    let set = json!({"set": {"kubeflow-userid": copy}});
                    replace(c, route("kubeflow/gateway", &set));
                    let set = json!([{"name": "kubeflow-userid", "value": copy}]);
                    c.resources.push(http_route(&set));
                },
                &[],
            ),
            (
                "an HTTPRoute that copies another header",
                |c| {
                    let set = json!([
                        {"name": "x", "value": "%REQ(x-machine-client)%"},
                        {"name": "kubeflow-userid", "value": "%REQ(x-user)%"},
                    ]);
                    c.resources.push(http_route(&set));
                },
                &["live-user-id-written"],
            ),
            (
                "a route that copies another header",
                |c| {
                    let set = json!({"set": {"kubeflow-userid": "%REQ(x-user)%"}});
                    replace(c, route("kubeflow/gateway", &set));
                },
                &["live-user-id-written"],
            ),
            (
                "a RequestAuthentication that sets the user id",
                |c| {
                    let claims = json!([{"header": "kubeflow-userid", "claim": "email"}]);
                    c.resources.push(json!({
                        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
                        "metadata": {"name": "jwt", "namespace": "istio-system"},
                        "spec": {"jwtRules": [{"issuer": "x", "outputClaimToHeaders": claims}]},
                    }));
                },
                &["live-user-id-written"],
            ),
        ];
        for (name, change, expected) in cases {
            let mut cluster = sound();
            change(&mut cluster);
            assert_eq!(codes(&cluster), *expected, "{name}");
        }
    }

    #[test]
    fn reports_findings_of_check_too() {
        let mut cluster = sound();
        cluster
            .resources
            .retain(|resource| resource["kind"] != "EnvoyFilter");
        let findings = judge(&cluster).expect("valid resources");
        let mut codes = findings.iter().map(|finding| finding.code);
        assert!(codes.any(|code| code == Code::InterlockMissing));
    }

    #[test]
    fn rejects_a_cluster_without_the_filter() {
        assert!(judge(&Cluster::default()).is_err());
    }
}
