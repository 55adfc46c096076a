//! What most programs need, under names that do not collide.
//!
//! Two modules have a `Client` and two a `Tls`, and each has an `Error`. That reads well as `http::Client`, and badly
//! after two `use` lines. Here each has a name of its own, so that one line brings them all, beside the crates `http`,
//! `tonic` and `axum`:
//!
//! ```
//! use tower_nacos::prelude::*;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # let registry = tower_nacos::testing::Registry::start().await?;
//! # registry.register("orders", &Instance::parse("127.0.0.1:1")?);
//! # let server = registry.addr();
//! let nacos = NacosClient::connect(&server).await?;
//! let orders: Subscription = nacos.subscribe("orders").await?;
//! let http = HttpClient::new(&nacos);
//! let grpc = GrpcChannel::new(&orders);
//! assert_eq!(orders.snapshot().callable_len(), 1);
//! # drop((http, grpc));
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! | here | is |
//! |---|---|
//! | `NacosClient`, `NacosTls` | [`client::Client`](crate::client::Client), `client::Tls`: the connection to the registry |
//! | `HttpClient`, `HttpError` | [`http::Client`](crate::http::Client), [`http::Error`](crate::http::Error) |
//! | `GrpcChannel`, `GrpcError` | [`grpc::Channel`](crate::grpc::Channel), [`grpc::Error`](crate::grpc::Error) |
//! | `InstanceTls` | `transport::Tls`: TLS to instances |
//!
//! All else has the name that it has in its module. A module and a crate that are both called `http`: after
//! `use tower_nacos::http;` the crate is `::http`.

#[doc(no_inline)]
pub use crate::{
    balance::{Balance, BalanceCounters, BalanceExplanation, BoxBalance, Hints},
    client::Client as NacosClient,
    directory::{
        Change, ChangeKind, RemovalCause, Snapshot, Status, Subscription, SubscriptionCounters,
        SubscriptionExplanation,
    },
    endpoint::{CallError, MakeEndpoint},
    grpc::{Channel as GrpcChannel, Error as GrpcError},
    http::{Client as HttpClient, Error as HttpError, ResponseExt},
    model::{Address, Instance, ServiceKey, ServiceName, Weight},
    retry::Retry,
};
#[cfg(feature = "tls")]
pub use crate::{client::Tls as NacosTls, transport::Tls as InstanceTls};
