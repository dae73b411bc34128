//! Runs `alb-oidc tenancy` as an operator does, and checks the printed resources and the mistakes.
//! `cluster` tests that Istio applies the resources.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const FILTER: &str = r#"
loadBalancers:
- arn: arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188
  issuer: https://issuer.example
  clientId: c
userId:
  header: x-user
  lowercase: true
  prefix: "oidc:"
  transformers: [{matches: '@example\.com$', replaces: ''}]
groups: {prefix: "oidc:", keep: '^team-', memberHeaderPrefix: x-member-of-}
"#;

/// A config that changes no name, with the headers of `istio/chart/examples/kubeflow-cognito.yaml`.
const KUBEFLOW: &str = r#"
loadBalancers:
- arn: arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188
  issuer: https://issuer.example
  clientId: c
groups: {memberHeaderPrefix: x-kubeflow-group-}
"#;

fn run(file: &str, config: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alb-oidc"));
    command
        .args(["tenancy", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let folder = TempDir::new().expect("a folder");
    if let Some(config) = config {
        let path = folder.path().join("filter.yaml");
        std::fs::write(&path, config).expect("a config");
        command.arg("--config").arg(path);
    }
    let mut child = command.spawn().expect("alb-oidc runs");
    child
        .stdin
        .take()
        .expect("its input")
        .write_all(file.as_bytes())
        .expect("the file read");
    child.wait_with_output().expect("its end")
}

#[track_caller]
fn printed(file: &str, config: Option<&str>) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = run(file, config);
    assert!(
        status.success() && stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8(stdout).expect("UTF-8")
}

#[track_caller]
fn resources(file: &str, config: Option<&str>) -> Vec<Value> {
    let parse = |document| serde_saphyr::from_str(document).expect("YAML");
    printed(file, config).split("\n---\n").map(parse).collect()
}

/// The resource of this kind with this `NAMESPACE/NAME`, or `NAME` without a namespace.
#[track_caller]
fn one<'r>(resources: &'r [Value], kind: &str, name: &str) -> &'r Value {
    let full_name = |resource: &Value| {
        let [namespace, name] =
            ["namespace", "name"].map(|field| resource["metadata"][field].as_str());
        [namespace, name]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("/")
    };
    let found: Vec<_> = resources
        .iter()
        .filter(|found| found["kind"] == kind && full_name(found) == name)
        .collect();
    assert_eq!(found.len(), 1, "{kind} {name} in {resources:#?}");
    found[0]
}

/// The reported mistakes, one a line.
#[track_caller]
fn mistakes(file: &str, config: Option<&str>) -> Vec<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = run(file, config);
    assert_eq!(
        (status.code(), stdout.len()),
        (Some(2), 0),
        "{file}: {}",
        String::from_utf8_lossy(&stdout)
    );
    let lines = String::from_utf8(stderr).expect("UTF-8");
    let line = |line: &str| {
        line.strip_prefix("alb-oidc: standard input:")
            .expect("where")
            .to_owned()
    };
    lines.lines().map(line).collect()
}

fn documented() -> String {
    let readme = std::fs::read_to_string(format!("{}/docs/tenancy.md", env!("CARGO_MANIFEST_DIR")))
        .expect("a page");
    let (_, rest) = readme.split_once("<!-- tenancy: ").expect("an example");
    let (_, rest) = rest.split_once("```yaml\n").expect("its YAML");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn reads_the_config_that_the_chart_renders() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/istio/kubeflow-cognito.rendered.yaml"
    );
    let chart = std::fs::read_to_string(path).expect("the rendered example");
    assert_eq!(
        resources(&documented(), Some(&chart)),
        resources(&documented(), Some(KUBEFLOW))
    );
}

#[test]
fn user_gets_a_profile_and_a_namespace() {
    let resources = resources(&documented(), Some(KUBEFLOW));
    let profile = one(&resources, "Profile", "ann");
    assert_eq!(profile["apiVersion"], "kubeflow.org/v1");
    let role = json!({"awsIamRole": "arn:aws:iam::123456789012:role/ann"});
    assert_eq!(
        profile["spec"],
        json!({
            "owner": {"kind": "User", "name": "ann@example.com"},
            "resourceQuotaSpec": {"hard": {"cpu": "8", "memory": "32Gi"}},
            "plugins": [{"kind": "AwsIamForServiceAccount", "spec": role}],
        })
    );
    let namespace = one(&resources, "Namespace", "ann");
    assert_eq!(
        namespace["metadata"]["annotations"],
        json!({
            "owner": "ann@example.com",
            "argocd.argoproj.io/sync-options": "Prune=false",
            "kustomize.toolkit.fluxcd.io/prune": "disabled",
        })
    );
    let profile = one(&resources, "Profile", "bobs");
    assert_eq!(
        profile["spec"],
        json!({"owner": {"kind": "User", "name": "bob@example.com"}})
    );
}

/// The profile controller adds no such label to a namespace that exists. Without it, pods get no
/// sidecar, and no policy is enforced.
#[test]
fn labels_namespaces_for_the_mesh() {
    let labels = |kubeflow: &str| {
        let file = format!("kubeflow: {kubeflow}\nusers: [{{user: ann}}]\ngroups: [{{group: ml}}]");
        let resources = resources(&file, Some(KUBEFLOW));
        let of = |name| one(&resources, "Namespace", name)["metadata"]["labels"].clone();
        assert_eq!(of("ann"), of("ml"));
        of("ann")
    };
    let managed_by = "app.kubernetes.io/managed-by";
    assert_eq!(
        labels("{}"),
        json!({managed_by: "alb-oidc", "istio-injection": "enabled"})
    );
    for (given, expected) in [
        (
            "{istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}",
            json!({"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"}),
        ),
        (
            "{istio.io/rev: 1-31, team: ''}",
            json!({"istio.io/rev": "1-31", "team": ""}),
        ),
    ] {
        let mut expected = expected;
        expected[managed_by] = json!("alb-oidc");
        assert_eq!(labels(&format!("{{namespaceLabels: {given}}}")), expected);
    }
}

#[test]
fn binds_contributors_like_kubeflow() {
    let resources = resources(&documented(), Some(KUBEFLOW));
    let name = "ann/user-bob-example-com-clusterrole-edit";
    let (binding, policy) = (
        one(&resources, "RoleBinding", name),
        one(&resources, "AuthorizationPolicy", name),
    );
    for resource in [binding, policy] {
        assert_eq!(
            resource["metadata"]["annotations"],
            json!({"user": "bob@example.com", "role": "edit"})
        );
    }
    let rbac = "rbac.authorization.k8s.io";
    assert_eq!(
        binding["roleRef"],
        json!({"apiGroup": rbac, "kind": "ClusterRole", "name": "kubeflow-edit"})
    );
    assert_eq!(
        binding["subjects"],
        json!([{"apiGroup": rbac, "kind": "User", "name": "bob@example.com"}])
    );
    let principals = [
        "cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account",
        "cluster.local/ns/kubeflow/sa/ml-pipeline-ui",
    ];
    assert_eq!(
        policy["spec"],
        json!({"rules": [{
            "from": [{"source": {"principals": principals}}],
            "when": [{"key": "request.headers[kubeflow-userid]", "values": ["bob@example.com"]}],
        }]})
    );
}

#[test]
fn group_gets_a_namespace_without_owner() {
    let resources = resources(&documented(), Some(KUBEFLOW));
    assert_eq!(
        one(&resources, "Profile", "ml-ops")["spec"]["owner"]["name"],
        " group ML ops "
    );
    let name = "ml-ops/group-ml-ops-clusterrole-edit";
    let (binding, policy) = (
        one(&resources, "RoleBinding", name),
        one(&resources, "AuthorizationPolicy", name),
    );
    assert_eq!(
        binding["metadata"]["annotations"],
        json!({"group": "ML ops", "role": "edit"})
    );
    let rbac = "rbac.authorization.k8s.io";
    assert_eq!(
        binding["subjects"],
        json!([{"apiGroup": rbac, "kind": "Group", "name": "ML ops"}])
    );
    let condition =
        json!({"key": "request.headers[x-kubeflow-group-%4d%4c%20ops]", "values": ["*"]});
    assert_eq!(policy["spec"]["rules"][0]["when"], json!([condition]));
    assert!(
        policy["spec"]["rules"][0]["from"][0]["source"]["principals"]
            .as_array()
            .is_some_and(|all| all.len() == 2)
    );
    one(
        &resources,
        "RoleBinding",
        "ml-ops/user-ann-example-com-clusterrole-edit",
    );

    let owned = self::resources(
        "groups: [{group: ml, owner: ann@example.com, role: view, namespace: models}]",
        Some(KUBEFLOW),
    );
    assert_eq!(
        one(&owned, "Profile", "models")["spec"]["owner"]["name"],
        "ann@example.com"
    );
    let binding = one(&owned, "RoleBinding", "models/group-ml-clusterrole-view");
    assert_eq!(binding["roleRef"]["name"], "kubeflow-view");
}

#[test]
fn uses_the_names_that_the_filter_sends() {
    let file = "
users: [{user: Ann@Example.com, contributors: [{user: bob@example.org}]}]
groups: [{group: team-a}]
";
    let resources = resources(file, Some(FILTER));
    assert_eq!(
        one(&resources, "Profile", "oidc-ann")["spec"]["owner"]["name"],
        "oidc:ann"
    );
    let policy = one(
        &resources,
        "AuthorizationPolicy",
        "oidc-ann/user-oidc-bob-example-org-clusterrole-edit",
    );
    let condition = json!({"key": "request.headers[x-user]", "values": ["oidc:bob@example.org"]});
    assert_eq!(policy["spec"]["rules"][0]["when"], json!([condition]));
    let name = "team-a/group-oidc-team-a-clusterrole-edit";
    assert_eq!(
        one(&resources, "RoleBinding", name)["subjects"][0]["name"],
        "oidc:team-a"
    );
    let key = &one(&resources, "AuthorizationPolicy", name)["spec"]["rules"][0]["when"][0]["key"];
    assert_eq!(key, "request.headers[x-member-of-oidc%3ateam-a]");

    // Only the header has the prefix that Kubeflow strips.
    let resources = self::resources(
        &format!("kubeflow: {{userIdPrefix: 'oidc:', principals: [d/ns/n/sa/a]}}{file}"),
        Some(FILTER),
    );
    assert_eq!(
        one(&resources, "Profile", "ann")["spec"]["owner"]["name"],
        "ann"
    );
    let name = "ann/user-bob-example-org-clusterrole-edit";
    assert_eq!(
        one(&resources, "RoleBinding", name)["subjects"][0]["name"],
        "bob@example.org"
    );
    let rule = &one(&resources, "AuthorizationPolicy", name)["spec"]["rules"][0];
    assert_eq!(rule["when"][0]["values"], json!(["oidc:bob@example.org"]));
    assert_eq!(
        rule["from"][0]["source"]["principals"],
        json!(["d/ns/n/sa/a"])
    );
}

#[test]
fn output_does_not_depend_on_the_order_of_the_file() {
    let before = "
users: [{user: ann}, {user: bob, contributors: [{user: cid}, {user: dan}]}]
groups: [{group: g}, {group: h}]
";
    let after = "
groups: [{group: h}, {group: g, role: edit}]
users: [{contributors: [{role: edit, user: dan}, {user: cid}], user: bob, namespace: bob}, {user: ann}]
";
    let text = printed(before, Some(KUBEFLOW));
    assert_eq!(text, printed(before, Some(KUBEFLOW)));
    assert_eq!(text, printed(after, Some(KUBEFLOW)));
    assert!(
        text.ends_with('\n') && !text.ends_with("\n\n") && !text.contains('\u{1b}'),
        "{text}"
    );
}

#[test]
fn resources_have_the_label_and_unique_names() {
    let resources = resources(&documented(), Some(KUBEFLOW));
    assert_eq!(resources.len(), 12);
    let mut names: Vec<_> = resources
        .iter()
        .map(|resource| {
            assert_eq!(
                resource["metadata"]["labels"]["app.kubernetes.io/managed-by"],
                "alb-oidc"
            );
            format!(
                "{} {} {}",
                resource["kind"], resource["metadata"]["namespace"], resource["metadata"]["name"]
            )
        })
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 12);
}

#[test]
fn quotes_names_that_yaml_would_misread() {
    for user in [
        "yes",
        "1e3",
        "0x10",
        "null",
        "~a",
        "a: b",
        "#a",
        "- a",
        "'",
        "é\"\\",
        "2026-01-01",
    ] {
        let file = json!({"users": [{"user": user, "namespace": "a"}]}).to_string();
        assert_eq!(
            one(&resources(&file, Some(KUBEFLOW)), "Profile", "a")["spec"]["owner"]["name"],
            user
        );
    }
}

#[test]
fn reports_mistakes_with_line_and_field() {
    for (file, expected) in [
        (
            "users:\n- user: a\n  namespase: b",
            "3: users[0].namespase: unknown field `namespase`, expected one of `user`,",
        ),
        (
            "users:\n- namespace: b",
            "2: users[0]: missing field `user`",
        ),
        (
            "groups:\n- group: 7",
            "2: groups[0].group: invalid type: integer `7`, expected a string",
        ),
        (
            "teams: []",
            "1: teams: unknown field `teams`, expected one of `kubeflow`, `users`, `groups`",
        ),
        (
            "users: [{user: a, contributors: [{user: b, role: owner}]}]",
            "1: users[0].contributors[0].role: unknown variant `owner`, expected one of `admin`, `edit`, `view`",
        ),
        (
            "users: [{user: a, plugins: [{kind: WorkloadIdentity}]}]",
            "1: users[0].plugins[0].kind: unknown variant `WorkloadIdentity`, expected `AwsIamForServiceAccount`",
        ),
        (
            "users: [{user: a, plugins: [{kind: AwsIamForServiceAccount, spec: {role: a}}]}]",
            "1: users[0].plugins[0].spec.role: unknown field `role`, expected `awsIamRole` or `annotateOnly`",
        ),
        (
            "users: [{user: a, plugins: [{kind: AwsIamForServiceAccount, spec: {awsIamRole: ann}}]}]",
            "1: users[0].plugins[0].spec.awsIamRole: found \"ann\", expected the ARN of an IAM role",
        ),
        (
            "users: [{user: a, resourceQuotaSpec: {hard: {requests.cpu: lots}}}]",
            "1: users[0].resourceQuotaSpec.hard.requests.cpu: found \"lots\", expected a quantity such as 4, 500m or 16Gi",
        ),
        (
            "{kubeflow: {principals: []}, users: [{user: a}]}",
            "1: kubeflow.principals: found none, expected at least one",
        ),
        (
            "{kubeflow: {principals: ['*']}, users: [{user: a}]}",
            "1: kubeflow.principals[0]: found \"*\", expected TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT without `*`",
        ),
        (
            "{kubeflow: {principals: [cluster.local/ns/kubeflow/sa/*]}, users: [{user: a}]}",
            "1: kubeflow.principals[0]: found \"cluster.local/ns/kubeflow/sa/*\", expected TRUST_DOMAIN/",
        ),
        (
            "{kubeflow: {namespaceLabels: {}}, users: [{user: a}]}",
            "1: kubeflow.namespaceLabels: found no label that adds a namespace to the mesh, expected istio-injection: enabled,",
        ),
        (
            "{kubeflow: {namespaceLabels: {istio-injection: disabled}}, users: [{user: a}]}",
            "1: kubeflow.namespaceLabels: found no label that adds a namespace to the mesh",
        ),
        (
            "{kubeflow: {namespaceLabels: {istio.io/rev: ''}}, users: [{user: a}]}",
            "1: kubeflow.namespaceLabels: found no label that adds a namespace to the mesh",
        ),
        (
            "{kubeflow: {namespaceLabels: {istio.io/rev: a, 'a b': c}}, users: [{user: a}]}",
            "1: kubeflow.namespaceLabels.a b: found \"a b\", expected the name of a Kubernetes label",
        ),
        (
            "{kubeflow: {namespaceLabels: {istio.io/rev: -a}}, users: [{user: a}]}",
            "1: kubeflow.namespaceLabels.istio.io/rev: found \"-a\", expected the value of a Kubernetes label",
        ),
        (
            "{kubeflow: {namespaceLabels: {istio.io/rev: a, app.kubernetes.io/managed-by: me}}, users: [{user: a}]}",
            "1: kubeflow.namespaceLabels.app.kubernetes.io/managed-by: found a label of alb-oidc's own, expected another",
        ),
        (
            "{kubeflow: {namespaceLabels: {istio-injection: true}}, users: [{user: a}]}",
            "1: kubeflow.namespaceLabels.istio-injection: invalid type: boolean `true`, expected a string",
        ),
        (
            "{kubeflow: {userIdPrefix: 'oidc:'}, users: [{user: 'oidc: group ml', namespace: a}]}",
            "1: users[0].user: found the user id \"oidc: group ml\", expected one with the prefix \"oidc:\"",
        ),
        (
            "groups: [{group: knative-serving}]",
            "1: groups[0].namespace: found \"knative-serving\", expected one that the cluster does not reserve",
        ),
        (
            "users: []",
            "1: found no users and no groups, expected at least one",
        ),
        (
            "users: [{user: ann}, {user: ann, namespace: b}]",
            "1: users[1].user: found \"ann\", the user of users[0], expected another",
        ),
        (
            "users:\n- user: ann@example.com\n- user: ann@example.org",
            "3: users[1].namespace: found \"ann\", the namespace of users[0], expected another",
        ),
        (
            "{users: [{user: ml}], groups: [{group: ml}]}",
            "1: groups[0].namespace: found \"ml\", the namespace of users[0], expected another",
        ),
        (
            "groups: [{group: ml}, {group: ml, namespace: b}]",
            "1: groups[1].group: found \"ml\", the group of groups[0], expected another",
        ),
        (
            "users: [{user: ann, namespace: Ann_1}]",
            "1: users[0].namespace: found \"Ann_1\", expected 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends",
        ),
        (
            "users: [{user: '@example.com'}]",
            "1: users[0].namespace: found \"\", expected 1 to 63 of",
        ),
        (
            "users: [{user: kube-system}]",
            "1: users[0].namespace: found \"kube-system\", expected one that the cluster does not reserve",
        ),
        (
            "users: [{user: ' ann', namespace: a}]",
            "1: users[0].user: found \" ann\", which the filter denies (user-id-invalid), expected a visible user id",
        ),
        (
            "users: [{user: '*@example.com', namespace: a}]",
            "1: users[0].user: found the user id \"*@example.com\", expected one without `*`",
        ),
        (
            "users: [{user: 'system:admin', namespace: a}]",
            "1: users[0].user: found \"system:admin\", which the filter denies (user-id-invalid), expected a visible user id",
        ),
        (
            "{kubeflow: {userIdPrefix: 'oidc:'}, users: [{user: 'oidc:system:admin', namespace: a}]}",
            "1: users[0].user: found \"system:admin\", expected a name that does not start with `system:`",
        ),
        (
            "groups: [{group: 'system:authenticated', namespace: a}]",
            "1: groups[0].group: found \"system:authenticated\", which the filter drops, expected a visible group without outer spaces",
        ),
        (
            "groups: [{group: ' a', namespace: a}]",
            "1: groups[0].group: found \" a\", which the filter drops, expected a visible group without",
        ),
        (
            "groups: [{group: \"a\\r\\nx: y\", namespace: a}]",
            "1: groups[0].group: found \"a\\r\\nx: y\", which the filter drops",
        ),
        (
            "users: [{user: ann, contributors: [{user: ann}]}]",
            "1: users[0].contributors[0].user: found \"ann\", the owner of the namespace, expected another user",
        ),
        (
            "users: [{user: ann, contributors: [{user: bob}, {user: bob, role: view}]}]",
            "1: users[0].contributors[1].user: found \"bob\" again, expected each name once",
        ),
        (
            "users: [{user: ann, contributors: [{user: b.b}, {user: b-b}]}]",
            "1: users[0].contributors[1].user: found \"b-b\", expected a name other than \"b.b\" in Kubeflow: both are user-b-b-clusterrole-edit",
        ),
    ] {
        let lines = mistakes(file, Some(KUBEFLOW));
        assert!(
            lines.len() == 1 && lines[0].starts_with(expected),
            "{file}: {lines:#?}\n  expected {expected}"
        );
    }
    let long = format!(
        "users: [{{user: ann, contributors: [{{user: {}}}]}}]",
        "b".repeat(300)
    );
    assert!(mistakes(&long, Some(KUBEFLOW))[0].ends_with(" has more than 253 bytes"));
}

#[test]
fn rejects_names_that_the_filter_does_not_send() {
    for (file, config, expected) in [
        (
            "users: [{user: '@example.com', namespace: a}]",
            FILTER,
            "1: users[0].user: found \"@example.com\", which the filter denies (user-id-invalid)",
        ),
        (
            "{kubeflow: {userIdPrefix: 'sso:'}, users: [{user: ann}]}",
            FILTER,
            "1: users[0].user: found the user id \"oidc:ann\", expected one with the prefix \"sso:\"",
        ),
        (
            "groups: [{group: others}]",
            FILTER,
            "1: groups[0].group: found \"others\", expected a group that `groups.keep` of the plugin config matches",
        ),
        (
            "groups: [{group: team-a}]",
            &FILTER.replace(", memberHeaderPrefix: x-member-of-", ""),
            "1: groups[0].group: found a group, expected a plugin config with `groups.memberHeaderPrefix`",
        ),
        (
            "groups: [{group: team-a}]",
            FILTER.split_once("groups:").expect("groups").0,
            "1: groups[0].group: found a group, expected a plugin config with `groups`",
        ),
    ] {
        let lines = mistakes(file, Some(config));
        assert!(
            lines.len() == 1 && lines[0].starts_with(expected),
            "{file}: {lines:#?}"
        );
    }
}

#[test]
fn groups_require_the_config_of_the_gateway() {
    let expected = "1: groups[0].group: found a group, expected a plugin config with `groups`, given with --config";
    assert_eq!(mistakes("groups: [{group: ml}]", None), [expected]);
}

#[test]
fn reports_all_mistakes() {
    assert_eq!(
        mistakes(
            "users:\n- {user: ' a'}\n- {user: b, namespace: '-'}\ngroups:\n- {group: 'a '}",
            Some(KUBEFLOW)
        )
        .len(),
        3
    );
}

#[test]
fn reports_a_file_that_is_no_tenancy() {
    for (file, expected) in [
        ("", "found nothing, expected users and groups"),
        ("a\n---\nb", "found 2 documents, expected one"),
    ] {
        let Output { status, stderr, .. } = run(file, Some(KUBEFLOW));
        let stderr = String::from_utf8(stderr).expect("UTF-8");
        assert_eq!(status.code(), Some(2));
        assert!(
            stderr.starts_with(&format!("alb-oidc: standard input: {expected}")),
            "{stderr}"
        );
    }
}
