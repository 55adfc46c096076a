use tokio::time::timeout;

use crate::{
    tls::Socket,
    transport::dial::{
        addresses, connect,
        error::DialError,
        options::DialOptions,
        target::{Protocol, Target},
    },
};

/// Opens connections to one instance.
pub(in crate::transport) struct Dialler {
    pub(in crate::transport) target: Result<Target, String>,
    pub(in crate::transport) options: DialOptions,
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
        let target = self.target.as_ref();
        let target = target.map_err(|why| DialError::new(why.clone()))?;
        let within = self.options.timeout;
        let connecting = async {
            let addresses = addresses::find(target, &self.options).await?;
            connect::connect(addresses, &self.options).await
        };
        let Ok(connected) = timeout(within, connecting).await else {
            let text = format!(
                "nobody answers at {}: no connection within {within:?}",
                target.address
            );
            return Err(DialError::late(text));
        };
        let socket = connected?;
        if !target.tls {
            return Ok(Dialled {
                io: Socket::Plain(socket),
                http2: target.protocol == Protocol::Http2,
            });
        }
        #[cfg(feature = "tls")]
        {
            let (io, http2) =
                crate::transport::dial::tls::shake_hands(socket, target, &self.options).await?;
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
