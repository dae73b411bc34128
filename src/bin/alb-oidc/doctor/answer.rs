//! Says from the answer to a probe who denied the request, or that it was admitted. No I/O.

use alb_oidc_filter::Reason;
use axum::http::header::{HeaderMap, HeaderName, LOCATION, SERVER, WWW_AUTHENTICATE};
use axum::http::{StatusCode, Uri};
use serde_json::Value;

/// The ALB's `redirect_uri` has this path.
const CALLBACK: &str = "/oauth2/idpresponse";
/// The `Server` header of an answer of the ALB's own.
const ALB: &str = "awselb/";
/// The body of a denial by Envoy's RBAC filter.
const RBAC: &str = "RBAC: access denied";
/// Envoy's router adds it to an answer from behind the gateway.
const UPSTREAM_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// The answer to a probe.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Empty unless the status is an error.
    pub(super) body: String,
}

/// What an answer shows, in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The load balancer redirected to sign in, or denied the request.
    DeniedByLoadBalancer(String),
    /// The filter denied the request.
    DeniedByGateway(String),
    /// The answer is neither of these, and not certainly of an application.
    Unclear(String),
    /// The request passed the filter's place.
    Admitted(String),
}

impl Answer {
    pub(super) fn outcome(&self) -> Outcome {
        let status = self.status.as_u16();
        let location = self.header(&LOCATION);
        let is_load_balancer = self.header(&SERVER).starts_with(ALB);
        if let Some(host) = sign_in(location).filter(|_| status == 302) {
            return Outcome::DeniedByLoadBalancer(format!(
                "302 of the load balancer, to sign in at {host}"
            ));
        }
        if let Some(reason) = self.reason() {
            return Outcome::DeniedByGateway(format!("{status} of the filter, {reason}"));
        }
        match status {
            401 if is_load_balancer => {
                Outcome::DeniedByLoadBalancer("401 of the load balancer".to_owned())
            }
            403 if self.body == RBAC && self.headers.contains_key(UPSTREAM_TIME) => {
                Outcome::Admitted("403 of a policy behind the gateway".to_owned())
            }
            // The filter answers before the interlock, and an application's policy answers so too.
            403 if self.body == RBAC => {
                Outcome::Unclear("403 of the interlock or an AuthorizationPolicy".to_owned())
            }
            _ if is_load_balancer => {
                Outcome::Unclear(format!("{} of the load balancer", self.words()))
            }
            301 | 307 | 308 if location.starts_with("https://") => Outcome::Unclear(self.words()),
            400 | 401 | 403 | 405 | 407 | 429 | 500.. => {
                Outcome::Unclear(format!("{status}, which is not the filter's"))
            }
            _ => Outcome::Admitted(self.words()),
        }
    }

    /// The value of a header; empty without one.
    fn header(&self, name: &HeaderName) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The status, and the target of a redirect.
    fn words(&self) -> String {
        let status = self.status.as_u16();
        match self.header(&LOCATION) {
            "" => status.to_string(),
            location => format!("{status} to {}", without_query(location)),
        }
    }

    /// The reason in an answer of the filter.
    fn reason(&self) -> Option<Reason> {
        let challenge = self
            .header(&WWW_AUTHENTICATE)
            .strip_prefix("AlbOidc reason=\"")
            .and_then(|rest| rest.strip_suffix('"'));
        let body: Option<Value> = serde_json::from_str(&self.body).ok();
        let in_body = body.as_ref().and_then(|body| body.get("reason")?.as_str());
        let name = challenge.or(in_body)?;
        Reason::ALL
            .into_iter()
            .find(|reason| reason.name() == name && reason.status() == self.status.as_u16())
    }
}

/// The URL without query and fragment, which may have a code or a token.
pub(super) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// The host to which the ALB redirects a request without a session.
fn sign_in(location: &str) -> Option<String> {
    let location: Uri = location.parse().ok()?;
    let query: Vec<(String, String)> = serde_urlencoded::from_str(location.query()?).ok()?;
    let value = |name: &str| query.iter().find(|(found, _)| found == name);
    let (_, kind) = value("response_type")?;
    let (_, redirect) = value("redirect_uri")?;
    let redirect: Uri = redirect.parse().ok()?;
    let host = location.host()?;
    (kind == "code" && redirect.path() == CALLBACK).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGN_IN: &str = "https://idp.example.com/authorize?client_id=c&redirect_uri=https%3A%2F%2Fkubeflow.example.com%3A443%2Foauth2%2Fidpresponse&response_type=code&scope=openid&state=s";

    fn outcome(status: u16, headers: &[(HeaderName, &str)], body: &str) -> Outcome {
        let pair = |(name, value): &(HeaderName, &str)| {
            (name.clone(), value.parse().expect("a header value"))
        };
        let answer = Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: headers.iter().map(pair).collect(),
            body: body.to_owned(),
        };
        answer.outcome()
    }

    #[test]
    fn load_balancer_signs_in_or_denies() {
        let alb = (SERVER, "awselb/2.0");
        for headers in [
            &[(LOCATION, SIGN_IN)][..],
            &[(LOCATION, SIGN_IN), alb.clone()],
        ] {
            let expected = "302 of the load balancer, to sign in at idp.example.com".to_owned();
            assert_eq!(
                outcome(302, headers, ""),
                Outcome::DeniedByLoadBalancer(expected)
            );
        }
        let denied = outcome(401, &[alb], "<html>");
        assert!(
            matches!(denied, Outcome::DeniedByLoadBalancer(_)),
            "{denied:?}"
        );
    }

    #[test]
    fn filter_denies() {
        let body = r#"{"error":"the request has no sign-in token","reason":"token-missing","requestId":"-"}"#;
        let expected = Outcome::DeniedByGateway("401 of the filter, token-missing".to_owned());
        assert_eq!(outcome(401, &[], body), expected);
        let challenge = (WWW_AUTHENTICATE, "AlbOidc reason=\"token-missing\"");
        assert_eq!(outcome(401, &[challenge], "<html>"), expected);
        let body = r#"{"reason":"key-unavailable"}"#;
        let expected = Outcome::DeniedByGateway("503 of the filter, key-unavailable".to_owned());
        assert_eq!(outcome(503, &[], body), expected);
    }

    #[test]
    fn answer_of_an_application_is_admitted() {
        let callback = SIGN_IN.replace("idpresponse", "callback");
        let reason = r#"{"reason":"token-missing"}"#;
        for (status, headers, body) in [
            (200, &[][..], ""),
            // An application may name a reason, but not with this status.
            (404, &[], reason),
            (404, &[], ""),
            (101, &[], ""),
            (302, &[(LOCATION, "/login")], ""),
            (302, &[(LOCATION, callback.as_str())], ""),
            (303, &[(LOCATION, SIGN_IN)], ""),
            (403, &[(UPSTREAM_TIME, "3")], RBAC),
        ] {
            let found = outcome(status, headers, body);
            assert!(matches!(found, Outcome::Admitted(_)), "{status}: {found:?}");
        }
    }

    #[test]
    fn query_of_a_redirect_is_not_shown() {
        let location = (LOCATION, "/login?code=secret#token");
        let expected = Outcome::Admitted("302 to /login".to_owned());
        assert_eq!(outcome(302, &[location], ""), expected);
    }

    #[test]
    fn other_answers_are_unclear() {
        let https = (LOCATION, "https://kubeflow.example.com/");
        let alb = (SERVER, "awselb/2.0");
        for (status, headers, body) in [
            (301, &[https.clone()][..], ""),
            (302, &[https, alb.clone()], ""),
            (404, std::slice::from_ref(&alb), ""),
            (503, std::slice::from_ref(&alb), ""),
            (401, &[], r#"{"reason":"other"}"#),
            (403, &[], "WAF"),
            (403, &[], RBAC),
            (502, &[], ""),
            (429, &[], ""),
        ] {
            let found = outcome(status, headers, body);
            assert!(matches!(found, Outcome::Unclear(_)), "{status}: {found:?}");
        }
    }
}
