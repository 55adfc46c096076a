//! A subscription as a stream of changes for tower's balancers.
//!
//! [`Subscription::discover`] makes a [`Discovery`], which is a `tower::discover::Discover`, so
//! that any balancer that takes one, `tower::balance::p2c::Balance` first of all, calls the
//! instances of a Nacos service. The services in it are [`Guarded`]: whatever the balancer does
//! with them, and however late it looks at the stream, none enters `Service::call` on an instance
//! that left.
//!
//! ```
//! use tower::{Service, ServiceExt, balance::p2c::Balance, service_fn};
//! use tower_nacos::{directory::Subscription, model::Instance};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! let orders = Subscription::fixed([Instance::parse("10.0.0.3:8080")?]);
//! let discovery = orders.discover(|instance: &Instance| {
//!     let address = instance.address().to_string();
//!     service_fn(move |request: u32| {
//!         let answer = format!("{address} got {request}");
//!         async move { Ok::<_, std::io::Error>(answer) }
//!     })
//! });
//! let mut balance = Balance::new(discovery);
//! let answer = balance.ready().await?.call(7).await?;
//! assert_eq!(answer, "10.0.0.3:8080 got 7");
//! # Ok(())
//! # }
//! ```

mod builder;
mod discovery;
mod guarded;
mod key;
mod plan;

use tower::load::CompleteOnResponse;

use crate::{
    directory::Subscription,
    endpoint::{MakeEndpoint, NeverRecover, Unclassified},
};

pub use self::{
    builder::DiscoverBuilder,
    discovery::Discovery,
    guarded::{Guarded, ResponseFuture},
    key::Key,
};

impl Subscription {
    /// The instances as a stream of changes for a tower balancer; `make` makes the service that
    /// calls one of them.
    ///
    /// The services have to be `Sync` as well as `Send`, since any thread may drop an evicted one; one that is not (tower's
    /// `BoxService`, say) goes into a `tower::buffer::Buffer` or a `sync_wrapper`. `tower::util::BoxCloneSyncService` is.
    ///
    /// Call it on a tokio runtime: a small task there closes the connections of evicted instances
    /// also when no call passes. Without one that happens at the next call.
    pub fn discover<M: MakeEndpoint>(&self, make: M) -> Discovery<M::Service>
    where
        M::Service: Send + Sync,
    {
        self.discover_with().build(make)
    }

    /// The same with options.
    pub fn discover_with(&self) -> DiscoverBuilder<NeverRecover, CompleteOnResponse, Unclassified> {
        DiscoverBuilder::new(self.clone())
    }
}
