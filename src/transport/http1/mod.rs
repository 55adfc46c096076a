//! HTTP/1.1: a connection for each call, kept for the next.

pub(in crate::transport) mod exchange;
pub(in crate::transport) mod patient;
