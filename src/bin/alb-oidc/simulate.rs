//! `alb-oidc simulate`: a load balancer, an identity provider and a key server in one process, to
//! try sign-in without AWS. Starts two listeners: the load balancer, and everything else. Their
//! routes are in the modules below.

mod alb;
mod forward;
mod hosts;
mod idp;
mod key_server;
mod keys;
mod misbehave;
mod operator;
mod options;
mod request;
mod seal;
mod session;
mod state;
mod tokens;
mod users;
mod users_by_id;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;

pub(crate) use options::Simulate;

use crate::input::Trouble;
use crate::serve::{self, Listener, log};
use state::Simulator;

impl Simulate {
    /// Serves both listeners until a signal stops it.
    pub(crate) fn run(mut self) -> Result<ExitCode, Trouble> {
        serve::run(async {
            let alb = Listener::bind(self.listen).await?;
            let services = Listener::bind(self.keys_listen).await?;
            // Replace port 0 by the port that the system chose.
            (self.listen, self.keys_listen) = (alb.address(), services.address());
            let simulator = Arc::new(Simulator::new(self)?);
            log(format_args!(
                "sign in at http://{}",
                browsable(alb.address())
            ));
            log(format_args!(
                "key server, identity provider and control page at http://{}",
                browsable(services.address())
            ));
            // Keys are public, and gateways fetch them under any name.
            let pages = Router::new()
                .merge(idp::routes())
                .merge(operator::routes())
                .route_layer(from_fn_with_state(Arc::clone(&simulator), hosts::check))
                .merge(key_server::routes());
            let pages = pages.with_state(Arc::clone(&simulator));
            tokio::try_join!(alb.serve(alb::routes(simulator)), services.serve(pages))?;
            Ok(())
        })
    }
}

/// The address in a URL for a browser on this machine. Over plain HTTP, browsers store `Secure`
/// cookies for `localhost` only.
fn browsable(address: SocketAddr) -> String {
    let here = address.ip().is_loopback() || address.ip().is_unspecified();
    if here {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}
