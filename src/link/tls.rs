//! TLS to servers: always verified. What goes wrong says what to do.

use std::{fmt, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{DialError, Protocol};
use crate::model::Host;
pub(crate) use crate::tls::TlsParts;
pub(super) use crate::tls::explain;

/// A client's side of TLS, ready for use.
#[derive(Clone)]
pub(crate) struct Tls {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl Tls {
    /// # Errors
    ///
    /// What is wrong with the parts, in words.
    pub(crate) fn new(parts: &TlsParts) -> Result<Self, String> {
        let mut config = parts.config()?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = Arc::new(config.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            http1,
            http2: Arc::new(config),
            name: parts.name()?,
        })
    }

    pub(super) async fn shake_hands(
        &self,
        socket: TcpStream,
        host: &Host,
        protocol: Protocol,
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let config = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        let name = match &self.name {
            Some(name) => name.clone(),
            None => match host {
                Host::Ip(ip) => ServerName::from(*ip),
                name => ServerName::try_from(name.to_string()).map_err(|_| {
                    let hint = "no certificate can be for it; name one by `Tls::server_name`";
                    DialError::Tls(format!("the server is called {name:?}: {hint}"))
                })?,
            },
        };
        let connector = TlsConnector::from(config.clone());
        let shaking = connector.connect(name, socket).await;
        shaking.map_err(|error| DialError::Tls(explain(&error)))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
