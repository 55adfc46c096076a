use std::{fmt, io, net::SocketAddr};

use futures_util::future::BoxFuture;

/// Finds the addresses of an instance that is registered by name.
///
/// Asked at each dial and never remembered, unless a
/// [`CachedResolver`](crate::transport::CachedResolver) does: a name is expected to move. What it yields is tried in
/// turn, IPv6 and IPv4 interleaved. The dial's time runs meanwhile.
///
/// Every closure `Fn(&str, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>` is one.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of `name`, with `port` in them.
    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver (`getaddrinfo`, on tokio's threads for what blocks): the default.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemResolver;

impl<F> Resolve for F
where
    F: Fn(&str, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
{
    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self(name, port)
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    }
}

impl fmt::Debug for dyn Resolve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolve")
    }
}
