//! Follows `docs/install.md`, `docs/kubeflow.md` and `docs/operations.md`: runs the commands of
//! their sections, as the pages have them, in a cluster with the policies of Kubeflow's
//! oauth2-proxy.

use crate::istio::{Kind, NAMESPACE};
use crate::program::{START_UP, built, helm, run};
use crate::world::{BROWSERS, World};
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};
use support::page::anchor;
use support::token::{ARN, ISSUER};
use tokio::process::Command;

/// Programs that need what this cluster lacks: a kubelet, and AWS.
const STAND_INS: [(&str, &str); 3] = [
    (
        "istioctl",
        r#"curl -s -o config_dump.json http://127.0.0.1:15000/config_dump
for argument; do
    shift
    case $argument in
    deploy/istio-ingressgateway) set -- "$@" --file config_dump.json ;;
    *) set -- "$@" "$argument" ;;
    esac
done
exec ISTIOCTL "$@""#,
    ),
    (
        "kubectl",
        r#"case "$*" in
*" port-forward "*) exit ;;
*" exec deploy/istio-ingressgateway -- "*) shift 5; exec "$@" ;;
esac
exec KUBECTL "$@""#,
    ),
    ("aws", r"printf 'alb-oidc.elb.amazonaws.com\tARN\n'"),
];

/// Where the commands run.
struct Shell<'w> {
    world: &'w World,
    path: String,
}

impl Shell<'_> {
    /// A folder with the repository's `istio`, and the programs that the pages name.
    fn new(world: &World) -> Shell<'_> {
        let folder = world.folder().join("shell");
        let bin = folder.join("bin");
        std::fs::create_dir_all(&bin).expect("a folder");
        let link = |to: &Path, name: &str| symlink(to, folder.join(name)).expect("a link");
        link(&support::repository("istio"), "istio");
        let here = std::env::current_dir().expect("a folder");
        link(&here.join(helm()), "bin/helm");
        link(&built("pilot-agent"), "bin/pilot-agent");
        link(Path::new(env!("CARGO_BIN_EXE_alb-oidc")), "bin/alb-oidc");
        for (name, script) in STAND_INS {
            let script = script
                .replace("ISTIOCTL", &built("istioctl").to_string_lossy())
                .replace("KUBECTL", &built("kubectl").to_string_lossy())
                .replace("ARN", ARN);
            let path = bin.join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(path, executable).expect("an executable");
        }
        let path = std::env::var("PATH").expect("PATH");
        let path = format!("{}:{path}", bin.display());
        Shell { world, path }
    }

    async fn try_run(&self, command: &str) -> Result<String, String> {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", command])
            .current_dir(self.world.folder().join("shell"))
            .env("PATH", &self.path)
            .env("KUBECONFIG", &self.world.kubernetes.kubeconfig);
        run(&mut bash, "").await
    }

    /// Runs a command of a page until it succeeds and prints what the comment after it says.
    async fn run(&self, line: &str) -> String {
        println!("{line}");
        let (command, comment) = line.split_once(" # ").unwrap_or((line, ""));
        let expected = comment.strip_prefix("prints ").unwrap_or_default();
        let deadline = Instant::now() + START_UP;
        loop {
            let output = match self.try_run(command).await {
                Ok(output) if output.contains(expected) => return output,
                Ok(output) => format!("{expected:?} is not in {output:?}"),
                Err(error) => error,
            };
            let logs = || self.world.logs();
            assert!(Instant::now() < deadline, "{line}: {output}\n{}", logs());
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Runs every command of the section `FILE#ANCHOR`.
    async fn follow(&self, section: &str) -> String {
        let mut output = String::new();
        for line in blocks(section, "sh").join("\n").lines() {
            output += &self.run(line).await;
        }
        assert!(!output.is_empty(), "{section}: no output");
        output
    }

    /// Changes `values.yaml`, as a person who follows the page does.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let file = self.world.folder().join("shell/values.yaml");
        let text = std::fs::read_to_string(&file).expect("values.yaml");
        let mut values = serde_saphyr::from_str(&text).expect("YAML");
        change(&mut values);
        std::fs::write(file, values.to_string()).expect("values.yaml written");
    }
}

/// The blocks in this language of the section `FILE#ANCHOR`, up to the next heading.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let (file, wanted) = section.split_once('#').expect("FILE#ANCHOR");
    let page = std::fs::read_to_string(support::repository(file)).expect("the page");
    let (mut is_inside, mut block, mut found) = (false, None, Vec::new());
    for line in page.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(name)) => block = Some((name == language, String::new())),
            (None, None) if line.starts_with('#') => {
                is_inside = anchor(line.trim_start_matches('#').trim()) == wanted;
            }
            (None, None) => {}
            (Some((_, text)), None) => *text += &format!("{line}\n"),
            (Some((is_wanted, text)), Some(_)) => {
                if is_inside && *is_wanted {
                    found.push(std::mem::take(text));
                }
                block = None;
            }
        }
    }
    assert!(!found.is_empty(), "{section}: no {language} block");
    found
}

/// The Service that Istio's own chart makes for a gateway.
fn service_of_istio() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": Kind::Classic.name(), "namespace": NAMESPACE},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"istio": "ingressgateway"},
            "ports": [{"name": "http2", "port": 80, "targetPort": 8080}],
        },
    })
}

/// The policies that Kubeflow's manifests have for oauth2-proxy and Dex at the gateway.
fn policies_of_kubeflow() -> String {
    let security = |kind: &str, name: &str, mut spec: Value| {
        spec["selector"] = Kind::Classic.target()["selector"].clone();
        json!({
            "apiVersion": "security.istio.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        })
        .to_string()
    };
    let of_issuer = |name: &str, issuer: &str| {
        // Envoy rejects a set without keys.
        let keys = format!("{ISSUER}/.well-known/jwks.json");
        let rule = json!({"issuer": issuer, "jwksUri": keys});
        security("RequestAuthentication", name, json!({"jwtRules": [rule]}))
    };
    let jwt = json!([{"source": {"notRequestPrincipals": ["*"]}}]);
    let proxy = json!({"action": "CUSTOM", "provider": {"name": "oauth2-proxy"}, "rules": [{}]});
    [
        of_issuer("dex-jwt", "http://dex.auth.svc.cluster.local:5556/dex"),
        of_issuer("m2m-token-issuer", "https://kubernetes.default.svc"),
        security(
            "AuthorizationPolicy",
            "istio-ingressgateway-require-jwt",
            json!({"action": "DENY", "rules": [{"from": jwt}]}),
        ),
        security(
            "AuthorizationPolicy",
            "istio-ingressgateway-oauth2-proxy",
            proxy,
        ),
    ]
    .join("\n---\n")
}

#[tokio::test]
async fn pages_install_operate_and_remove_the_filter() {
    let world = World::start(&[Kind::Classic]).await;
    world.kubernetes.apply(&policies_of_kubeflow()).await;
    let service = service_of_istio().to_string();
    world.kubernetes.apply(&service).await;
    let shell = Shell::new(&world);

    let first: Vec<String> = blocks("docs/install.md#1-interlock-and-load-balancer", "sh");
    let mut lines = first.iter().flat_map(|block| block.lines());
    let copy = lines.next().expect("a command");
    assert!(copy.starts_with("cp istio/chart/examples/"), "{copy}");
    shell.run(copy).await;
    shell.edit(|values| {
        let config = values["pluginConfig"].as_object_mut();
        config.expect("pluginConfig").remove("loadBalancers");
        values.as_object_mut().expect("values").remove("image");
    });
    for line in lines {
        shell.run(line).await;
    }
    world.until_interlocked().await;
    let arn = shell
        .follow("docs/install.md#2-arn-of-the-load-balancer")
        .await;
    assert!(arn.contains(ARN), "{arn}");

    let filter = "docs/install.md#3-filter";
    let mut added: Value = serde_saphyr::from_str(&blocks(filter, "yaml")[0]).expect("YAML");
    added["image"]["url"] = json!(world.push_image(b"").await);
    shell.edit(|values| {
        values["image"] = added["image"].take();
        values["pluginConfig"]["loadBalancers"] = added["pluginConfig"]["loadBalancers"].take();
    });
    shell.follow(filter).await;

    let to = world.listeners()[0];
    let ann = world.token("ann@example.com");
    let token = [("x-amzn-oidc-data", ann.as_str())];
    let custom = shell.follow("docs/install.md#custom-ext_authz").await;
    let expected = format!("{NAMESPACE}/istio-ingressgateway-oauth2-proxy");
    assert_eq!(custom.trim(), expected);
    let (reply, _) = world.ask(to, BROWSERS, "/", &token).await;
    assert_eq!(reply.status, 403, "Kubeflow's policies: {}", reply.body);
    shell
        .follow("docs/kubeflow.md#remove-the-policies-of-oauth2-proxy-and-dex")
        .await;
    world.until_admitted().await;
    shell.follow("docs/install.md#5-verify").await;
    shell
        .follow("docs/install.md#loadbalancer-service-of-istio")
        .await;
    let arguments = ["service", Kind::Classic.name(), "--namespace", NAMESPACE];
    let service = world.kubernetes.get(&arguments).await;
    assert_eq!(service["spec"]["type"], "ClusterIP");
    shell
        .follow("docs/install.md#without-helm-in-the-cluster")
        .await;

    shell.follow("docs/operations.md#upgrade").await;
    shell.follow("docs/operations.md#rollback").await;
    world.until_admitted().await;
    let removal = blocks("docs/operations.md#removal", "sh").join("\n");
    let (uninstall, open) = removal.split_once('\n').expect("two commands");
    shell.run(uninstall).await;
    world.until_shut().await;
    shell.run(open.trim()).await;
    world.until(to, BROWSERS, &[], (200, "")).await;
}
