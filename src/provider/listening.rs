//! Whether somebody still listens at the addresses that callers were given.
//!
//! A server may end and tell nobody: axum waits for its shutdown signal in a task of its own, which
//! outlives a server that is dropped. Then the address stays listed, and each caller that dials it fails.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::model::Address;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many in a row find out that nobody listens. What follows is final, and a proxy in front, or a
/// server that is run anew when it fails, may take some seconds to bind again; meanwhile callers are
/// refused and go elsewhere, as with a process that was killed.
const MISSES: u32 = 10;

/// What this machine says of an address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Listened,
    Free,
    /// It is another machine's, say, or this system does not tell.
    Unknown,
}

/// Looks after the addresses of one provider.
#[derive(Debug)]
pub(super) struct Watch {
    sockets: Vec<SocketAddr>,
    next: Instant,
    missed: u32,
}

impl Watch {
    /// From now on; nothing unless each of these can be seen to be listened on: one that cannot be
    /// seen may serve when the others do not.
    pub(super) fn new(addresses: &[Address], now: Instant) -> Option<Self> {
        let seen = |address: &Address| {
            let at = SocketAddr::new(address.host().ip()?, address.port());
            (look(at) == Seen::Listened).then_some(at)
        };
        let sockets: Vec<SocketAddr> = addresses.iter().map(seen).collect::<Option<_>>()?;
        (!sockets.is_empty()).then_some(Self {
            sockets,
            next: now + LOOK_EVERY,
            missed: 0,
        })
    }

    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Looks, and says whether nobody has listened at any of them for a while.
    pub(super) fn has_ended(&mut self, now: Instant) -> bool {
        self.next = now + LOOK_EVERY;
        let nobody = self.sockets.iter().all(|at| look(*at) == Seen::Free);
        self.missed = if nobody { self.missed + 1 } else { 0 };
        self.missed >= MISSES
    }
}

/// Nobody sees this look: Linux lets a second socket have the address, if both want that, until one
/// listens. No connection is made, and who binds it meanwhile is not in the way.
fn look(at: SocketAddr) -> Seen {
    if !cfg!(target_os = "linux") {
        return Seen::Unknown;
    }
    let bound = || {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&at.into())
    };
    match bound() {
        Ok(()) => Seen::Free,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Seen::Listened,
        Err(_) => Seen::Unknown,
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listener_is_seen_and_so_is_its_end_whatever_connections_are_left() {
        for listens in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(listens).unwrap();
            let port = listener.local_addr().unwrap().port();
            let at = SocketAddr::from(([127, 0, 0, 1], port));
            assert_eq!(look(at), Seen::Listened, "{listens}");
            let caller = TcpStream::connect(at).unwrap();
            let accepted = listener.accept().unwrap().0;
            drop(listener);
            assert_eq!(look(at), Seen::Free, "{listens}");
            let again = TcpListener::bind(at).unwrap(); // nobody is in its way
            assert_eq!(look(at), Seen::Listened);
            drop((caller, accepted, again));
        }
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 80));
        assert_eq!(look(elsewhere), Seen::Unknown);
    }

    #[expect(clippy::disallowed_methods, reason = "some instant to count from")]
    #[test]
    fn one_that_binds_anew_within_ten_looks_is_no_end() {
        let now = Instant::now();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let address = Address::from(at);
        let mut watch = Watch::new(std::slice::from_ref(&address), now).unwrap();
        assert!(!watch.has_ended(now));
        drop(listener);
        assert!((1..MISSES).all(|_| !watch.has_ended(now)));
        let listener = TcpListener::bind(at).unwrap();
        assert!(!watch.has_ended(now));
        let unseen = Address::from(SocketAddr::from(([192, 0, 2, 1], 80)));
        assert!(Watch::new(&[address.clone(), unseen], now).is_none());
        drop(listener);
        assert!((1..MISSES).all(|_| !watch.has_ended(now)));
        assert!(watch.has_ended(now));
        assert!(Watch::new(&[address], now).is_none());
    }
}
