use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::{TcpListener, TcpSocket};

/// From a server's main port to its gRPC port.
pub(super) const GRPC_OFFSET: u16 = 1_000;

/// Two bound sockets that do not listen yet: connections to them are refused.
#[derive(Debug)]
pub(super) struct Ports {
    http: TcpSocket,
    grpc: TcpSocket,
}

/// The listeners of the main port and the gRPC port.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) http: TcpListener,
    pub(super) grpc: TcpListener,
}

impl Ports {
    pub(super) fn bind(port: u16) -> io::Result<Self> {
        Ok(Self {
            http: reserve(port)?,
            grpc: reserve(port + GRPC_OFFSET)?,
        })
    }

    pub(super) fn listen(self) -> io::Result<Listeners> {
        Ok(Listeners {
            http: self.http.listen(1_024)?,
            grpc: self.grpc.listen(1_024)?,
        })
    }
}

impl Listeners {
    /// A pair of free ports on loopback, below the range from which outgoing connections take
    /// theirs, so that a restart finds them free.
    pub(super) fn on_free_ports() -> io::Result<(Self, u16)> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..500 {
            let random = RandomState::new().build_hasher().finish();
            let port = 10_000 + u16::try_from(random % 20_000).unwrap_or(0);
            match Ports::bind(port).and_then(Ports::listen) {
                Ok(listeners) => return Ok((listeners, port)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn reserve(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?; // connections of the last run may linger
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}
