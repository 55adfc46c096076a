//! HTTP/1.1: a connection for each call, kept for the next.

pub(in crate::transport) mod connection;
pub(in crate::transport) mod exchange;
pub(in crate::transport) mod failure;
pub(in crate::transport) mod io;
pub(in crate::transport) mod options;
pub(in crate::transport) mod pool;
