//! HTTP by the names of services: `nacos://[group@]service/path`, `nacos://[group]@service@registry/path`.
//!
//! [`Client`] calls any number of services over connections of its own, and keeps all promises of
//! this crate; [`ResolveLayer`] puts addresses in place of names over another HTTP client, and
//! keeps fewer.
//!
//! ```
//! # async fn example() -> Result<(), tower::BoxError> {
//! # use axum::{Router, routing::get};
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let provider = listener.local_addr()?;
//! # let app = Router::new().route("/v1/items/{id}", get(async || "a pen").post(async || "done"));
//! # tokio::spawn(async move { axum::serve(listener, app).await });
//! # let registry = tower_nacos::testing::Registry::start().await?;
//! # registry.register("orders", &provider.into());
//! # let server = registry.addr();
//! use std::time::Duration;
//! use tower_nacos::{Client, http::{self, ResponseExt}};
//!
//! let nacos = Client::connect(&server).await?; // such as "127.0.0.1:8848"
//! let http = http::Client::new(&nacos);
//!
//! let response = http.get("nacos://orders/v1/items/7").await?;
//! assert_eq!(response.error_for_status()?.text().await?, "a pen");
//!
//! let sent = http
//!     .post("nacos://orders/v1/items/7", r#"{"count":3}"#)
//!     .header("content-type", "application/json")
//!     .timeout(Duration::from_secs(2))
//!     .await?;
//! assert!(sent.status().is_success());
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! # Addresses
//!
//! | address | calls |
//! |---|---|
//! | `nacos://orders/v1/items?x=1` | `orders` in the default group of the registry's client |
//! | `nacos://billing@orders/v1/items` | `orders` in the group `billing` |
//! | `nacos://billing@orders@eu/v1/items` | the same in the registry that was given as `eu` ([`HttpBuilder::registry`]); `nacos://@orders@eu/…` for its client's default group |
//! | any path, and a [`ServiceKey`](crate::ServiceKey) or [`ServiceName`](crate::ServiceName) in the request's extensions | that service, whatever the address says |
//! | [`client.service("billing@@orders")`](Client::service), then paths | the same, for names that no address can hold: Dubbo's `providers:com.x.Greeter:1.0:`, say |
//!
//! The namespace is that of the registry's client; a `ServiceKey` of another namespace goes to the registry whose
//! client is in it. Names are compared as they are written, case included. A port in an address is an error, since the
//! registry says where each instance listens. So is any other scheme: any HTTP client calls a fixed address. An
//! instance is asked for the path and the query, with its own `ip:port` as `Host` unless the request has that header.
//!
//! The first call of a service subscribes to it, and waits for the registry's answer, 3 s at most. If the first list is
//! empty it waits as long for a better one; once the service is known to be empty, calls fail at once. A service that
//! was not called for 5 minutes is let go. [`HttpBuilder`] has both as options.
//!
//! # What a call does
//!
//! It picks an instance. If that provably did not process the request (there was no connection, or the instance
//! refused it), the request moves to another one: whatever its method, and streams too as far as [`Body`] says. Each
//! instance is tried once, 10 of them at most, and a third refusal ends the call. An instance whose connection failed
//! gets no calls until a probe reaches it.
//!
//! Whatever else goes wrong ends the call with an [`Error`], unless a [`retry`](crate::retry) policy sends it again. The
//! error says whether the request [may have been processed](Error::is_unprocessed).
//!
//! A response is returned whatever its status, and redirects are not followed. The one exception is 421: each request
//! names the service that it means ([`service`](crate::transport::TransportBuilder::service)), and a process that is
//! another one refuses it so; then the call moves.
//!
//! # What a request may carry
//!
//! In its extensions, by [`RequestBuilder`] or by hand:
//!
//! | in the extensions | says |
//! |---|---|
//! | [`Deadline`] | until when its response's head is waited for |
//! | [`Hints`](crate::balance::Hints) | a hash key, a cluster, metadata to look for, instances to leave out |
//! | [`Idempotent`](crate::transport::Idempotent) | that it may be processed twice, whatever its method |
//! | [`ServiceKey`](crate::ServiceKey), [`ServiceName`](crate::ServiceName) | which service it is for |
//!
//! A request has no deadline unless it is given one, here or for all requests of a client
//! ([`HttpBuilder::timeout`]); a body has none. Within the deadline each try may have a time of its own
//! ([`HttpBuilder::per_try_timeout`]), and what may be processed twice may be sent again
//! ([`HttpBuilder::retry`]). The [guide](crate::guide#how-long-a-call-waits-and-when-it-is-sent-again) says when to
//! use which.
//!
//! # What providers put in metadata
//!
//! Providers of other frameworks say in an instance's metadata how they want to be called. This much of it is heeded;
//! [`transport`](crate::transport) replaces it:
//!
//! | metadata | here | for `grpc::Channel` |
//! |---|---|---|
//! | `secure=true` | TLS; the caller's own setting wins, and metadata never takes TLS away | the same |
//! | `protocol` or `kind` = `grpc`, `h2c` | HTTP/2 by prior knowledge; else HTTP/1.1 in clear, and what ALPN says under TLS | always HTTP/2 |
//! | `gRPC_port`, `grpc_port`, `gRPC.port` | nothing | the port to call; malformed: the instance is not called |
//! | `IPv6` | a second address, called when there is no v4 route, or first by option | the same |
//! | `version` | nothing, but [`Hints`](crate::balance::Hints) and `only_metadata` select by it | the same |
//!
//! Link-local, unspecified and multicast addresses are not called, whoever registered them;
//! loopback is, with one warning.
//!
//! # Errors
//!
//! A call has one type of error, [`Error`], with predicates. It displays as one line that names the service, the
//! instance and the cause. What [`ResponseExt`] does with a response has two more: [`StatusError`] for a status that
//! says 4xx or 5xx, and [`ReadError`] for a body that cannot be read.

mod balanced;
mod builder;
mod client;
mod deadline;
mod each;
mod error;
mod future;
mod kind;
mod name;
#[cfg(feature = "status")]
mod overview;
mod pool;
mod read;
mod request;
mod resolve;
mod service;
mod services;
mod sweeper;
mod target;
mod uri;

#[cfg(feature = "status")]
pub(crate) use self::overview::Balances;
pub use self::{
    balanced::{BuildHttp, HttpBalance},
    builder::HttpBuilder,
    client::Client,
    deadline::Deadline,
    error::Error,
    future::ResponseFuture,
    read::{MOST_BYTES, ReadError, ResponseExt, StatusError},
    request::RequestBuilder,
    resolve::{ResolveFuture, ResolveLayer, ResolveService},
    service::ServiceClient,
    uri::IntoUri,
};
#[doc(inline)]
pub use crate::transport::{Body, ResponseBody};
