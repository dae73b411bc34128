//! Reads `loadBalancers` of the plugin config, and derives the key server from each ARN's region.

use std::time::Duration;

use super::endpoint::Endpoint;
use super::reader::{Object, quoted};
use crate::keys::source::{KeyFormat, KeySource, KeySourceId};
use crate::token::alb::LoadBalancer;

/// The position of `source` in `key_sources`, which has it once.
pub(super) fn key_source(key_sources: &mut Vec<KeySource>, source: KeySource) -> KeySourceId {
    let known = key_sources.iter().position(|known| *known == source);
    KeySourceId(known.unwrap_or_else(|| {
        key_sources.push(source);
        key_sources.len().saturating_sub(1)
    }))
}

/// A load balancer, and its object in the config.
pub(super) type Entry<'a> = (LoadBalancer, Object<'a>);

/// The load balancers and their distinct key sources. Of two that can match one token, the more
/// specific one comes first.
pub(super) fn read<'a>(
    root: &Object<'a>,
    public_keys: &Object<'_>,
    timeout: Duration,
) -> (Vec<Entry<'a>>, Vec<KeySource>) {
    let before = root.mistake_count();
    let endpoint = public_keys.optional_string("endpoint").and_then(|text| {
        public_keys.check("endpoint", text, Endpoint::parse(text), Endpoint::EXPECTED)
    });
    let is_endpoint_sound = before == root.mistake_count();
    let cluster = public_keys.optional_string("cluster").map(str::to_owned);
    let mut key_sources: Vec<KeySource> = Vec::new();
    let mut entries: Vec<Entry<'a>> = Vec::new();
    for entry in root.objects("loadBalancers") {
        let issuer = entry.optional_string("issuer").map(str::to_owned);
        let client_id = entry.optional_string("clientId").map(str::to_owned);
        let arn_text = entry.string("arn");
        let arn = entry.check("arn", arn_text, Arn::parse(arn_text), Arn::EXPECTED);
        let endpoint = arn.as_ref().and_then(|arn| {
            let endpoint = endpoint.clone().or_else(|| arn.key_endpoint());
            if endpoint.is_none() && is_endpoint_sound {
                let partition = quoted(arn.partition);
                let required = format!(
                    "`publicKeys.endpoint`: AWS documents no key server for the partition {partition}"
                );
                entry.requirement("arn", &required);
            }
            endpoint
        });
        // After a mistake, the position means nothing.
        let key_source = endpoint.map_or(KeySourceId(0), |endpoint| {
            let source = KeySource {
                cluster: cluster.clone().unwrap_or_else(|| endpoint.cluster()),
                authority: endpoint.authority(),
                path: endpoint.path.clone(),
                format: KeyFormat::Pem,
                timeout,
            };
            key_source(&mut key_sources, source)
        });
        let load_balancer = LoadBalancer {
            arn: arn_text.to_owned(),
            issuer,
            client_id,
            key_source,
        };
        if before != root.mistake_count() {
            entries.push((load_balancer, entry));
            continue;
        }
        if entries.iter().any(|(earlier, _)| *earlier == load_balancer) {
            entry.mistake(
                "",
                "the ARN, issuer and client of an earlier entry",
                "each entry once",
            );
        } else if let Some((earlier, _)) = entries
            .iter()
            .find(|(earlier, _)| is_ambiguous(earlier, &load_balancer))
        {
            let of = |field: &Option<String>| field.as_deref().map_or("null".to_owned(), quoted);
            let found = format!(
                "an entry that matches the same tokens as that of the issuer {} and the client {}",
                of(&earlier.issuer),
                of(&earlier.client_id)
            );
            entry.mistake(
                "",
                &found,
                "one of the two to be more specific in all fields",
            );
        }
        entries.push((load_balancer, entry));
    }
    entries.sort_by_key(|(load_balancer, _)| {
        let LoadBalancer {
            arn: _,
            issuer,
            client_id,
            key_source: _,
        } = load_balancer;
        std::cmp::Reverse(u8::from(issuer.is_some()).saturating_add(client_id.is_some().into()))
    });
    (entries, key_sources)
}

/// Whether some token matches both, and neither is the more specific one.
fn is_ambiguous(one: &LoadBalancer, two: &LoadBalancer) -> bool {
    let LoadBalancer {
        arn,
        issuer,
        client_id,
        key_source: _,
    } = one;
    let overlap =
        |one: &Option<String>, two: &Option<String>| one.is_none() || two.is_none() || one == two;
    // A field of `null` matches any value.
    let covers = |one: &Option<String>, two: &Option<String>| one.is_none() || one == two;
    let covers_all = |one: &LoadBalancer, two: &LoadBalancer| {
        covers(&one.issuer, &two.issuer) && covers(&one.client_id, &two.client_id)
    };
    *arn == two.arn
        && overlap(issuer, &two.issuer)
        && overlap(client_id, &two.client_id)
        && !covers_all(one, two)
        && !covers_all(two, one)
}

/// The ARN of an Application Load Balancer.
struct Arn<'a> {
    partition: &'a str,
    region: &'a str,
}

impl<'a> Arn<'a> {
    const EXPECTED: &'static str = "an Application Load Balancer's ARN: arn:aws:elasticloadbalancing:REGION:ACCOUNT:loadbalancer/app/NAME/ID";

    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next();
        let (scheme, partition, service) = (next()?, next()?, next()?);
        let (region, account, resource) = (next()?, next()?, next()?);
        let mut resource = resource.split('/');
        let mut next = || resource.next();
        let (kind, family, name, id) = (next()?, next()?, next()?, next()?);
        let well_formed = scheme == "arn"
            && partition.starts_with("aws")
            && is_label(partition)
            && service == "elasticloadbalancing"
            && is_label(region)
            && account.len() == 12
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && (kind, family) == ("loadbalancer", "app")
            && (1..=32).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && id.len() == 16
            && id
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && next().is_none();
        well_formed.then_some(Self { partition, region })
    }

    /// The key server that AWS documents for the ARN's partition and region; `None` if AWS
    /// documents none.
    fn key_endpoint(&self) -> Option<Endpoint> {
        let region = self.region;
        let (host, path) = match self.partition {
            "aws" => (
                format!("public-keys.auth.elb.{region}.amazonaws.com"),
                "/".to_owned(),
            ),
            "aws-us-gov" => (
                format!("s3-{region}.amazonaws.com"),
                format!("/aws-elb-public-keys-prod-{region}/"),
            ),
            _ => return None,
        };
        Some(Endpoint::https(host, path))
    }
}

fn is_label(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_application_load_balancer_arns() {
        let good = "arn:aws:elasticloadbalancing:us-east-1:263498402841:loadbalancer/app/ALBOI-LoadB-1ESOKE9EXDFW4/46d1d78395db76af";
        assert!(Arn::parse(good).is_some());
        for (from, to) in [
            ("arn:", "ARN:"),
            ("elasticloadbalancing", "ec2"),
            ("us-east-1", "us_east_1"),
            ("us-east-1", "evil.example/"),
            ("us-east-1", ""),
            ("263498402841", "26349840284"),
            ("/app/", "/net/"),
            ("/app/", "/gwy/"),
            ("/46d1d78395db76af", ""),
            ("46d1d78395db76af", "46d1d78395db76af/listener"),
            ("46d1d78395db76af", "46D1D78395DB76AF"),
            ("ALBOI", "A_B"),
            ("loadbalancer/", "targetgroup/"),
        ] {
            let bad = good.replace(from, to);
            assert!(bad != good && Arn::parse(&bad).is_none(), "{bad}");
        }
    }
}
