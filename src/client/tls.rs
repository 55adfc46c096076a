//! TLS as users ask for it.

use std::fmt;

use super::error::ConfigError;
use crate::link::{self, Security, TlsParts};

/// How a client speaks TLS with its servers, for [`ClientBuilder::tls`](super::ClientBuilder::tls).
///
/// The server's certificate is always verified: against the system's trusted certificates, or your
/// own CA; for the host that was configured, or the name that you give. `Debug` shows no key.
///
/// Certificates and keys are PEM texts; nothing is read from the environment or from files.
///
/// ```
/// use tower_nacos::client::{Client, Tls};
///
/// let builder = Client::builder().servers("nacos.internal:8848").tls(Tls::new());
/// # drop(builder);
/// ```
#[derive(Clone, Default)]
pub struct Tls {
    parts: TlsParts,
    plain_login: bool,
}

impl Tls {
    /// Trusts what the system trusts, and shows no certificate of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts these CA certificates instead of the system's. Called again, these as well. Default:
    /// the system's. A private CA is the usual case for a registry, and trusting it alone keeps
    /// everybody else's certificates out.
    #[must_use]
    pub fn ca(mut self, pem: impl AsRef<[u8]>) -> Self {
        let known = self.parts.ca.get_or_insert_default();
        known.extend_from_slice(pem.as_ref());
        known.push(b'\n');
        self
    }

    /// Shows this certificate (with its chain) to servers that ask for one: mutual TLS. Default:
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

    /// Asks for this name and looks for it in the certificate. Default: the host as configured,
    /// which a certificate rarely names when that is an IP address. All servers need it then.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.parts.server_name = Some(name.into());
        self
    }

    /// Logs in over plain HTTP, where only the gRPC port speaks TLS: Nacos configures the two apart.
    /// Default: no, as the password would cross the network for everybody to read.
    #[must_use]
    pub const fn plain_login(mut self, plain: bool) -> Self {
        self.plain_login = plain;
        self
    }

    /// For connections, and for logins.
    pub(super) fn build(&self) -> Result<(Security, Security), ConfigError> {
        let tls = link::Tls::new(&self.parts).map_err(|what| ConfigError::option("tls", &what))?;
        let login = if self.plain_login {
            Security::Plain
        } else {
            Security::Tls(tls.clone())
        };
        Ok((Security::Tls(tls), login))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("own_ca", &self.parts.ca.is_some())
            .field("client_certificate", &self.parts.client.is_some())
            .field("server_name", &self.parts.server_name)
            .field("plain_login", &self.plain_login)
            .finish()
    }
}
