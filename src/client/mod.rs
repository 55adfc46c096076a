//! The connection to a Nacos server: subscriptions, registrations, and the one task behind them.

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
    builder::{Builder, IntoServers},
    client::Client,
    config::Config,
    counters::Counters,
    error::{CloseError, ConfigError, ConnectError, RequestError},
    server_address::{InvalidServer, ServerAddress},
    start_from::StartFrom,
    state::ConnectionState,
    watch_all::{WatchAll, Watched},
};
pub(crate) use self::{registered::was_registered_here, witness::Witness};
