//! Compares the authenticating actions with `loadBalancers`, `logout` and `userId`.

use std::collections::BTreeSet;

use super::Auditor;
use crate::aws::{Action, DEFAULT_TIMEOUT, SignIn, load_balancer_of};
use crate::finding::Code;

impl Auditor<'_> {
    pub(super) fn sign_ins(&mut self) {
        self.arns();
        let mut clients = BTreeSet::new();
        let gateway = self.gateway_targets();
        for site in self.sites() {
            for (position, action) in site.actions.iter().enumerate() {
                let Some(sign_in) = SignIn::of(action) else {
                    continue;
                };
                let fields = if action.authenticate_oidc_config.is_some() {
                    ["AuthenticateOidcConfig", "Issuer", "ClientId"]
                } else {
                    [
                        "AuthenticateCognitoConfig",
                        "UserPoolArn",
                        "UserPoolClientId",
                    ]
                };
                let [config, issuer, client] = fields;
                let prefix = format!("{}[{position}].{config}", site.field);
                // Another application of the load balancer may have another client.
                let mut targets = site.actions.iter().flat_map(Action::target_groups);
                let is_of_gateway = targets.any(|target| gateway.contains(target));
                let differences =
                    is_of_gateway.then(|| self.differences(&site.load_balancer, &sign_in));
                for (code, message) in differences.into_iter().flatten() {
                    let name = match code {
                        Code::AlbIssuerDiffers => issuer,
                        Code::AlbClientDiffers => client,
                        Code::AlbScope => "Scope",
                        Code::AlbCookieDiffers => "SessionCookieName",
                        _ => "SessionTimeout",
                    };
                    let field = format!("{prefix}.{name}");
                    self.add(code, &site.place, &field, site.arn, &message);
                }
                clients.insert(sign_in.client_id.clone());
                if clients.len() == 2 {
                    let found = clients.iter().cloned().collect::<Vec<_>>().join(", ");
                    let message = format!("found the clients {found}, expected one");
                    let field = format!("{prefix}.{client}");
                    let code = Code::AlbTwoClients;
                    self.add(code, &site.place, &field, site.arn, &message);
                    // Once.
                    clients.insert(String::new());
                }
            }
        }
    }

    /// The target groups of the gateway: actions with a sign-in that the config trusts forward to
    /// them, or without such a sign-in, all actions with a sign-in.
    pub(super) fn gateway_targets(&self) -> BTreeSet<String> {
        let (mut trusted, mut all) = (BTreeSet::new(), BTreeSet::new());
        for site in self.sites() {
            for sign_in in site.actions.iter().filter_map(SignIn::of) {
                let targets = site.actions.iter().flat_map(Action::target_groups);
                let targets: Vec<_> = targets.map(str::to_owned).collect();
                let is_other = |(code, _): &(Code, String)| {
                    [Code::AlbIssuerDiffers, Code::AlbClientDiffers].contains(code)
                };
                let differences = self.differences(&site.load_balancer, &sign_in);
                if !differences.iter().any(is_other) {
                    trusted.extend(targets.clone());
                }
                all.extend(targets);
            }
        }
        if trusted.is_empty() { all } else { trusted }
    }

    /// A config that trusts no load balancer of the input.
    fn arns(&mut self) {
        let snapshot = self.snapshot;
        let listed = snapshot.load_balancers.iter().map(|known| &known.value);
        let listed = listed
            .filter(|known| known.kind.as_deref() != Some("network"))
            .map(|known| known.load_balancer_arn.clone());
        let mut known: BTreeSet<_> = listed.collect();
        if snapshot.load_balancers.is_empty() {
            // The ARNs of rules and listeners name their load balancer.
            let rules = snapshot.rules.iter().map(|rule| &rule.value.rule_arn);
            let listeners = snapshot.listeners.iter();
            let listeners = listeners.map(|listener| &listener.value.listener_arn);
            known.extend(
                rules
                    .chain(listeners)
                    .filter_map(|arn| load_balancer_of(arn)),
            );
        }
        let mut arns = self.config.load_balancers.iter().map(|known| &known.arn);
        if known.is_empty() || arns.any(|arn| known.contains(arn)) {
            return;
        }
        let names: Vec<_> = known.iter().map(String::as_str).collect();
        let found = self
            .config
            .load_balancers
            .first()
            .map_or("", |first| &first.arn);
        let message = format!("found {found}, expected {}", names.join(" or "));
        self.add_in_config(Code::AlbArnDiffers, "loadBalancers[0].arn", &message);
    }

    fn differences(&self, arn: &str, sign_in: &SignIn) -> Vec<(Code, String)> {
        let is_known = self
            .config
            .load_balancers
            .iter()
            .any(|known| known.arn == arn);
        let trusted = || {
            let known = self.config.load_balancers.iter();
            known.filter(|known| known.arn == arn || !is_known)
        };
        let with_issuer = || {
            trusted().filter(|known| {
                known
                    .issuer
                    .as_ref()
                    .is_none_or(|issuer| *issuer == sign_in.issuer)
            })
        };
        let mut found = Vec::new();
        if with_issuer().next().is_none() {
            let issuers: Vec<_> = trusted()
                .filter_map(|known| known.issuer.as_deref())
                .collect();
            let message = format!(
                "found the issuer {}, expected {} as in the config",
                sign_in.issuer,
                issuers.join(" or ")
            );
            found.push((Code::AlbIssuerDiffers, message));
        } else if !with_issuer().any(|known| {
            known
                .client_id
                .as_ref()
                .is_none_or(|client| *client == sign_in.client_id)
        }) {
            let clients: Vec<_> = with_issuer()
                .filter_map(|known| known.client_id.as_deref())
                .collect();
            let message = format!(
                "found the client {}, expected {} as in the config",
                sign_in.client_id,
                clients.join(" or ")
            );
            found.push((Code::AlbClientDiffers, message));
        }
        let claims = &self.config.users.identity.user_id.claims;
        let mut scopes = sign_in.scope.split([' ', '+']);
        let only_email = claims.len() == 1 && claims.iter().all(|claim| claim == "email");
        if only_email && !scopes.any(|scope| scope == "email") {
            let message = format!("found the scope {:?}, expected email in it", sign_in.scope);
            found.push((Code::AlbScope, message));
        }
        let cookies = self.config.session_cookies.configured();
        if !cookies.contains(&sign_in.cookie) {
            let message = format!(
                "found the cookie {}, expected {} as in the config",
                sign_in.cookie,
                cookies.join(" or ")
            );
            found.push((Code::AlbCookieDiffers, message));
        }
        if sign_in.session_timeout > DEFAULT_TIMEOUT {
            let message = format!(
                "found {} seconds, expected at most {DEFAULT_TIMEOUT}",
                sign_in.session_timeout
            );
            found.push((Code::AlbSessionTimeout, message));
        }
        found
    }
}
