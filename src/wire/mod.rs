//! Bytes ⇄ typed messages: the protobuf envelope, the JSON bodies, and what is wrong with them.
//!
//! Requests are only written here and answers only read; the embedded registry of
//! `testing` reads and writes its side by itself, so that neither judges itself.
//! Everything a server sends is untrusted: unknown fields and types are passed over, missing ones
//! take Nacos's defaults, and a host that cannot be read costs that host and not the list.

mod answer;
mod body;
mod common;
mod envelope;
mod equal;
mod error;
mod head;
mod json;
mod kept;
mod request;
mod scan;
mod server_request;
mod service_info;
mod short;

// The envelope's parts, for the embedded registry's own reading of the protocol.
#[cfg(feature = "testing")]
pub(crate) use self::envelope::{Any, PayloadMetadata};
pub(crate) use self::{
    answer::{Answer, ServerError},
    envelope::Payload,
    error::DecodeError,
    kept::Kept,
    request::{Head, Request, Setup},
    server_request::{FuzzySync, ServerRequest, WatchedService, ack},
};

#[cfg(test)]
mod tests;
