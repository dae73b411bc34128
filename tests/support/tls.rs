//! A TLS terminator before a plain server, with a certificate of the test's own authority, in place
//! of AWS' key servers.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate authority that only the test trusts.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one.
    pub fn generate() -> Authority {
        let mut params = CertificateParams::default();
        // Differs from the names of its certificates, which would otherwise look self-signed.
        params
            .distinguished_name
            .push(DnType::CommonName, "the tests' authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
                .expect("a certificate"),
        )
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `name`, and its key, in PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        let (certificate, key) = self.signed(name);
        (certificate.pem(), key.serialize_pem())
    }

    fn signed(&self, name: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate, key)
    }

    fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("the authority");
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    fn server(&self, name: &str) -> ServerConfig {
        let (certificate, key) = self.signed(name);
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("its key");
        ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a server's configuration")
    }
}

/// The running terminator.
pub struct TlsEnd {
    /// Its address.
    pub address: SocketAddr,
    names: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl TlsEnd {
    /// Listens at `address`, answers as `name`, and forwards each connection to `plain`.
    pub async fn start(
        authority: &Authority,
        name: &str,
        address: SocketAddr,
        plain: SocketAddr,
    ) -> TlsEnd {
        let acceptor = TlsAcceptor::from(Arc::new(authority.server(name)));
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("the port's number");
        let names = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&names);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, asked) = (acceptor.clone(), Arc::clone(&asked));
                // The client observes a connection's error.
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let name = stream
                        .get_ref()
                        .1
                        .server_name()
                        .unwrap_or_default()
                        .to_owned();
                    asked.lock().expect("the names").push(name);
                    let Ok(mut plain) = TcpStream::connect(plain).await else {
                        return;
                    };
                    drop(copy_bidirectional(&mut stream, &mut plain).await);
                });
            }
        });
        TlsEnd {
            address,
            names,
            accepting,
        }
    }

    /// The server names that clients requested (SNI), one for each connection.
    pub fn names(&self) -> Vec<String> {
        self.names.lock().expect("the names").clone()
    }
}

impl Drop for TlsEnd {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A plain end in front of a TLS server of the authority's, for clients without TLS.
pub struct PlainEnd {
    /// Where it listens.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl PlainEnd {
    /// Listens on a free port, and forwards each connection to the server with this name (SNI).
    pub async fn start(authority: &Authority, name: &str, server: SocketAddr) -> PlainEnd {
        let connector = TlsConnector::from(Arc::new(authority.client()));
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("the port's number");
        let accepting = tokio::spawn(async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                let (connector, name) = (connector.clone(), name.clone());
                // A connection's error is its client's to see.
                tokio::spawn(async move {
                    let Ok(stream) = TcpStream::connect(server).await else {
                        return;
                    };
                    if let Ok(mut stream) = connector.connect(name, stream).await {
                        drop(copy_bidirectional(&mut plain, &mut stream).await);
                    }
                });
            }
        });
        PlainEnd { address, accepting }
    }
}

impl Drop for PlainEnd {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
