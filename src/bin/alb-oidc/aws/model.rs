//! The fields of the AWS CLI's output that `init` and `audit` read. Each type names its page of the
//! API reference: <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/>, and
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/> for security groups.

use serde::Deserialize;

/// The output of one command: one of the lists.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Output {
    pub(crate) load_balancers: Vec<LoadBalancer>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) target_groups: Vec<TargetGroup>,
    pub(crate) target_health_descriptions: Vec<TargetHealthDescription>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) security_groups: Vec<SecurityGroup>,
}

impl Output {
    /// The names of the lists.
    pub(crate) const LISTS: [&'static str; 7] = [
        "LoadBalancers",
        "Listeners",
        "Rules",
        "TargetGroups",
        "TargetHealthDescriptions",
        "Attributes",
        "SecurityGroups",
    ];
}

/// `API_LoadBalancer`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct LoadBalancer {
    pub(crate) load_balancer_arn: String,
    /// `application`, `network` or `gateway`.
    #[serde(default, rename = "Type")]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) security_groups: Vec<String>,
}

/// `API_Listener`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listener {
    pub(crate) listener_arn: String,
    /// `HTTP` or `HTTPS` for a load balancer of type `application`.
    #[serde(default)]
    pub(crate) protocol: Option<String>,
    #[serde(default)]
    pub(crate) port: Option<u64>,
    #[serde(default)]
    pub(crate) default_actions: Vec<Action>,
}

/// `API_Rule`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Rule {
    pub(crate) rule_arn: String,
    /// A number, or `default`.
    #[serde(default)]
    pub(crate) priority: String,
    #[serde(default)]
    pub(crate) conditions: Vec<Condition>,
    #[serde(default)]
    pub(crate) actions: Vec<Action>,
}

/// `API_Action`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Action {
    /// `forward`, `authenticate-oidc`, `authenticate-cognito`, `redirect`, `fixed-response` or
    /// `jwt-validation`.
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    #[serde(default)]
    target_group_arn: Option<String>,
    #[serde(default)]
    pub(crate) authenticate_oidc_config: Option<AuthenticateOidcConfig>,
    #[serde(default)]
    pub(crate) authenticate_cognito_config: Option<AuthenticateCognitoConfig>,
    #[serde(default)]
    pub(crate) jwt_validation_config: Option<JwtValidationConfig>,
    #[serde(default)]
    pub(crate) forward_config: Option<ForwardConfig>,
}

/// `API_AuthenticateOidcActionConfig`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AuthenticateOidcConfig {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    #[serde(default)]
    pub(crate) scope: Option<String>,
    #[serde(default)]
    pub(crate) session_cookie_name: Option<String>,
    /// In seconds.
    #[serde(default)]
    pub(crate) session_timeout: Option<u64>,
    #[serde(default)]
    pub(crate) on_unauthenticated_request: Option<String>,
}

/// `API_AuthenticateCognitoActionConfig`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AuthenticateCognitoConfig {
    pub(crate) user_pool_arn: String,
    pub(crate) user_pool_client_id: String,
    /// The prefix of the domain, or the name of a custom domain.
    pub(crate) user_pool_domain: String,
    #[serde(default)]
    pub(crate) scope: Option<String>,
    #[serde(default)]
    pub(crate) session_cookie_name: Option<String>,
    /// In seconds.
    #[serde(default)]
    pub(crate) session_timeout: Option<u64>,
    #[serde(default)]
    pub(crate) on_unauthenticated_request: Option<String>,
}

/// `API_JwtValidationActionConfig`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct JwtValidationConfig {
    pub(crate) issuer: String,
}

/// `API_ForwardActionConfig`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ForwardConfig {
    #[serde(default)]
    pub(crate) target_groups: Vec<TargetGroupTuple>,
}

/// `API_TargetGroupTuple`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TargetGroupTuple {
    #[serde(default)]
    pub(crate) target_group_arn: Option<String>,
}

/// `API_RuleCondition`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Condition {
    /// `host-header`, `path-pattern`, `http-header`, `http-request-method`, `query-string` or
    /// `source-ip`.
    #[serde(default)]
    pub(crate) field: String,
    /// The values of `host-header` and `path-pattern`, as the older form has them.
    #[serde(default)]
    pub(crate) values: Vec<String>,
    #[serde(default)]
    pub(crate) host_header_config: Option<ConditionConfig>,
    #[serde(default)]
    pub(crate) path_pattern_config: Option<ConditionConfig>,
    #[serde(default)]
    pub(crate) http_request_method_config: Option<ConditionConfig>,
}

/// `API_HostHeaderConditionConfig`, `API_PathPatternConditionConfig` and
/// `API_HttpRequestMethodConditionConfig`. A condition with regexes has no values.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ConditionConfig {
    #[serde(default)]
    pub(crate) values: Vec<String>,
}

/// `API_TargetGroup`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TargetGroup {
    pub(crate) target_group_arn: String,
    #[serde(default)]
    pub(crate) port: Option<u64>,
    #[serde(default)]
    pub(crate) load_balancer_arns: Vec<String>,
    #[serde(default)]
    pub(crate) health_check_path: Option<String>,
    /// A number, or `traffic-port`.
    #[serde(default)]
    pub(crate) health_check_port: Option<String>,
}

/// `API_TargetHealthDescription`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TargetHealthDescription {
    #[serde(default)]
    pub(crate) target_health: Option<TargetHealth>,
}

/// `API_TargetHealth`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TargetHealth {
    /// `healthy`, `unhealthy`, `initial`, `draining`, `unused`, `unavailable`, …
    #[serde(default)]
    pub(crate) state: Option<String>,
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// `API_LoadBalancerAttribute` and `API_TargetGroupAttribute`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Attribute {
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) value: String,
}

/// `API_SecurityGroup` of EC2
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SecurityGroup {
    pub(crate) group_id: String,
    #[serde(default)]
    pub(crate) ip_permissions: Vec<IpPermission>,
}

/// `API_IpPermission` of EC2
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct IpPermission {
    /// `tcp`, another protocol, or `-1` for all of them, on every port.
    #[serde(default)]
    pub(crate) ip_protocol: String,
    #[serde(default)]
    pub(crate) from_port: Option<i64>,
    #[serde(default)]
    pub(crate) to_port: Option<i64>,
    #[serde(default)]
    pub(crate) ip_ranges: Vec<IpRange>,
    #[serde(default)]
    pub(crate) ipv6_ranges: Vec<Ipv6Range>,
    #[serde(default)]
    pub(crate) user_id_group_pairs: Vec<UserIdGroupPair>,
}

/// `API_UserIdGroupPair` of EC2
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UserIdGroupPair {
    #[serde(default)]
    pub(crate) group_id: String,
}

/// `API_IpRange` of EC2
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct IpRange {
    pub(crate) cidr_ip: String,
}

/// `API_Ipv6Range` of EC2
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Ipv6Range {
    pub(crate) cidr_ipv6: String,
}

impl Action {
    /// Whether requests reach a target without a session and without a verified token.
    pub(crate) fn forwards_without_authentication(actions: &[Self]) -> bool {
        let is = |kind: &str| actions.iter().any(|action| action.kind == kind);
        is("forward")
            && !is("authenticate-oidc")
            && !is("authenticate-cognito")
            && !is("jwt-validation")
    }

    /// The target groups that it forwards to.
    pub(crate) fn target_groups(&self) -> impl Iterator<Item = &str> {
        let several = self
            .forward_config
            .iter()
            .flat_map(|config| &config.target_groups);
        let several = several.filter_map(|tuple| tuple.target_group_arn.as_deref());
        self.target_group_arn.as_deref().into_iter().chain(several)
    }
}

impl Condition {
    fn configs(&self) -> impl Iterator<Item = &ConditionConfig> {
        let configs = [
            &self.host_header_config,
            &self.path_pattern_config,
            &self.http_request_method_config,
        ];
        configs.into_iter().flatten()
    }

    /// The values of a condition on host, path or method.
    fn all_values(&self) -> impl Iterator<Item = &str> {
        let is_new = |value: &&String| {
            let mut configs = self.configs();
            !configs.any(|config| config.values.contains(value))
        };
        let newer = self.configs().flat_map(|config| &config.values);
        let older = self.values.iter().filter(is_new);
        newer.chain(older.collect::<Vec<_>>()).map(String::as_str)
    }
}

/// The load balancer of a listener or of a rule, by its ARN.
pub(crate) fn load_balancer_of(arn: &str) -> Option<String> {
    if let Some((start, rest)) = arn.split_once(":listener-rule/") {
        let (rest, _rule) = rest.rsplit_once('/')?;
        let (name, _listener) = rest.rsplit_once('/')?;
        return Some(format!("{start}:loadbalancer/{name}"));
    }
    let (start, rest) = arn.split_once(":listener/")?;
    let (name, _listener) = rest.rsplit_once('/')?;
    Some(format!("{start}:loadbalancer/{name}"))
}

impl Rule {
    /// The ARN of its listener.
    pub(crate) fn listener_arn(&self) -> Option<String> {
        let (start, rest) = self.rule_arn.split_once(":listener-rule/")?;
        let (name, _rule) = rest.rsplit_once('/')?;
        Some(format!("{start}:listener/{name}"))
    }

    pub(crate) fn is_default(&self) -> bool {
        self.priority == "default"
    }

    /// The values of its conditions on `field`; `None` if it has none.
    pub(crate) fn values(&self, field: &str) -> Option<Vec<&str>> {
        let mut conditions = self
            .conditions
            .iter()
            .filter(|condition| condition.field == field)
            .peekable();
        conditions.peek()?;
        Some(conditions.flat_map(Condition::all_values).collect())
    }
}
