//! The server's side of TLS.

use std::{io, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

/// How a [`Registry`](super::Registry) speaks TLS, from PEM texts; tests make them with rcgen.
///
/// Example: [a registry](crate::testing)
#[derive(Clone)]
pub struct ServerTls {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    plain_http: bool,
}

impl ServerTls {
    /// Shows this certificate (with its chain).
    pub fn new(chain_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        Self {
            certificate: chain_pem.into(),
            key: key_pem.into(),
            client_ca: None,
            plain_http: false,
        }
    }

    /// Wants a certificate of each client, signed by this CA: mutual TLS. Default: none.
    #[must_use]
    pub fn client_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.client_ca = Some(pem.into());
        self
    }

    /// Leaves the main port (logins, the operator's interface) without TLS, as real servers do that
    /// were told of TLS for gRPC only. Default: both ports speak it.
    #[must_use]
    pub const fn plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// For the main port and the gRPC port.
    pub(super) fn acceptors(&self) -> io::Result<(Option<TlsAcceptor>, TlsAcceptor)> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(invalid)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem)? {
                    roots.add(certificate).map_err(invalid)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(invalid)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(invalid)?;
        let mut config = builder
            .with_single_cert(certificates(&self.certificate)?, key)
            .map_err(invalid)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http = (!self.plain_http).then(|| TlsAcceptor::from(Arc::new(config.clone())));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok((http, TlsAcceptor::from(Arc::new(config))))
    }
}

fn certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>();
    read.map_err(invalid)
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls")
            .field("client_ca", &self.client_ca.is_some())
            .field("plain_http", &self.plain_http)
            .finish_non_exhaustive()
    }
}
