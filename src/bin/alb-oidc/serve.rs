//! The listeners of `simulate` and `echo`: bind, serve, stop on a signal, log. Does not read
//! requests.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::input::Trouble;

/// A bound listener.
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`. Port 0 is any free port.
    ///
    /// # Errors
    /// The address is in use or not of this machine.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Trouble> {
        let failed = |error| Trouble(format!("cannot listen on {address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The bound address, with the real port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` until the process ends.
    pub(crate) async fn serve(self, routes: Router) -> Result<(), Trouble> {
        let service = routes.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(self.listener, service)
            .await
            .map_err(|error| Trouble(format!("{}: {error}", self.address)))
    }
}

/// Runs `server` until it fails, or until Ctrl-C or SIGTERM.
pub(crate) fn run(server: impl Future<Output = Result<(), Trouble>>) -> Result<ExitCode, Trouble> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Trouble(format!("cannot start threads: {error}")))?;
    let done = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())
            .map_err(|error| Trouble(format!("cannot wait for a signal: {error}")))?;
        tokio::select! {
            done = server => done,
            _ = tokio::signal::ctrl_c() => Ok(()),
            _ = terminated.recv() => Ok(()),
        }
    });
    // Open connections, such as WebSockets, end with the process.
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

/// Writes a log line to standard output.
pub(crate) fn log(line: std::fmt::Arguments<'_>) {
    // A closed log must not stop the server.
    let _ = writeln!(std::io::stdout(), "{line}");
}
