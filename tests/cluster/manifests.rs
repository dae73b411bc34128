//! What the chart, its examples and `alb-oidc tenancy` print, as the API server, the CRDs of each
//! supported Istio and Istio's webhooks see it.

use crate::istio::{Kind, NAMESPACE};
use crate::kubernetes::{APPLY, Kubernetes, documents};
use crate::program::{START_UP, built, run};
use crate::release::template;
use crate::world::World;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// The names of the chart's examples.
fn examples() -> Vec<String> {
    let folder = std::fs::read_dir(support::repository("istio/chart/examples"));
    let mut names: Vec<String> = folder
        .expect("the examples")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "yaml"))
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no example");
    names
}

/// The values of one example.
pub(crate) fn example(name: &str) -> Value {
    let path = support::repository(&format!("istio/chart/examples/{name}.yaml"));
    let text = std::fs::read_to_string(path).expect("the example");
    serde_saphyr::from_str(&text).expect("YAML")
}

/// These manifests after a change to each object, without those for which it returns `false`.
pub(crate) fn changed(manifests: &str, mut change: impl FnMut(&mut Value) -> bool) -> String {
    let objects = documents(manifests).into_iter().filter_map(|mut object| {
        let keep = change(&mut object);
        keep.then(|| object.to_string())
    });
    objects.collect::<Vec<_>>().join("\n---\n")
}

/// The objects of these manifests for which `wanted` is true.
pub(crate) fn only(manifests: &str, wanted: impl Fn(&Value) -> bool) -> String {
    changed(manifests, |object| wanted(object))
}

/// What `alb-oidc tenancy` prints for two namespaces and the filter of these manifests.
pub(crate) async fn tenancy(folder: &Path, manifests: &str) -> String {
    let users = "
users:
- user: ann@example.com
  contributors: [{user: bob@example.com}]
groups:
- group: ML ops
  contributors: [{user: carol@example.com, role: view}]
";
    let config = only(manifests, |object| object["kind"] == "WasmPlugin");
    std::fs::write(folder.join("tenancy.yaml"), users).expect("a file written");
    std::fs::write(folder.join("config.yaml"), config).expect("a file written");
    let mut tool = Command::new(env!("CARGO_BIN_EXE_alb-oidc"));
    tool.current_dir(folder);
    tool.args(["tenancy", "tenancy.yaml", "--config", "config.yaml"]);
    let printed = run(&mut tool, "").await;
    printed.unwrap_or_else(|error| panic!("alb-oidc tenancy: {error}"))
}

/// What the chart renders for these values, without the kinds of the AWS Load Balancer Controller and
/// of the Prometheus Operator: the registries do not have their CRDs.
async fn known(values: &Value) -> String {
    only(&template(values).await, |object| {
        let version = object["apiVersion"].as_str().expect("a version");
        let unknown = ["gateway.k8s.aws/", "monitoring.coreos.com/"];
        !unknown.iter().any(|group| version.starts_with(group))
    })
}

/// Namespaces that these objects are in, as manifests.
fn namespaces(objects: &[Value]) -> String {
    let mut names: Vec<&str> = objects
        .iter()
        .filter_map(|object| object["metadata"]["namespace"].as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    let namespace = |name: &&str| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string()
    };
    let texts: Vec<String> = names.iter().map(namespace).collect();
    texts.join("\n---\n")
}

#[tokio::test]
async fn api_server_accepts_the_ingresses_of_the_load_balancer() {
    let folder = tempfile::tempdir().expect("a folder");
    let kubernetes = Kubernetes::start(folder.path(), 6443).await;
    let manifests = template(&example("load-balancer")).await;
    let manifests = only(&manifests, |object| {
        object["kind"] == "Ingress" || object["kind"] == "Service"
    });
    kubernetes.apply(&namespaces(&documents(&manifests))).await;
    kubernetes.apply(&manifests).await;
    let accepted = manifests.matches("\"kind\":\"Ingress\"").count();
    assert_eq!(accepted, 1, "one Ingress without a group");
}

/// What the analyzer says about every EnvoyFilter: that Envoy's configuration may change.
const OF_EVERY_ENVOY_FILTER: &str = "IST0133";

/// What `istioctl analyze` says about these objects, down to its informational messages.
async fn analyze(kubernetes: &Kubernetes, objects: &[Value]) -> Vec<Value> {
    let mut istioctl = Command::new(built("istioctl"));
    istioctl.arg("--kubeconfig").arg(&kubernetes.kubeconfig);
    istioctl.args(["analyze", "--namespace", NAMESPACE, "--output", "json"]);
    let analysis = run(&mut istioctl, "").await;
    let analysis = analysis.unwrap_or_else(|error| panic!("istioctl analyze: {error}"));
    let mut messages: Vec<Value> = serde_json::from_str(&analysis).expect("JSON");
    messages.retain(|message| {
        let is_about = |object: &Value| {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            let (kind, name) = (kind.as_str().expect("a kind"), name.as_str());
            let origin = format!("{kind} {NAMESPACE}/{}", name.expect("a name"));
            message["origin"] == origin.as_str()
        };
        message["code"] != OF_EVERY_ENVOY_FILTER && objects.iter().any(is_about)
    });
    messages
}

#[tokio::test]
async fn webhooks_accept_each_example_twice() {
    let world = World::start(&[Kind::Classic]).await;
    // As Istio's own chart makes it for the gateway.
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": Kind::Classic.name(), "namespace": NAMESPACE},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "ports": [{"name": "http2", "port": 80, "targetPort": 8080}],
        },
    });
    world.kubernetes.apply(&service.to_string()).await;
    for name in examples() {
        let mut rendered = Vec::new();
        for extension in ["WasmPlugin", "TrafficExtension"] {
            let mut values = example(&name);
            values["extension"] = json!(extension);
            rendered.push(known(&values).await);
        }
        for manifests in rendered {
            let objects = documents(&manifests);
            world.kubernetes.apply(&namespaces(&objects)).await;
            world.kubernetes.apply(&manifests).await;
            let again = world.kubernetes.must(&APPLY, &manifests).await;
            assert_eq!(again.lines().count(), objects.len(), "{name}: {again}");
            let difference = ["diff", "--server-side", "-f", "-"];
            let difference = world.kubernetes.must(&difference, &manifests).await;
            assert_eq!(difference, "", "{name}");
            let said = analyze(&world.kubernetes, &objects).await;
            assert!(said.is_empty(), "istioctl analyze, {name}: {said:#?}");
            world.kubernetes.delete(&manifests).await;
        }
    }
    // The control: the analyzer warns about an interlock without a priority.
    let mut interlock = documents(&template(&example("kubeflow-cognito")).await);
    interlock.retain(|object| object["kind"] == "EnvoyFilter");
    let spec = interlock[0]["spec"].as_object_mut().expect("a spec");
    spec.remove("priority").expect("a priority");
    world.kubernetes.apply(&interlock[0].to_string()).await;
    let said = analyze(&world.kubernetes, &interlock).await;
    assert_eq!(said.len(), 1, "{said:#?}");
    assert_eq!(said[0]["code"], "IST0151");
    // The webhook is asked: the CRD takes an address that is none.
    let wrong = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "wrong", "namespace": "kubeflow"},
        "spec": {"hosts": ["a.example"], "addresses": ["300.0.0.1"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}], "resolution": "STATIC"},
    });
    let rejected = world.kubernetes.kubectl(&APPLY, &wrong.to_string()).await;
    let error = rejected.expect_err("an error of the webhook");
    assert!(error.contains("validation.istio.io"), "{error}");
}

/// The minor version in a name such as `v1.27.0.yaml`.
fn minor(crds: &Path) -> u32 {
    let name = crds.file_name().expect("a name").to_string_lossy();
    let minor = name.split('.').nth(1).expect("a version");
    minor.parse().expect("a number")
}

#[tokio::test]
async fn crds_of_each_supported_istio_accept_each_example() {
    let folder = tempfile::tempdir().expect("a folder");
    let kubernetes = Kubernetes::start(folder.path(), 6443).await;
    let gateway_api = std::fs::read_to_string(built("gateway-api-crds.yaml"));
    kubernetes.apply(&gateway_api.expect("the CRDs")).await;
    let versions = std::fs::read_dir(built("crds")).expect("the CRDs");
    let mut versions: Vec<_> = versions.map(|file| file.expect("a file").path()).collect();
    versions.sort();
    let minors: Vec<u32> = versions.iter().map(|path| minor(path)).collect();
    assert_eq!(minors, (23..=31).collect::<Vec<_>>());
    let mut rendered = BTreeMap::new();
    for crds in versions {
        let text = std::fs::read_to_string(&crds).expect("the CRDs");
        kubernetes.apply(&text).await;
        let (minor, dry_run) = (minor(&crds), [&APPLY[..], &["--dry-run=server"]].concat());
        for name in examples() {
            let mut values = example(&name);
            if minor < 30 {
                values["extension"] = json!("WasmPlugin");
            }
            if minor < 27 {
                values["failStrategy"] = json!("FAIL_CLOSE");
            }
            let manifests = match rendered.entry(values.to_string()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let manifests = known(&values).await;
                    kubernetes.apply(&namespaces(&documents(&manifests))).await;
                    entry.insert(manifests)
                }
            };
            let accepted = kubernetes.kubectl(&dry_run, manifests).await;
            accepted.unwrap_or_else(|error| panic!("{name}, Istio 1.{minor}: {error}"));
        }
        // What the values' comments say about versions.
        let of = |change: fn(&mut Value)| {
            let mut values = example("kubeflow-cognito");
            change(&mut values);
            values
        };
        for (since, values) in [
            (
                27,
                of(|values| values["failStrategy"] = json!("FAIL_RELOAD")),
            ),
            (
                30,
                of(|values| {
                    values["failStrategy"] = json!("FAIL_CLOSE");
                    values["extension"] = json!("TrafficExtension");
                }),
            ),
        ] {
            let accepted = kubernetes.kubectl(&dry_run, &template(&values).await).await;
            assert_eq!(
                accepted.is_ok(),
                minor >= since,
                "Istio 1.{minor}: {accepted:?}"
            );
        }
    }
}

#[tokio::test]
async fn admission_policy_keeps_tenants_out_of_the_group() {
    let folder = tempfile::tempdir().expect("a folder");
    let kubernetes = Kubernetes::start(folder.path(), 6443).await;
    let mut values = example("load-balancer");
    values["alb"]["group"] = json!({"name": "kubeflow", "namespaces": ["platform"]});
    values["alb"]["jwtValidation"] = json!(true);
    let manifests = template(&values).await;
    let policy = only(&manifests, |object| {
        let kind = object["kind"].as_str().expect("a kind");
        kind.starts_with("ValidatingAdmissionPolicy")
    });
    let ingresses = only(&manifests, |object| object["kind"] == "Ingress");
    kubernetes.apply(&policy).await;
    for namespace in [NAMESPACE, "platform", "ann"] {
        let arguments = ["create", "namespace", namespace];
        kubernetes.must(&arguments, "").await;
    }

    let of = |namespace: &str, group: &str| {
        let mut ingress = documents(&ingresses).remove(0);
        ingress["metadata"]["namespace"] = json!(namespace);
        let annotations = &mut ingress["metadata"]["annotations"];
        annotations["alb.ingress.kubernetes.io/group.name"] = json!(group);
        ingress.to_string()
    };
    let refused = "The IngressGroup kubeflow is for the namespaces istio-system, platform only";
    // The API server needs a moment until it applies the policy.
    let deadline = Instant::now() + START_UP;
    while let Ok(accepted) = kubernetes.kubectl(&APPLY, &of("ann", "kubeflow")).await {
        assert!(Instant::now() < deadline, "{accepted}");
        kubernetes.delete(&of("ann", "kubeflow")).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    kubernetes.apply(&ingresses).await;
    kubernetes.apply(&of("platform", "kubeflow")).await;
    kubernetes.apply(&of("ann", "other")).await;
    let joins = kubernetes.kubectl(&APPLY, &of("ann", "kubeflow")).await;
    let error = joins.expect_err("an error of the policy");
    assert!(error.contains(refused), "{error}");
}

#[tokio::test]
async fn pods_of_a_tenancy_get_a_sidecar() {
    let world = World::start(&[]).await;
    let values = world.values(Kind::Classic).await;
    let printed = tenancy(world.folder(), &template(&values).await).await;
    // Kubeflow's own kinds have no CRD here.
    let known = only(&printed, |object| object["kind"] != "Profile");
    assert_eq!(printed.matches("kind: Profile").count(), 2, "{printed}");
    world.kubernetes.apply(&known).await;
    let pod = |namespace: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "notebook", "namespace": namespace},
            "spec": {"containers": [{"name": "notebook", "image": "notebook"}]},
        })
    };
    for (namespace, injected) in [("ann", true), ("ml-ops", true), ("monitoring", false)] {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}});
        world.kubernetes.apply(&account.to_string()).await;
        let arguments = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        let made = world
            .kubernetes
            .must(&arguments, &pod(namespace).to_string())
            .await;
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let containers = ["containers", "initContainers"]
            .map(|of| made["spec"][of].as_array().cloned().unwrap_or_default());
        let proxies = containers.concat();
        let proxies = proxies
            .iter()
            .filter(|container| container["name"] == "istio-proxy");
        assert_eq!(
            proxies.count(),
            usize::from(injected),
            "{namespace}: {made:#}"
        );
    }
}
