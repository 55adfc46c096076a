//! HTTP/2: one connection for all calls, more when the peer's stream limit is reached.
//!
//! On `h2` itself and not on hyper's client: that hands requests through a channel to a task of its
//! own, does not say whether a stream was opened before a connection failed, and queues beyond the
//! peer's limit.

pub(in crate::transport) mod connection;
pub(in crate::transport) mod driver;
pub(in crate::transport) mod exchange;
pub(in crate::transport) mod failure;
pub(in crate::transport) mod frames;
pub(in crate::transport) mod handshake;
pub(in crate::transport) mod io;
pub(in crate::transport) mod ladder;
pub(in crate::transport) mod options;
pub(in crate::transport) mod pool;
pub(in crate::transport) mod told;
pub(in crate::transport) mod upload;
