//! The machine on a pair of ports.

mod address_server;
mod builder;
mod core;
mod gate;
mod grpc;
mod http;
mod pings;
mod ports;
mod registry;
mod serve;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;

#[cfg(feature = "tls")]
pub use self::tls::ServerTls;
pub use self::{address_server::AddressServer, builder::RegistryBuilder, registry::Registry};
