//! `istio/chart` as Helm renders it: every example, the combinations of its options, and values
//! that it must reject. The library reads each rendered `pluginConfig`. Whether Istio accepts the
//! resources is tested on its own control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use alb_oidc_filter::{Config, config_schema};
use serde_json::{Value, json};
use support::envoy::interlock;
use support::{read, repository};

#[path = "chart/listener_rules.rs"]
mod listener_rules;

const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
const ISSUER: &str = "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE";
const USER_POOL: &str = "arn:aws:cognito-idp:us-west-2:123456789012:userpool/us-west-2_EXAMPLE";
const IMAGE: &str = "oci://registry.example.com/alb-oidc-filter@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Runs Helm: what it prints, or its error.
fn helm(arguments: &[&str]) -> Result<String, String> {
    let helm = std::env::var_os("ALB_OIDC_HELM").map_or_else(installed_helm, PathBuf::from);
    let output = Command::new(&helm)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}: run `make helm`", helm.display()));
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stdout) + &text(output.stderr))
    }
}

/// The one that `make helm` leaves.
fn installed_helm() -> PathBuf {
    let versions = std::fs::read_dir(repository("target/helm"));
    let mut versions = versions.into_iter().flatten().flatten();
    let version = versions.next().expect("no Helm: run `make helm`");
    version.path().join("bin/helm")
}

fn template(values: &str) -> Result<String, String> {
    let arguments = ["template", "alb-oidc", "istio/chart", "--values", values];
    helm(&[&arguments[..], &["--namespace", "istio-system"]].concat())
}

fn resources(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A file with these values.
fn values_file(values: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".json").expect("a file");
    // Escaped: some characters end a line in YAML, in a string, too.
    let escape = |c: char| match c {
        c if c.is_ascii() => c.to_string(),
        c => format!("\\u{:04x}", u32::from(c)),
    };
    let text: String = values.to_string().chars().map(escape).collect();
    std::fs::write(file.path(), text).expect("the values written");
    file
}

/// What Helm renders with these values.
fn render(values: &Value) -> Result<Vec<Value>, String> {
    let file = values_file(values);
    let text = template(file.path().to_str().expect("a path"))?;
    Ok(resources(&text))
}

#[track_caller]
fn rendered(values: &Value) -> Vec<Value> {
    render(values).unwrap_or_else(|error| panic!("{error}\n{values:#}"))
}

fn examples() -> Vec<String> {
    let folder = "istio/chart/examples";
    let entries = std::fs::read_dir(repository(folder)).expect("the examples");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| format!("{folder}/{}", name.to_string_lossy()))
        .collect();
    names.sort();
    names
}

/// The least values that the chart accepts, with these changes: objects are merged.
fn with(changes: &[&Value]) -> Value {
    let mut values = json!({
        "image": {"url": IMAGE},
        "pluginConfig": {"loadBalancers": [{"arn": ARN, "issuer": ISSUER, "clientId": "client"}]},
    });
    changes.iter().for_each(|change| merge(&mut values, change));
    values
}

fn merge(over: &mut Value, change: &Value) {
    match (over.as_object_mut(), change.as_object()) {
        (Some(over), Some(change)) => {
            for (name, value) in change {
                merge(over.entry(name).or_insert(Value::Null), value);
            }
        }
        _ => *over = change.clone(),
    }
}

fn of_kind<'r>(resources: &'r [Value], kind: &'r str) -> impl Iterator<Item = &'r Value> {
    resources
        .iter()
        .filter(move |resource| resource["kind"] == kind)
}

#[track_caller]
fn one<'r>(resources: &'r [Value], kind: &'r str) -> &'r Value {
    let found: Vec<_> = of_kind(resources, kind).collect();
    assert_eq!(found.len(), 1, "{kind}: {resources:#?}");
    found[0]
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no string: {value}"))
}

fn elements(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no array: {value}"))
}

/// The WasmPlugin or TrafficExtension.
#[track_caller]
fn extension(resources: &[Value]) -> &Value {
    let found: Vec<_> = ["WasmPlugin", "TrafficExtension"]
        .iter()
        .flat_map(|kind| of_kind(resources, kind))
        .collect();
    assert_eq!(found.len(), 1, "{resources:#?}");
    found[0]
}

/// The fields that a WasmPlugin has in `spec` and a TrafficExtension in `spec.wasm`.
fn wasm(resources: &[Value]) -> &Value {
    let spec = &extension(resources)["spec"];
    spec.get("wasm").unwrap_or(spec)
}

#[track_caller]
fn config(resources: &[Value]) -> Config {
    let config = &wasm(resources)["pluginConfig"];
    Config::from_value(config).unwrap_or_else(|errors| panic!("{errors:?}\n{config:#}"))
}

/// Asserts what holds for any values.
#[track_caller]
fn assert_sound(resources: &[Value]) {
    assert_names_are_valid(resources);
    assert_targets_agree(resources);
    assert_key_servers_are_those_of_the_filter(resources);
    assert_interlock_is_shut(resources);
    assert_routes_may_use_their_services(resources);
}

fn is_subdomain(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn assert_names_are_valid(resources: &[Value]) {
    let mut known = BTreeSet::new();
    for resource in resources {
        let metadata = &resource["metadata"];
        let (kind, name) = (text(&resource["kind"]), text(&metadata["name"]));
        assert!(is_subdomain(name), "{kind} {name}");
        let namespace = metadata["namespace"].as_str();
        assert_eq!(namespace.is_none(), is_of_cluster(kind), "{kind}");
        assert!(known.insert((kind, namespace, name)), "{kind} {name} twice");
        assert_eq!(metadata["labels"]["app.kubernetes.io/instance"], "alb-oidc");
    }
}

fn is_of_cluster(kind: &str) -> bool {
    kind.ends_with("Class") || kind.starts_with("ValidatingAdmissionPolicy")
}

/// Whether a Gateway or an HTTPRoute is of the load balancer, not of Istio.
fn is_of_load_balancer(resource: &Value) -> bool {
    let spec = &resource["spec"];
    let gateway = match text(&resource["kind"]) {
        "Gateway" => &resource["metadata"]["name"],
        "HTTPRoute" => &spec["parentRefs"][0]["name"],
        _ => return false,
    };
    text(gateway).ends_with("-alb")
}

/// The pods that a `spec` selects, as labels.
fn pods(spec: &Value) -> Value {
    match spec.get("targetRefs") {
        Some(targets) => {
            let target = &elements(targets)[0];
            assert_eq!(target["kind"], "Gateway");
            json!({GATEWAY_NAME: target["name"]})
        }
        None => spec["selector"]["matchLabels"].clone(),
    }
}

fn assert_targets_agree(resources: &[Value]) {
    let extension = extension(resources);
    let (pods_of_filter, namespace) = (
        pods(&extension["spec"]),
        &extension["metadata"]["namespace"],
    );
    assert!(
        pods_of_filter
            .as_object()
            .is_some_and(|pods| !pods.is_empty())
    );
    let egress = |resource: &Value| text(&resource["metadata"]["name"]).ends_with("-egress");
    for resource in resources {
        let (kind, spec) = (text(&resource["kind"]), &resource["spec"]);
        let selected = match kind {
            "EnvoyFilter" => spec["workloadSelector"]["labels"].clone(),
            "AuthorizationPolicy" | "RequestAuthentication" => pods(spec),
            "NetworkPolicy" => spec["podSelector"]["matchLabels"].clone(),
            _ if is_of_load_balancer(resource) => pods_of_filter.clone(),
            "Service" => spec["selector"].clone(),
            "Gateway" if !egress(resource) => spec["selector"].clone(),
            "HTTPRoute" => json!({GATEWAY_NAME: spec["parentRefs"][0]["name"]}),
            _ => pods_of_filter.clone(),
        };
        assert_eq!(selected, pods_of_filter, "{kind}");
        if kind != "ReferenceGrant"
            && !is_of_cluster(kind)
            && !(kind == "Gateway" && egress(resource))
        {
            assert_eq!(&resource["metadata"]["namespace"], namespace, "{kind}");
        }
    }
}

/// The ServiceEntries have the hosts and ports of the filter's key sources, each with TLS.
fn assert_key_servers_are_those_of_the_filter(resources: &[Value]) {
    let mut wanted: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let egress = of_kind(resources, "DestinationRule")
        .find(|rule| text(&rule["metadata"]["name"]).ends_with("-egress"));
    let own_clusters = ["mirror", "idp"];
    for source in &config(resources).key_sources {
        let (host, port) = match egress {
            Some(rule) => {
                let subset = text(&rule["spec"]["subsets"][0]["name"]);
                let cluster = format!("outbound|443|{subset}|{}", text(&rule["spec"]["host"]));
                assert_eq!(source.cluster, cluster);
                let authority = source.authority.split_once(':');
                let (host, port) = authority.unwrap_or((&source.authority, "443"));
                (host.to_owned(), port.to_owned())
            }
            None if own_clusters.contains(&source.cluster.as_str()) => continue,
            None => {
                let (port, host) = source
                    .cluster
                    .strip_prefix("outbound|")
                    .and_then(|rest| rest.split_once("||"))
                    .expect("a cluster of Istio");
                (host.to_owned(), port.to_owned())
            }
        };
        if !host.ends_with(".svc.cluster.local") {
            let port = port.parse().expect("a port");
            wanted.entry(host).or_default().insert(port);
        }
    }
    let mut found: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for entry in of_kind(resources, "ServiceEntry") {
        let spec = &entry["spec"];
        assert_eq!(elements(&spec["hosts"]).len(), 1);
        let ports = found.entry(text(&spec["hosts"][0]).to_owned()).or_default();
        for port in elements(&spec["ports"]) {
            assert_eq!(port["protocol"], "HTTPS");
            ports.insert(port["number"].as_u64().expect("a port"));
        }
    }
    assert_eq!(found, wanted);
    let tls: BTreeMap<_, _> = of_kind(resources, "DestinationRule")
        .filter(|rule| rule["spec"].get("subsets").is_none())
        .map(|rule| {
            (
                text(&rule["spec"]["host"]),
                &rule["spec"]["trafficPolicy"]["tls"],
            )
        })
        .collect();
    assert_eq!(tls.len(), wanted.len());
    for host in wanted.keys() {
        let tls = tls.get(host.as_str()).expect("a DestinationRule");
        assert_eq!(tls["mode"], "SIMPLE");
        assert_eq!(tls["sni"], host.as_str());
        assert_eq!(tls["subjectAltNames"], json!([host]));
        assert!(tls["caCertificates"].is_string());
    }
}

fn assert_interlock_is_shut(resources: &[Value]) {
    let envoy_filter = one(resources, "EnvoyFilter");
    let patches = elements(&envoy_filter["spec"]["configPatches"]);
    assert_eq!(patches.len(), 1);
    assert_eq!(patches[0]["applyTo"], "HTTP_FILTER");
    assert_eq!(patches[0]["match"]["context"], "GATEWAY");
    assert_eq!(
        patches[0]["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"],
        "envoy.filters.http.router"
    );
    assert_eq!(patches[0]["patch"]["operation"], "INSERT_BEFORE");
    assert_eq!(envoy_filter["spec"]["priority"], 1000);
    assert_eq!(
        envoy_filter["metadata"]["annotations"]["helm.sh/resource-policy"],
        "keep"
    );
    let reports = config(resources).report_only;
    let expected: &[&str] = if reports {
        &["admitted", "skipped", "reported"]
    } else {
        &["admitted", "skipped"]
    };
    assert_eq!(patches[0]["patch"]["value"], interlock(expected));
    let spec = &extension(resources)["spec"];
    assert_eq!(spec["phase"], "AUTHN");
    assert_eq!(spec["match"], json!([{"mode": "CLIENT"}]));
    assert_ne!(wasm(resources)["failStrategy"], "FAIL_OPEN");
}

/// A ReferenceGrant lets a route use a Service of another namespace.
fn assert_routes_may_use_their_services(resources: &[Value]) {
    let granted: BTreeSet<_> = of_kind(resources, "ReferenceGrant")
        .flat_map(|grant| {
            let namespace = text(&grant["metadata"]["namespace"]);
            let to = elements(&grant["spec"]["to"]).iter();
            to.map(move |service| (namespace, text(&service["name"])))
        })
        .collect();
    let used: BTreeSet<_> = of_kind(resources, "HTTPRoute")
        .filter(|route| !is_of_load_balancer(route))
        .map(|route| {
            let service = &route["spec"]["rules"][0]["backendRefs"][0];
            let namespace = text(&service["namespace"]);
            assert_ne!(namespace, text(&route["metadata"]["namespace"]));
            (namespace, text(&service["name"]))
        })
        .collect();
    assert_eq!(granted, used);
}

/// What is generated: its path, and its content.
fn generated() -> Vec<(&'static str, String)> {
    let schema_path = "istio/chart/values.schema.json";
    let mut schema: Value = serde_json::from_str(&read(schema_path)).expect("JSON");
    schema["$id"] = json!(concat!(
        "urn:alb-oidc-filter:values:",
        env!("CARGO_PKG_VERSION")
    ));
    schema["properties"]["pluginConfig"] = plugin_config_schema();
    let schema = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
    let example = "istio/chart/examples/kubeflow-cognito.yaml";
    let rendered = format!(
        "# What the chart renders with {example}: helm template alb-oidc istio/chart\n\
         # Change nothing here: `make chart` writes this file. Without Helm, copy it, change the copy, and\n\
         # apply it with kubectl.\n{}",
        template(example).expect("the example rendered")
    );
    vec![
        (schema_path, schema),
        ("istio/kubeflow-cognito.rendered.yaml", rendered),
    ]
}

/// The schema of `pluginConfig`, but for what the chart says in a sentence of its own.
fn plugin_config_schema() -> Value {
    let mut schema = config_schema();
    schema["properties"]["loadBalancers"]["minItems"] = json!(0);
    schema
}

#[test]
fn matches_generated_files() {
    for (path, expected) in generated() {
        if std::env::var_os("ALB_OIDC_WRITE").is_some() {
            std::fs::write(repository(path), &expected).expect("the file written");
        }
        let found = std::fs::read_to_string(repository(path)).unwrap_or_default();
        assert!(
            found == expected,
            "{path} is not what the code generates: run `make chart`"
        );
    }
}

#[test]
fn has_the_version_of_the_package() {
    let chart: Value = serde_saphyr::from_str(&read("istio/chart/Chart.yaml")).expect("YAML");
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn installs_alerts_and_dashboard() {
    let plain = rendered(&with(&[]));
    assert_eq!(of_kind(&plain, "PrometheusRule").count(), 0);
    assert_eq!(of_kind(&plain, "ConfigMap").count(), 0);
    assert_eq!(of_kind(&plain, "PodMonitor").count(), 0);
    let values = json!({"monitoring": {
        "rules": {"enabled": true, "labels": {"release": "kube-prometheus-stack"}},
        "dashboard": {"enabled": true},
        "podMonitor": {"enabled": true, "labels": {"release": "kube-prometheus-stack"}},
    }});
    let resources = rendered(&with(&[&values]));
    let rules = one(&resources, "PrometheusRule");
    let file: Value =
        serde_saphyr::from_str(&read("istio/chart/monitoring/rules.yaml")).expect("YAML");
    assert_eq!(rules["spec"], file);
    assert_eq!(
        rules["metadata"]["labels"]["release"],
        "kube-prometheus-stack"
    );
    let monitor = one(&resources, "PodMonitor");
    assert_eq!(
        monitor["metadata"]["labels"]["release"],
        "kube-prometheus-stack"
    );
    assert_eq!(
        monitor["spec"]["selector"]["matchLabels"],
        one(&resources, "WasmPlugin")["spec"]["selector"]["matchLabels"]
    );
    let dashboard = one(&resources, "ConfigMap");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let name = "alb-oidc.json";
    assert_eq!(
        text(&dashboard["data"][name]),
        read("istio/chart/monitoring/dashboard.json")
    );
}

#[test]
fn lints_every_example() {
    for example in examples() {
        helm(&["lint", "--strict", "istio/chart", "--values", &example])
            .unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

#[test]
fn renders_every_example() {
    let names: Vec<_> = examples()
        .iter()
        .map(|path| path.rsplit('/').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "entra-id.yaml",
            "gateway-api.yaml",
            "govcloud.yaml",
            "key-server-mirror.yaml",
            "kubeflow-cognito.yaml",
            "kubeflow-complete.yaml",
            "load-balancer-gateway-api.yaml",
            "load-balancer.yaml",
            "machine-clients.yaml",
            "okta.yaml",
            "standalone-apps.yaml"
        ]
    );
    for example in examples() {
        let text = template(&example).unwrap_or_else(|error| panic!("{example}: {error}"));
        assert_sound(&resources(&text));
    }
}

/// `alb-oidc check` on what Helm rendered: its warnings, too.
fn checked(text: &str) -> (bool, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_alb-oidc"))
        .args(["check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("alb-oidc runs");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(text.as_bytes()).expect("the input written");
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.success(), said)
}

#[test]
fn passes_the_check_of_the_tool() {
    for example in examples() {
        let (good, said) = checked(&template(&example).expect(&example));
        assert!(good, "{example}: {said}");
        // The examples have placeholders. Whether a Gateway of somebody else carries TCP, the input
        // does not say.
        let is_expected = |line: &&str| {
            ["[placeholder]", "[policy-denies-tcp]"]
                .iter()
                .any(|code| line.ends_with(code))
        };
        let warnings = said.lines().filter(|line| line.contains("warning:"));
        let (expected, others): (Vec<_>, Vec<_>) = warnings.partition(is_expected);
        assert!(
            !expected.is_empty() && others.is_empty(),
            "{example}: {said}"
        );
    }
    // A schema cannot say this.
    let values = with(&[&json!({"pluginConfig": {"userId": {"header": "Host"}}})]);
    let file = values_file(&values);
    let text = template(file.path().to_str().expect("a path")).expect("a chart");
    let (good, said) = checked(&text);
    assert!(!good && said.contains("userId.header"), "{said}");
}

/// The output of `alb-oidc schema`.
fn schema(more: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_alb-oidc"))
        .arg("schema")
        .args(more)
        .output()
        .expect("alb-oidc runs");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn tool_prints_the_schema_of_the_values() {
    let printed = schema(&["--values"]);
    assert_eq!(printed, read("istio/chart/values.schema.json"));
    let id = |schema: &str| {
        let schema: Value = serde_json::from_str(schema).expect("JSON");
        text(&schema["$id"]).to_owned()
    };
    assert_ne!(id(&printed), id(&schema(&[])));
}

#[test]
fn renders_the_values_of_the_tool() {
    let output = Command::new(env!("CARGO_BIN_EXE_alb-oidc"))
        .args(["init", "tests/aws/rules-443.json", "--image", IMAGE])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("alb-oidc runs");
    assert!(output.status.success());
    let values: Value = serde_saphyr::from_slice(&output.stdout).expect("YAML");
    assert_sound(&rendered(&values));
}

/// Helm validates values with a JSON Schema: here, a config with the one of the tool.
fn validate(config: &Value, schema: &str) -> Result<String, String> {
    let chart = tempfile::TempDir::new().expect("a directory");
    let put = |name: &str, content: &str| {
        std::fs::write(chart.path().join(name), content).expect("a file");
    };
    put(
        "Chart.yaml",
        "apiVersion: v2\nname: config\nversion: 0.1.0\n",
    );
    put("values.schema.json", schema);
    let values = values_file(config);
    let path = |path: &std::path::Path| path.to_str().expect("a path").to_owned();
    helm(&[
        "template",
        "a",
        &path(chart.path()),
        "--values",
        &path(values.path()),
    ])
}

#[test]
fn schema_of_the_tool_accepts_each_config_of_the_pages() {
    let schema = schema(&[]);
    let mut configs: Vec<(String, Value)> = Vec::new();
    for example in examples() {
        let values: Value = serde_saphyr::from_str(&read(&example)).expect("YAML");
        configs.push((example, values["pluginConfig"].clone()));
    }
    for entry in std::fs::read_dir(repository("docs")).expect("docs") {
        let path = entry.expect("a page").path();
        let page = std::fs::read_to_string(&path).expect("text");
        for block in page.split("```yaml\n").skip(1) {
            let yaml = block.split("```").next().expect("a block");
            for document in resources(yaml) {
                let mut config = document["pluginConfig"].clone();
                if config.is_object() {
                    let own = json!([{"arn": ARN, "issuer": ISSUER, "clientId": null}]);
                    let members = config.as_object_mut().expect("an object");
                    members.entry("loadBalancers").or_insert(own);
                    configs.push((path.display().to_string(), config));
                }
            }
        }
    }
    assert!(configs.len() > 25, "{} configs", configs.len());
    for (place, config) in &configs {
        validate(config, &schema).unwrap_or_else(|error| panic!("{place}: {error}"));
    }
    for bad in [
        json!({"loadBalancers": []}),
        json!({"loadBalancers": [{"arn": ARN, "issuer": 7, "clientId": null}]}),
        json!({"loadBalancers": [{"arn": ARN, "issuer": null, "clientId": null}], "modus": "report"}),
        json!({"mode": "report"}),
    ] {
        let error = validate(&bad, &schema).expect_err("an error");
        assert!(error.contains("schema"), "{bad}: {error}");
    }
}

#[test]
fn renders_the_values_of_the_readme() {
    let readme = read("README.md");
    let yaml = readme
        .split_once("```yaml\n")
        .and_then(|(_, rest)| rest.split_once("\n```"))
        .expect("a YAML block")
        .0;
    let values: Value = serde_saphyr::from_str(yaml).expect("YAML");
    assert_sound(&rendered(&values));
}

/// The values in this document, if it has any: those of Argo CD and Flux, and those of the chart.
fn values_of(document: &Value) -> Option<&Value> {
    let chart: Value = serde_saphyr::from_str(&read("istio/chart/values.yaml")).expect("YAML");
    match document["kind"].as_str() {
        Some("Application") => Some(&document["spec"]["source"]["helm"]["valuesObject"]),
        Some("HelmRelease") => Some(&document["spec"]["values"]),
        _ => {
            let mut names = document.as_object()?.keys();
            let is_values = names.all(|name| chart.get(name).is_some());
            is_values.then_some(document)
        }
    }
}

#[test]
fn renders_the_values_of_the_pages() {
    let mut count = 0;
    let client = json!({"pluginConfig": {"loadBalancers": [
        {"arn": ARN, "issuer": ISSUER, "clientId": "1example23456789"}
    ]}});
    for entry in std::fs::read_dir(repository("docs")).expect("docs") {
        let page = std::fs::read_to_string(entry.expect("a page").path()).expect("text");
        for block in page.split("```yaml\n").skip(1) {
            let yaml = block.split("```").next().expect("a block");
            for document in &resources(yaml) {
                if let Some(values) = values_of(document) {
                    assert_sound(&rendered(&with(&[&client, values])));
                    count += 1;
                }
            }
        }
    }
    assert!(count >= 7, "{count} values");
}

#[test]
fn page_lists_the_examples() {
    let page = read("docs/chart.md");
    let rows = page.split_once("<!-- examples: ").expect("the table").1;
    let named: BTreeSet<_> = rows
        .lines()
        .skip(3)
        .map_while(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| format!("istio/chart/examples/{name}"))
        .collect();
    assert_eq!(named, examples().into_iter().collect());
}

/// The component removes each policy that Kubeflow has for oauth2-proxy and Dex at its gateway.
#[test]
fn removes_the_policies_of_kubeflow() {
    let component: Value =
        serde_saphyr::from_str(&read("istio/kubeflow/kustomization.yaml")).expect("YAML");
    assert_eq!(component["kind"], "Component");
    let targets: Vec<_> = elements(&component["patches"])
        .iter()
        .map(|patch| {
            let deletes = text(&patch["patch"]).starts_with("$patch: delete\n");
            assert!(deletes && patch["target"]["namespace"] == "istio-system");
            (
                text(&patch["target"]["kind"]),
                text(&patch["target"]["name"]),
            )
        })
        .collect();
    assert_eq!(
        targets,
        [
            (
                "AuthorizationPolicy",
                "istio-ingressgateway-(require-jwt|oauth2-proxy)"
            ),
            ("RequestAuthentication", "dex-jwt|m2m-token-issuer"),
        ]
    );
}

#[test]
fn renders_every_combination_of_options() {
    let gateways = [
        json!({}),
        json!({"gateway": {"namespace": "ingress", "selector": {"app": "edge"}, "istioGateways": ["kubeflow/kubeflow-gateway"], "tcpPorts": [9443]}}),
        json!({"gateway": {"namespace": "ingress", "name": "edge", "allowPolicy": true}}),
    ];
    let machine_clients = [
        json!({}),
        json!({"machineClients": {"enabled": true, "host": "machines.example.com", "clientIds": ["a", "b"]}}),
    ];
    let endpoint = |url: &str| json!({"pluginConfig": {"publicKeys": {"endpoint": url}}});
    let arn = |partition: &str, region: &str| {
        ARN.replace("arn:aws:", &format!("arn:{partition}:"))
            .replace("us-west-2", region)
    };
    let access_token =
        |token: Value| json!({"pluginConfig": {"accessToken": token}, "acceptAnonymous": true});
    let key_servers = [
        json!({}),
        json!({"pluginConfig": {"loadBalancers": [
            {"arn": ARN, "issuer": null, "clientId": null},
            {"arn": arn("aws", "eu-central-1"), "issuer": null, "clientId": null},
            {"arn": arn("aws-us-gov", "us-gov-east-1"), "issuer": null, "clientId": null}], "sharedNames": true},
            "machineClients": {"issuer": ISSUER}}),
        json!({"pluginConfig": {"loadBalancers": [{"arn": arn("aws-cn", "cn-north-1"), "issuer": ISSUER, "clientId": null}],
            "publicKeys": {"endpoint": "https://public-keys.auth.elb.cn-north-1.amazonaws.com.cn"}}}),
        endpoint("https://Keys.example.com:8443/alb/"),
        endpoint("http://mirror.kubeflow.svc.cluster.local:8080/alb"),
        json!({"pluginConfig": {"publicKeys": {"cluster": "mirror"}}}),
        access_token(json!({"issuer": ISSUER})),
        access_token(json!({"issuer": "any", "jwksUri": "https://idp.example.com/oauth2/v1/keys"})),
        access_token(
            json!({"issuer": "any", "jwksUri": "https://idp.example.com/keys", "jwksCluster": "idp"}),
        ),
        json!({"pluginConfig": {"publicKeys": {"endpoint": "https://idp.example.com:8443"},
            "accessToken": {"issuer": "https://idp.example.com"}}}),
        json!({"keyServers": {"egressGateway": {"enabled": true, "namespace": "egress"}},
            "pluginConfig": {"accessToken": {"issuer": ISSUER}}}),
        endpoint(&format!("https://{}.example.com", ["label"; 40].join("."))),
    ];
    let others = [
        json!({}),
        json!({"extension": "TrafficExtension"}),
        json!({"failStrategy": "FAIL_CLOSE", "name": "second"}),
        json!({"acceptAnonymous": true, "pluginConfig": {"mode": "report"}}),
        json!({"vmEnv": {"ALB_OIDC_VERIFIER": "module"}, "priority": 10, "image": {"pullSecret": "ecr"}}),
        json!({"networkPolicy": {"enabled": true, "albSubnets": ["10.0.0.0/20", "fd00::/8"],
            "inCluster": [{"namespace": "knative-serving", "ports": [8080, 8081]}]}}),
        json!({"extension": "TrafficExtension", "routes": [
            {"host": "a.example.com", "service": {"name": "a", "namespace": "apps", "port": 80}},
            {"host": "*.b.example.com", "service": {"name": "b", "namespace": "apps", "port": 8080}}]}),
    ];
    let cognito = json!({"userPoolArn": USER_POOL, "clientId": "client", "domain": "kubeflow"});
    let alb = |change: Value| {
        let mut alb = json!({"enabled": true, "hosts": ["app.example.com"], "cognito": cognito});
        merge(&mut alb, &change);
        let any = json!({"arn": ARN, "issuer": ISSUER, "clientId": "client"});
        json!({"alb": alb, "pluginConfig": {"loadBalancers": [any], "publicKeys": {"endpoint": "https://keys.example.com"}}})
    };
    let others = [
        &others[..],
        &[
            alb(json!({})),
            alb(json!({"api": "gateway", "createClass": true, "subnets": ["a", "b"]})),
            alb(json!({"autoMode": true, "createClass": true, "inboundCidrs": ["10.0.0.0/8"]})),
            alb(json!({"group": {"name": "shared"}})),
        ],
    ]
    .concat();
    let mut number = 0;
    for gateway in &gateways {
        for machine_clients in &machine_clients {
            for key_servers in &key_servers {
                // Each option meets each value of every other one.
                for other in [number, number + 3].map(|number| &others[number % others.len()]) {
                    assert_sound(&rendered(&with(&[
                        gateway,
                        machine_clients,
                        key_servers,
                        other,
                    ])));
                }
                number += 1;
            }
        }
    }
}

#[test]
fn takes_a_module_from_a_file_and_by_https() {
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (image, digest) in [
        (json!({"url": "file:///modules/plugin.wasm"}), Value::Null),
        (
            json!({"url": "https://files.example.com/plugin.wasm", "sha256": sha256}),
            json!(sha256),
        ),
    ] {
        let resources = rendered(&with(&[&json!({"image": image})]));
        assert_eq!(wasm(&resources)["url"], image["url"]);
        assert_eq!(wasm(&resources)["sha256"], digest);
    }
}

#[test]
fn keeps_null_issuer_and_client() {
    let any = json!([{"arn": ARN, "issuer": null, "clientId": null}]);
    let resources = rendered(&with(&[&json!({"pluginConfig": {"loadBalancers": any}})]));
    assert_eq!(wasm(&resources)["pluginConfig"]["loadBalancers"], any);
}

#[test]
fn reserves_the_header_of_machine_clients_always() {
    let reserved = |values: &Value| config(&rendered(values)).reserved_headers;
    assert_eq!(reserved(&with(&[])), ["x-machine-client"]);
    let own = json!({"pluginConfig": {"reservedHeaders": ["x-own"]}});
    assert_eq!(reserved(&with(&[&own])), ["x-own", "x-machine-client"]);
}

#[test]
fn names_machine_clients_on_their_host_only() {
    let machine_clients = json!({
        "machineClients": {"enabled": true, "host": "machines.example.com", "clientIds": ["m1", "m2"]},
        "pluginConfig": {"userId": {"header": "X-User"}, "rules": [{"match": {"methods": ["OPTIONS"]}, "require": "none"}]},
        "gateway": {"tcpPorts": [9443]},
    });
    let resources = rendered(&with(&[&machine_clients]));
    assert_sound(&resources);
    let first_rule = &wasm(&resources)["pluginConfig"]["rules"][0];
    assert_eq!(
        *first_rule,
        json!({"match": {"hosts": ["machines.example.com"]}, "require": "none"})
    );
    assert_eq!(config(&resources).access.rules.len(), 2);

    let route = &one(&resources, "VirtualService")["spec"];
    assert_eq!(route["hosts"], json!(["machines.example.com"]));
    let rules = elements(&route["http"]);
    assert_eq!(rules.len(), 1);
    let set = json!({"x-user": "%REQ(x-machine-client)%"});
    assert_eq!(rules[0]["headers"]["request"]["set"], set);
    let client = |id: &str| json!({"headers": {"x-machine-client": {"exact": id}}});
    assert_eq!(rules[0]["match"], json!([client("m1"), client("m2")]));

    let rule = &one(&resources, "RequestAuthentication")["spec"]["jwtRules"][0];
    assert_eq!(rule["issuer"], ISSUER);
    assert_eq!(rule["jwksUri"], format!("{ISSUER}/.well-known/jwks.json"));
    assert_eq!(
        rule["outputClaimToHeaders"],
        json!([{"header": "x-machine-client", "claim": "client_id"}])
    );

    let policy = &one(&resources, "AuthorizationPolicy")["spec"];
    assert_eq!(policy["action"], "DENY");
    let operation = json!({
        "hosts": ["machines.example.com", "machines.example.com:*", "machines.example.com.", "machines.example.com.:*"],
        "notPorts": ["9443"],
    });
    let rules = elements(&policy["rules"]);
    for rule in rules {
        assert_eq!(rule["to"], json!([{"operation": operation}]));
    }
    let conditions: Vec<_> = rules.iter().map(|rule| &rule["when"]).collect();
    assert_eq!(
        rules[0]["from"][0]["source"]["notRequestPrincipals"][0],
        "*"
    );
    let claim = |name: &str, values: &[&str]| json!([{"key": format!("request.auth.claims[{name}]"), "notValues": values}]);
    assert_eq!(
        conditions,
        [
            &Value::Null,
            &claim("client_id", &["m1", "m2"]),
            &claim("token_use", &["access"])
        ]
    );
}

#[test]
fn names_machine_clients_by_http_route() {
    let values = with(&[
        &json!({"gateway": {"name": "edge"}, "machineClients": {"enabled": true, "host": "machines.example.com",
            "clientIds": ["m1", "m2"], "requiredClaims": {"token_use": []}}}),
    ]);
    let resources = rendered(&values);
    assert_sound(&resources);
    let rule = &one(&resources, "HTTPRoute")["spec"]["rules"][0];
    let client = |id: &str| json!({"headers": [{"name": "x-machine-client", "value": id}]});
    assert_eq!(rule["matches"], json!([client("m1"), client("m2")]));
    assert_eq!(
        rule["filters"][0]["requestHeaderModifier"]["set"],
        json!([{"name": "kubeflow-userid", "value": "%REQ(x-machine-client)%"}])
    );
    let policy = &one(&resources, "AuthorizationPolicy")["spec"];
    assert_eq!(elements(&policy["rules"]).len(), 2);
}

#[test]
fn sends_fetches_through_the_egress_gateway() {
    let host = "public-keys.auth.elb.us-west-2.amazonaws.com";
    for (namespace, export_to) in [
        ("istio-system", json!(["."])),
        ("egress", json!([".", "egress"])),
    ] {
        let egress = json!({"enabled": true, "namespace": namespace});
        let resources = rendered(&with(&[&json!({"keyServers": {"egressGateway": egress}})]));
        assert_sound(&resources);
        let named = |kind, name: &str| {
            let is_it = |resource: &&Value| resource["metadata"]["name"] == name;
            of_kind(&resources, kind).find(is_it).expect(name)
        };
        let entry = &one(&resources, "ServiceEntry")["spec"];
        assert_eq!(entry["exportTo"], export_to);
        let rule = &named("DestinationRule", &format!("alb-oidc-{host}"))["spec"];
        assert_eq!(rule["exportTo"], export_to);

        let subset = &named("DestinationRule", "alb-oidc-egress")["spec"]["subsets"][0];
        let tls = json!({"mode": "ISTIO_MUTUAL", "sni": host});
        assert_eq!(subset["trafficPolicy"]["tls"], tls);
        let gateway = one(&resources, "Gateway");
        assert_eq!(gateway["metadata"]["namespace"], namespace);
        assert_eq!(
            gateway["spec"]["selector"],
            json!({"istio": "egressgateway"})
        );
        let server = &gateway["spec"]["servers"][0];
        assert_eq!(server["hosts"], json!([host]));
        assert_eq!(server["tls"]["mode"], "ISTIO_MUTUAL");
        let route = &one(&resources, "VirtualService")["spec"];
        assert_eq!(
            route["gateways"],
            json!([format!("{namespace}/alb-oidc-egress")])
        );
        assert_eq!(route["exportTo"], export_to);
        assert_eq!(route["hosts"], json!([host]));
        let destination = json!({"host": host, "port": {"number": 443}});
        assert_eq!(route["http"][0]["route"][0]["destination"], destination);
    }
}

#[test]
fn allows_requests_to_another_gateway_where_asked() {
    let policies = |gateway: Value, allow: bool| {
        let policy = json!({"gateway": {"allowPolicy": allow}});
        let resources = rendered(&with(&[&json!({"gateway": gateway}), &policy]));
        of_kind(&resources, "AuthorizationPolicy")
            .map(|policy| policy["spec"].clone())
            .collect::<Vec<_>>()
    };
    let named = json!({"name": "edge"});
    assert_eq!(policies(named.clone(), false), [Value::Null; 0]);
    let target = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}]);
    let expected = json!({"targetRefs": target, "action": "ALLOW", "rules": [{}]});
    assert_eq!(policies(named, true), [expected]);

    let labels = json!({"app": "edge"});
    let expected = json!({"selector": {"matchLabels": labels}, "action": "ALLOW", "rules": [{}]});
    assert_eq!(policies(json!({"selector": labels}), true), [expected]);
}

#[test]
fn renames_the_interlock_with_its_target() {
    let name = |gateway: Value| {
        let resources = rendered(&with(&[&json!({"gateway": gateway})]));
        text(&one(&resources, "EnvoyFilter")["metadata"]["name"]).to_owned()
    };
    let names: BTreeSet<_> = [
        json!({}),
        json!({"selector": {"istio": "other"}}),
        json!({"name": "ingressgateway"}),
    ]
    .map(name)
    .into();
    assert_eq!(names.len(), 3);
    // The port of a route is no part of the target.
    assert!(names.contains(&name(json!({"port": 8080}))));
}

#[test]
fn opens_the_pods_for_named_sources_only() {
    let policy = |values: Value| {
        let resources = rendered(&with(&[&values]));
        one(&resources, "NetworkPolicy")["spec"].clone()
    };
    let ports = |rule: &Value| -> Vec<u64> {
        elements(&rule["ports"])
            .iter()
            .map(|port| port["port"].as_u64().expect("a port"))
            .collect()
    };
    let values = json!({"networkPolicy": {"enabled": true, "albSubnets": ["10.0.0.0/20"],
        "inCluster": [{"namespace": "knative-serving", "ports": [8080, 8081]}]}});
    let rules = policy(values.clone())["ingress"].clone();
    let rules = elements(&rules);
    assert_eq!(rules.len(), 3);
    for rule in rules {
        assert!(!elements(&rule["from"]).is_empty() && !ports(rule).is_empty());
    }
    assert_eq!(ports(&rules[0]), [8080, 15021]);
    assert_eq!(
        rules[0]["from"],
        json!([{"ipBlock": {"cidr": "10.0.0.0/20"}}])
    );
    assert_eq!(ports(&rules[1]), [15020, 15090]);
    assert_eq!(ports(&rules[2]), [8080, 8081]);

    let mut gateway_api = values;
    merge(&mut gateway_api, &json!({"gateway": {"name": "edge"}}));
    assert_eq!(ports(&policy(gateway_api)["ingress"][0]), [80, 15021]);
}

#[test]
fn makes_the_expected_listener_rules() {
    let folder = "tests/chart/listener_rules";
    let files: Vec<_> = std::fs::read_dir(repository(folder))
        .expect("the files")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(files.len(), 6);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file");
        let row: Value = serde_json::from_str(&text).expect("JSON");
        let mut values = row["values"].clone();
        merge(&mut values, &json!({"image": {"url": IMAGE}}));
        let found = listener_rules::load_balancer(&rendered(&values));
        let (found, expected) = (format!("{found:#}"), format!("{:#}", row["loadBalancer"]));
        for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
            assert_eq!(found, expected, "{}: line {number}", file.display());
        }
        assert_eq!(found, expected, "{}", file.display());
    }
}

/// The values of a load balancer that the chart makes, with these changes to `alb`.
fn with_alb(change: Value) -> Value {
    let mut alb = json!({"enabled": true, "hosts": ["app.example.com"],
        "cognito": {"userPoolArn": USER_POOL, "clientId": "client", "domain": "kubeflow"}});
    merge(&mut alb, &change);
    with(&[&json!({"alb": alb})])
}

#[test]
fn renders_all_but_the_filter_before_the_load_balancer_exists() {
    let machine_clients =
        json!({"enabled": true, "host": "machines.example.com", "clientIds": ["m"]});
    let network = json!({"enabled": true, "albSubnets": ["10.0.0.0/20"]});
    let mut complete = with_alb(json!({}));
    merge(
        &mut complete,
        &json!({"machineClients": machine_clients, "networkPolicy": network}),
    );
    let mut first = complete.clone();
    first["pluginConfig"]["loadBalancers"] = json!([]);
    first["image"]["url"] = json!("");
    // What goes on with the load balancer's ARN: the filter, and its key server.
    let mut expected = rendered(&complete);
    expected.retain(|resource| {
        !["WasmPlugin", "ServiceEntry", "DestinationRule"].contains(&text(&resource["kind"]))
    });
    assert_eq!(rendered(&first), expected);
    for kind in [
        "EnvoyFilter",
        "Ingress",
        "NetworkPolicy",
        "RequestAuthentication",
    ] {
        one(&expected, kind);
    }

    for (values, api, said) in [
        (&first, "ingress", "get ingress alb-oidc"),
        (
            &first,
            "gateway",
            "gateways.gateway.networking.k8s.io alb-oidc-alb",
        ),
        (&complete, "ingress", "Check that the module arrived"),
    ] {
        let mut values = values.clone();
        values["alb"]["api"] = json!(api);
        let notes = notes(&values);
        assert!(notes.contains(said), "{notes}");
        let is_next = values["image"]["url"] == "";
        assert_eq!(notes.contains("Next step: the ARN"), is_next, "{notes}");
        let entry = format!("- arn: ARN\n      issuer: {ISSUER}\n      clientId: client\n");
        assert_eq!(notes.contains(&entry), is_next, "{notes}");
        let removes = notes.contains("remove the policies of oauth2-proxy");
        assert_eq!(removes, !is_next, "{notes}");
    }
}

#[test]
fn notes_say_how_to_use_report_mode() {
    let report = json!({"acceptAnonymous": true, "pluginConfig": {"mode": "report"}});
    for (values, said) in [
        (
            with(&[]),
            "set pluginConfig.mode: report and acceptAnonymous: true.",
        ),
        (
            with(&[&report]),
            "request GET 'stats?filter=alb_oidc.*reported'",
        ),
    ] {
        let notes = notes(&values);
        assert!(notes.contains(said), "{notes}");
    }
}

/// The notes that `helm install` prints. It needs a cluster: a copy of the chart renders them.
fn notes(values: &Value) -> String {
    let chart = tempfile::tempdir().expect("a folder");
    for folder in ["", "templates"] {
        let to = chart.path().join(folder);
        std::fs::create_dir_all(&to).expect("a folder");
        let from = repository("istio/chart").join(folder);
        for entry in std::fs::read_dir(from).expect("the chart") {
            let entry = entry.expect("an entry");
            if entry.path().is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
            }
        }
    }
    let template =
        r#"{kind: Notes, text: {{ include (print .Template.BasePath "/NOTES.txt") . | toJson }}}"#;
    std::fs::write(chart.path().join("templates/notes.yaml"), template).expect("a file");
    let file = values_file(values);
    let path = |path: &std::path::Path| path.to_str().expect("a path").to_owned();
    let (chart, file) = (path(chart.path()), path(file.path()));
    let said = helm(&["template", "alb-oidc", &chart, "--values", &file])
        .unwrap_or_else(|error| panic!("{error}"));
    text(&one(&resources(&said), "Notes")["text"]).to_owned()
}

#[test]
fn admits_named_namespaces_to_the_ingress_group_only() {
    let resources = rendered(&with_alb(
        json!({"group": {"name": "shared", "namespaces": ["platform", "istio-system"]}}),
    ));
    let policy = one(&resources, "ValidatingAdmissionPolicy");
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    let rule = json!({"apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"], "resources": ["ingresses"]});
    assert_eq!(
        policy["spec"]["matchConstraints"]["resourceRules"],
        json!([rule])
    );
    let name = "alb.ingress.kubernetes.io/group.name";
    let expected = format!(
        "request.namespace in [\"istio-system\",\"platform\"] || !has(object.metadata.annotations) || \
         !('{name}' in object.metadata.annotations) || object.metadata.annotations['{name}'] != \"shared\""
    );
    assert_eq!(policy["spec"]["validations"][0]["expression"], expected);
    let binding = &one(&resources, "ValidatingAdmissionPolicyBinding")["spec"];
    assert_eq!(binding["policyName"], policy["metadata"]["name"]);
    assert_eq!(binding["validationActions"], json!(["Deny"]));
    let alone = rendered(&with_alb(json!({})));
    assert_eq!(of_kind(&alone, "ValidatingAdmissionPolicy").count(), 0);
    let annotations = &one(&alone, "Ingress")["metadata"]["annotations"];
    assert!(annotations.get(name).is_none(), "{annotations}");
}

#[test]
fn lets_eks_auto_mode_read_one_secret() {
    let idp = "https://idp.example.com";
    let oidc = json!({"issuer": ISSUER, "authorizationEndpoint": idp, "tokenEndpoint": idp, "userInfoEndpoint": idp});
    let auto = |auto_mode: bool| {
        rendered(&with_alb(
            json!({"autoMode": auto_mode, "createClass": true, "class": "own",
            "cognito": {"userPoolArn": "", "clientId": ""}, "oidc": oidc}),
        ))
    };
    let resources = auto(true);
    let class = one(&resources, "IngressClass");
    assert_eq!(class["metadata"]["name"], "own");
    assert_eq!(class["spec"]["controller"], "eks.amazonaws.com/alb");
    assert_eq!(
        one(&resources, "Ingress")["spec"]["ingressClassName"],
        "own"
    );
    let secret = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["alb-oidc-client"], "verbs": ["get"]});
    assert_eq!(one(&resources, "Role")["rules"], json!([secret]));
    let binding = one(&resources, "RoleBinding");
    assert_eq!(binding["subjects"][0]["name"], "eks:managed");
    assert_eq!(
        binding["roleRef"]["name"],
        one(&resources, "Role")["metadata"]["name"]
    );
    let resources = auto(false);
    assert_eq!(of_kind(&resources, "Role").count(), 0);
    let class = one(&resources, "IngressClass");
    assert_eq!(class["spec"]["controller"], "ingress.k8s.aws/alb");
}

#[test]
fn rejects_a_load_balancer_that_disagrees_with_the_filter() {
    let machine_clients = |host: &str| {
        let mut values = with_alb(json!({}));
        let clients = json!({"enabled": true, "host": host, "clientIds": ["m"]});
        merge(&mut values, &json!({"machineClients": clients}));
        values
    };
    let plugin = |change: Value| {
        let mut values = with_alb(json!({}));
        merge(&mut values["pluginConfig"], &change);
        values
    };
    let no_cognito = json!({"userPoolArn": "", "clientId": "", "domain": ""});
    for (values, sentence) in [
        (with_alb(json!({"hosts": []})), "alb.hosts is empty"),
        (
            with_alb(json!({"hosts": ["App.example.com"]})),
            "alb.hosts[0]: found \"App.example.com\"",
        ),
        (
            with_alb(json!({"hosts": ["HOST"]})),
            "alb: found the placeholder HOST",
        ),
        (
            with_alb(json!({"cognito": no_cognito})),
            "alb.cognito.userPoolArn and alb.oidc.issuer are empty",
        ),
        (
            with_alb(json!({"oidc": {"issuer": "https://idp.example.com"}})),
            "alb.cognito cannot be combined with alb.oidc",
        ),
        (
            with_alb(json!({"cognito": {"userPoolArn": "us-west-2_EXAMPLE"}})),
            "alb.cognito.userPoolArn: found \"us-west-2_EXAMPLE\"",
        ),
        (
            with_alb(json!({"cognito": {"clientId": ""}})),
            "alb.cognito.clientId is empty",
        ),
        (
            with_alb(json!({"cognito": {"domain": ""}})),
            "alb.cognito.domain is empty",
        ),
        (
            with_alb(json!({"cognito": no_cognito, "oidc": {"issuer": ISSUER}})),
            "alb.oidc.authorizationEndpoint: found \"\"",
        ),
        (
            with_alb(json!({"cognito": {"clientId": "other"}})),
            "no entry of pluginConfig.loadBalancers has issuer https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE and clientId other",
        ),
        (
            with_alb(json!({"cognito": {"userPoolArn": USER_POOL.replace("EXAMPLE", "OTHER")}})),
            "no entry of pluginConfig.loadBalancers",
        ),
        (
            plugin(
                json!({"logout": {"path": "/out", "redirectTo": "https://id.example.com/logout?client_id=other&a=b"}}),
            ),
            "pluginConfig.logout.redirectTo: found client_id=other. Expected alb.cognito.clientId, client",
        ),
        (with_alb(json!({"scope": "email"})), "Expected openid in it"),
        (
            with_alb(json!({"scope": "openid profile"})),
            "Expected email in it",
        ),
        (machine_clients("app.example.com"), "which is in alb.hosts"),
        (
            with_alb(json!({"jwtValidation": true})),
            "alb.jwtValidation needs machineClients.enabled",
        ),
        (
            {
                let mut values = machine_clients("machines.example.com");
                merge(&mut values, &json!({"alb": {"jwtValidation": true}}));
                values
            },
            "alb.jwtValidation needs alb.group.name or alb.api: gateway",
        ),
        (
            with_alb(json!({"autoMode": true, "group": {"name": "a"}})),
            "alb.group cannot be combined with alb.autoMode",
        ),
        (
            with_alb(json!({"securityGroups": ["sg-1"], "inboundCidrs": ["10.0.0.0/8"]})),
            "alb.securityGroups cannot be combined with alb.inboundCidrs",
        ),
        (
            with_alb(json!({"api": "gateway", "autoMode": true})),
            "alb.autoMode cannot be combined with alb.api: gateway",
        ),
        (
            with_alb(json!({"api": "gateway", "group": {"name": "a"}})),
            "alb.group cannot be combined with alb.api: gateway",
        ),
    ] {
        let error = render(&values).expect_err(sentence);
        assert!(error.contains(sentence), "{values}\n{error}");
    }
    // The user id is not the email: its scope is not needed.
    let mut values = plugin(json!({"userId": {"claims": ["preferred_username"]}}));
    merge(&mut values, &json!({"alb": {"scope": "openid profile"}}));
    rendered(&values);
}

/// Values that a template rejects, and a part of the sentence that says why.
#[test]
fn rejects_missing_and_contradictory_values_in_a_sentence() {
    let arn = |arn: &str| json!({"pluginConfig": {"loadBalancers": [{"arn": arn, "issuer": ISSUER, "clientId": "c"}]}});
    let issuer = |issuer: &str| json!({"pluginConfig": {"loadBalancers": [{"arn": ARN, "issuer": issuer, "clientId": "c"}]}});
    let endpoint = |url: &str| json!({"pluginConfig": {"publicKeys": {"endpoint": url}}});
    let machine_clients = |change: Value| {
        let mut values = json!({"machineClients": {"enabled": true, "host": "machines.example.com", "clientIds": ["m"]}});
        merge(&mut values["machineClients"], &change);
        values
    };
    let route = |host: &str| json!({"routes": [{"host": host, "service": {"name": "a", "namespace": "a", "port": 80}}]});
    let long_host = format!("https://{}example.com", "a.".repeat(130));
    for (change, sentence) in [
        (
            json!({"image": {"url": ""}}),
            "image.url is empty: set it to the filter's image",
        ),
        (
            json!({"image": {"url": "oci://registry.example.com/alb-oidc-filter:1"}}),
            "Pin the image by its digest",
        ),
        (
            json!({"image": {"url": "oci://REGISTRY/alb-oidc-filter@sha256:DIGEST"}}),
            "image: found the placeholder REGISTRY. Replace it",
        ),
        (
            json!({"image": {"url": "http://files.example.com/plugin.wasm"}}),
            "Expected a URL that begins with oci://",
        ),
        (
            json!({"image": {"url": "https://files.example.com/plugin.wasm"}}),
            "image.sha256 is empty",
        ),
        (
            json!({"gateway": {"name": "edge", "selector": {"istio": "x"}}}),
            "gateway.name cannot be combined with gateway.selector",
        ),
        (
            json!({"gateway": {"name": "edge", "istioGateways": ["a/b"]}}),
            "gateway.istioGateways cannot be combined with gateway.name",
        ),
        (
            json!({"gateway": {"allowPolicy": true}}),
            "gateway.allowPolicy needs gateway.name or gateway.selector",
        ),
        (
            json!({"pluginConfig": {"loadBalancers": []}}),
            "pluginConfig.loadBalancers is empty: add arn, issuer and clientId",
        ),
        (
            arn("arn:aws:elasticloadbalancing:REGION:ACCOUNT:loadbalancer/app/NAME/ID"),
            "pluginConfig: found the placeholder REGION",
        ),
        (
            arn(&ARN.replace("/app/", "/net/")),
            "Expected the ARN of an Application Load Balancer",
        ),
        (
            arn(&format!("{ARN}/listener")),
            "Expected the ARN of an Application Load Balancer",
        ),
        (
            arn(&format!("{ARN}\n")),
            "Expected the ARN of an Application Load Balancer",
        ),
        (
            arn("not an ARN"),
            "pluginConfig.loadBalancers[0].arn: found \"not an ARN\"",
        ),
        (
            arn(&ARN
                .replace("aws:", "aws-cn:")
                .replace("us-west-2", "cn-north-1")),
            "https://public-keys.auth.elb.cn-north-1.amazonaws.com.cn",
        ),
        (
            arn(&ARN.replace("aws:", "aws-iso:")),
            "AWS documents no key server for this partition",
        ),
        (
            issuer("https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE/"),
            "without a slash at the end",
        ),
        (
            issuer("https://cognito-idp.us-west-2.amazonaws.com/POOL"),
            "found the placeholder POOL",
        ),
        (
            json!({"pluginConfig": {"mode": "report"}}),
            "Set acceptAnonymous: true to accept that",
        ),
        (
            endpoint("https://keys.example.com./a"),
            "The host must not end with a dot",
        ),
        (
            endpoint("https://user@keys.example.com"),
            "Expected a URL such as",
        ),
        (
            endpoint("https://keys.example.com/a?b"),
            "Expected a URL such as",
        ),
        (endpoint("ftp://keys.example.com"), "Expected a URL such as"),
        (endpoint("https://10.0.0.5"), "Expected a host name"),
        (
            endpoint("https://keys_a.example.com"),
            "Expected a host in lower case",
        ),
        (
            endpoint("http://keys.example.com"),
            "Use https: without TLS",
        ),
        (endpoint(&long_host), "Expected at most 253"),
        (
            json!({"pluginConfig": {"accessToken": {"issuer": "idp"}}}),
            "pluginConfig.accessToken.issuer: found \"idp\"",
        ),
        (
            json!({"keyServers": {"egressGateway": {"enabled": true}}, "pluginConfig": {"publicKeys": {"cluster": "x"}}}),
            "keyServers.egressGateway cannot be combined with publicKeys.cluster",
        ),
        (
            json!({"keyServers": {"egressGateway": {"enabled": true}}, "pluginConfig": {"publicKeys": {"endpoint": "http://a.b.svc.cluster.local"}}}),
            "a key server in the cluster",
        ),
        (
            json!({"keyServers": {"egressGateway": {"enabled": true}}, "pluginConfig": {
                "publicKeys": {"endpoint": "https://idp.example.com:8443"},
                "accessToken": {"issuer": "https://idp.example.com"}}}),
            "two ports of one key server (found idp.example.com)",
        ),
        (
            route("App.example.com"),
            "routes[0].host: found \"App.example.com\"",
        ),
        (
            route("app.example.com."),
            "routes[0].host: found \"app.example.com.\". The host must not end with a dot",
        ),
        (route("*.*.example.com"), "routes[0].host"),
        (
            json!({"routes": [route("a.example.com")["routes"][0], route("a.example.com")["routes"][0]]}),
            "routes[1].host: found \"a.example.com\" again",
        ),
        (
            machine_clients(json!({"host": ""})),
            "machineClients.host is empty",
        ),
        (
            machine_clients(json!({"host": "machines.example.com."})),
            "machineClients.host: found \"machines.example.com.\". The host must not end with a dot",
        ),
        (
            machine_clients(json!({"host": "*.example.com"})),
            "machineClients.host: found",
        ),
        (
            machine_clients(json!({"clientIds": []})),
            "machineClients.clientIds is empty",
        ),
        (
            machine_clients(json!({"clientIds": ["CLIENT-ID"]})),
            "machineClients: found the placeholder CLIENT-ID",
        ),
        (
            machine_clients(json!({"jwksUri": "http://idp.example.com/keys"})),
            "machineClients.jwksUri",
        ),
        (
            {
                let mut values = machine_clients(json!({}));
                merge(&mut values, &route("machines.example.com"));
                values
            },
            "which is a host of routes",
        ),
        (
            {
                let mut values = machine_clients(json!({}));
                merge(
                    &mut values,
                    &json!({"pluginConfig": {"loadBalancers": [{"arn": ARN, "issuer": null, "clientId": null}]}}),
                );
                values
            },
            "machineClients.issuer is empty, and the first load balancer has none",
        ),
        (
            json!({"networkPolicy": {"enabled": true}}),
            "networkPolicy.albSubnets is empty",
        ),
        (issuer("a\u{85}b"), "found a line separator"),
        (issuer("a\u{2028}b"), "found a line separator"),
    ] {
        let error = render(&with(&[&change])).expect_err(sentence);
        assert!(error.contains(sentence), "{change}\n{error}");
    }
}

/// Values that the schema rejects, and where.
#[test]
fn rejects_values_of_wrong_type_or_out_of_bounds() {
    for (change, place) in [
        (json!({"imag": {}}), "'imag' not allowed"),
        (json!({"extension": "EnvoyFilter"}), "/extension"),
        (json!({"failStrategy": "FAIL_OPEN"}), "/failStrategy"),
        (json!({"name": "a".repeat(41)}), "/name"),
        (json!({"name": "a\nkind: Secret"}), "/name"),
        (
            json!({"gateway": {"namespace": "a b"}}),
            "/gateway/namespace",
        ),
        (json!({"gateway": {"name": "GATEWAY"}}), "/gateway/name"),
        (
            json!({"gateway": {"selector": {"istio": "a b"}}}),
            "/gateway/selector/istio",
        ),
        (
            json!({"gateway": {"selector": {"istio": 1}}}),
            "/gateway/selector/istio",
        ),
        (json!({"acceptAnonymous": "yes"}), "/acceptAnonymous"),
        (
            json!({"pluginConfig": {"loadBalancer": []}}),
            "'loadBalancer' not allowed",
        ),
        (
            json!({"pluginConfig": {"userId": {"headr": "x"}}}),
            "'headr' not allowed",
        ),
        (
            json!({"pluginConfig": {"clockSkewSeconds": 301}}),
            "/pluginConfig/clockSkewSeconds",
        ),
        (
            json!({"pluginConfig": {"clockSkewSeconds": 1.5}}),
            "/pluginConfig/clockSkewSeconds",
        ),
        (
            json!({"pluginConfig": {"userId": {"claims": []}}}),
            "/pluginConfig/userId/claims",
        ),
        (
            json!({"pluginConfig": {"mode": "warn"}}),
            "/pluginConfig/mode",
        ),
        (
            json!({"pluginConfig": {"loadBalancers": [{"arn": ARN, "clientId": null}]}}),
            "missing property 'issuer'",
        ),
        (
            json!({"machineClients": {"clientIds": ["*"]}}),
            "/machineClients/clientIds/0",
        ),
        (
            json!({"machineClients": {"claim": "a] b["}}),
            "/machineClients/claim",
        ),
        (
            json!({"networkPolicy": {"albSubnets": ["10.0.0.0"]}}),
            "/networkPolicy/albSubnets/0",
        ),
        (
            json!({"routes": [{"host": "a.example.com", "service": {"name": "a", "namespace": "b", "port": 0}}]}),
            "/routes/0/service/port",
        ),
    ] {
        let error = render(&with(&[&change])).expect_err(place);
        assert!(error.contains(place), "{change}\n{error}");
    }
}

/// Paths of the default values below `value`.
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        paths(value, &path, found);
        found.push(path);
    }
}

/// Helm removes a value that is null: a template would render nothing in its place.
#[test]
fn rejects_the_removal_of_any_value() {
    let defaults: Value = serde_saphyr::from_str(&read("istio/chart/values.yaml")).expect("YAML");
    let mut found = Vec::new();
    paths(&defaults, "", &mut found);
    // Free-form maps: a removed member is not there.
    found.retain(|path| {
        !path.starts_with("/pluginConfig/") && !path.starts_with("/machineClients/requiredClaims/")
    });
    assert!(found.len() > 40, "{found:?}");
    for path in found {
        let change = path.rsplit('/').fold(Value::Null, |value, name| {
            if name.is_empty() {
                value
            } else {
                json!({name: value})
            }
        });
        let error = render(&with(&[&change])).expect_err(&path);
        assert!(error.contains("missing propert"), "{path}: {error}");
    }
}

/// Strings stay strings, even if YAML gives their characters a meaning.
#[test]
fn quotes_every_string() {
    for hostile in [
        "a\nb: c",
        "a: b # c",
        "\"}\n---\nkind: Secret",
        "yes",
        "1e3",
        "{{ .Values.image.url }}",
        "'\"\\\t*&!%@`",
        " leading and trailing ",
        "é\u{200b}",
        "- a\n\n  - b\n",
    ] {
        let values = with(&[&json!({
            "vmEnv": {"TEXT": hostile},
            "pluginConfig": {
                "loadBalancers": [{"arn": ARN, "issuer": hostile, "clientId": hostile}],
                "rules": [{"allow": {"users": [hostile]}}],
            },
        })]);
        let resources = rendered(&values);
        let plain = rendered(&with(&[]));
        assert_eq!(resources.len(), plain.len(), "{hostile:?}");
        let wasm = wasm(&resources);
        let balancer = &wasm["pluginConfig"]["loadBalancers"][0];
        assert_eq!(balancer["issuer"], hostile);
        assert_eq!(balancer["clientId"], hostile);
        assert_eq!(
            wasm["pluginConfig"]["rules"][0]["allow"]["users"][0],
            hostile
        );
        assert_eq!(wasm["vmConfig"]["env"][0]["value"], hostile);
    }
}

/// The values that a schema cannot check are quoted, too.
#[test]
fn quotes_what_only_the_schema_checks() {
    let hostile = "a\nkind: Secret";
    let values = with(&[&json!({
        "name": hostile, "gateway": {"namespace": hostile, "selector": {hostile: hostile}},
        "machineClients": {"enabled": true, "host": "machines.example.com", "clientIds": [hostile], "claim": hostile,
            "service": {"name": hostile, "namespace": hostile, "port": 80}},
        "networkPolicy": {"enabled": true, "albSubnets": [hostile], "scrapers": [hostile]},
        "clusterDomain": hostile, "failStrategy": hostile, "image": {"pullSecret": hostile},
    })]);
    let file = values_file(&values);
    let path = file.path().to_str().expect("a path");
    let text = helm(&[
        "template",
        "alb-oidc",
        "istio/chart",
        "--skip-schema-validation",
        "--values",
        path,
    ])
    .unwrap_or_else(|error| panic!("{error}"));
    let resources = resources(&text);
    assert_eq!(of_kind(&resources, "Secret").count(), 0);
    assert_eq!(one(&resources, "WasmPlugin")["metadata"]["name"], hostile);
    assert_eq!(wasm(&resources)["failStrategy"], hostile);
}
