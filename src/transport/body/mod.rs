//! What a call sends and what comes back.

pub(in crate::transport) mod gather;
pub(in crate::transport) mod recording;
pub(in crate::transport) mod request;
pub(in crate::transport) mod response;
pub(in crate::transport) mod tape;
