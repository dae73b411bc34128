//! Target groups, health checks, attributes and security groups.

use std::collections::BTreeSet;

use super::Auditor;
use crate::aws::{IpPermission, SecurityGroup, TargetGroup};
use crate::finding::Code;

/// The port of a gateway's pods, where the input has no target group.
const GATEWAY_PORT: u64 = 8080;

impl Auditor<'_> {
    pub(super) fn network(&mut self) {
        let snapshot = self.snapshot;
        let gateway = self.gateway_targets();
        let groups: Vec<_> = snapshot
            .target_groups
            .iter()
            .filter(|group| gateway.contains(&group.value.target_group_arn))
            .collect();
        for group in &groups {
            let arn = &group.value.target_group_arn;
            let shared = group
                .value
                .load_balancer_arns
                .iter()
                .find(|arn| !self.is_trusted(arn));
            if let Some(other) = shared {
                let message = format!("found {other}, expected only load balancers of the config");
                self.add(
                    Code::AlbTargetShared,
                    group,
                    "LoadBalancerArns",
                    arn,
                    &message,
                );
            }
            if let Some(path) = self.closed_health_check(&group.value) {
                let message = format!("found {path} on the traffic port, expected port 15021");
                self.add(
                    Code::AlbHealthCheck,
                    group,
                    "HealthCheckPath",
                    arn,
                    &message,
                );
            }
        }
        self.health();
        self.attributes();
        let ports: BTreeSet<_> = groups.iter().filter_map(|group| group.value.port).collect();
        self.security_groups(&ports);
    }

    /// The path of a health check that the filter denies.
    fn closed_health_check<'g>(&self, group: &'g TargetGroup) -> Option<&'g str> {
        let path = group.health_check_path.as_deref()?;
        let port = group.health_check_port.as_deref().unwrap_or("traffic-port");
        let is_traffic =
            port == "traffic-port" || group.port.is_some_and(|own| own.to_string() == port);
        (is_traffic && !self.is_open("GET", "host.invalid", path)).then_some(path)
    }

    fn health(&mut self) {
        let snapshot = self.snapshot;
        let state = |position: usize| {
            let health = &snapshot.target_health.get(position)?.value.target_health;
            health.as_ref()?.state.as_deref()
        };
        let count = snapshot.target_health.len();
        if (0..count).any(|position| state(position) == Some("healthy")) {
            return;
        }
        if let Some(first) = snapshot.target_health.first() {
            let health = first.value.target_health.as_ref();
            let reason = health.and_then(|health| health.reason.as_deref());
            let message = format!(
                "found {} ({}), expected healthy",
                state(0).unwrap_or("nothing"),
                reason.unwrap_or("no reason")
            );
            self.add(
                Code::AlbTargetUnhealthy,
                first,
                "TargetHealth",
                "targets",
                &message,
            );
        }
    }

    fn attributes(&mut self) {
        let snapshot = self.snapshot;
        for attribute in &snapshot.attributes {
            let (key, value) = (&attribute.value.key, &attribute.value.value);
            match key.as_str() {
                "routing.http.drop_invalid_header_fields.enabled" if value != "true" => {
                    let message = format!("found {value}, expected true");
                    self.add(Code::AlbInvalidHeaders, attribute, "Value", key, &message);
                }
                "idle_timeout.timeout_seconds"
                    if value.parse::<u64>().is_ok_and(|seconds| seconds <= 60) =>
                {
                    let message = format!("found {value}, expected more than 60");
                    self.add(Code::AlbIdleTimeout, attribute, "Value", key, &message);
                }
                _ => {}
            }
        }
    }

    /// The security groups of load balancers, and the others: those of the targets.
    fn security_groups(&mut self, ports: &BTreeSet<u64>) {
        let snapshot = self.snapshot;
        let fallback = BTreeSet::from([GATEWAY_PORT]);
        let ports = if ports.is_empty() { &fallback } else { ports };
        let (trusted, others): (Vec<_>, Vec<_>) = snapshot
            .load_balancers
            .iter()
            .partition(|known| self.is_trusted(&known.value.load_balancer_arn));
        let own: BTreeSet<_> = trusted
            .iter()
            .flat_map(|known| &known.value.security_groups)
            .collect();
        let of_others: BTreeSet<_> = others
            .iter()
            .flat_map(|other| &other.value.security_groups)
            .collect();
        for other in others {
            let mut groups = other.value.security_groups.iter();
            if let Some(group) = groups.find(|group| own.contains(group)) {
                let message =
                    format!("found {group}, which the load balancer of the config has too");
                let arn = &other.value.load_balancer_arn;
                let code = Code::AlbSecurityGroupShared;
                self.add(code, other, "SecurityGroups", arn, &message);
            }
        }
        let listening: BTreeSet<_> = snapshot
            .listeners
            .iter()
            .filter_map(|listener| listener.value.port)
            .collect();
        for group in &snapshot.security_groups {
            let id = &group.value.group_id;
            let is_own = own.contains(id);
            for (position, port, permission) in permissions(&group.value, ports) {
                let field = format!("IpPermissions[{position}]");
                let mut pairs = permission.user_id_group_pairs.iter();
                let other =
                    pairs.find(|pair| pair.group_id != *id && !own.contains(&pair.group_id));
                let (code, message) = if !is_own && !of_others.contains(id) && is_open(permission) {
                    let message = format!(
                        "found the Internet for port {port}, expected the load balancer's security group"
                    );
                    (Code::AlbSecurityGroupOpen, message)
                } else if is_own
                    && is_open(permission)
                    && !listening.is_empty()
                    && !listening.contains(&port)
                {
                    // Open too for targets with the load balancer's own group.
                    let message = format!(
                        "found the Internet for port {port}, on which the load balancer does not listen"
                    );
                    (Code::AlbSecurityGroupShared, message)
                } else if let (false, false, Some(other)) = (is_own, own.is_empty(), other) {
                    let message = format!(
                        "found {} for port {port}, expected only the load balancer's security group",
                        other.group_id
                    );
                    (Code::AlbSecurityGroupShared, message)
                } else {
                    continue;
                };
                self.add(code, group, &field, id, &message);
            }
        }
    }
}

/// The permissions for one of the ports, each with its position and the port.
fn permissions<'g>(
    group: &'g SecurityGroup,
    ports: &BTreeSet<u64>,
) -> Vec<(usize, u64, &'g IpPermission)> {
    let permissions = group.ip_permissions.iter().enumerate();
    let of_ports = permissions.filter_map(|(position, permission)| {
        let has = |port: u64| {
            let port = i64::try_from(port).unwrap_or(i64::MAX);
            permission.ip_protocol == "-1"
                || (permission.from_port.is_none_or(|from| from <= port)
                    && permission.to_port.is_none_or(|to| to >= port)
                    && permission.ip_protocol == "tcp")
        };
        let port = ports.iter().find(|port| has(**port))?;
        Some((position, *port, permission))
    });
    of_ports.collect()
}

/// Whether the permission admits the Internet, or a large part of it.
fn is_open(permission: &IpPermission) -> bool {
    let mut ipv4 = permission.ip_ranges.iter();
    let mut ipv6 = permission.ipv6_ranges.iter();
    // No private IPv4 range is wider than 10.0.0.0/8; 2000::/3 is the public Internet.
    ipv4.any(|range| is_wider(&range.cidr_ip, 7)) || ipv6.any(|range| is_wider(&range.cidr_ipv6, 3))
}

/// Whether the prefix of the CIDR block has at most `most` bits.
fn is_wider(cidr: &str, most: u8) -> bool {
    let bits = cidr.split_once('/').map(|(_, bits)| bits.parse::<u8>());
    bits.is_some_and(|bits| bits.is_ok_and(|bits| bits <= most))
}
