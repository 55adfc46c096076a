//! How a connection to an instance is had: its addresses, TCP, TLS. Knows no protocol above them.

pub(in crate::transport) mod addresses;
pub(in crate::transport) mod cached;
pub(in crate::transport) mod connect;
pub(in crate::transport) mod dialler;
pub(in crate::transport) mod error;
pub(in crate::transport) mod local;
pub(in crate::transport) mod options;
pub(in crate::transport) mod own;
pub(in crate::transport) mod resolve;
pub(in crate::transport) mod target;
#[cfg(feature = "tls")]
pub(in crate::transport) mod tls;
