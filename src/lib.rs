//! Load balancing for [tower] services over [Nacos]: what the registry pushes is what the balancer
//! picks from, and an instance that goes offline gets no further call.
//!
//! [tower]: https://docs.rs/tower
//! [Nacos]: https://nacos.io
//!
//! ```
//! # async fn example() -> Result<(), tower::BoxError> {
//! # use axum::{Router, routing::get};
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let provider = listener.local_addr()?;
//! # let app = Router::new().route("/v1/items/{id}", get(async || "a pen"));
//! # tokio::spawn(async move { axum::serve(listener, app).await });
//! # let registry = tower_nacos::testing::Registry::start().await?;
//! # registry.register("orders", &provider.into());
//! # let server = registry.addr();
//! use tower_nacos::{Client, http::{self, ResponseExt}};
//!
//! let nacos = Client::connect(&server).await?; // such as "127.0.0.1:8848"
//! let http = http::Client::new(&nacos);
//! let item = http.get("nacos://orders/v1/items/7").await?.text().await?;
//! assert_eq!(item, "a pen");
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! | you have | take |
//! |---|---|
//! | HTTP | [`http::Client`], as above |
//! | a client that tonic generated | [`grpc::Channel`] |
//! | a tower service that calls one instance | [`Balance`] |
//! | tower's own balancer, or another that takes a `Discover` | [`Subscription::discover_with`], with a [`classify`](endpoint::classify) |
//! | something else: reqwest, a driver | [`picker`](balance::BalanceBuilder::picker) |
//! | a service that others are to call | [`provider`] |
//!
//! The [`guide`] is the book: getting started, what to choose, production, testing, migrating, troubleshooting, and a
//! [glossary](guide::glossary). The [`prelude`] has what most programs need under names that do not collide.
//!
//! # What it promises
//!
//! * **Eviction is immediate and provable.** Once a revision of the registry's list is reported
//!   [applied](Subscription::applied), no call enters [`Service::call`](tower::Service::call) of an
//!   instance that is not callable in it: not through a stock balancer that has already chosen it,
//!   not out of a full `Buffer`, not while no request flows.
//! * **It holds while idle.** An evicted instance's service is dropped, and so are its
//!   connections, as soon as its calls in flight have ended. Those are not cut unless you ask for it.
//! * **Losing the registry never loses the instances.** The last-known set serves without limit;
//!   after a reconnect a server that comes back empty does not empty its clients
//!   ([`directory::Options`]).
//!
//! What the registry has not noticed yet it cannot tell: a Nacos server needs 0.6 s to push a
//! change, and minutes to miss a lost rack. The connection knows first: over HTTP and gRPC
//! ([`http::Client`], [`grpc::Channel`]) an instance whose connection fails gets no calls until a probe
//! succeeds, and a request that was not processed moves to another instance. Over services of your
//! own, give [`discover_with`](Subscription::discover_with) or [`Balance`] a `classify`.
//!
//! # What it is not
//!
//! Not a configuration client (Nacos's other half), and not blocking: there is no interface
//! without a tokio runtime.
//!
//! # The way of the data
//!
//! ```text
//! bytes ─► wire ─► session ─► directory ─► { discover │ balance } ─► endpoint ─► transport, or
//! frame   decode   protocol   admit,         Change      pick         gate,        your service
//!                  machine    snapshot,      stream                   call engine
//!                             publish
//! ```
//!
//! [`client`] is the connection and the one task behind it, [`directory`] the local copy of the
//! registry, [`discover`] the stream of changes that tower's balancers take, [`balance`] our own
//! balancer, [`endpoint`] one instance as a caller holds it, [`model`] the plain values that all of
//! them share. [`http`] and [`grpc`] call services by name over connections of their own
//! ([`transport`]), and [`retry`] says when they are sent again. [`traces`] are one span a call, and [`logs`] names
//! the targets of the log.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `tls` | off | `client::Tls`, `transport::Tls`: TLS and mutual TLS to the registry and to instances, by rustls |
//! | `ram` | off | `ClientBuilder::login_ram`: naming requests signed with an access key, as Alibaba Cloud MSE wants them |
//! | `metrics` | off | `metrics`: what happens, told through the [metrics](https://docs.rs/metrics) facade; one table names it all |
//! | `cli` | off | the command `tower-nacos` (`cargo install tower-nacos --features cli`), nothing in the library |
//! | `status` | off | `status`: a page that shows what is picked and why, for people and as JSON, to be mounted in any server |
//! | `testing` | off | `testing`: a Nacos registry in this process, over real sockets, with scripted faults |
//!
//! The minimum supported Rust version is 1.88.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cache;
mod sync;

pub mod balance;
pub mod client;
pub mod directory;
pub mod discover;
pub mod endpoint;
pub mod grpc;
pub mod guide;
pub mod http;
mod link;
pub mod logs;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod model;
pub mod prelude;
pub mod provider;
pub mod retry;
mod session;
#[cfg(feature = "status")]
pub mod status;
mod tls;
pub mod traces;
pub mod transport;
mod wire;

#[cfg(feature = "testing")]
pub mod testing;

#[doc(inline)]
pub use self::{
    balance::Balance,
    client::Client,
    directory::Subscription,
    model::{Address, Instance, ServiceKey, ServiceName, Weight},
};

#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod cache_path;

#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod push_path;

#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod simulation;

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
