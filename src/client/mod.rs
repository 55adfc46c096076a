//! The connection to a Nacos server: subscriptions, registrations, and the one task behind them.
//!
//! One [`Client`] is enough for a process: it is cheap to clone, and its clones share one connection. It connects again
//! by itself, for as long as it takes, and what is subscribed to and registered comes back with the connection.
//!
//! | to | call |
//! |---|---|
//! | connect | [`Client::connect`]; [`connect_lazy`](Client::connect_lazy) where the registry may come later; [`from_url`](Client::from_url) or a [`Config`] where the options are data; [`Client::builder`] for all of them |
//! | know who provides a service | [`Client::subscribe`]; [`services`](Client::services) and [`watch_all`](Client::watch_all) where the names are not known |
//! | be called | a [`Provider`](crate::provider::Provider), which leaves in order; [`register`](Client::register) for the registration alone |
//! | see how it is | [`Client::state`], [`watch_state`](Client::watch_state), [`counters`](Client::counters) |
//! | end | [`Client::close`], which waits until the registry has confirmed it; dropping the last clone does not wait |
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # let registry = tower_nacos::testing::Registry::start().await?;
//! # registry.register("orders", &tower_nacos::Instance::parse("10.0.0.3:8080")?);
//! # let server = registry.addr();
//! use tower_nacos::Client;
//!
//! let nacos = Client::connect(&server).await?; // such as "127.0.0.1:8848"
//! let orders = nacos.subscribe("orders").await?;
//! assert_eq!(orders.snapshot().callable_len(), 1);
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! With options, and what goes wrong:
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # let registry = tower_nacos::testing::Registry::start().await?;
//! # let server = registry.addr();
//! use std::time::Duration;
//! use tower_nacos::client::{Client, ClientBuilder, ConnectError, ConnectionState, StartFrom};
//!
//! let builder: ClientBuilder = Client::builder()
//!     .servers(&*server) // such as "10.0.0.1:8848,10.0.0.2:8848"
//!     .start_from(StartFrom::Registry);
//! let nacos: Client = builder.connect().await?;
//! assert!(matches!(nacos.state(), ConnectionState::Connected { .. }));
//! assert_eq!(nacos.counters().connections_lost, 0);
//!
//! let nowhere: Result<Client, ConnectError> = Client::connect("no port:?").await;
//! assert!(nowhere.unwrap_err().to_string().contains("host:port"));
//! nacos.close(Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```

mod address_server;
mod address_url;
#[cfg(feature = "metrics")]
mod applied;
pub(crate) mod auth;
mod builder;
pub(crate) mod cached;
#[expect(
    clippy::module_inception,
    reason = "the type that the room is named after"
)]
mod client;
mod config;
mod copies;
pub(crate) mod core;
mod counters;
mod credentials;
mod details;
mod driver;
mod entry;
mod error;
mod exchange;
mod handle;
mod hints;
mod home;
mod humane;
mod interfaces;
mod lease;
mod links;
mod list_copies;
mod list_leases;
mod login;
mod nearest;
mod operations;
mod outage;
#[cfg(feature = "status")]
mod overview;
#[cfg(feature = "status")]
mod pace;
#[cfg(feature = "ram")]
mod ram;
#[cfg(feature = "ram")]
mod ram_source;
mod registered;
#[cfg(test)]
mod scripted;
mod secret;
mod server_address;
mod services;
mod start_from;
mod starts;
mod state;
#[cfg(feature = "tls")]
mod tls;
mod url;
mod watch_all;
mod witness;

#[cfg(feature = "status")]
pub(crate) use self::overview::Overview;
#[cfg(feature = "ram")]
pub use self::ram::RamCredentials;
#[cfg(feature = "tls")]
pub use self::tls::Tls;
pub use self::{
    builder::{ClientBuilder, IntoServers},
    client::Client,
    config::Config,
    counters::ClientCounters,
    error::{CloseError, ConfigError, ConnectError, RequestError},
    server_address::{InvalidServer, ServerAddress},
    start_from::StartFrom,
    state::ConnectionState,
    watch_all::{WatchAll, Watched},
};
pub(crate) use self::{registered::was_registered_here, witness::Witness};
