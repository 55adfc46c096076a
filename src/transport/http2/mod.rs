//! HTTP/2: one connection for all calls, more when the peer's stream limit is reached.

pub(in crate::transport) mod connection;
pub(in crate::transport) mod exchange;
pub(in crate::transport) mod failure;
pub(in crate::transport) mod upload;
