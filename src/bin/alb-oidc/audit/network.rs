//! Target groups, health checks, attributes and security groups.

use std::collections::BTreeSet;

use super::Auditor;
use crate::aws::{SecurityGroup, TargetGroup};
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

    /// Security groups that are not the load balancer's: those of the targets.
    fn security_groups(&mut self, ports: &BTreeSet<u64>) {
        let snapshot = self.snapshot;
        let mut of_load_balancer = BTreeSet::new();
        for load_balancer in &snapshot.load_balancers {
            of_load_balancer.extend(&load_balancer.value.security_groups);
        }
        for group in &snapshot.security_groups {
            let id = &group.value.group_id;
            let open = open_permission(&group.value, ports);
            if let Some((position, port)) = open.filter(|_| !of_load_balancer.contains(id)) {
                let field = format!("IpPermissions[{position}]");
                let message = format!(
                    "found the Internet for port {port}, expected the load balancer's security group"
                );
                self.add(Code::AlbSecurityGroupOpen, group, &field, id, &message);
            }
        }
    }
}

/// A permission for the Internet, or a large part of it, and one of the ports.
fn open_permission(group: &SecurityGroup, ports: &BTreeSet<u64>) -> Option<(usize, u64)> {
    let fallback = BTreeSet::from([GATEWAY_PORT]);
    let ports = if ports.is_empty() { &fallback } else { ports };
    group
        .ip_permissions
        .iter()
        .enumerate()
        .find_map(|(position, permission)| {
            let mut ipv4 = permission.ip_ranges.iter();
            let mut ipv6 = permission.ipv6_ranges.iter();
            // No private IPv4 range is wider than 10.0.0.0/8; 2000::/3 is the public Internet.
            let is_any = ipv4.any(|range| is_wider(&range.cidr_ip, 7))
                || ipv6.any(|range| is_wider(&range.cidr_ipv6, 3));
            let has = |port: u64| {
                let port = i64::try_from(port).unwrap_or(i64::MAX);
                permission.ip_protocol == "-1"
                    || (permission.from_port.is_none_or(|from| from <= port)
                        && permission.to_port.is_none_or(|to| to >= port)
                        && permission.ip_protocol == "tcp")
            };
            let port = ports.iter().find(|port| has(**port))?;
            is_any.then_some((position, *port))
        })
}

/// Whether the prefix of the CIDR block has at most `most` bits.
fn is_wider(cidr: &str, most: u8) -> bool {
    let bits = cidr.split_once('/').map(|(_, bits)| bits.parse::<u8>());
    bits.is_some_and(|bits| bits.is_ok_and(|bits| bits <= most))
}
