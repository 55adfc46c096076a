use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::time::timeout;
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
pub struct Tls {
    parts: TlsParts,
    /// The user's, in place of one that is made from the parts.
    own: Option<Arc<ClientConfig>>,
}

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
    /// By what is to be spoken: both, HTTP/1, HTTP/2; or why that cannot be.
    configs: [Result<Arc<ClientConfig>, String>; 3],
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
        let known = self.parts.ca.get_or_insert_default();
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
        self.parts.client = Some((chain_pem.into(), key_pem.into()));
        self
    }

    /// Asks for this name and looks for it in the certificate. Default: the host that the instance
    /// registered.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.parts.server_name = Some(name.into());
        self
    }

    /// Speaks TLS by this configuration of rustls: a verifier, trust, certificates, versions, session
    /// tickets and crypto provider of your own. Default: one that is made from what is said here, with ring.
    ///
    /// ALPN is ours to say, by what is to be spoken: leave `alpn_protocols` empty. A list that is there may
    /// hold `h2` and `http/1.1`, and what is missing from it is not spoken: an instance that is called by
    /// HTTP/2, all those of gRPC say, is not callable by one of `http/1.1` alone. Together with
    /// [`ca`](Self::ca) or [`client_certificate`](Self::client_certificate) it is an error, as those
    /// would say the same again.
    #[must_use]
    pub fn config(mut self, config: Arc<ClientConfig>) -> Self {
        self.own = Some(config);
        self
    }

    /// Looks at it now: otherwise what is wrong with it is said by the first call.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), InvalidTls> {
        Ready::new(self).map(drop).map_err(InvalidTls)
    }
}

impl Lazy {
    /// The same for clones of one, and for all that say nothing of their own.
    pub(in crate::transport) fn identity(&self) -> Option<*const ()> {
        let tls = &self.0.tls;
        let parts = &tls.parts;
        let named = parts.ca.is_some() || parts.client.is_some() || parts.server_name.is_some();
        let own = named || tls.own.is_some();
        own.then(|| Arc::as_ptr(&self.0).cast())
    }

    fn ready(&self) -> Result<&Ready, DialError> {
        let cell = &*self.0;
        let ready = cell.ready.get_or_init(|| Ready::new(&cell.tls));
        let invalid = |why: &String| DialError::tls(why.clone(), false);
        ready.as_ref().map_err(invalid)
    }
}

impl Ready {
    fn new(tls: &Tls) -> Result<Self, String> {
        let config = match &tls.own {
            None => tls.parts.config()?,
            Some(own) => own_config(own, &tls.parts)?,
        };
        let offered = &config.alpn_protocols;
        let with = |wanted: &[&[u8]]| {
            let both = |protocol: &&&[u8]| {
                offered.is_empty() || offered.iter().any(|own| own == *protocol)
            };
            let protocols: Vec<_> = wanted.iter().filter(both).map(|p| p.to_vec()).collect();
            if protocols.is_empty() {
                let [wanted, offered] =
                    [wanted[0], offered[0].as_slice()].map(String::from_utf8_lossy);
                return Err(format!(
                    "its configuration (`Tls::config`) offers only {offered} by ALPN, and {wanted} is to be spoken: leave `alpn_protocols` empty"
                ));
            }
            let mut config = config.clone();
            config.alpn_protocols = protocols;
            Ok(Arc::new(config))
        };
        Ok(Self {
            configs: [with(&[H2, HTTP1]), with(&[HTTP1]), with(&[H2])],
            name: tls.parts.name()?,
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
    socket: Socket,
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
    let config = ready.configs[at].as_ref();
    let config = config.map_err(|why| DialError::tls(why.clone(), false))?;
    let own = target.server_name.as_deref().map(certified).transpose()?;
    let name = match (own.as_ref().or(ready.name.as_ref()), target.address.host()) {
        (Some(name), _) => name.clone(),
        (None, Host::Ip(ip)) => ServerName::from(*ip),
        (None, name) => ServerName::try_from(name.to_string()).map_err(|_| {
            let why = format!(
                "it is called {name:?}, which no certificate can be for; name one by `Tls::server_name`"
            );
            DialError::tls(why, false)
        })?,
    };
    let connector = TlsConnector::from(Arc::clone(config));
    let shaking = async {
        Ok(match socket {
            Socket::Plain(tcp) => {
                let stream = connector.connect(name, tcp).await?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
                (Socket::Tls(Box::new(stream)), http2)
            }
            Socket::Own(io) => {
                let stream = connector.connect(name, io).await?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
                (Socket::OwnTls(Box::new(stream)), http2)
            }
            already => (already, false), // never so: TLS is spoken once
        })
    };
    let (socket, agreed) = match timeout(within, shaking).await {
        Ok(Ok(shaken)) => shaken,
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
        Protocol::Auto => agreed,
    };
    Ok((socket, http2))
}

/// A configuration of the user's, if nothing else says the same.
fn own_config(own: &ClientConfig, parts: &TlsParts) -> Result<ClientConfig, String> {
    let twice = match (&parts.ca, &parts.client) {
        (Some(_), _) => Some("ca"),
        (None, Some(_)) => Some("client_certificate"),
        (None, None) => None,
    };
    if let Some(twice) = twice {
        return Err(format!(
            "`Tls::config` and `Tls::{twice}` say the same twice: put it into the configuration"
        ));
    }
    let strange = |protocol: &&Vec<u8>| ![H2, HTTP1].contains(&protocol.as_slice());
    if let Some(strange) = own.alpn_protocols.iter().find(strange) {
        let strange = String::from_utf8_lossy(strange);
        return Err(format!(
            "its configuration (`Tls::config`) offers {strange:?} by ALPN, which is not spoken here: only h2 and http/1.1 are"
        ));
    }
    Ok(own.clone())
}

/// A name that a certificate can be for.
fn certified(name: &str) -> Result<ServerName<'static>, DialError> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        let why = format!("its server name {name:?} is none that a certificate can be for");
        DialError::tls(why, false)
    })
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("own_config", &self.own.is_some())
            .field("own_ca", &self.parts.ca.is_some())
            .field("client_certificate", &self.parts.client.is_some())
            .field("server_name", &self.parts.server_name)
            .finish()
    }
}

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
