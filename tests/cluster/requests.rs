//! Requests through gateways with the chart's release.

use crate::filter_chains::{filter_chains, is_interlocked};
use crate::istio::{Kind, NAMESPACE, TCP_PORT, TLS_PORT};
use crate::manifests::{example, tenancy};
use crate::world::{BROWSERS, DENIED_BY_POLICY, KEY_SERVER, MACHINE, MACHINES, World};
use serde_json::{Value, json};
use support::access_token::AccessTokenSpec;
use support::token::{ARN, CLIENT, Signature, TokenSpec};

/// A token of `user`, with these groups.
fn member(user: &str, groups: Value) -> TokenSpec {
    let mut spec = TokenSpec::of(user);
    spec.payload.insert("custom:groups".into(), groups);
    spec
}

async fn installed(kind: Kind) -> World {
    let world = World::start(&[kind]).await;
    world.install_and_wait(&world.values(kind).await).await;
    world
}

async fn admits_the_user_of_the_token_and_no_other(kind: Kind) {
    let world = installed(kind).await;
    let (to, host) = (world.listeners()[0], BROWSERS);
    let missing = (401, "token-missing");

    world.denied(to, host, "/", &[], missing).await;
    let forged = [("kubeflow-userid", "ann@example.com")];
    world.denied(to, host, "/", &forged, missing).await;
    let stranger = TokenSpec {
        header: [(
            "signer".to_owned(),
            json!(ARN.replace("123456789012", "210987654321")),
        )]
        .into_iter()
        .collect(),
        ..TokenSpec::default()
    };
    let stranger = world.token_of(&stranger);
    let unknown = (401, "signer-unknown");
    world
        .denied(to, host, "/", &[("x-amzn-oidc-data", &stranger)], unknown)
        .await;
    let fetches = world.keys.fetches();
    assert!(fetches.iter().all(|fetch| fetch.host != KEY_SERVER));

    let ann = world.token("ann@example.com");
    let token = ("x-amzn-oidc-data", ann.as_str());
    let seen = world.admitted(to, host, "/", &[token]).await;
    assert_eq!(seen.header("kubeflow-userid"), ["ann@example.com"]);
    assert!(seen.header("x-amzn-oidc-data").is_empty(), "{seen:?}");
    let fetches = world.keys.fetches();
    let fetches: Vec<_> = fetches
        .iter()
        .filter(|fetch| fetch.host == KEY_SERVER)
        .collect();
    assert_eq!(fetches.len(), 1, "{fetches:?}");
    assert_eq!(world.tls.names(), [KEY_SERVER], "TLS, with this name");

    let forged = TokenSpec {
        signature: Signature::OtherKey,
        ..TokenSpec::default()
    };
    let forged = world.token_of(&forged);
    let invalid = (401, "signature-invalid");
    world
        .denied(to, host, "/", &[("x-amzn-oidc-data", &forged)], invalid)
        .await;
    let spoofed = [
        token,
        ("kubeflow-userid", "bob@example.com"),
        ("x-kubeflow-group-admins", "true"),
    ];
    let seen = world.admitted(to, host, "/", &spoofed).await;
    assert_eq!(seen.header("kubeflow-userid"), ["ann@example.com"]);
    assert!(
        seen.header("x-kubeflow-group-admins").is_empty(),
        "{seen:?}"
    );

    let (reply, seen) = world.ask(to, host, "/oauth2/sign_out", &[]).await;
    assert_eq!(reply.status, 302, "{}", reply.body);
    let location = reply.header("location")[0];
    assert!(location.starts_with("https://kubeflow.auth.us-west-2.amazoncognito.com/logout?"));
    assert!(seen.is_empty(), "{seen:?}");

    // A policy of the gateway sees the user's id, and a client cannot change it.
    let mut policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "not-mallory", "namespace": NAMESPACE},
        "spec": kind.target(),
    });
    policy["spec"]["action"] = json!("DENY");
    policy["spec"]["rules"] = json!([{"when": [{"key": "request.headers[kubeflow-userid]", "values": ["mallory@example.com"]}]}]);
    world.kubernetes.apply(&policy.to_string()).await;
    let mallory = world.token("mallory@example.com");
    let token = ("x-amzn-oidc-data", mallory.as_str());
    let denied = (403, DENIED_BY_POLICY);
    world.until(to, host, &[token], denied).await;
    let unmasked = [token, ("kubeflow-userid", "ann@example.com")];
    world.denied(to, host, "/", &unmasked, denied).await;
}

#[tokio::test]
async fn admits_the_user_of_the_token_at_a_classic_gateway() {
    admits_the_user_of_the_token_and_no_other(Kind::Classic).await;
}

#[tokio::test]
async fn admits_the_user_of_the_token_at_a_gateway_api_gateway() {
    admits_the_user_of_the_token_and_no_other(Kind::GatewayApi).await;
}

/// An access token of the client-credentials grant for this client.
fn of_client(client: &str) -> AccessTokenSpec {
    AccessTokenSpec {
        payload: [
            ("client_id".to_owned(), json!(client)),
            ("sub".to_owned(), json!(client)),
        ]
        .into_iter()
        .collect(),
        ..AccessTokenSpec::default()
    }
}

async fn machine_clients_and_browser_users_share_a_gateway(kind: Kind) {
    let world = installed(kind).await;
    let to = world.listeners()[0];
    let machine = world.bearer(&of_client(MACHINE));
    let bearer = ("authorization", machine.as_str());
    let identified = format!("\"kubeflow-userid\",\n      \"{MACHINE}\"");
    world
        .until(to, MACHINES, &[bearer], (200, &identified))
        .await;
    let ann = world.token("ann@example.com");
    let token = ("x-amzn-oidc-data", ann.as_str());
    let denied = (403, DENIED_BY_POLICY);

    // As `kfp.Client(existing_token=…).list_runs()` of kfp 2.17.3 sends it.
    let runs = "/apis/v2beta1/runs?namespace=ml&page_token=&page_size=10&sort_by=";
    let kfp = [
        bearer,
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("content-type", "application/json"),
        ("user-agent", "OpenAPI-Generator/2.17.3/python"),
    ];
    let seen = world.admitted(to, MACHINES, runs, &kfp).await;
    assert_eq!(seen.header("kubeflow-userid"), [MACHINE]);
    assert!(seen.header("authorization").is_empty(), "{seen:?}");
    let spoofed = [
        bearer,
        ("kubeflow-userid", "ann@example.com"),
        ("kubeflow_userid", "ann@example.com"),
        ("x-machine-client", "ann@example.com"),
        ("x-kubeflow-group-admins", "true"),
    ];
    let seen = world.admitted(to, MACHINES, "/", &spoofed).await;
    assert_eq!(seen.header("kubeflow-userid"), [MACHINE]);
    assert_eq!(seen.header("x-machine-client"), [MACHINE]);
    for name in ["kubeflow_userid", "x-kubeflow-group-admins"] {
        assert!(seen.header(name).is_empty(), "{name}: {seen:?}");
    }

    // No header opens the host of machine clients without their token.
    world.denied(to, MACHINES, "/", &[], denied).await;
    world.denied(to, MACHINES, "/", &spoofed[1..], denied).await;
    world.denied(to, MACHINES, "/", &[token], denied).await;
    let mut id_token = of_client(MACHINE);
    id_token.payload.insert("token_use".into(), json!("id"));
    let expired = AccessTokenSpec {
        exp: -3600,
        ..of_client(MACHINE)
    };
    let forged = AccessTokenSpec {
        signature: support::access_token::Signature::OtherKey,
        ..of_client(MACHINE)
    };
    for (spec, expected) in [
        (&of_client(CLIENT), denied),
        (&id_token, denied),
        (&expired, (401, "Jwt is expired")),
        (&forged, (401, "Jwt verification fails")),
    ] {
        let headers = [("authorization", &*world.bearer(spec))];
        world.denied(to, MACHINES, "/", &headers, expected).await;
    }
    for spelling in ["machines.example.com:8080", "MACHINES.example.com"] {
        world.denied(to, spelling, "/", &spoofed[1..], denied).await;
    }
    let in_query = machine.replace("Bearer ", "/?access_token=");
    world.denied(to, MACHINES, &in_query, &[], denied).await;

    // Envoy before version 1.40 keeps the header on a CORS preflight. The filter removes it.
    for name in ["x-machine-client", "x_machine_client", "x.machine.client"] {
        let forged = (name, MACHINE);
        let (reply, seen) = world.preflight(to, MACHINES, &[forged]).await;
        assert_eq!((reply.status, seen.len()), (403, 0), "{name}: {seen:?}");
        let (reply, seen) = world.preflight(to, BROWSERS, &[token, forged]).await;
        assert_eq!((reply.status, seen.len()), (200, 1), "{name}: {reply:?}");
        assert_eq!(seen[0].header(name), [""; 0], "{name}: {seen:?}");
        assert_eq!(seen[0].header("kubeflow-userid"), ["ann@example.com"]);
    }

    // The chart's other routes have the users of the load balancer.
    let apps = "argocd.example.com";
    let seen = world.admitted(to, apps, "/", &[token]).await;
    assert_eq!(seen.header("kubeflow-userid"), ["ann@example.com"]);
    let missing = (401, "token-missing");
    world.denied(to, apps, "/", &[bearer], missing).await;

    // A browser user stays one, and no bearer token opens the hosts of browser users.
    for more in [("x-machine-client", MACHINE), bearer] {
        let seen = world.admitted(to, BROWSERS, "/", &[token, more]).await;
        assert_eq!(seen.header("kubeflow-userid"), ["ann@example.com"]);
    }
    world.denied(to, BROWSERS, "/", &[bearer], missing).await;

    // Neither the interlock nor a policy resets TCP connections.
    if kind == Kind::Classic {
        let tcp = std::net::SocketAddr::from(([127, 0, 0, 1], TCP_PORT));
        world.admitted(tcp, MACHINES, "/", &[]).await;
    }
}

#[tokio::test]
async fn machine_clients_share_a_classic_gateway() {
    machine_clients_and_browser_users_share_a_gateway(Kind::Classic).await;
}

#[tokio::test]
async fn machine_clients_share_a_gateway_api_gateway() {
    machine_clients_and_browser_users_share_a_gateway(Kind::GatewayApi).await;
}

#[tokio::test]
async fn interlock_is_last_before_the_router_in_each_filter_chain() {
    let world = World::start(&Kind::ALL).await;
    for kind in Kind::ALL {
        let dump = world.gateway(kind).admin("/config_dump").await;
        let chains = filter_chains(&dump);
        assert!(!chains.is_empty() && !chains.iter().any(is_interlocked));
    }
    for kind in Kind::ALL {
        let mut values = world.values(kind).await;
        values["machineClients"]["enabled"] = json!(false);
        let manifests = crate::release::template(&values).await;
        world.kubernetes.apply(&manifests).await;
    }
    world.until_interlocked().await;
    for kind in Kind::ALL {
        let dump = world.gateway(kind).admin("/config_dump").await;
        let chains = filter_chains(&dump);
        for chain in &chains {
            assert!(
                is_interlocked(chain),
                "{}: {:#?}",
                chain.name,
                chain.filters
            );
        }
        let mut ports: Vec<u64> = chains.iter().map(|chain| chain.port).collect();
        ports.sort_unstable();
        let mut expected: Vec<u64> = kind.listeners().iter().copied().map(u64::from).collect();
        if kind == Kind::Classic {
            // One for each server.
            expected.extend([u64::from(TLS_PORT); 2]);
        }
        assert_eq!(ports, expected);
    }

    // A later EnvoyFilter of the operator's does not come between.
    let filter = json!({
        "name": "later",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"},
    });
    let later = json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": "later", "namespace": NAMESPACE},
        "spec": {"configPatches": [{
            "applyTo": "HTTP_FILTER",
            "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": {
                "name": "envoy.filters.network.http_connection_manager",
                "subFilter": {"name": "envoy.filters.http.router"},
            }}}},
            "patch": {"operation": "INSERT_BEFORE", "value": filter},
        }]},
    });
    world.kubernetes.apply(&later.to_string()).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    for kind in Kind::ALL {
        let dump = world.gateway(kind).admin("/config_dump").await;
        for chain in filter_chains(&dump) {
            let names: Vec<&Value> = chain.filters.iter().map(|filter| &filter["name"]).collect();
            assert!(
                names.contains(&&json!("later")),
                "{}: {names:?}",
                chain.name
            );
            assert!(is_interlocked(&chain), "{}: {names:?}", chain.name);
        }
    }
}

#[tokio::test]
async fn report_mode_admits_requests_as_nobody() {
    let world = World::start(&[Kind::Classic]).await;
    let mut values = world.values(Kind::Classic).await;
    values["pluginConfig"]["mode"] = json!("report");
    values["acceptAnonymous"] = json!(true);
    world.install(&values).await;
    world.until_interlocked().await;
    world.until_admitted().await;
    let to = world.listeners()[0];
    let forged = [("kubeflow-userid", "ann@example.com")];
    let seen = world.admitted(to, BROWSERS, "/", &forged).await;
    assert!(seen.header("kubeflow-userid").is_empty(), "{seen:?}");
    let ann = world.token("ann@example.com");
    let genuine = [("x-amzn-oidc-data", ann.as_str())];
    let seen = world.admitted(to, BROWSERS, "/", &genuine).await;
    assert_eq!(seen.header("kubeflow-userid"), ["ann@example.com"]);

    // The interlock of mode enforce does not admit what a filter in mode report lets pass.
    let mut enforcing = world.values(Kind::Classic).await;
    enforcing["machineClients"]["enabled"] = json!(false);
    let interlock = crate::manifests::only(&crate::release::template(&enforcing).await, |object| {
        object["kind"] == "EnvoyFilter"
    });
    world.kubernetes.apply(&interlock).await;
    let denied = (403, DENIED_BY_POLICY);
    world.until(to, BROWSERS, &[], denied).await;
    world.denied(to, BROWSERS, "/", &forged, denied).await;
    world.admitted(to, BROWSERS, "/", &genuine).await;
}

#[tokio::test]
async fn standalone_applications_have_their_rules() {
    let world = World::start(&[Kind::Classic]).await;
    let mut values = example("standalone-apps");
    values["image"]["url"] = json!(world.push_image(b"").await);
    world.install(&values).await;
    let trusted = &values["pluginConfig"]["loadBalancers"][0];
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], 80));
    let of = |groups: &str| {
        let mut spec = member("ann@example.com", json!(groups));
        spec.header.insert("signer".into(), trusted["arn"].clone());
        world.token_of(&spec)
    };
    let (platform, other) = (of("[platform, data]"), of("[data]"));
    let (platform, other) = (
        ("x-amzn-oidc-data", platform.as_str()),
        ("x-amzn-oidc-data", other.as_str()),
    );
    let led_to = (200, "argocd-server.argocd");
    world
        .until(to, "argocd.example.com", &[platform], led_to)
        .await;
    let seen = world
        .admitted(to, "argocd.example.com", "/", &[platform])
        .await;
    assert_eq!(seen.header("kubeflow-groups"), ["platform,data"]);
    // The filter and the route have to agree about the host.
    for spelling in [
        "argocd.example.com",
        "ARGOCD.example.com",
        "argocd.example.com:80",
        "Argocd.example.com:1234",
        "argocd.example.com:",
    ] {
        let seen = world.admitted(to, spelling, "/", &[platform]).await;
        let led_to = seen.header("x-envoy-decorator-operation");
        assert_eq!(
            led_to,
            ["argocd-server.argocd.svc.cluster.local:80/*"],
            "{spelling}"
        );
        let (reply, seen) = world.ask(to, spelling, "/", &[other]).await;
        assert_eq!((reply.status, seen.len()), (403, 0), "{spelling}");
    }
    for host in ["grafana.example.com", "web-view.example.com"] {
        world.admitted(to, host, "/d/1", &[other]).await;
    }
    let forged = [("kubeflow-userid", "ann@example.com")];
    let seen = world
        .admitted(to, "grafana.example.com", "/api/health", &forged)
        .await;
    assert!(seen.header("kubeflow-userid").is_empty(), "{seen:?}");
    let missing = (401, "token-missing");
    for (host, path) in [
        ("grafana.example.com", "/api/health/../users"),
        ("argocd.example.com", "/api/health"),
    ] {
        world.denied(to, host, path, &[], missing).await;
    }
}

/// The gateway stands for the services of the namespace. So the policies lose the principals, which
/// the gateway proves to a service by mTLS.
#[tokio::test]
async fn tenancy_admits_the_members_of_a_group_and_no_others() {
    let world = installed(Kind::Classic).await;
    let (to, path) = (world.listeners()[0], "/notebook/ml-ops/one/");
    let values = world.values(Kind::Classic).await;
    let printed = tenancy(world.folder(), &crate::release::template(&values).await).await;
    let policies = crate::manifests::changed(&printed, |object| {
        if object["kind"] != "AuthorizationPolicy" || object["metadata"]["namespace"] != "ml-ops" {
            return false;
        }
        object["metadata"]["namespace"] = json!(NAMESPACE);
        let rule = object["spec"]["rules"][0].as_object_mut();
        rule.expect("a rule").remove("from").expect("principals");
        true
    });
    let everyone = crate::world::allow_all(Kind::Classic);
    world.kubernetes.delete(&everyone.to_string()).await;
    world.kubernetes.apply(&policies).await;

    let token = |user: &str, groups: Value| world.token_of(&member(user, groups));
    let dan = token("dan@example.com", json!(["ML ops"]));
    let eve = token("eve@example.com", json!(["ML", "ops", "ml ops"]));
    let carol = token("carol@example.com", json!([]));
    let eve = ("x-amzn-oidc-data", eve.as_str());
    let denied = (403, DENIED_BY_POLICY);
    world.until(to, BROWSERS, &[eve], denied).await;
    let seen = world
        .admitted(to, BROWSERS, path, &[("x-amzn-oidc-data", &dan)])
        .await;
    assert_eq!(seen.header("x-kubeflow-group-%4d%4c%20ops"), ["ML ops"]);
    world
        .admitted(to, BROWSERS, path, &[("x-amzn-oidc-data", &carol)])
        .await;
    world.denied(to, BROWSERS, path, &[eve], denied).await;
    let spoofed = [
        eve,
        ("x-kubeflow-group-%4d%4c%20ops", "ML ops"),
        ("kubeflow-userid", "carol@example.com"),
    ];
    world.denied(to, BROWSERS, path, &spoofed, denied).await;
}

#[tokio::test]
async fn key_server_without_its_name_gives_no_key() {
    let elsewhere = "public-keys.auth.elb.us-east-1.amazonaws.com";
    let world = World::with_key_server(&[Kind::Classic], elsewhere).await;
    world
        .install_and_wait(&world.values(Kind::Classic).await)
        .await;
    let (to, ann) = (world.listeners()[0], world.token("ann@example.com"));
    let unavailable = (503, "key-unavailable");
    let genuine = [("x-amzn-oidc-data", ann.as_str())];
    world.denied(to, BROWSERS, "/", &genuine, unavailable).await;
    let fetches = world.keys.fetches();
    assert!(fetches.iter().all(|fetch| fetch.host != KEY_SERVER));
}
