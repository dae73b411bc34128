//! The release, by the commands of `.github/workflows/release.yaml`: image, artifact and chart in a
//! registry on this machine, and the module from there in every supported Envoy, as Istio's agent,
//! Envoy Gateway and Envoy itself download it. `make test-release` builds the programs and runs this.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;
use support::envoy::{Envoy, Setup};
use support::parties::{KEY_SERVER, Parties, spoofed};
use support::program::{Running, START_UP, helm, run};
use support::repository;
use support::server::{Server, full};
use support::tls::{Authority, TlsEnd};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

/// The repository on GitHub, in the spelling of the workflow's variable.
const REPOSITORY: &str = "Example/alb-oidc-filter";
/// The registry of releases.
const REGISTRY: &str = "ghcr.io";
/// The registry of the base image.
const BASE_REGISTRY: &str = "index.docker.io";
/// The server of a release's files.
const FILES: &str = "github.com";
/// The application, in `envoy/ecs/envoy.yaml`.
const APPLICATION: (&str, u16) = ("127.0.0.1", 8080);
/// The port of Envoy Gateway's cache of modules.
const CACHE_PORT: u16 = 18002;
const MODULE: &str = "alb_oidc_filter.wasm";

/// A program that `make test-release` builds.
fn program(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    PathBuf::from(path.unwrap_or_else(|| panic!("no {variable}: run `make test-release`")))
}

fn here(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], port))
}

/// A file that `make dist` writes.
fn dist(name: &str) -> PathBuf {
    repository("target/dist").join(name)
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_yaml(path: &str) -> Value {
    let text = String::from_utf8(read(repository(path))).expect("UTF-8");
    serde_saphyr::from_str(&text).expect("YAML")
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    hex.collect()
}

async fn until_it_listens(address: SocketAddr, log: impl Fn() -> String) {
    let deadline = Instant::now() + START_UP;
    while TcpStream::connect(address).await.is_err() {
        let late = Instant::now() > deadline;
        assert!(!late, "nothing listens at {address}\n{}", log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn must_run(command: &mut Command, input: &str) -> String {
    let output = run(command, input).await;
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The registries and the server of files, under their own names, and a folder.
struct World {
    registry: Running,
    authority: Authority,
    folder: TempDir,
    _files: Server,
    _ends: [TlsEnd; 3],
}

impl World {
    async fn start() -> World {
        assert!(
            std::env::var_os("ALB_OIDC_SANDBOX").is_some(),
            "run `make test-release`: this test changes /etc/hosts and /etc/ssl/certs"
        );
        let hosts = format!(
            "127.0.0.1 localhost\n127.0.0.2 {REGISTRY}\n127.0.0.3 {FILES}\n127.0.0.4 {BASE_REGISTRY}\n"
        );
        std::fs::write("/etc/hosts", hosts).expect("/etc/hosts written");
        let authority = Authority::generate();
        let trusted = "/etc/ssl/certs/ca-certificates.crt";
        std::fs::write(trusted, authority.pem()).expect("the authority written");
        let folder = tempfile::Builder::new()
            .prefix("alb-oidc-release-")
            .tempdir()
            .expect("a temporary folder");

        let address = here(1, 5000);
        let mut crane = Command::new(program("ALB_OIDC_CRANE"));
        crane.args(["registry", "serve", "--address", &address.to_string()]);
        let registry = Running::start("crane", folder.path(), &mut crane);
        until_it_listens(address, || registry.log()).await;
        let files = Server::start(|_| async {
            let module = read(dist(MODULE));
            Ok(hyper::Response::new(full(module)))
        })
        .await;
        let ends = [
            TlsEnd::start(&authority, REGISTRY, here(2, 443), address).await,
            TlsEnd::start(&authority, FILES, here(3, 443), files.address).await,
            TlsEnd::start(&authority, BASE_REGISTRY, here(4, 443), address).await,
        ];
        World {
            registry,
            authority,
            folder,
            _files: files,
            _ends: ends,
        }
    }

    /// A new folder for this name.
    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// A step of the release workflow in this folder, as GitHub's runner starts it, after a step
    /// `push` with these outputs.
    fn step(&self, job: &str, name: &str, folder: &Path, outputs: &Outputs) -> Command {
        let workflow = read_yaml(".github/workflows/release.yaml");
        assert_eq!(workflow["defaults"]["run"]["shell"], "bash");
        let steps = workflow["jobs"][job]["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["name"] == name);
        let step = step.unwrap_or_else(|| panic!("{job} has no step {name}"));
        let script = folder.with_extension("sh");
        std::fs::write(&script, step["run"].as_str().expect("commands")).expect("the script");
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail"]);
        command.arg(&script).current_dir(folder);
        for (name, value) in step["env"].as_object().into_iter().flatten() {
            command.env(name, outputs.resolve(value.as_str().expect("text")));
        }
        let stubs = self.folder("stubs");
        let helm = helm();
        let helm = helm.parent().expect("a folder");
        let path = std::env::var("PATH").expect("PATH");
        command
            .env(
                "PATH",
                format!("{}:{}:{path}", stubs.display(), helm.display()),
            )
            .env("HOME", self.folder("home"))
            .env("RUNNER_TEMP", self.folder("runner"))
            .env("GITHUB_OUTPUT", self.folder("runner").join("output"))
            .env("GITHUB_WORKSPACE", repository(""))
            .env("GITHUB_REPOSITORY", REPOSITORY)
            .env("GITHUB_REF_NAME", tag());
        command
    }

    /// Puts a shell script in place of a program, for the steps of the workflow.
    fn stub(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder("stubs").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, executable).expect("an executable file");
    }

    /// The job `publish`'s folder, with the files of the other jobs in `dist`.
    fn downloaded(&self, name: &str) -> PathBuf {
        let folder = self.folder(name);
        let to = folder.join("dist");
        std::fs::create_dir_all(&to).expect("a folder");
        for entry in std::fs::read_dir(dist("")).expect("run `make dist`") {
            let entry = entry.expect("a file");
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
        folder
    }

    /// Runs the workflow's step that pushes.
    async fn push(&self, name: &str) -> Result<Outputs, String> {
        let folder = self.downloaded(name);
        let none = Outputs::default();
        let mut push = self.step("publish", "Push image, artifact and chart", &folder, &none);
        run(&mut push, "").await?;
        let text = read(self.folder("runner").join("output"));
        let text = String::from_utf8(text).expect("UTF-8");
        let pair = |line: &str| {
            line.split_once('=')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
        };
        Ok(Outputs(text.lines().filter_map(pair).collect()))
    }

    async fn must_push(&self) -> Outputs {
        let outputs = self.push("publish").await;
        outputs.unwrap_or_else(|error| panic!("{error}\n{}", self.registry.log()))
    }

    /// The filter's configuration as Istio's agent sends it to Envoy for this URL and checksum, and
    /// the agent's log.
    async fn by_istio(&self, filter: &Value, url: &str, checksum: &str) -> (Value, String) {
        let mut filter = filter.clone();
        filter["config"]["vm_config"]["code"] = remote(url, "_", checksum);
        let extension = json!({"name": "istio-system.alb-oidc", "typed_config": filter});
        let folder = tempfile::tempdir_in(self.folder.path()).expect("a folder");
        let input = folder.path().join("extension.json");
        std::fs::write(&input, extension.to_string()).expect("the input");
        let mut agent = Command::new(program("ALB_OIDC_ISTIO_AGENT"));
        agent.arg(folder.keep());
        agent.stdin(std::fs::File::open(input).expect("the input"));
        let output = agent.output().await.expect("Istio's agent");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        let converted: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (converted["typed_config"].clone(), log)
    }
}

/// The outputs of the step that pushes.
#[derive(Default)]
struct Outputs(BTreeMap<String, String>);

impl Outputs {
    fn get(&self, name: &str) -> &str {
        let value = self.0.get(name);
        value.unwrap_or_else(|| panic!("no output {name}: {:?}", self.0))
    }

    fn image(&self) -> String {
        format!("{}@{}", self.get("image"), self.get("image-digest"))
    }

    fn artifact(&self) -> String {
        format!("{}@{}", self.get("image"), self.get("artifact-digest"))
    }

    fn chart(&self) -> String {
        format!("{}@{}", self.get("chart"), self.get("chart-digest"))
    }

    /// The text with the value of each `${{ steps.push.outputs.NAME }}`.
    fn resolve(&self, text: &str) -> String {
        let mut parts = text.split("${{ steps.push.outputs.");
        let mut resolved = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once(" }}").expect("an expression");
            resolved += self.get(name);
            resolved += rest;
        }
        assert!(!resolved.contains("${{"), "{resolved}");
        resolved
    }
}

/// The release's tag.
fn tag() -> String {
    format!("v{}", env!("CARGO_PKG_VERSION"))
}

/// The URL of the module among the release's files.
fn module_url() -> String {
    format!(
        "https://{FILES}/{REPOSITORY}/releases/download/{}/{MODULE}",
        tag()
    )
}

/// The filter in a configuration like `envoy/ecs/envoy.yaml`.
fn filter(config: &mut Value) -> &mut Value {
    let manager = &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0];
    let filters = manager["typed_config"]["http_filters"].as_array_mut();
    let mut filters = filters.expect("filters").iter_mut();
    let filter = filters.find(|filter| filter["name"] == "alb-oidc");
    &mut filter.expect("the filter")["typed_config"]
}

/// Code that Envoy downloads itself, from this cluster.
fn remote(url: &str, cluster: &str, checksum: &str) -> Value {
    json!({"remote": {
        "http_uri": {"uri": url, "cluster": cluster, "timeout": "10s"}, "sha256": checksum,
    }})
}

/// Runs `envoy/ecs/envoy.yaml` on this Envoy, with this filter or code and these clusters.
async fn gateway(envoy: &Path, way: &Way, authority: &Authority) -> (Envoy, Parties) {
    let parties = Parties::start(KEY_SERVER).await;
    let mut config = read_yaml("envoy/ecs/envoy.yaml");
    parties.point(&mut config, APPLICATION);
    match &way.source {
        Source::Filter(given) => *filter(&mut config) = given.clone(),
        Source::Code(code) => filter(&mut config)["config"]["vm_config"]["code"] = code.clone(),
    }
    let trusted = parties.file("files.pem");
    std::fs::write(&trusted, authority.pem()).expect("the authority");
    let clusters = config["static_resources"]["clusters"].as_array_mut();
    let clusters = clusters.expect("clusters");
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": FILES,
        "common_tls_context": {"validation_context": {
            "trusted_ca": {"filename": trusted},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": FILES}}],
        }},
    });
    let mut files = cluster("files", here(3, 443));
    files["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": tls});
    clusters.push(files);
    clusters.push(cluster("cache", here(1, CACHE_PORT)));
    let (upstream, keys) = (parties.upstream.address(), parties.keys.address());
    let setup = Setup {
        bootstrap: Some(config),
        ..Setup::new(envoy, upstream, keys)
    };
    (Envoy::must_start(&setup).await, parties)
}

fn cluster(name: &str, at: SocketAddr) -> Value {
    let address = json!({"address": at.ip().to_string(), "port_value": at.port()});
    let endpoint = json!({"endpoint": {"address": {"socket_address": address}}});
    json!({
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}

/// A way of the module into Envoy.
struct Way {
    name: String,
    source: Source,
}

enum Source {
    /// The whole filter.
    Filter(Value),
    /// Its code.
    Code(Value),
}

/// Envoy Gateway's cache with the modules of these URLs, and what Envoy gets for each: URL and
/// SHA-256.
async fn cache(
    world: &World,
    urls: &[String],
) -> Result<(tokio::process::Child, Vec<String>), String> {
    use std::process::Stdio;
    use tokio::io::AsyncReadExt as _;
    let folder = tempfile::tempdir_in(world.folder.path()).expect("a folder");
    let mut process = Command::new(program("ALB_OIDC_GATEWAY_CACHE"))
        .arg(folder.keep())
        .args(urls)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("Envoy Gateway's cache");
    let mut output = process.stdout.take().expect("its output");
    let mut text = String::new();
    while text.lines().count() < urls.len() || !text.ends_with('\n') {
        let mut bytes = [0; 4096];
        let count = output.read(&mut bytes).await.expect("its output");
        if count == 0 {
            let mut error = String::new();
            let mut stderr = process.stderr.take().expect("its errors");
            stderr.read_to_string(&mut error).await.expect("its errors");
            return Err(error);
        }
        text += std::str::from_utf8(&bytes[..count]).expect("UTF-8");
    }
    Ok((process, text.lines().map(str::to_owned).collect()))
}

/// Every way, with the cache that must run meanwhile.
async fn ways(world: &World, outputs: &Outputs) -> (Vec<Way>, tokio::process::Child) {
    let module = read(dist(MODULE));
    let checksum = sha256(&module);
    let (image, artifact) = (
        format!("oci://{}", outputs.image()),
        format!("oci://{}", outputs.artifact()),
    );
    let file = json!({"local": {"filename": dist(MODULE)}});
    let mut ways = vec![
        Way {
            name: "a file".to_owned(),
            source: Source::Code(file),
        },
        Way {
            name: "a URL".to_owned(),
            source: Source::Code(remote(&module_url(), "files", &checksum)),
        },
    ];

    let mut config = read_yaml("envoy/ecs/envoy.yaml");
    let mut given = filter(&mut config).clone();
    given["config"]["configuration"]["@type"] =
        json!("type.googleapis.com/google.protobuf.StringValue");
    // The control plane sends `nil` for a URL without a checksum of its own.
    for (form, url, checksum) in [
        ("an image", &image, "nil"),
        ("an artifact", &artifact, "nil"),
        ("a URL", &module_url(), checksum.as_str()),
    ] {
        let (converted, log) = world.by_istio(&given, url, checksum).await;
        let code = &converted["config"]["vm_config"]["code"];
        let path = code["local"]["filename"].as_str();
        let path = path.unwrap_or_else(|| panic!("{form}: {converted}\n{log}"));
        assert!(read(path) == module, "{form} by Istio: other bytes");
        ways.push(Way {
            name: format!("{form} by Istio"),
            source: Source::Filter(converted),
        });
    }

    let urls = [image, artifact, module_url()];
    let served = cache(world, &urls).await;
    let (process, served) = served.unwrap_or_else(|error| panic!("{error}"));
    for (url, line) in urls.iter().zip(served) {
        let (served, served_checksum) = line.split_once(' ').expect("a URL and a checksum");
        assert_eq!(served_checksum, checksum, "{url}");
        ways.push(Way {
            name: format!("{url} by Envoy Gateway"),
            source: Source::Code(remote(served, "cache", served_checksum)),
        });
    }
    (ways, process)
}

#[tokio::test]
async fn every_form_loads_into_every_envoy() {
    let world = World::start().await;
    let outputs = world.must_push().await;
    let (ways, _cache) = ways(&world, &outputs).await;
    assert_eq!(ways.len(), 8);
    for envoy in support::envoys() {
        for way in &ways {
            let (running, parties) = gateway(&envoy, way, &world.authority).await;
            let at = running.listener("gateway").await.expect("the listener");
            let what = format!("[envoy {}] {}", support::version(&envoy), way.name);
            parties.pass_core_rows(at, &["/"], &what).await;
            running.stop().await;
        }
    }
}

#[tokio::test]
async fn other_bytes_are_rejected() {
    let world = World::start().await;
    let outputs = world.must_push().await;
    let wrong = "0".repeat(64);

    let mut config = read_yaml("envoy/ecs/envoy.yaml");
    let given = filter(&mut config).clone();
    let tagged = format!("oci://{}:{}", outputs.get("image"), tag());
    for url in [tagged, module_url()] {
        let (converted, log) = world.by_istio(&given, &url, &wrong).await;
        assert!(log.contains("does not match"), "{url}: {log}");
        let kind = converted["@type"].as_str().expect("a type");
        assert!(kind.ends_with(".RBAC"), "{url}: {converted}");
        assert_eq!(converted["rules"], json!({}), "{url} is not denied");
    }

    let url = format!("oci://{}@sha256:{wrong}", outputs.get("image"));
    let served = cache(&world, &[url]).await;
    let error = served.expect_err("Envoy Gateway serves an unknown digest");
    assert!(error.contains("could not fetch manifest"), "{error}");

    let way = Way {
        name: "a URL with another checksum".to_owned(),
        source: Source::Code(remote(&module_url(), "files", &wrong)),
    };
    let (envoy, parties) = gateway(&support::default_envoy(), &way, &world.authority).await;
    let at = envoy.listener("gateway").await.expect("the listener");
    let request = spoofed("/", Some(&parties.token()));
    let (reply, user) = parties.ask(at, &request).await;
    assert!(reply.status >= 403, "{}", reply.status);
    assert_eq!(user, None);
    let log = envoy.log();
    assert!(
        log.contains("Retry limit exceeded for fetching data"),
        "{log}"
    );
    envoy.stop().await;
}

#[tokio::test]
async fn pushed_digests_are_those_of_the_layout() {
    let world = World::start().await;
    let outputs = world.must_push().await;
    let index: Value =
        serde_json::from_slice(&read(repository("target/image/index.json"))).expect("JSON");
    let manifests = index["manifests"].as_array().expect("manifests");
    let digest = |tag: &str| {
        let named = |one: &&Value| one["annotations"]["org.opencontainers.image.ref.name"] == tag;
        manifests.iter().find(named).expect("the tag")["digest"].clone()
    };
    assert_eq!(digest("latest"), outputs.get("image-digest"));
    assert_eq!(digest("artifact"), outputs.get("artifact-digest"));
    assert_eq!(outputs.get("image"), "ghcr.io/example/alb-oidc-filter");
}

#[tokio::test]
async fn push_fails_if_a_part_fails() {
    for part in ["skopeo", "helm"] {
        let world = World::start().await;
        world.stub(part, "exit 1");
        assert!(world.push("publish").await.is_err(), "{part}");
    }
}

#[tokio::test]
async fn chart_from_the_registry_is_the_one_of_the_repository() {
    let world = World::start().await;
    let outputs = world.must_push().await;
    let values = repository("istio/chart/examples/kubeflow-cognito.yaml");
    let mut rendered = Vec::new();
    let version = env!("CARGO_PKG_VERSION");
    for chart in [
        vec![repository("istio/chart").display().to_string()],
        vec![format!("oci://{}", outputs.chart())],
        vec![
            format!("oci://{}", outputs.get("chart")),
            "--version".to_owned(),
            version.to_owned(),
        ],
    ] {
        let mut helm = Command::new(helm());
        helm.env("HOME", world.folder("home"))
            .args(["template", "alb-oidc"]);
        helm.args(["--namespace", "istio-system", "--values"])
            .arg(&values)
            .args(&chart);
        // Helm prints the digest of a pulled chart first, to its errors.
        rendered.push(must_run(&mut helm, "").await);
    }
    assert!(rendered[0].contains("kind: WasmPlugin"), "{}", rendered[0]);
    assert_eq!(rendered[1], rendered[0]);
    assert_eq!(rendered[2], rendered[0]);
}

#[tokio::test]
async fn release_has_every_file_and_its_checksum() {
    let world = World::start().await;
    let outputs = world.must_push().await;

    let tool = world.folder("tool");
    let built = tool.join("target/release");
    std::fs::create_dir_all(&built).expect("a folder");
    std::fs::copy(support::tool(), built.join("alb-oidc")).expect("the tool");
    let mut archive = world.step("tool", "Archive", &tool, &outputs);
    must_run(archive.env("PLATFORM", "linux-x86_64"), "").await;
    let archive = "alb-oidc-linux-x86_64.tar.gz";
    let mut tar = Command::new("tar");
    tar.arg("-tzf").arg(tool.join("dist").join(archive));
    assert_eq!(must_run(&mut tar, "").await, "alb-oidc\nLICENSE\n");

    // The step before has removed the layout.
    let folder = world.folder("publish");
    std::fs::copy(
        tool.join("dist").join(archive),
        folder.join("dist").join(archive),
    )
    .expect("a copy");
    let log = world.folder("runner").join("gh");
    world.stub("gh", &format!("printf '%s\\n' \"$@\" >'{}'", log.display()));
    let mut release = world.step("publish", "Release", &folder, &outputs);
    must_run(&mut release, "").await;

    let called = String::from_utf8(read(log)).expect("UTF-8");
    let (_, files) = called.split_once("\n--\n").expect("files");
    let version = env!("CARGO_PKG_VERSION");
    let chart = format!("alb-oidc-filter-{version}.tgz");
    let mut expected = [
        MODULE,
        "SHA256SUMS",
        "plugin-config.schema.json",
        "sbom.spdx.json",
        "values.schema.json",
        &chart,
        archive,
    ];
    let mut files: Vec<&str> = files.lines().collect();
    expected.sort_unstable();
    files.sort_unstable();
    assert_eq!(files, expected);
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "SHA256SUMS"]);
    let checked = must_run(check.current_dir(folder.join("dist")), "").await;
    assert_eq!(checked.lines().count(), expected.len() - 1, "{checked}");

    let notes = String::from_utf8(read(world.folder("runner").join("notes.md"))).expect("UTF-8");
    for named in [
        outputs.image(),
        outputs.artifact(),
        outputs.chart(),
        sha256(&read(dist(MODULE))),
    ] {
        assert!(notes.contains(&named), "{notes}");
    }
    let sbom: Value = serde_json::from_slice(&read(dist("sbom.spdx.json"))).expect("JSON");
    let packages = sbom["packages"].as_array().expect("packages");
    for name in ["alb-oidc-filter", "p256", "proxy-wasm"] {
        assert!(
            packages.iter().any(|package| package["name"] == name),
            "{name}"
        );
    }
}

/// A stand-in for the base image: Envoy, its libraries, and the authority of the key server.
async fn push_base(world: &World, reference: &str, parties: &Parties) {
    let root = world.folder("base");
    let add = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        std::fs::copy(from, to).expect("a copy");
    };
    let envoy = support::default_envoy();
    add(&envoy, "usr/local/bin/envoy");
    let libraries = must_run(Command::new("ldd").arg(&envoy), "").await;
    let libraries = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    libraries.for_each(|library| add(Path::new(library), library));
    let authority = parties.file("authority.pem");
    add(Path::new(&authority), "etc/ssl/certs/ca-certificates.crt");
    let layer = world.folder.path().join("base.tar");
    let mut tar = Command::new("tar");
    must_run(tar.arg("-cf").arg(&layer).arg("-C").arg(&root).arg("."), "").await;
    let mut crane = Command::new(program("ALB_OIDC_CRANE"));
    crane.args([
        "append",
        "--oci-empty-base",
        "--new_tag",
        reference,
        "--new_layer",
    ]);
    must_run(crane.arg(layer), "").await;
}

#[tokio::test]
async fn ecs_image_passes_the_core_rows() {
    let world = World::start().await;
    let (host, port) = APPLICATION;
    let application = format!("{host}:{port}").parse().expect("an address");
    let parties = Parties::start_at(KEY_SERVER, application, here(5, 443)).await;
    let dockerfile = String::from_utf8(read(repository("envoy/Dockerfile"))).expect("UTF-8");
    let base = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("FROM ")?.strip_suffix(" AS gateway"));
    let base = base.expect("the base image");
    let version = support::version(&support::default_envoy());
    assert_eq!(base, format!("envoyproxy/envoy:v{version}"));
    push_base(&world, base, &parties).await;

    let mut script = Command::new(repository("envoy/image"));
    script
        .env("CRANE", program("ALB_OIDC_CRANE"))
        .arg(support::module());
    let reference = must_run(
        script.arg(format!("{REGISTRY}/example/alb-oidc-envoy:1")),
        "",
    )
    .await;
    let reference = reference.trim();
    assert!(reference.contains("@sha256:"), "{reference}");

    let crane = || Command::new(program("ALB_OIDC_CRANE"));
    let config = must_run(crane().args(["config", reference]), "").await;
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let arguments = config["config"]["Cmd"].as_array().expect("a command");
    let folder = text(&config["config"]["WorkingDir"]);
    let root = world.folder("root");
    let archive = world.folder.path().join("root.tar");
    must_run(crane().args(["export", reference]).arg(&archive), "").await;
    let mut tar = Command::new("tar");
    must_run(tar.arg("-xf").arg(archive).arg("-C").arg(&root), "").await;
    let inside = |path: &str| root.join(path);
    assert!(read(inside("stack/alb_oidc_filter.wasm")) == read(support::module()));

    // As a container runtime does.
    std::fs::write(
        inside("etc/hosts"),
        format!("127.0.0.1 localhost\n127.0.0.5 {KEY_SERVER}\n"),
    )
    .expect("a file");
    for name in ["dev", "proc"] {
        std::fs::create_dir_all(inside(name)).expect("a folder");
    }
    let start = r#"
        root=$0 folder=$1; shift
        for name in dev proc; do mount --rbind "/$name" "$root/$name"; done
        exec unshare --root="$root" --wd="$folder" "$@"
    "#;
    let mut container = Command::new("unshare");
    container
        .args(["--mount", "sh", "-euc", start])
        .arg(&root)
        .arg(&folder);
    container.args(arguments.iter().map(text));
    container
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    let running = Running::start("container", world.folder.path(), &mut container);
    let gateway = here(1, 10000);
    until_it_listens(gateway, || running.log()).await;
    parties.pass_core_rows(gateway, &["/"], "the image").await;
}

#[tokio::test]
async fn compose_files_are_valid() {
    for file in ["envoy/docker-compose.yaml", "envoy/ecs/docker-compose.yaml"] {
        let path = repository(file);
        let mut compose = Command::new(program("ALB_OIDC_COMPOSE"));
        compose.current_dir(path.parent().expect("a folder"));
        let loaded = must_run(compose.arg(&path), "").await;
        let loaded: Value = serde_saphyr::from_str(&loaded).expect("YAML");
        let services = loaded["services"].as_object().expect("services");
        for (name, service) in services {
            for volume in service["volumes"].as_array().into_iter().flatten() {
                let source = volume["source"].as_str().expect("a source");
                let exists = volume["type"] == "volume" || Path::new(source).exists();
                assert!(exists, "{file}: no {source}");
            }
            let Some(build) = service["build"].as_object() else {
                assert!(service["image"].is_string(), "{file}: {name}");
                continue;
            };
            let context = PathBuf::from(build["context"].as_str().expect("a folder"));
            let dockerfile = context.join(build["dockerfile"].as_str().expect("a file"));
            let dockerfile = String::from_utf8(read(dockerfile)).expect("UTF-8");
            let target = build["target"].as_str().expect("a stage");
            assert!(
                dockerfile.contains(&format!(" AS {target}\n")),
                "{file}: {name}"
            );
        }
    }
}
