//! Whether a connection to a server is under TLS.

use tokio::net::TcpStream;

#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{DialError, protocol::Protocol};
use crate::{model::Host, tls::Socket};

/// How connections to servers are secured.
#[derive(Clone, Debug, Default)]
pub(crate) enum Security {
    #[default]
    Plain,
    #[cfg(feature = "tls")]
    Tls(Tls),
}

impl Security {
    pub(crate) const fn is_tls(&self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// Shakes hands, if it is to be TLS. `host` is the configured one, which the certificate must
    /// be for unless another name was given.
    pub(crate) async fn secure(
        &self,
        socket: TcpStream,
        host: &Host,
        protocol: Protocol,
    ) -> Result<Socket, DialError> {
        match self {
            Self::Plain => {
                let _ = (host, protocol);
                Ok(Socket::Plain(socket))
            }
            #[cfg(feature = "tls")]
            Self::Tls(tls) => {
                let stream = tls.shake_hands(socket, host, protocol).await?;
                Ok(Socket::Tls(Box::new(stream)))
            }
        }
    }
}
