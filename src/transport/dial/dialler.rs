use tokio::time::timeout;

use crate::{
    logs,
    tls::Socket,
    transport::dial::{
        addresses, connect,
        error::DialError,
        options::DialOptions,
        own::Bound,
        target::{Protocol, Target},
    },
};

/// Opens connections to one instance.
pub(in crate::transport) struct Dialler {
    pub(in crate::transport) target: Result<Target, String>,
    pub(in crate::transport) options: DialOptions,
    /// Who connects, if it is not us.
    pub(in crate::transport) own: Option<Bound>,
}

/// What came of a dial.
pub(in crate::transport) struct Dialled {
    pub(in crate::transport) io: Socket,
    /// Whether HTTP/2 is to be spoken on it.
    pub(in crate::transport) http2: bool,
}

impl Dialler {
    /// Connects, and shakes hands if it is to be TLS.
    pub(in crate::transport) async fn dial(&self) -> Result<Dialled, DialError> {
        let dialled = self.open().await;
        let instance = self.target.as_ref().ok().map(|target| &target.address);
        let instance = instance.map(tracing::field::display);
        match &dialled {
            Ok(dialled) => {
                let (tls, http2) = (dialled.io.plain().is_none(), dialled.http2);
                tracing::debug!(target: logs::TRANSPORT, instance, tls, http2, "an instance was dialled: there is a connection");
            }
            Err(error) => {
                tracing::debug!(target: logs::TRANSPORT, instance, cause = %error, "an instance was dialled in vain");
            }
        }
        dialled
    }

    async fn open(&self) -> Result<Dialled, DialError> {
        let target = self.target.as_ref();
        let target = target.map_err(|why| DialError::new(why.clone()))?;
        let within = self.options.timeout;
        let connecting = async {
            if let Some(own) = &self.own {
                return own.connect(&self.options).await;
            }
            let addresses = addresses::find(target, &self.options).await?;
            let connected = connect::connect(addresses, &self.options).await;
            connected.map(Socket::Plain)
        };
        let Ok(connected) = timeout(within, connecting).await else {
            let at = &target.address;
            let text = match self.own {
                None => format!("nobody answers at {at}: no connection within {within:?}"),
                Some(_) => format!("no connection to {at} by its connector within {within:?}"),
            };
            return Err(DialError::late(text));
        };
        let socket = connected?;
        if !target.tls {
            return Ok(Dialled {
                io: socket,
                http2: target.protocol == Protocol::Http2,
            });
        }
        #[cfg(feature = "tls")]
        {
            let (tls, within) = (&self.options.tls, self.options.handshake_timeout);
            let shaking = crate::transport::dial::tls::shake_hands(socket, target, tls, within);
            let (io, http2) = shaking.await?;
            Ok(Dialled { io, http2 })
        }
        #[cfg(not(feature = "tls"))]
        {
            Err(DialError::new(
                "it wants TLS, and this program was built without tower-nacos's feature `tls`",
            ))
        }
    }
}
