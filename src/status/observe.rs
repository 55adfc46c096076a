use std::{fmt, sync::Weak};

use crate::{
    balance::{Balance, Looked, Policy},
    client::{self, Overview},
    directory::Subscription,
    grpc, http,
};

/// What a [`StatusPage`](super::StatusPage) can show: a registry's [`Client`](client::Client), an
/// [`http::Client`], one [service](http::ServiceClient) of it, a [`grpc::Channel`], a [`Balance`], a
/// [`Subscription`] that no client has (fixed or merged). Implemented for these, and by nobody else.
pub trait Observe: Sealed {}

/// Where something is to be seen, for the page alone.
pub struct Source(pub(super) Place);

/// Where something is to be seen.
#[derive(Clone)]
pub(super) enum Place {
    /// The services of a client.
    Registry(Overview),
    /// One service.
    Service(Subscription),
    /// One balancer, and what it is called.
    Balance(&'static str, Weak<dyn Looked>),
    /// Those of an HTTP client.
    Balances(Weak<dyn http::Balances>),
}

pub trait Sealed {
    fn source(&self) -> Source;
}

impl Sealed for client::Client {
    fn source(&self) -> Source {
        Source(Place::Registry(self.overview()))
    }
}

impl Sealed for Subscription {
    fn source(&self) -> Source {
        Source(Place::Service(self.whole()))
    }
}

impl<P: Policy> Sealed for http::Client<P> {
    fn source(&self) -> Source {
        Source(Place::Balances(self.balances()))
    }
}

impl<P: Policy> Sealed for http::ServiceClient<P> {
    fn source(&self) -> Source {
        Source(Place::Balance(HTTP, self.looked()))
    }
}

impl<P: Policy> Sealed for grpc::Channel<P> {
    fn source(&self) -> Source {
        Source(Place::Balance("grpc", self.balance().looked()))
    }
}

impl<S, P, R, C, V, K> Sealed for Balance<S, P, R, C, V, K>
where
    S: Send + Sync + 'static,
    P: Policy,
    R: Send + Sync + 'static,
    C: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn source(&self) -> Source {
        Source(Place::Balance("balance", self.looked()))
    }
}

impl<T: Sealed> Observe for T {}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// What the balancers of HTTP clients are called.
pub(super) const HTTP: &str = "http";
