//! The command-line tool's servers as running programs, and a simple browser with cookies and
//! redirects.

use crate::client::{Reply, Request, send};
use crate::envoy::{Envoy, Plugin, Setup};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A running `alb-oidc`, killed when dropped.
pub struct Tool {
    process: Child,
    /// The ports it listens on, in its order.
    ports: Vec<u16>,
}

impl Tool {
    /// Starts the tool with these arguments and waits until it has printed its `listeners`.
    pub async fn start(arguments: &[&str], listeners: usize) -> Tool {
        let mut process = Command::new(crate::tool())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("alb-oidc");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let mut ports = Vec::new();
        while ports.len() < listeners {
            let line = lines
                .next_line()
                .await
                .expect("its output")
                .expect("a line for each listener");
            ports.push(
                line.rsplit_once(':')
                    .expect("a port")
                    .1
                    .parse()
                    .expect("a port"),
            );
        }
        // Later output is read too: a full pipe would block the tool.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Tool { process, ports }
    }

    /// The address of its listener with this number.
    pub fn address(&self, listener: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[listener]))
    }

    /// Its peak memory, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = format!(
            "/proc/{}/status",
            self.process.id().expect("a running process")
        );
        let status = std::fs::read_to_string(status).expect("the process's status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .expect("a peak");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number")
    }
}

/// A running `alb-oidc simulate`.
pub struct Simulator(pub Tool);

impl Simulator {
    /// Starts it in front of `gateway` on free ports.
    pub async fn start(gateway: SocketAddr, more: &[&str]) -> Simulator {
        let gateway = format!("http://{gateway}");
        let fixed = [
            "simulate",
            "--listen",
            "127.0.0.1:0",
            "--keys-listen",
            "127.0.0.1:0",
            "--upstream",
            &gateway,
        ];
        Simulator(Tool::start(&[&fixed, more].concat(), 2).await)
    }

    /// Starts it in front of an Envoy with the module, which fetches keys from it and forwards to
    /// `upstream`.
    pub async fn with_gateway(
        binary: &Path,
        config: Value,
        upstream: SocketAddr,
    ) -> (Simulator, Envoy) {
        // Each of the two needs the other's port before it starts.
        let gateway = TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("a free port");
        let simulator = Simulator::start(gateway, &[]).await;
        let plugin = Plugin {
            port: gateway.port(),
            ..Plugin::new("gateway", config)
        };
        let setup = Setup {
            plugins: vec![plugin],
            ..Setup::new(binary, upstream, simulator.0.address(1))
        };
        let envoy = Envoy::must_start(&setup).await;
        (simulator, envoy)
    }

    /// A page of the load balancer's host.
    pub fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.0.ports[0])
    }

    /// A page of the identity provider, the key server and the operator.
    pub fn elsewhere(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.0.ports[1])
    }

    /// Switches on these misbehaviours, and all others off.
    pub async fn misbehave(&self, names: &[&str]) {
        let form: Vec<String> = names.iter().map(|name| format!("on={name}")).collect();
        let reply = Browser::default()
            .post(&self.elsewhere("/misbehave"), &form.join("&"))
            .await;
        assert_eq!(reply.status, 303, "{names:?}: {}", reply.body);
    }
}

/// Keeps cookies of any path and port, and follows redirects on request.
#[derive(Default)]
pub struct Browser {
    pub cookies: BTreeMap<String, String>,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
}

impl Browser {
    /// One that sends these headers.
    pub fn sending(headers: &[(&str, &str)]) -> Browser {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Browser {
            headers,
            ..Browser::default()
        }
    }

    /// One GET, without following redirects.
    pub async fn get(&mut self, url: &str) -> Reply {
        self.request("GET", url, "").await
    }

    /// One POST of a form, without following redirects.
    pub async fn post(&mut self, url: &str, form: &str) -> Reply {
        self.request("POST", url, form).await
    }

    /// A GET, following redirects: the last answer and its URL.
    pub async fn open(&mut self, url: &str) -> (String, Reply) {
        let reply = self.get(url).await;
        self.follow(url, reply).await
    }

    /// The target of this answer's redirect.
    pub async fn follow(&mut self, url: &str, mut reply: Reply) -> (String, Reply) {
        let mut url = url.to_owned();
        for _ in 0..10 {
            let Some(to) = reply.header("location").first().map(|to| (*to).to_owned()) else {
                return (url, reply);
            };
            reply = self.get(&to).await;
            url = to;
        }
        panic!("redirects without end: {url}")
    }

    /// Signs in as a sample user on the way to `url`.
    pub async fn sign_in(&mut self, url: &str, form: &str) -> (String, Reply) {
        let (page, _) = self.open(url).await;
        assert!(page.contains("/idp/authorize"), "no sign-in at {page}");
        let reply = self.post(&page, form).await;
        self.follow(&page, reply).await
    }

    async fn request(&mut self, method: &str, url: &str, body: &str) -> Reply {
        let rest = url
            .strip_prefix("http://")
            .unwrap_or_else(|| panic!("no http URL: {url}"));
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let port: u16 = host
            .strip_prefix("localhost:")
            .unwrap_or_else(|| panic!("away: {url}"))
            .parse()
            .expect("a port");
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut headers = self.headers.clone();
        headers.push(("host".into(), host.into()));
        if !cookies.is_empty() {
            headers.push(("cookie".into(), cookies.join("; ")));
        }
        if method == "POST" {
            headers.push((
                "content-type".into(),
                "application/x-www-form-urlencoded".into(),
            ));
        }
        let request = Request {
            method: method.into(),
            path: path.into(),
            headers,
            body: body.into(),
        };
        let reply = send(SocketAddr::from(([127, 0, 0, 1], port)), &request).await;
        let reply = reply.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
        for cookie in reply.header("set-cookie") {
            let (name, value) = cookie
                .split_once(';')
                .unwrap_or((cookie, ""))
                .0
                .split_once('=')
                .expect("a cookie");
            match value {
                "" => drop(self.cookies.remove(name)),
                _ => drop(self.cookies.insert(name.into(), value.into())),
            }
        }
        reply
    }
}
