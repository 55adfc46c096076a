//! The connection to a Nacos server: subscriptions, registrations, and the one task behind them.
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
