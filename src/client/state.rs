use std::{fmt, net::SocketAddr, sync::Arc};

/// How a client's connection to the registry is.
///
/// Example: [a client](crate::client)
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Not connected; trying, without limit. Subscriptions serve what they knew last.
    Connecting {
        /// Counts from 1 since the last connection.
        attempt: u32,
        /// Why the last connection ended or the last attempt failed.
        last_error: Option<Arc<str>>,
    },
    /// Registered with a server.
    Connected {
        /// The server's address, gRPC port included.
        server: SocketAddr,
    },
    /// Closed by [`Client::close`](super::Client::close).
    Closed,
}

impl ConnectionState {
    /// Whether there is a connection.
    pub const fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting {
                attempt,
                last_error: None,
            } => {
                write!(f, "connecting, attempt {attempt}")
            }
            Self::Connecting {
                attempt,
                last_error: Some(error),
            } => {
                write!(f, "connecting, attempt {attempt} ({error})")
            }
            Self::Connected { server } => write!(f, "connected to {server}"),
            Self::Closed => f.write_str("closed"),
        }
    }
}
