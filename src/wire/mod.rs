//! Bytes ⇄ typed messages: the protobuf envelope, the JSON bodies, and what is wrong with them.

mod envelope;

pub(crate) use self::envelope::{Any, Payload, PayloadMetadata};
