//! The rules about paths, against real upstreams: each has a handler that only ann may reach, and
//! thousands of mutated paths are sent through Envoy in each of its normalization modes. Without
//! `UPSTREAM_PATHS`, a short form with Node and Python, where they are installed. `UPSTREAM=words`
//! selects upstreams by name.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::envoy::{Envoy, Plugin, Setup, gateway_config, http_listener, interlock, wasm_filter};
use support::key_server::{Answer, KeyServer};
use support::repository;
use support::token::TokenSpec;
use support::upstream::Upstream;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The paths of the short form.
const FEW_PATHS: usize = 600;
/// One path in this many must reach the protected handler, or the test cannot see a bypass.
const ONE_REACHES_IN: usize = 60;
/// The time for an upstream to start, and for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
const PROTECTED: &str = "protected handler";

/// Envoy's normalization, by the names of Istio's `pathNormalization`.
fn modes() -> [(&'static str, Value); 4] {
    [
        ("NONE", json!({"normalize_path": false})),
        ("BASE", json!({"normalize_path": true})),
        (
            "MERGE_SLASHES",
            json!({"normalize_path": true, "merge_slashes": true}),
        ),
        (
            "DECODE_AND_MERGE_SLASHES",
            json!({
                "normalize_path": true,
                "merge_slashes": true,
                "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
            }),
        ),
    ]
}

fn plugin_config() -> Value {
    let mut config = gateway_config();
    config["rules"] = json!([
        {"match": {"paths": [{"prefix": "/admin"}]}, "allow": {"users": ["ann@example.com"]}},
        {"match": {"paths": [{"prefix": "/public/"}]}, "require": "none"},
    ]);
    config
}

/// Mutated paths, none twice.
fn paths(count: usize) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(18);
    let mut paths = BTreeSet::new();
    let starts = [
        "/admin",
        "/admin/",
        "/admin/panel",
        "/public/../admin/panel",
        "/public/x/../../admin/",
        "/public/..;/admin/panel",
        "/public/%2e%2e/admin/panel",
        "/public/..%2fadmin/panel",
        "/public/..%5cadmin/panel",
        "/public//../../admin/panel",
        "/other/../admin/panel",
        "//admin/panel",
        "//public/admin/panel",
        "http://gateway.test/admin/panel",
    ];
    while paths.len() < count {
        let start = starts[random.usize(..starts.len())];
        let mut path = start.to_owned();
        for _ in 0..random.usize(1..=3) {
            path = mutated(&path, &mut random);
        }
        if path != start {
            paths.insert(path);
        }
    }
    paths.into_iter().collect()
}

/// The path with one change at a random place.
fn mutated(path: &str, random: &mut fastrand::Rng) -> String {
    // In an absolute URL, behind the authority.
    let first = path.find("test/").map_or(0, |place| place + 4);
    let place = random.usize(first..path.len());
    let (before, rest) = path.split_at(place);
    let (byte, after) = (rest.as_bytes()[0], &rest[1..]);
    let slashes: Vec<_> = path[first..].match_indices('/').collect();
    if slashes.is_empty() {
        return path.to_owned();
    }
    let slash = first + slashes[random.usize(..slashes.len())].0;
    let at_slash = |text: &str| format!("{}{text}{}", &path[..slash], &path[slash + 1..]);
    let pick =
        |random: &mut fastrand::Rng, texts: &[&'static str]| texts[random.usize(..texts.len())];
    match random.usize(..12) {
        0 | 1 => format!("{before}%{byte:02x}{after}"),
        2 => format!("{before}%{byte:02X}{after}"),
        3 => format!("{before}%25{byte:02x}{after}"),
        4 | 5 => {
            let other = char::from(byte ^ 0x20);
            let is_letter = byte.is_ascii_alphabetic();
            format!(
                "{before}{}{after}",
                if is_letter { other } else { char::from(byte) }
            )
        }
        6 | 7 => at_slash(pick(
            random,
            &[
                "//",
                "/./",
                "/x/../",
                "///",
                "/%2e/",
                "/x/%2e%2e/",
                "/.//",
                "/;/",
                "/x/..;/",
            ],
        )),
        8 => at_slash(pick(
            random,
            &[
                "\\", "%2f", "%2F", "%5c", ";x=y/", "%252f", "/%2f", "\\/", "%c0%af", "/..\\", ";/",
            ],
        )),
        9 | 10 => {
            let endings = [
                "/",
                "?",
                "?/public/",
                "#",
                ";",
                ";x=y",
                "%00",
                "%20",
                "%09",
                ".",
                "/.",
                "/x/..",
                "%2f",
                ".json",
                "%3f",
                "%23/public/",
                "//",
                "/%2e%2e/admin",
                "%0a",
                "/public/..",
            ];
            format!("{path}{}", pick(random, &endings))
        }
        _ => {
            let beginnings = [
                "/",
                "/.",
                "/public/..",
                "/x/..",
                "//gateway.test",
                "/public/%2e%2e",
                "/%2e",
            ];
            match first {
                0 => format!("{}{path}", pick(random, &beginnings)),
                _ => path.to_owned(),
            }
        }
    }
}

/// An upstream that a test can start.
struct Program {
    name: &'static str,
    /// The program and its arguments; `PORT` and `FOLDER` stand for themselves.
    command: Vec<OsString>,
    environment: Vec<(&'static str, PathBuf)>,
    /// A configuration, whose `PORT`, `FOLDER` and `MODULES` are filled in.
    config: Option<&'static str>,
}

fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

fn source(name: &str) -> PathBuf {
    repository("tests/upstreams").join(name)
}

fn program(name: &'static str, command: &[&dyn AsRef<Path>]) -> Program {
    Program {
        name,
        command: command
            .iter()
            .map(|part| part.as_ref().as_os_str().to_owned())
            .collect(),
        environment: Vec::new(),
        config: None,
    }
}

fn node() -> Program {
    program("Node http", &[&"node", &source("node.js"), &"PORT"])
}

fn python() -> Program {
    program("Python wsgiref", &[&"python3", &source("wsgi.py"), &"PORT"])
}

/// The upstreams of the short form.
fn interpreters() -> Vec<Program> {
    let mut found = Vec::new();
    if is_installed("node") {
        found.push(node());
    }
    if is_installed("python3") {
        found.push(python());
    }
    found
}

/// All upstreams, as `tests/upstreams/install` fetches them.
fn all_upstreams() -> Vec<Program> {
    let folder = repository("target/upstreams");
    assert!(folder.is_dir(), "no upstreams: run `make test-upstreams`");
    let (venv, debian) = (folder.join("venv/bin"), folder.join("debian/usr"));
    let libraries = debian
        .join("lib")
        .join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let jars =
        ["core", "el"].map(|jar| debian.join(format!("share/java/tomcat10-embed-{jar}.jar")));
    let jars = std::env::join_paths(jars).expect("paths without colons");
    let apis = "flask_app:app";
    vec![
        node(),
        python(),
        Program {
            environment: vec![("NODE_PATH", folder.join("node_modules"))],
            ..program("Express", &[&"node", &source("express.js"), &"PORT"])
        },
        Program {
            environment: vec![("PYTHONPATH", source(""))],
            ..program(
                "Flask, gunicorn",
                &[
                    &venv.join("gunicorn"),
                    &"--bind",
                    &"127.0.0.1:PORT",
                    &"--threads=4",
                    &"--no-control-socket",
                    &apis,
                ],
            )
        },
        Program {
            environment: vec![("PYTHONPATH", source(""))],
            ..program(
                "Flask, uvicorn",
                &[
                    &venv.join("uvicorn"),
                    &"--port",
                    &"PORT",
                    &"--log-level=error",
                    &"flask_app:asgi",
                ],
            )
        },
        program("Go net/http", &[&folder.join("go-server"), &"PORT"]),
        Program {
            config: Some("nginx.conf"),
            ..program(
                "nginx",
                &[
                    &debian.join("sbin/nginx"),
                    &"-e",
                    &"stderr",
                    &"-c",
                    &"FOLDER/nginx.conf",
                ],
            )
        },
        Program {
            config: Some("apache.conf"),
            environment: vec![("LD_LIBRARY_PATH", libraries)],
            ..program(
                "Apache",
                &[
                    &debian.join("sbin/apache2"),
                    &"-X",
                    &"-f",
                    &"FOLDER/apache.conf",
                ],
            )
        },
        program(
            "Tomcat",
            &[
                &"java",
                &"-cp",
                &jars,
                &source("Tomcat.java"),
                &"PORT",
                &"FOLDER",
            ],
        ),
    ]
}

/// A running upstream, killed when dropped.
struct Running {
    address: SocketAddr,
    _process: Child,
    _folder: tempfile::TempDir,
}

impl Program {
    async fn start(&self) -> Running {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Apache reads its files as another user.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("its mode");
        for name in ["protected", "public", "other"] {
            std::fs::write(folder.path().join(name), format!("{name} handler")).expect("a file");
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its number");
        drop(free);
        let modules = repository("target/upstreams/debian/usr/lib/apache2/modules");
        let filled = |text: &str| {
            text.replace("PORT", &address.port().to_string())
                .replace("FOLDER", &folder.path().display().to_string())
                .replace("MODULES", &modules.display().to_string())
        };
        if let Some(config) = self.config {
            let text = std::fs::read_to_string(source(config)).expect("the configuration");
            std::fs::write(folder.path().join(config), filled(&text)).expect("a file");
        }
        let command: Vec<_> = self
            .command
            .iter()
            .map(|part| filled(part.to_str().expect("UTF-8")))
            .collect();
        let process = Command::new(&command[0])
            .args(&command[1..])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "{} does not start", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Running {
            address,
            _process: process,
            _folder: folder,
        }
    }
}

/// A client that sends paths byte for byte, and keeps its connection.
struct Client {
    to: SocketAddr,
    token: Option<String>,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// The body of the answer; empty where Envoy or upstream closes the connection without one.
    async fn get(&mut self, path: &str) -> String {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(path)).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {path}"));
        if answer.is_err() {
            self.connection = None;
        }
        answer.unwrap_or_default()
    }

    async fn exchange(&mut self, path: &str) -> std::io::Result<String> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(TcpStream::connect(self.to).await?),
        };
        let token = self
            .token
            .iter()
            .map(|token| format!("x-amzn-oidc-data: {token}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: gateway.test\r\n{}\r\n",
            token.collect::<String>()
        );
        connection.write_all(request.as_bytes()).await?;
        let (mut length, mut chunked, mut closes) = (0, false, false);
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim().to_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().expect("a number"),
                Some(("transfer-encoding", _)) => chunked = true,
                Some(("connection", value)) => closes = value == "close",
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let mut size = String::new();
                connection.read_line(&mut size).await?;
                let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
                let mut chunk = vec![0; size + 2];
                connection.read_exact(&mut chunk).await?;
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else {
            body.resize(length, 0);
            connection.read_exact(&mut body).await?;
        }
        self.connection = (!closes).then_some(connection);
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

/// The outcomes of all paths for one upstream.
#[derive(Default)]
struct Outcome {
    /// Paths by which ann reached the protected handler, in any mode.
    reached: BTreeSet<String>,
    /// Requests of others that reached it.
    bypasses: Vec<String>,
    /// Requests of others that reached the open handler.
    open: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_mutated_path_reaches_a_protected_handler() {
    let asked = std::env::var("UPSTREAM_PATHS").ok();
    let mut programs = if asked.is_some() {
        all_upstreams()
    } else {
        interpreters()
    };
    if let Ok(name) = std::env::var("UPSTREAM") {
        programs.retain(|program| program.name.contains(&name));
    }
    let count = asked.map_or(FEW_PATHS, |asked| asked.parse().expect("a number"));
    let paths = paths(count);
    let (keys, unused) = (KeyServer::start().await, Upstream::start().await);
    let signer = keys.signer(Answer::default());
    let token = |user: &str| {
        let mut spec = TokenSpec::of(user);
        for part in [&mut spec.header, &mut spec.payload] {
            part.insert("exp".to_owned(), json!(4_000_000_000_u64));
        }
        spec.mint(&signer.kid, &signer.key).text
    };
    let (ann, bob) = (token("ann@example.com"), token("bob@example.com"));

    let mut setup = Setup {
        concurrency: 2,
        log_level: "critical",
        ..Setup::new(&support::default_envoy(), unused.address(), keys.address())
    };
    let mut running = Vec::new();
    for program in &programs {
        let upstream = program.start().await;
        setup
            .clusters
            .insert(program.name.to_owned(), Some(upstream.address));
        running.push(upstream);
        for (mode, settings) in modes() {
            let filter = wasm_filter(&Plugin::new("gateway", plugin_config()));
            let route = json!({"route": {"cluster": program.name}});
            let name = format!("{} {mode}", program.name);
            let filters = [filter, interlock(&["admitted", "skipped"])];
            setup
                .listeners
                .push(http_listener(&name, &filters, &route, settings));
        }
    }
    let envoy = Envoy::must_start(&setup).await;
    for program in &programs {
        let mut outcome = Outcome::default();
        let began = Instant::now();
        for (mode, _) in modes() {
            let name = format!("{} {mode}", program.name);
            let to = envoy.listener(&name).await.expect("the listener");
            let client = |token: Option<&String>| Client {
                to,
                token: token.cloned(),
                connection: None,
            };
            let (mut permitted, mut other, mut anonymous) =
                (client(Some(&ann)), client(Some(&bob)), client(None));
            for path in &paths {
                let (permitted, other, anonymous) =
                    tokio::join!(permitted.get(path), other.get(path), anonymous.get(path));
                if permitted == PROTECTED {
                    outcome.reached.insert(path.clone());
                }
                for (who, body) in [("bob", &other), ("anonymous", &anonymous)] {
                    if body == PROTECTED {
                        outcome.bypasses.push(format!("{who} by {path} ({mode})"));
                    }
                }
                outcome.open += usize::from(anonymous == "public handler");
            }
        }
        println!(
            "{}: {} paths in 4 modes, {} of them reach the protected handler, {} anonymous requests reach the open one, {} bypasses, {:.1} s",
            program.name,
            paths.len(),
            outcome.reached.len(),
            outcome.open,
            outcome.bypasses.len(),
            began.elapsed().as_secs_f64(),
        );
        assert_eq!(outcome.bypasses, [""; 0], "{}", program.name);
        assert!(
            outcome.reached.len() >= count / ONE_REACHES_IN,
            "{}: only {:?} reach the protected handler",
            program.name,
            outcome.reached
        );
    }
    envoy.stop().await;
}
