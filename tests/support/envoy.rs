//! A real Envoy with the module: one listener for each plugin configuration, all with one upstream.

use super::client::{Reply, Request, send};
use super::token::{ARN, CLIENT, ISSUER};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The deadline for the start: compiling the module for every listener takes a second or two,
/// longer on a busy machine.
const START_UP: Duration = Duration::from_secs(60);
/// The upgrade types enabled on plugins' listeners.
const UPGRADES: [&str; 3] = ["websocket", "SPDY/3.1", "CONNECT"];
/// Envoy's prefix of the module's counters.
const COUNTERS: &str = "wasmcustom.wasm_filter.alb_oidc.";

/// A plugin configuration with its own listener.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Name of the listener, the plugin and its root context.
    pub name: String,
    /// `pluginConfig` as the module gets it.
    pub config: String,
    /// Environment variables of the VM.
    pub env: BTreeMap<String, String>,
    /// The module to load.
    pub module: PathBuf,
    /// The listener's port; 0: any.
    pub port: u16,
    /// Envoy's reaction once the VM has died.
    pub failure_policy: &'static str,
}

impl Plugin {
    /// The module under test with this configuration and no environment variables.
    pub fn new(name: &str, config: impl ToString) -> Plugin {
        Plugin {
            name: name.into(),
            config: config.to_string(),
            env: BTreeMap::new(),
            module: super::module(),
            port: 0,
            failure_policy: "FAIL_RELOAD",
        }
    }

    /// Whether the configuration has `accessLog.user`.
    pub fn logs_user(&self) -> bool {
        let config: Value = serde_json::from_str(&self.config).unwrap_or_default();
        config["accessLog"]["user"] == true
    }
}

/// The setup of an Envoy.
pub struct Setup {
    /// The Envoy.
    pub binary: PathBuf,
    /// Workers.
    pub concurrency: u32,
    /// The log level of the wasm component. At debug in tests: what the module must never log, it
    /// must not log at debug either.
    pub log_level: &'static str,
    /// Listeners from the start.
    pub plugins: Vec<Plugin>,
    /// Further listeners from [`http_listener`].
    pub listeners: Vec<Value>,
    /// How long a replaced listener may keep its connections.
    pub drain: Duration,
    /// A file with further listeners that Envoy watches; see [`write_listeners`].
    pub watched_listeners: Option<PathBuf>,
    /// Clusters by name. One without an address exists but has no host. `upstream` is required.
    pub clusters: BTreeMap<String, Option<SocketAddr>>,
    /// A complete bootstrap, which replaces all of the above but the binary, the concurrency and
    /// the log level.
    pub bootstrap: Option<Value>,
}

impl Setup {
    /// One worker, no listeners yet, the clusters `upstream` and `keys`.
    pub fn new(binary: &Path, upstream: SocketAddr, keys: SocketAddr) -> Setup {
        Setup {
            binary: binary.into(),
            concurrency: 1,
            log_level: "debug",
            plugins: Vec::new(),
            listeners: Vec::new(),
            drain: Duration::from_secs(600),
            watched_listeners: None,
            clusters: BTreeMap::from([
                ("upstream".to_owned(), Some(upstream)),
                ("keys".to_owned(), Some(keys)),
            ]),
            bootstrap: None,
        }
    }
}

/// A `pluginConfig` that trusts the tokens of [`super::token`] and gets their keys from the cluster
/// `keys`.
pub fn gateway_config() -> Value {
    json!({
        "loadBalancers": [{"arn": ARN, "issuer": ISSUER, "clientId": CLIENT}],
        "publicKeys": {"endpoint": "https://keys.test", "cluster": "keys"},
    })
}

/// An Envoy that failed to start.
#[derive(Debug)]
pub struct NotStarted {
    /// Its exit status; `None` if it ran without becoming ready.
    pub status: Option<ExitStatus>,
    /// Its whole log.
    pub log: String,
}

/// A running Envoy, killed when dropped.
pub struct Envoy {
    process: Child,
    admin: SocketAddr,
    folder: TempDir,
}

impl Envoy {
    /// Starts an Envoy and waits until it is ready.
    pub async fn start(setup: &Setup) -> Result<Envoy, NotStarted> {
        let folder = tempfile::Builder::new()
            .prefix("alb-oidc-envoy-")
            .tempdir()
            .expect("a temporary folder");
        let bootstrap = folder.path().join("bootstrap.json");
        std::fs::write(&bootstrap, bootstrap_config(setup).to_string())
            .expect("the bootstrap file");
        let file =
            |name: &str| std::fs::File::create(folder.path().join(name)).expect("a log file");
        let (log, access_log) = (file("log"), file("access"));
        let process = Command::new(&setup.binary)
            .arg("--config-path")
            .arg(&bootstrap)
            .arg("--admin-address-path")
            .arg(folder.path().join("admin"))
            .args(["--concurrency", &setup.concurrency.to_string()])
            .args(["--drain-time-s", &setup.drain.as_secs().to_string()])
            // The access log is flushed at once, because a test waits for it.
            .args(["--file-flush-interval-msec", "10"])
            .args(["--disable-hot-restart", "--log-level", "warning"])
            .args([
                "--component-log-level",
                &format!("wasm:{}", setup.log_level),
            ])
            .stdin(Stdio::null())
            .stdout(access_log)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", setup.binary.display()));
        let mut envoy = Envoy {
            process,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            folder,
        };
        let deadline = Instant::now() + START_UP;
        loop {
            if let Some(status) = envoy.process.try_wait().expect("the process's state") {
                return Err(NotStarted {
                    status: Some(status),
                    log: envoy.log(),
                });
            }
            if Instant::now() > deadline {
                return Err(NotStarted {
                    status: None,
                    log: envoy.log(),
                });
            }
            if envoy.is_ready().await {
                return Ok(envoy);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts an Envoy that must start.
    pub async fn must_start(setup: &Setup) -> Envoy {
        let failed = |failed: NotStarted| -> Envoy {
            panic!("{} did not start:\n{}", setup.binary.display(), failed.log)
        };
        Envoy::start(setup).await.unwrap_or_else(failed)
    }

    async fn is_ready(&mut self) -> bool {
        let Ok(admin) = std::fs::read_to_string(self.folder.path().join("admin")) else {
            return false;
        };
        let Ok(admin) = admin.trim().parse() else {
            return false;
        };
        self.admin = admin;
        matches!(send(admin, &Request::get("/ready", &[("host", "admin")])).await, Ok(reply) if reply.status == 200)
    }

    /// Its process.
    pub fn process_id(&self) -> u32 {
        self.process.id().expect("a running Envoy")
    }

    /// The address of a plugin's listener; `None` if there is no listener with that name.
    pub async fn listener(&self, plugin: &str) -> Option<SocketAddr> {
        let listeners = self.admin("/listeners?format=json").await.body;
        let listeners: Value = serde_json::from_str(&listeners).expect("JSON from /listeners");
        let found = listeners["listener_statuses"]
            .as_array()?
            .iter()
            .find(|listener| listener["name"] == plugin)?;
        let address = &found["local_address"]["socket_address"];
        format!("{}:{}", address["address"].as_str()?, address["port_value"])
            .parse()
            .ok()
    }

    /// Counters and gauges with names that match `filter` (a regular expression).
    pub async fn stats(&self, filter: &str) -> BTreeMap<String, i64> {
        let text = self.admin(&format!("/stats?filter={filter}")).await.body;
        text.lines()
            .filter_map(|line| line.split_once(": "))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// The module's own, without their common prefix.
    pub async fn counters(&self) -> BTreeMap<String, i64> {
        let stats = self.stats(COUNTERS).await;
        stats
            .into_iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(COUNTERS)?.to_owned(), value)))
            .collect()
    }

    /// Its metrics as Prometheus scrapes them.
    pub async fn prometheus(&self) -> String {
        self.admin("/stats/prometheus").await.body
    }

    async fn admin(&self, path: &str) -> Reply {
        let reply = send(self.admin, &Request::get(path, &[("host", "admin")])).await;
        reply.unwrap_or_else(|error| {
            panic!("Envoy's admin interface: {path}: {error}\n{}", self.log())
        })
    }

    /// The memory that its allocator has handed out, in bytes: the statistic is as old as the last
    /// flush.
    pub async fn heap(&self) -> u64 {
        let memory: Value = serde_json::from_str(&self.admin("/memory").await.body).expect("JSON");
        memory["allocated"]
            .as_str()
            .and_then(|bytes| bytes.parse().ok())
            .expect("a number of bytes")
    }

    /// The whole log of Envoy and the module.
    pub fn log(&self) -> String {
        self.log_since(0).0
    }

    /// The log after the first `start` bytes, and its present length.
    pub fn log_since(&self, start: u64) -> (String, u64) {
        self.file("log", start)
    }

    /// The same for the access log of all listeners, with a JSON object on each line.
    pub fn access_log_since(&self, start: u64) -> (String, u64) {
        self.file("access", start)
    }

    fn file(&self, name: &str, start: u64) -> (String, u64) {
        let mut file = std::fs::File::open(self.folder.path().join(name)).expect("a log file");
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_to_end(&mut bytes))
            .expect("its end");
        (
            String::from_utf8_lossy(&bytes).into_owned(),
            start + u64::try_from(bytes.len()).expect("its length"),
        )
    }

    /// Terminates it and waits for the end.
    pub async fn stop(mut self) {
        self.process.kill().await.expect("the end of Envoy");
    }
}

/// The finished fetches of keys, by the module's counters: answered or timed out.
pub fn fetched(counters: &BTreeMap<String, i64>) -> i64 {
    let outcomes =
        ["ok", "not-found", "invalid", "failed"].map(|outcome| format!("key_fetch.{outcome}"));
    outcomes.iter().filter_map(|name| counters.get(name)).sum()
}

/// Writes the file of `Setup::watched_listeners`. Envoy loads it at once.
pub fn write_listeners(file: &Path, version: u32, plugins: &[Plugin]) {
    let mut listeners: Vec<Value> = plugins.iter().map(listener).collect();
    for listener in &mut listeners {
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    }
    let response = json!({"version_info": version.to_string(), "resources": listeners});
    // Envoy only notices a file that is moved into place.
    let draft = file.with_extension("draft");
    std::fs::write(&draft, response.to_string()).expect("the listener file");
    std::fs::rename(&draft, file).expect("the listener file in place");
}

fn bootstrap_config(setup: &Setup) -> Value {
    if let Some(bootstrap) = &setup.bootstrap {
        return bootstrap.clone();
    }
    let clusters: Vec<Value> = setup
        .clusters
        .iter()
        .map(|(name, address)| cluster(name, *address))
        .collect();
    let mut bootstrap = json!({
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        // As in the bootstrap of Istio's proxies.
        "stats_config": {"stats_tags": [{"tag_name": "wasm_filter", "regex": r"(wasm_filter\.(.+?)\.)"}]},
        "static_resources": {
            "listeners": setup.plugins.iter().map(listener).chain(setup.listeners.iter().cloned()).collect::<Vec<_>>(),
            "clusters": clusters,
        },
    });
    if let Some(file) = &setup.watched_listeners {
        bootstrap["dynamic_resources"] = json!({"lds_config": {"path_config_source": {"path": file}, "resource_api_version": "V3"}});
    }
    bootstrap
}

fn cluster(name: &str, address: Option<SocketAddr>) -> Value {
    let endpoints: Vec<Value> = address
        .iter()
        .map(|at| json!({"endpoint": {"address": {"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}}}}))
        .collect();
    // As Istio's `useClientProtocol`: upstream gets the client's protocol.
    let as_the_client = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
    });
    json!({
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": as_the_client},
    })
}

/// `value` as protobuf's `Any` with this type.
pub fn any(kind: &str, mut value: Value) -> Value {
    value["@type"] = json!(format!("type.googleapis.com/{kind}"));
    value
}

/// The HTTP filter that runs the plugin's module.
pub fn wasm_filter(plugin: &Plugin) -> Value {
    // A different environment needs a different VM.
    let vm_id: String = plugin
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value};"))
        .collect();
    let wasm = json!({
        "config": {
            "name": plugin.name,
            "root_id": plugin.name,
            "failure_policy": plugin.failure_policy,
            "configuration": any("google.protobuf.StringValue", json!({"value": plugin.config})),
            "vm_config": {
                "vm_id": vm_id,
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": plugin.module}},
                "environment_variables": {"key_values": plugin.env},
            },
        },
    });
    json!({"name": "alb-oidc", "typed_config": any("envoy.extensions.filters.http.wasm.v3.Wasm", wasm)})
}

/// The HTTP filter behind the plugin that denies each request without one of these values in the
/// filter state `wasm.alb_oidc`, as the local stack and the chart have it.
pub fn interlock(values: &[&str]) -> Value {
    let passed: Vec<_> = values
        .iter()
        .map(|value| json!({"filter_state": {"key": "wasm.alb_oidc", "string_match": {"exact": value}}}))
        .collect();
    rbac_filter(&passed)
}

/// An RBAC filter that denies each request but those of one of these principals.
pub fn rbac_filter(principals: &[Value]) -> Value {
    let rules = json!({"policies": {"passed-the-filter": {
        "permissions": [{"any": true}],
        "principals": principals,
    }}});
    json!({
        "name": "alb-oidc-interlock",
        "typed_config": any("envoy.extensions.filters.http.rbac.v3.RBAC", json!({"rules": rules})),
    })
}

fn listener(plugin: &Plugin) -> Value {
    let access_log = json!({
        "log_format": {"json_format": {
            "row": "%REQ(X-ROW)%",
            "status": "%RESPONSE_CODE%",
            "details": "%RESPONSE_CODE_DETAILS%",
            "passed": "%FILTER_STATE(wasm.alb_oidc:PLAIN)%",
            "user": "%FILTER_STATE(wasm.alb_oidc_user:PLAIN)%",
            "reason": "%FILTER_STATE(wasm.alb_oidc_reason:PLAIN)%",
        }},
    });
    let more = json!({
        "access_log": [{
            "name": "stdout",
            "typed_config": any("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", access_log),
        }],
        "preserve_external_request_id": true,
        // Larger than on Istio's gateways: the filter does not see requests that Envoy rejects
        // itself.
        "upgrade_configs": UPGRADES.map(|kind| json!({"upgrade_type": kind})),
    });
    let route = json!({"route": {"cluster": "upstream", "timeout": "60s"}});
    let filters = [
        wasm_filter(plugin),
        interlock(&["admitted", "skipped", "reported"]),
    ];
    let mut listener = http_listener(&plugin.name, &filters, &route, more);
    listener["address"]["socket_address"]["port_value"] = plugin.port.into();
    listener
}

/// A listener on a free port with these HTTP filters before the router, and one route with
/// `action`. `more` is merged into the connection manager.
pub fn http_listener(name: &str, filters: &[Value], action: &Value, more: Value) -> Value {
    let mut route = json!({"match": {"prefix": "/"}});
    let mut manager = json!({
        "stat_prefix": name,
        // As on Istio's gateways.
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": filters,
    });
    let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
    route
        .as_object_mut()
        .expect("an object")
        .extend(members(action));
    manager["route_config"] = json!({"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]});
    let router = any("envoy.extensions.filters.http.router.v3.Router", json!({}));
    manager["http_filters"]
        .as_array_mut()
        .expect("filters")
        .push(json!({"name": "router", "typed_config": router}));
    manager
        .as_object_mut()
        .expect("an object")
        .extend(members(&more));
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{
            "name": "http",
            "typed_config": any(
                "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                manager,
            ),
        }]}],
    })
}
