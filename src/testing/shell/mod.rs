//! The machine on a pair of ports.

mod core;
mod gate;
mod grpc;
mod http;
mod ports;
mod registry;
mod serve;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;

pub use self::registry::{Builder, Registry};
#[cfg(feature = "tls")]
pub use self::tls::ServerTls;
