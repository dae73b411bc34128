//! The load balancer that the AWS Load Balancer Controller builds of rendered resources: listeners,
//! rules in their order, target groups. Field names are those of the controller's own model.
//! Written from the controller's documentation. Knows only what the chart uses; panics otherwise.

use serde_json::{Map, Value, json};

use super::{elements, of_kind, one, text};

const PREFIX: &str = "alb.ingress.kubernetes.io/";
const ALB: &str = "alb-oidc-alb";

/// The load balancer of an Ingress or of a Gateway.
pub(super) fn load_balancer(resources: &[Value]) -> Value {
    if of_kind(resources, "Ingress").next().is_some() {
        of_ingress(resources)
    } else {
        of_gateway(resources)
    }
}

/// The annotations under the controller's prefix, without it. Fails on an unknown one.
fn annotations(resource: &Value) -> Map<String, Value> {
    let known = [
        "auth-idp-cognito",
        "auth-idp-oidc",
        "auth-on-unauthenticated-request",
        "auth-scope",
        "auth-session-cookie",
        "auth-session-timeout",
        "auth-type",
        "backend-protocol",
        "certificate-arn",
        "group.name",
        "group.order",
        "healthcheck-path",
        "healthcheck-port",
        "healthcheck-protocol",
        "inbound-cidrs",
        "jwt-validation",
        "listen-ports",
        "load-balancer-attributes",
        "scheme",
        "security-groups",
        "ssl-policy",
        "ssl-redirect",
        "subnets",
        "target-type",
    ];
    let all = resource["metadata"].get("annotations");
    all.and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            let name = name.strip_prefix(PREFIX).expect(name);
            assert!(known.contains(&name), "{name}");
            assert!(value.is_string(), "{name}: {value}");
            (name.to_owned(), value.clone())
        })
        .collect()
}

fn of_ingress(resources: &[Value]) -> Value {
    let mut ingresses: Vec<_> = of_kind(resources, "Ingress")
        .map(|ingress| (annotations(ingress), ingress))
        .collect();
    ingresses.sort_by_key(|(own, _)| own.get("group.order").map_or(0, order));
    assert_one_load_balancer(&ingresses);
    let rules: Vec<_> = ingresses
        .iter()
        .flat_map(|(own, ingress)| {
            elements(&ingress["spec"]["rules"])
                .iter()
                .flat_map(|rule| paths(&rule["http"]["paths"]).map(|path| (&rule["host"], path)))
                .map(|(host, path)| ingress_rule(resources, own, host, path))
        })
        .collect();
    let own = &ingresses[0].0;
    let attributes: Map<_, _> = text(&own["load-balancer-attributes"])
        .split(',')
        .map(|pair| pair.split_once('=').expect("NAME=VALUE"))
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    let ports: Value = parsed(&own["listen-ports"]);
    assert_eq!(ports, json!([{"HTTP": 80}, {"HTTPS": 443}]));
    assert_eq!(own["ssl-redirect"], "443");
    json!({
        "group": own.get("group.name"),
        "scheme": own["scheme"],
        "securityGroups": own
            .get("security-groups")
            .map(|names| text(names).split(',').collect::<Vec<_>>()),
        "attributes": attributes,
        "listeners": listeners(own.get("certificate-arn"), own.get("ssl-policy"), rules),
        "targetGroup": {
            "targetType": own["target-type"],
            "protocol": own["backend-protocol"],
            "healthCheck": {
                "protocol": own["healthcheck-protocol"],
                "port": own["healthcheck-port"],
                "path": own["healthcheck-path"],
            },
        },
    })
}

fn order(annotation: &Value) -> i64 {
    text(annotation).parse().expect("a number")
}

/// Several Ingresses are one load balancer in a group only, and must agree about it.
fn assert_one_load_balancer(ingresses: &[(Map<String, Value>, &Value)]) {
    let of_rules =
        |name: &str| name.starts_with("auth-") || name == "jwt-validation" || name == "group.order";
    let shared = |own: &Map<String, Value>| {
        let mut own = own.clone();
        own.retain(|name, _| !of_rules(name));
        own
    };
    let first = shared(&ingresses[0].0);
    assert!(ingresses.len() == 1 || first.contains_key("group.name"));
    for (own, _) in ingresses {
        assert_eq!(shared(own), first);
    }
}

fn ingress_rule(
    resources: &[Value],
    own: &Map<String, Value>,
    host: &Value,
    path: &Value,
) -> Value {
    let backend = &path["backend"]["service"];
    assert_eq!(backend["port"]["name"], "http");
    let service = service(resources, &backend["name"]);
    let of_service = annotations(service);
    assert!(!of_service.contains_key("jwt-validation"));
    let mut merged = own.clone();
    merged.extend(of_service);
    let before = [authentication(&merged), jwt_validation(own)];
    let mut actions: Vec<_> = before.into_iter().flatten().collect();
    assert!(actions.len() < 2, "one action before forward: {actions:?}");
    actions.push(forward(service));
    json!({
        "conditions": conditions(host, &path["pathType"], &path["path"]),
        "actions": actions,
    })
}

fn jwt_validation(ingress: &Map<String, Value>) -> Option<Value> {
    let config = ingress.get("jwt-validation").map(parsed)?;
    Some(json!({"type": "jwt-validation", "jwtValidationConfig": config}))
}

/// The controller puts exact paths before prefixes.
fn paths(paths: &Value) -> impl Iterator<Item = &Value> {
    let mut paths: Vec<_> = elements(paths).iter().collect();
    paths.sort_by_key(|path| path["pathType"] != "Exact");
    paths.into_iter()
}

fn service<'r>(resources: &'r [Value], name: &Value) -> &'r Value {
    of_kind(resources, "Service")
        .find(|service| service["metadata"]["name"] == *name)
        .unwrap_or_else(|| panic!("no Service {name}"))
}

fn parsed(annotation: &Value) -> Value {
    serde_json::from_str(text(annotation)).expect("JSON")
}

fn authentication(annotations: &Map<String, Value>) -> Option<Value> {
    let (kind, field, idp) = match text(&annotations["auth-type"]) {
        "none" => return None,
        "cognito" => (
            "authenticate-cognito",
            "authenticateCognitoConfig",
            "auth-idp-cognito",
        ),
        "oidc" => (
            "authenticate-oidc",
            "authenticateOIDCConfig",
            "auth-idp-oidc",
        ),
        other => panic!("auth-type: {other}"),
    };
    let mut config = parsed(&annotations[idp]);
    config["onUnauthenticatedRequest"] = annotations["auth-on-unauthenticated-request"].clone();
    config["scope"] = annotations["auth-scope"].clone();
    config["sessionCookieName"] = annotations["auth-session-cookie"].clone();
    config["sessionTimeout"] = parsed(&annotations["auth-session-timeout"]);
    Some(json!({"type": kind, field: config}))
}

/// Forwards to the pods of a Service. All of the chart lead to the same pods and port.
fn forward(service: &Value) -> Value {
    let spec = &service["spec"];
    let port = &elements(&spec["ports"])[0];
    assert_eq!((&port["name"], &port["port"]), (&json!("http"), &json!(80)));
    json!({"type": "forward", "pods": spec["selector"], "port": port["targetPort"]})
}

fn conditions(host: &Value, path_type: &Value, path: &Value) -> Value {
    let pattern = match (text(path_type), text(path)) {
        ("Exact", path) => path,
        ("Prefix" | "PathPrefix", "/") => "/*",
        other => panic!("path: {other:?}"),
    };
    json!([
        {"field": "host-header", "hostHeaderConfig": {"values": [host]}},
        {"field": "path-pattern", "pathPatternConfig": {"values": [pattern]}},
    ])
}

fn listeners(certificate: Option<&Value>, policy: Option<&Value>, rules: Vec<Value>) -> Value {
    let rules: Vec<_> = (1..)
        .zip(rules)
        .map(|(priority, mut rule)| {
            rule["priority"] = json!(priority);
            rule
        })
        .collect();
    json!({
        "80": {"redirect": {"protocol": "HTTPS", "port": "443", "statusCode": "HTTP_301"}},
        "443": {"certificate": certificate, "sslPolicy": policy, "rules": rules},
    })
}

fn named<'r>(resources: &'r [Value], kind: &'r str, name: &Value) -> &'r Value {
    of_kind(resources, kind)
        .find(|resource| resource["metadata"]["name"] == *name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn of_gateway(resources: &[Value]) -> Value {
    let gateway = &named(resources, "Gateway", &json!(ALB))["spec"];
    let listener = |name: &str, protocol: &str, port: u16| {
        let same = json!({"namespaces": {"from": "Same"}});
        json!({"name": name, "protocol": protocol, "port": port, "allowedRoutes": same})
    };
    let expected = [
        listener("http", "HTTP", 80),
        listener("https", "HTTPS", 443),
    ];
    assert_eq!(elements(&gateway["listeners"]), expected);
    let parameters = &gateway["infrastructure"]["parametersRef"];
    let spec = &named(resources, text(&parameters["kind"]), &parameters["name"])["spec"];

    let parent = |section: &str| json!([{"name": ALB, "sectionName": section}]);
    let routes = |section: &'static str| {
        let parent = parent(section);
        of_kind(resources, "HTTPRoute").filter(move |route| route["spec"]["parentRefs"] == parent)
    };
    let redirects: Vec<_> = routes("http").collect();
    assert_eq!(redirects.len(), 1, "{redirects:#?}");
    let redirect = json!({"scheme": "https", "port": 443, "statusCode": 301});
    assert_eq!(
        redirects[0]["spec"]["rules"],
        json!([{"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]}])
    );

    let mut rules: Vec<_> = routes("https")
        .flat_map(|route| {
            let hosts = elements(&route["spec"]["hostnames"]);
            assert_eq!(hosts.len(), 1);
            elements(&route["spec"]["rules"])
                .iter()
                .map(|rule| (&hosts[0], rule))
        })
        .map(|(host, rule)| gateway_rule(resources, host, rule))
        .collect();
    // By the specification: the longer host first, then the exact path. Hosts are not wildcards
    // here.
    rules.sort_by_key(|rule| {
        let host = text(&rule["conditions"][0]["hostHeaderConfig"]["values"][0]);
        assert!(!host.starts_with('*'));
        let path = text(&rule["conditions"][1]["pathPatternConfig"]["values"][0]);
        (std::cmp::Reverse(host.len()), path == "/*")
    });

    let attributes: Map<_, _> = elements(&spec["loadBalancerAttributes"])
        .iter()
        .map(|pair| (text(&pair["key"]).to_owned(), pair["value"].clone()))
        .collect();
    let https = spec.get("listenerConfigurations").map(|found| &found[0]);
    if let Some(https) = https {
        assert_eq!(https["protocolPort"], "HTTPS:443");
    }
    let of_https = |field: &str| https.and_then(|https| https.get(field));
    let group = &one(resources, "TargetGroupConfiguration")["spec"];
    assert_eq!(
        group["targetReference"],
        json!({"kind": "Service", "name": "alb-oidc-users"})
    );
    let group = &group["defaultConfiguration"];
    let health = &group["healthCheckConfig"];
    json!({
        "group": null,
        "scheme": spec["scheme"],
        "securityGroups": spec.get("securityGroups"),
        "attributes": attributes,
        "listeners": listeners(of_https("defaultCertificate"), of_https("sslPolicy"), rules),
        "targetGroup": {
            "targetType": group["targetType"],
            "protocol": group["protocol"],
            "healthCheck": {
                "protocol": health["healthCheckProtocol"],
                "port": health["healthCheckPort"],
                "path": health["healthCheckPath"],
            },
        },
    })
}

fn gateway_rule(resources: &[Value], host: &Value, rule: &Value) -> Value {
    let filters = rule.get("filters").map_or(&[][..], elements);
    let mut actions: Vec<_> = filters
        .iter()
        .flat_map(|filter| {
            assert_eq!(filter["type"], "ExtensionRef");
            let reference = &filter["extensionRef"];
            assert_eq!(reference["group"], "gateway.k8s.aws");
            let kind = text(&reference["kind"]);
            assert_eq!(kind, "ListenerRuleConfiguration");
            elements(&named(resources, kind, &reference["name"])["spec"]["actions"]).to_vec()
        })
        .map(in_names_of_the_model)
        .collect();
    let backends = elements(&rule["backendRefs"]);
    assert_eq!((backends.len(), &backends[0]["port"]), (1, &json!(80)));
    actions.push(forward(service(resources, &backends[0]["name"])));
    let matches = elements(&rule["matches"]);
    assert_eq!(matches.len(), 1);
    let path = &matches[0]["path"];
    json!({
        "conditions": conditions(host, &path["type"], &path["value"]),
        "actions": actions,
    })
}

/// The resource and the model differ in the names of some fields.
fn in_names_of_the_model(mut action: Value) -> Value {
    if let Some(config) = action
        .get_mut("authenticateCognitoConfig")
        .and_then(Value::as_object_mut)
    {
        for (name, model) in [
            ("userPoolArn", "userPoolARN"),
            ("userPoolClientId", "userPoolClientID"),
        ] {
            let value = config.remove(name).expect(name);
            config.insert(model.to_owned(), value);
        }
    }
    if let Some(config) = action
        .get_mut("authenticateOIDCConfig")
        .and_then(Value::as_object_mut)
    {
        let secret = config.remove("secret").expect("a Secret");
        config.insert("secretName".to_owned(), secret["name"].clone());
    }
    action
}
