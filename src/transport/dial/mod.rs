//! How a connection to an instance is had.

pub(in crate::transport) mod dialler;
pub(in crate::transport) mod resolve;
pub(in crate::transport) mod target;
#[cfg(feature = "tls")]
pub(in crate::transport) mod tls;
