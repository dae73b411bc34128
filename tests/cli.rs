//! Runs `alb-oidc` as an operator does, and checks output and exit status. Unit tests in the code
//! cover the decisions.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
const CONFIG: &str = r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: another
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata:
  name: alb-oidc
  namespace: istio-system
spec:
  selector:
    matchLabels:
      istio: ingressgateway
  phase: AUTHN
  failStrategy: FAIL_RELOAD
  pluginConfig:
    loadBalancers:
    - arn: arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188
      issuer: https://issuer.example
      clientId: "1example23456789"
    userId:
      transformers:
      - {matches: '@example\.com$', replaces: ''}
    groups:
      claims: ["custom:groups"]
    rules:
    - match: {paths: [{exact: /healthz}]}
      require: none
    - match: {hosts: [argocd.example.com]}
      allow: {groups: [admins]}
"#;

/// A working directory with a config, for the commands.
struct Desk(TempDir);

/// The result of a command.
struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk(TempDir::new().expect("a directory"));
        desk.put("wasm-plugin.yaml", CONFIG);
        desk
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), content).expect("a file");
    }

    /// Writes the config, with `from` replaced by `to`, to another file.
    fn put_changed(&self, name: &str, from: &str, to: &str) {
        assert!(CONFIG.contains(from), "{from}");
        self.put(name, CONFIG.replace(from, to));
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.output(Command::new(env!("CARGO_BIN_EXE_alb-oidc")).args(arguments))
    }

    /// Runs a shell command with `alb-oidc` on the path.
    fn shell(&self, line: &str) -> Ran {
        let directory = Path::new(env!("CARGO_BIN_EXE_alb-oidc"))
            .parent()
            .expect("a directory");
        let path = format!(
            "{}:{}",
            directory.display(),
            std::env::var("PATH").expect("a PATH")
        );
        self.output(Command::new("sh").args(["-c", line]).env("PATH", path))
    }

    fn output(&self, command: &mut Command) -> Ran {
        let output = command
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .expect("alb-oidc runs");
        let Output {
            status,
            stdout,
            stderr,
        } = output;
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ran {
            status: status.code().expect("a status"),
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }

    /// Mints a token into `token.txt`, and its public key into `keys`.
    fn mint(&self, more: &[&str]) {
        let arguments = [
            "token",
            "--key",
            "alb-key.pem",
            "--keys",
            "keys",
            "--config",
            "wasm-plugin.yaml",
        ];
        let ran = self.run(&[&arguments[..], more].concat());
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        self.put("token.txt", ran.stdout);
    }

    fn explain(&self, more: &[&str]) -> Ran {
        let arguments = [
            "explain",
            "--file",
            "token.txt",
            "--config",
            "wasm-plugin.yaml",
        ];
        self.run(&[&arguments[..], more].concat())
    }
}

impl Ran {
    #[track_caller]
    fn says(self, status: i32, expected: &[&str]) -> Ran {
        assert_eq!(self.status, status, "{}{}", self.stdout, self.stderr);
        for text in expected {
            assert!(
                self.stdout.contains(text),
                "no {text:?} in:\n{}",
                self.stdout
            );
        }
        self
    }
}

fn vector() -> (String, String) {
    let path = format!(
        "{}/tests/vectors/alb-token-2019-oidc.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let vector: Value =
        serde_json::from_slice(&std::fs::read(path).expect("a vector")).expect("JSON");
    let text = |name: &str| vector[name].as_str().expect("text").to_owned();
    (
        text("token"),
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            text("spki_b64")
        ),
    )
}

#[test]
fn check_describes_a_good_config() {
    let ran = Desk::new().run(&["check", "--partial", "wasm-plugin.yaml"]).says(
        0,
        &[
            "wasm-plugin.yaml: WasmPlugin istio-system/alb-oidc: the config is good",
            &format!("trusts tokens of {ARN}, issuer https://issuer.example, client 1example23456789"),
            "fetches keys from https://public-keys.auth.elb.us-west-2.amazonaws.com/KID through the Envoy cluster outbound|443||public-keys.auth.elb.us-west-2.amazonaws.com",
            r"takes the user id from the claim `email` (verified or not), with `@example\.com$` removed, and sends it in the header kubeflow-userid",
            "takes groups from `custom:groups`, and sends them in the header kubeflow-groups",
            "by rules[0], lets requests at /healthz pass without a token or a user id",
            "by rules[1], lets only groups admins make requests to argocd.example.com",
            "hides the load balancer's tokens and session cookies",
        ],
    );
    assert!(
        !ran.stdout.contains("warning") && !ran.stdout.contains('\u{1b}'),
        "{}",
        ran.stdout
    );
}

#[test]
fn check_reports_the_cost_of_regexes() {
    let desk = Desk::new();
    desk.put_changed("one.yaml", "exact: /healthz", "regex: '^/v[0-9]+/ready$'");
    desk.run(&["check", "--partial", "one.yaml"])
        .says(0, &["applies every rule to paths over 920 bytes"]);
    desk.put_changed("much.yaml", "exact: /healthz", "regex: '^/[a-z]{1,26}$'");
    desk.run(&["check", "--partial", "much.yaml"]).says(
        0,
        &[
            "warning: rules: found regexes of about 3",
            "above 4096 bytes",
        ],
    );
    desk.put_changed("more.yaml", "exact: /healthz", "regex: '^/[a-z]{1,400}$'");
    desk.run(&["check", "--partial", "more.yaml"]).says(
        1,
        &[
            "rules[0].match.paths[0].regex: found",
            "at most 4096 compiled bytes",
        ],
    );
}

#[test]
fn check_describes_settings_that_change_identities() {
    let desk = Desk::new();
    let more = "    userId:\n      provider: Okta\n";
    let groups = "      claims: [\"custom:groups\"]\n      transformers: [{matches: '^aws-', replaces: ''}]\n      \
        separator: ';'\n      members: keys\n      decode: form\n    \
        claimHeaders: [{claim: name, header: x-name, encoding: percent}]\n    reservedHeaders: [x-team]\n    forward: {pathOverrides: true}\n";
    let text = CONFIG
        .replace("    userId:\n", more)
        .replace("      claims: [\"custom:groups\"]\n", groups);
    desk.put("more.yaml", text);
    desk.run(&["check", "--partial", "more.yaml"]).says(
        0,
        &[
            "takes the user id from the claim `email` (verified or not), only for users of the provider Okta,",
            "takes groups from `custom:groups`, with `^aws-` removed, and sends them",
            "reads groups separated by `;`, from the keys of objects, after form decoding",
            "sends the claim `name`, percent-encoded, in the header x-name",
            "also strips the client's x-team",
            "forwards headers that override the path or method to upstream",
        ],
    );
}

#[test]
fn check_describes_access_token_and_sign_out() {
    let desk = Desk::new();
    let more = "  pluginConfig:\n    accessToken: {issuer: 'https://issuer.example/pool'}\n    logout: {path: /logout, redirectTo: 'https://issuer.example/out'}\n";
    desk.put("more.yaml", CONFIG.replace("  pluginConfig:\n", more));
    desk.run(&["check", "--partial", "more.yaml"]).says(
        0,
        &[
            "fetches keys from https://issuer.example/pool/.well-known/jwks.json through the Envoy cluster outbound|443||issuer.example",
            "requires a valid access token of https://issuer.example/pool for the same user, by its claim `sub`",
            "signs users out at /logout, and redirects them to https://issuer.example/out",
            "treats cookies named AWSELBAuthSessionCookie and AWSELBAuthSessionCookie-N as the load balancer's session",
        ],
    );
}

#[test]
fn check_warns_of_an_access_token_subject_that_users_may_write() {
    let with_subject = |subject: &str| {
        let desk = Desk::new();
        let more = format!(
            "  pluginConfig:\n    accessToken: {{issuer: 'https://issuer.example/pool', subject: '{subject}'}}\n"
        );
        desk.put("more.yaml", CONFIG.replace("  pluginConfig:\n", &more));
        desk.run(&["check", "--partial", "more.yaml"])
    };
    for subject in ["custom:id", "email", "preferred_username", "picture"] {
        let warning = format!("warning: accessToken.subject: found {subject}, expected an id");
        with_subject(subject).says(0, &[&warning]);
    }
    let desk = Desk::new();
    let more = "      accessToken: {issuer: 'https://issuer.example/pool', subject: email}\n";
    let own = CONFIG.replace("    userId:\n", &format!("{more}    userId:\n"));
    assert_ne!(own, CONFIG);
    desk.put("own.yaml", own);
    desk.run(&["check", "--partial", "own.yaml"]).says(
        0,
        &[
            "requires an access token of https://issuer.example/pool, whose `email` is the user's `sub`",
            "warning: loadBalancers[0].accessToken.subject: found email",
        ],
    );
    let ran = with_subject("uid").says(0, &["by its claim `uid`"]);
    assert!(!ran.stdout.contains("warning"), "{}", ran.stdout);
    with_subject("access:uid").says(
        1,
        &["accessToken.subject: found \"access:uid\", expected the claim's name without `access:`"],
    );
}

#[test]
fn reports_wrong_arguments_on_one_line() {
    for (arguments, says) in [
        (
            &["explain", "x", "--at", "yesterday"][..],
            "expected a time such as",
        ),
        (&["explain", "--jwks", "j"], "required arguments"),
        (&["token", "--kid", "x"], "expected a UUID"),
        (&["chek"], "unrecognized subcommand"),
    ] {
        let ran = Desk::new().run(arguments).says(2, &[]);
        assert!(
            ran.stderr.contains(says) && ran.stderr.lines().count() == 1,
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn check_reports_mistakes_with_line_and_field() {
    let desk = Desk::new();
    desk.put(
        "bad.yaml",
        CONFIG
            .replace("arn:aws:", "arn:")
            .replace("clientId", "clientID")
            .replace("matches: '@", "matches: '("),
    );
    let ran = desk.run(&["check", "--partial", "bad.yaml"]).says(
        1,
        &[
            "bad.yaml:19: error: loadBalancers[0].arn: found \"arn:elasticloadbalancing:",
            "bad.yaml:19: error: loadBalancers[0].clientId: found nothing, expected a string of 1 to 512 bytes, or null for any [config-invalid]\n",
            "bad.yaml:21: error: loadBalancers[0].clientID: found an unknown field, expected one of: arn, issuer, clientId, userId, groups, accessToken [config-invalid]\n",
            "bad.yaml:24: error: userId.transformers[0].matches: found \"(example",
            "the config has 4 mistakes",
        ],
    );
    assert!(!ran.stdout.contains("The filter"), "{}", ran.stdout);
}

#[test]
fn check_reads_bare_configs_and_istio_resources() {
    let desk = Desk::new();
    desk.put(
        "bare.json",
        format!(
            "{{\"loadBalancers\": [\n{{\"arn\": \"{ARN}\",\n\"issuer\": 7, \"clientId\": \"c\"}}]}}"
        ),
    );
    desk.run(&["check", "--partial", "bare.json"]).says(
        1,
        &["bare.json:3: error: loadBalancers[0].issuer: found 7, expected a string"],
    );

    desk.put("list.yaml", format!("kind: List\napiVersion: v1\nitems:\n- kind: WasmPlugin\n  apiVersion: extensions.istio.io/v1alpha1\n  metadata: {{name: a}}\n  spec:\n    pluginConfig:\n      loadBalancers:\n      - {{arn: '{ARN}', issuer: i}}\n"));
    desk.run(&["check", "--partial", "list.yaml"]).says(
        1,
        &[
            "list.yaml:10: error: loadBalancers[0].clientId: found nothing",
            "WasmPlugin a: ",
        ],
    );

    desk.put("extension.yaml", format!("apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {{name: a}}\nspec:\n  phase: AUTHN\n  targetRefs: []\n  wasm:\n    failStrategy: FAIL_OPEN\n    pluginConfig:\n      loadBalancers:\n      - {{arn: '{ARN}', issuer: i, clientId: c}}\n"));
    desk.run(&["check", "--partial", "extension.yaml"]).says(
        1,
        &[
            "TrafficExtension a: the config is good",
            "extension.yaml:8: error: TrafficExtension a: spec.wasm.failStrategy: found FAIL_OPEN",
        ],
    );
}

#[test]
fn reports_unreadable_input_on_one_line() {
    let desk = Desk::new();
    for (name, content, expected) in [
        (
            "empty",
            &b" \n"[..],
            "empty: found nothing, expected a plugin config or Kubernetes resources",
        ),
        (
            "binary",
            b"a\xff",
            "binary: found a byte that is not UTF-8 at offset 1, expected text",
        ),
        (
            "tabs.yaml",
            b"a:\n\tb: 1\n",
            "tabs.yaml:2: found invalid text, expected YAML or JSON: tabs disallowed",
        ),
        (
            "twice.json",
            b"{\"mode\": \"report\",\n\"mode\": \"enforce\"}",
            "twice.json:2: found invalid text, expected YAML or JSON: duplicate mapping key `mode`",
        ),
        (
            "comma.json",
            b"{\n\"a\": [1,]}",
            "comma.json:2: found invalid text, expected YAML or JSON: trailing comma",
        ),
        ("deep.yaml", &[b'['; 100], "deep.yaml:1: found invalid text"),
        (
            "other.yaml",
            b"apiVersion: v1\nkind: Secret\n",
            "other.yaml: found no plugin config, expected one in YAML or JSON, or a WasmPlugin or",
        ),
        (
            "huge",
            &vec![b'a'; 40_000_000],
            "huge: found more than 33554432 bytes, expected fewer",
        ),
    ] {
        desk.put(name, content);
        let ran = desk.run(&["check", name]).says(2, &[]);
        assert!(
            ran.stderr.starts_with(&format!("alb-oidc: {expected}")),
            "{}",
            ran.stderr
        );
        assert_eq!(
            (ran.stderr.lines().count(), ran.stdout.as_str()),
            (1, ""),
            "{}",
            ran.stderr
        );
    }
    for arguments in [
        &["check", "nowhere.yaml"][..],
        &["check", "."],
        &["explain", "--file", "nowhere"],
        &["explain", "x", "--config", "empty"],
        &[
            "token",
            "--key",
            "wasm-plugin.yaml",
            "--config",
            "wasm-plugin.yaml",
        ],
        &[
            "token",
            "--key",
            "k",
            "--config",
            "wasm-plugin.yaml",
            "--signer",
            "another",
        ],
        &["transform", "--transformers", "[", "x"],
        &[
            "transform",
            "--transformers",
            r#"[{"matches": "(", "replaces": ""}]"#,
            "x",
        ],
    ] {
        let ran = desk.run(arguments).says(2, &[]);
        assert_eq!(
            (ran.stderr.lines().count(), ran.stdout.as_str()),
            (1, ""),
            "{arguments:?}: {}",
            ran.stderr
        );
        assert!(ran.stderr.starts_with("alb-oidc: "), "{}", ran.stderr);
    }
}

#[test]
fn admits_the_real_token_of_2019_on_its_day_only() {
    let desk = Desk::new();
    let (token, pem) = vector();
    desk.put("token.txt", token + "\n");
    desk.put("key.pem", pem);
    desk.put(
        "wasm-plugin.yaml",
        "loadBalancers:\n- arn: arn:aws:elasticloadbalancing:us-east-1:263498402841:loadbalancer/app/ALBOI-LoadB-1ESOKE9EXDFW4/46d1d78395db76af\n  issuer: https://alpha.x509oidc.kinesis-tap.corp.a2z.com/\n  clientId: alboidc\nuserId: {claims: [email, sub]}\n",
    );
    let on_its_day = ["--key", "key.pem", "--at", "2019-06-04T17:05:00Z"];
    desk.explain(&on_its_day).says(
        0,
        &[
            "The token says (verified)",
            "ok   expiry          2019-06-04T17:05:08Z, in 8 s",
            "ok   signature       the key's",
            "ok   user id         `sub` is \"yancej@amazon.com\"",
            "ADMITTED",
            "  kubeflow-userid: yancej@amazon.com",
        ],
    );
    desk.explain(&["--key", "key.pem", "--at", "1559667938"]).says(
        1,
        &[
            "FAIL expiry          found 2019-06-04T17:05:08Z, 30 s ago, expected a time at most 30 s ago",
            "DENIED 401 token-expired",
        ],
    );
    desk.explain(&["--key", "key.pem"]).says(
        1,
        &[
            "days",
            "ago, expected a time at most 30 s ago",
            "-    signature       not reached",
            "DENIED 401 token-expired",
        ],
    );
}

#[test]
fn explain_without_config_hides_the_signature() {
    let desk = Desk::new();
    let (token, _) = vector();
    let ran = desk.run(&["explain", &token]).says(
        0,
        &[
            "(NOT verified: anyone can write this)",
            "\"sub\":\"yancej@amazon.com\"",
            "NOT CHECKED: nothing was verified",
            "- arn: \"arn:aws:elasticloadbalancing:us-east-1:263498402841:",
            "  clientId: \"alboidc\"",
        ],
    );
    let signature = token.rsplit('.').next().expect("a signature");
    assert!(!ran.stdout.contains(signature));
    desk.run(&["explain", &token, "--show-signature"])
        .says(0, &[signature]);
}

#[test]
fn explain_shows_the_headers_of_a_minted_token() {
    let desk = Desk::new();
    desk.mint(&[
        "--claim",
        "email=ann@example.com",
        "--claim",
        "custom:groups=[\"admins\",\"b\"]",
    ]);
    let headers = [
        "  kubeflow-userid: ann\n",
        "  kubeflow-groups: admins,b\n",
        "  and not: x-amzn-oidc-data\n",
    ];
    desk.explain(&["--keys", "keys"])
        .says(0, &headers)
        .says(0, &["note: the rules were not looked at: give --path"]);
    desk.explain(&["--key", "alb-key.pem"]).says(0, &headers);
    let to_argocd = [
        "--keys",
        "keys",
        "--path",
        "/",
        "--host",
        "argocd.example.com",
    ];
    desk.explain(&to_argocd).says(
        0,
        &["ok   rules           rules[1] (line 30) allows the group \"admins\""],
    );

    desk.mint(&["--claim", "email=ann@example.com"]);
    desk.explain(&to_argocd)
        .says(1, &["FAIL rules", "DENIED 403 user-not-allowed"]);
    desk.mint(&[
        "--claim",
        "email=ann@example.com",
        "--claim",
        "custom:groups=Admins",
    ]);
    desk.explain(&to_argocd).says(
        1,
        &[
            r#"FAIL rules           found user "ann", email domain "example.com", groups ["Admins"], expected an entry of the `allow` of rules[1] (line 30); nearest: groups[0] "admins" differs from the group "Admins" in case only"#,
        ],
    );
    desk.explain(&["--keys", "keys", "--path", "/"]).says(
        0,
        &["ok   rules           no rule matches, so any user may pass"],
    );
    desk.explain(&["--path", "/healthz"]).says(
        0,
        &[
            "SKIPPED: rules[0] (line 28) lets the request pass",
            "no identity headers",
        ],
    );
    let connect = ["--path", "/healthz", "--method", "CONNECT"];
    desk.explain(&connect).says(
        1,
        &[
            "DENIED 403 upgrade-not-allowed",
            "-    form            not reached",
        ],
    );
    let json = desk
        .explain(&["--keys", "keys", "--json"])
        .says(0, &[])
        .stdout;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["verdict"], &json["set"][0][1]),
        (&"admitted".into(), &"ann".into())
    );
}

#[test]
fn explain_shows_how_to_fetch_a_missing_key() {
    let desk = Desk::new();
    desk.mint(&["--kid", "31d3e334-9a02-440a-867b-356248ecfb7d"]);
    let url =
        "https://public-keys.auth.elb.us-west-2.amazonaws.com/31d3e334-9a02-440a-867b-356248ecfb7d";
    desk.explain(&[]).says(
        1,
        &[
            "UNDECIDED",
            "curl -fsS --create-dirs -o keys/31d3e334-9a02-440a-867b-356248ecfb7d",
            url,
        ],
    );
}

#[test]
fn explain_finds_why_a_token_fails() {
    let desk = Desk::new();
    let minted = |more: &[&str]| {
        desk.mint(
            &[
                &["--claim", "email=ann@example.com", "--claim", "name=x"],
                more,
            ]
            .concat(),
        );
        desk.explain(&["--keys", "keys"])
    };
    minted(&["--expires-in", "-3600"])
        .says(1, &["1 h 0 min ago, expected a time at most 30 s ago"]);
    minted(&["--issuer", "https://another.example"]).says(
        1,
        &["FAIL issuer          found https://another.example, expected https://issuer.example"],
    );
    minted(&["--client", "another"]).says(
        1,
        &["FAIL client          found another, expected 1example23456789"],
    );
    minted(&["--claim", "email="]).says(
        1,
        &[
            "FAIL user id         found only email, exp, iss, name, expected text in email",
            "listener rule's `scope` is openid alone",
            "a session keeps the scope of its sign-in",
        ],
    );
    minted(&["--unpadded"]).says(0, &["note: the token lacks the `=`", "ADMITTED"]);

    minted(&[]).says(0, &[]);
    let token = std::fs::read_to_string(desk.0.path().join("token.txt")).expect("a token");
    desk.put(
        "token.txt",
        format!(
            "< X-Amzn-Oidc-Data: {}\r\n {}",
            &token[..100],
            &token[100..]
        ),
    );
    desk.explain(&["--keys", "keys"]).says(
        0,
        &[
            "note: took `X-Amzn-Oidc-Data:` away",
            "note: took white space out of the token",
        ],
    );
    assert!(token.contains('='), "a token without padding: {token}");
    desk.put("token.txt", token.replace('=', ""));
    desk.explain(&["--keys", "keys"]).says(
        1,
        &[
            "FAIL signature",
            "with `=` put back at the end of each part the signature holds",
        ],
    );
    desk.put("token.txt", token.replacen("eyJ0", "AAAA", 1));
    desk.explain(&["--keys", "keys"]).says(
        1,
        &["FAIL form            found expected value at line 1 column 1, expected the JOSE header"],
    );
    desk.put("token.txt", "eyJhbGciOiJSUzI1NiJ9.e30.AAAA");
    desk.explain(&[]).says(
        1,
        &[
            "note: an RS algorithm: this is the identity provider's access or ID token",
            "found RS256, expected ES256",
        ],
    );
    std::fs::remove_file(desk.0.path().join("alb-key.pem")).expect("a key");
    desk.put("token.txt", token);
    desk.run(&[
        "token",
        "--key",
        "alb-key.pem",
        "--config",
        "wasm-plugin.yaml",
    ])
    .says(0, &[]);
    desk.explain(&["--key", "alb-key.pem"])
        .says(1, &["DENIED 401 signature-invalid"]);
    desk.explain(&["--keys", "."]).says(
        1,
        &[
            "FAIL key             found no file",
            "DENIED 401 key-not-found",
        ],
    );
}

#[test]
fn explain_reads_files_with_a_byte_order_mark() {
    let desk = Desk::new();
    desk.mint(&["--claim", "email=ann@example.com"]);
    let key = std::fs::read_dir(desk.0.path().join("keys")).expect("a directory");
    let key = key.last().expect("a key").expect("a file").path();
    let files =
        ["token.txt", "wasm-plugin.yaml", "alb-key.pem"].map(|file| desk.0.path().join(file));
    for path in files.iter().chain([&key]) {
        let text = std::fs::read_to_string(path).expect("a file");
        std::fs::write(path, format!("\u{feff}{text}")).expect("a file");
    }
    desk.explain(&["--keys", "keys"]).says(0, &["ADMITTED"]);
    desk.explain(&["--key", "alb-key.pem"])
        .says(0, &["ADMITTED"]);
    let json = r#"{"loadBalancers": [{"arn": "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188", "issuer": null, "clientId": null}]}"#;
    desk.put("config.json", format!("\u{feff}{json}"));
    desk.run(&["check", "config.json"]).says(0, &[]);
}

#[test]
fn explain_names_what_is_not_strict_json() {
    let desk = Desk::new();
    let rest = format!(".e30=.{}==", "A".repeat(86));
    for (header, fault) in [
        // {"alg":"ES256","a":{"b":{"c":1}}}
        (
            "eyJhbGciOiJFUzI1NiIsImEiOnsiYiI6eyJjIjoxfX19",
            "nested too deeply at line 1 column 25 (more than 2 levels)",
        ),
        // {"alg":"ES256","a":1e400}
        (
            "eyJhbGciOiJFUzI1NiIsImEiOjFlNDAwfQ==",
            "number out of range at line 1 column",
        ),
        // {"alg":"ES256","a":"\ud800"}
        (
            "eyJhbGciOiJFUzI1NiIsImEiOiJcdWQ4MDAifQ==",
            "a lone surrogate in an escape at line 1 column 27",
        ),
        // {"alg":"ES256","alg":"ES256"}
        (
            "eyJhbGciOiJFUzI1NiIsImFsZyI6IkVTMjU2In0=",
            "a key stands twice in one object at line 1 column 20",
        ),
    ] {
        desk.put("token.txt", format!("{header}{rest}"));
        desk.explain(&["--keys", "."])
            .says(1, &[&format!("FAIL form            found {fault}")]);
    }
}

#[test]
fn only_the_owner_can_read_a_private_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let desk = Desk::new();
    desk.mint(&[]);
    let mode = std::fs::metadata(desk.0.path().join("alb-key.pem"))
        .expect("a key")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn escapes_terminal_control_characters() {
    let desk = Desk::new();
    desk.mint(&[
        "--claim",
        "email=\u{1b}[31mann\u{202e}",
        "--claim",
        "sub=\u{9b}31m",
    ]);
    let ran = desk
        .explain(&["--keys", "keys"])
        .says(1, &["\\u{1b}[31mann"]);
    assert!(
        !ran.stdout.contains(['\u{1b}', '\u{202e}', '\u{9b}']),
        "{}",
        ran.stdout
    );
}

#[test]
fn transform_shows_results_and_denials() {
    let desk = Desk::new();
    let ids = [
        "transform",
        "--config",
        "wasm-plugin.yaml",
        "ann@example.com",
        "bob@example.org",
    ];
    desk.run(&ids).says(
        0,
        &[
            "ann@example.com -> ann (by transformers[0] `@example\\.com$`)\n",
            "bob@example.org -> bob@example.org (no transformer matches)\n",
        ],
    );
    desk.run(&["transform", "--config", "wasm-plugin.yaml", "@example.com"])
        .says(1, &["@example.com -> denied: user-id-invalid"]);
    desk.shell("printf 'ann@example.com\\nbob\\n' | alb-oidc transform --config wasm-plugin.yaml")
        .says(0, &["ann@example.com -> ann", "bob -> bob"]);
}

/// The commands in the help's examples, with continued lines joined.
fn examples(help: &str) -> Vec<String> {
    let (_, examples) = help
        .split_once("Example")
        .unwrap_or_else(|| panic!("no example in:\n{help}"));
    let lines = examples.replace("\\\n", " ");
    lines
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("alb-oidc "))
        .map(str::to_owned)
        .collect()
}

fn commands(desk: &Desk) -> Vec<String> {
    let help = desk.run(&["--help"]).says(0, &["Usage: alb-oidc"]).stdout;
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let names = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_example_in_the_help_runs() {
    let desk = Desk::new();
    desk.mint(&["--claim", "email=ann@example.com"]);
    for name in [
        "attributes",
        "listeners",
        "load-balancers",
        "rules-443",
        "values.yaml",
    ] {
        let name = if name.contains('.') {
            name.to_owned()
        } else {
            format!("{name}.json")
        };
        let path = format!("{}/tests/aws/{name}", env!("CARGO_MANIFEST_DIR"));
        desk.put(&name, std::fs::read(path).expect("a fixture"));
    }
    desk.put("tenancy.yaml", "users: [{user: ann@example.com}]");
    let applied = std::fs::read_to_string(format!(
        "{}/istio/kubeflow-cognito.rendered.yaml",
        env!("CARGO_MANIFEST_DIR")
    ));
    // The examples have placeholders, which --strict reports.
    let applied = applied
        .expect("the example")
        .replace("_EXAMPLE", "_AbCdEfGhI");
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    desk.put("applied.yaml", applied.replace(digest, &"1b".repeat(32)));
    for command in [
        "check",
        "schema",
        "explain",
        "token",
        "transform",
        "tenancy",
        "completions",
        "man",
    ] {
        let help = desk.run(&[command, "--help"]).says(0, &[]).stdout;
        let examples = examples(&help);
        assert!(!examples.is_empty(), "{command}");
        for example in examples {
            desk.shell(&example).says(0, &[]);
        }
    }
}

/// A build without the cargo feature has the same --help.
#[cfg(not(feature = "doctor"))]
#[test]
fn doctor_says_how_to_get_it() {
    let desk = Desk::new();
    let ran = desk.run(&["doctor", "--strict", "--probe", "http://localhost/"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (2, ""));
    let expected = "alb-oidc: doctor: this build has no cargo feature doctor: run make cli, or take the tool of a release\n";
    assert_eq!(ran.stderr, expected);
}

#[test]
fn completions_name_every_command() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = desk.run(&["completions", shell]).says(0, &[]).stdout;
        for command in commands(&desk) {
            assert!(script.contains(&command), "{shell}: {command}");
        }
    }
    let loaded =
        desk.shell("alb-oidc completions bash >c && bash -c '. ./c && complete -p alb-oidc'");
    loaded.says(0, &["complete ", " alb-oidc\n"]);
    let wrong = desk.run(&["completions", "cmd"]);
    assert_eq!((wrong.status, wrong.stderr.lines().count()), (2, 1));
}

#[test]
fn man_has_a_page_for_every_command() {
    let desk = Desk::new();
    let all = desk.run(&["man"]).says(0, &[".TH alb-oidc 1"]).stdout;
    for command in commands(&desk) {
        let name = format!("alb\\-oidc\\-{}(1)", command.replace('-', "\\-"));
        assert!(all.contains(&name), "{name} in {all}");
        let title = format!(".TH alb-oidc-{command} 1");
        desk.run(&["man", &command]).says(0, &[&title]);
    }
    let wrong = desk.run(&["man", "woman"]);
    assert_eq!(wrong.status, 2);
    assert_eq!(
        wrong.stderr,
        "alb-oidc: found \"woman\", expected a command: alb-oidc --help lists them\n"
    );
}

#[test]
fn page_lists_every_command() {
    let path = format!("{}/docs/troubleshooting.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(path).expect("a page");
    let (_, section) = page.split_once("\n## alb-oidc\n").expect("a section");
    let named = section
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| `alb-oidc "));
    let named: Vec<_> = named
        .filter_map(|line| line.split([' ', '`']).next())
        .map(str::to_owned)
        .collect();
    assert_eq!(named, commands(&Desk::new()));
}

/// Each `alb-oidc` command in `docs/`: the options that it gives are in its `--help`.
#[test]
fn commands_of_the_pages_exist() {
    let desk = Desk::new();
    let folder = format!("{}/docs", env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for page in std::fs::read_dir(folder).expect("docs") {
        let path = page.expect("a page").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        for command in lines.flat_map(|line| line.split("alb-oidc ").skip(1)) {
            let command = command.split(['`', '#', '>', '|']).next().expect("words");
            let mut words = command.split_whitespace();
            let Some(name) = words.next().filter(|name| {
                [
                    "init",
                    "check",
                    "audit",
                    "doctor",
                    "schema",
                    "explain",
                    "token",
                    "transform",
                    "tenancy",
                    "simulate",
                    "echo",
                    "completions",
                    "man",
                ]
                .contains(name)
            }) else {
                continue;
            };
            let help = desk.run(&[name, "--help"]).says(0, &[]).stdout;
            for option in words.filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{}: {name} {option}", path.display());
            }
            count += 1;
        }
    }
    assert!(count >= 6, "{count} commands");
}
