use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    model::Host,
    tls::{Socket, TlsParts, explain},
    transport::dial::{
        error::DialError,
        target::{Protocol, Target},
    },
};

/// How TLS is spoken with instances, for
/// [`TransportBuilder::tls`](crate::transport::TransportBuilder::tls).
///
/// Their certificates are always verified: against the system's trusted certificates or your own
/// CA; for the instance's registered host, which is usually an IP address, or for the name that you
/// give. `Debug` shows no key. Certificates and keys are PEM texts; nothing is read from the
/// environment or from files.
#[derive(Clone, Default)]
pub struct Tls(TlsParts);

/// A [`Tls`] cannot be used, for this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TLS to instances: {0}")]
pub struct InvalidTls(String);

/// TLS made ready when it is first needed.
#[derive(Clone, Default)]
pub(in crate::transport) struct Lazy(Arc<Cell>);

#[derive(Default)]
struct Cell {
    tls: Tls,
    ready: OnceLock<Result<Ready, String>>,
}

struct Ready {
    /// By what is to be spoken: both, HTTP/1, HTTP/2.
    configs: [Arc<ClientConfig>; 3],
    name: Option<ServerName<'static>>,
}

impl Tls {
    /// Trusts what the system trusts, and shows no certificate of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts these CA certificates instead of the system's. Called again, these as well. Default:
    /// the system's.
    #[must_use]
    pub fn ca(mut self, pem: impl AsRef<[u8]>) -> Self {
        let known = self.0.ca.get_or_insert_default();
        known.extend_from_slice(pem.as_ref());
        known.push(b'\n');
        self
    }

    /// Shows this certificate (with its chain) to instances that ask for one: mutual TLS. Default:
    /// none.
    #[must_use]
    pub fn client_certificate(
        mut self,
        chain_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.0.client = Some((chain_pem.into(), key_pem.into()));
        self
    }

    /// Asks for this name and looks for it in the certificate. Default: the host that the instance
    /// registered.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.0.server_name = Some(name.into());
        self
    }

    /// Looks at it now: otherwise what is wrong with it is said by the first call.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), InvalidTls> {
        Ready::new(&self.0).map(drop).map_err(InvalidTls)
    }
}

impl Lazy {
    /// The same for clones of one, and for all that say nothing of their own.
    pub(in crate::transport) fn identity(&self) -> Option<*const ()> {
        let parts = &self.0.tls.0;
        let own = parts.ca.is_some() || parts.client.is_some() || parts.server_name.is_some();
        own.then(|| Arc::as_ptr(&self.0).cast())
    }

    fn ready(&self) -> Result<&Ready, DialError> {
        let cell = &*self.0;
        let ready = cell.ready.get_or_init(|| Ready::new(&cell.tls.0));
        let invalid = |why: &String| DialError::tls(why.clone(), false);
        ready.as_ref().map_err(invalid)
    }
}

impl Ready {
    fn new(parts: &TlsParts) -> Result<Self, String> {
        let config = parts.config()?;
        let with = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            configs: [with(&[H2, HTTP1]), with(&[HTTP1]), with(&[H2])],
            name: parts.name()?,
        })
    }
}

impl From<Tls> for Lazy {
    fn from(tls: Tls) -> Self {
        Self(Arc::new(Cell {
            tls,
            ready: OnceLock::new(),
        }))
    }
}

/// Under TLS, and whether HTTP/2 is to be spoken.
pub(in crate::transport) async fn shake_hands(
    socket: TcpStream,
    target: &Target,
    tls: &Lazy,
    within: Duration,
) -> Result<(Socket, bool), DialError> {
    let ready = tls.ready()?;
    let at = match target.protocol {
        Protocol::Auto => 0,
        Protocol::Http1 => 1,
        Protocol::Http2 => 2,
    };
    let name = match (&ready.name, target.address.host()) {
        (Some(name), _) => name.clone(),
        (None, Host::Ip(ip)) => ServerName::from(*ip),
        (None, name) => ServerName::try_from(name.to_string()).map_err(|_| {
            let why = format!(
                "it is called {name:?}, which no certificate can be for; name one by `Tls::server_name`"
            );
            DialError::tls(why, false)
        })?,
    };
    let shaking = TlsConnector::from(Arc::clone(&ready.configs[at])).connect(name, socket);
    let stream = match timeout(within, shaking).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(DialError::tls(explain(&error), false)),
        Err(_) => {
            let why = format!("no TLS handshake within {within:?}");
            return Err(DialError::tls(why, true));
        }
    };
    // A server without ALPN speaks what it spoke before ALPN, unless it is known better.
    let http2 = match target.protocol {
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Auto => stream.get_ref().1.alpn_protocol() == Some(H2),
    };
    Ok((Socket::Tls(Box::new(stream)), http2))
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("own_ca", &self.0.ca.is_some())
            .field("client_certificate", &self.0.client.is_some())
            .field("server_name", &self.0.server_name)
            .finish()
    }
}

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
