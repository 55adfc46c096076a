//! The connections to one instance, as a tower service over HTTP/1.1 and HTTP/2.
//!
//! A [`Transport`] turns what its connections know into what a balancer needs: a request that no
//! instance processed comes back and moves to another, and a connection that failed takes its
//! instance out of the pick set before the registry has heard of it.
//!
//! # What a failed call says
//!
//! | what happened | the request | row | what it is about |
//! |---|---|---|---|
//! | dial refused, unreachable, not in time; name does not resolve | never sent | a | the instance: ejected |
//! | TLS or HTTP/2 handshake failed, or was too slow | never sent | a | the instance: ejected |
//! | the same while other connections to it are used | never sent | a | nothing: it takes no more |
//! | a connection that was just made closed before it took the request | never sent | a | the connection |
//! | a kept connection closed before it took the request | never sent: another connection of the same instance | a | nothing |
//! | HTTP/2 connection said GOAWAY before the request | never sent: another connection | a | nothing |
//! | all streams are taken on as many HTTP/2 connections as there may be | never sent: wherever there is room | a | nothing |
//! | REFUSED_STREAM | not processed (RFC 9113, 8.7) | b | nothing |
//! | GOAWAY with a last stream id below the call's | not processed (RFC 9113, 6.8): another connection of the same instance if NO_ERROR, else another instance | b | the connection, unless NO_ERROR |
//! | the same over the call's own head: the first that is left out, 8 KiB and more, ENHANCE_YOUR_CALM, or twice in a row PROTOCOL_ERROR or COMPRESSION_ERROR | not processed, and goes nowhere else | b | the connection |
//! | 421 to a request that was made to say whom it means | not processed (RFC 9110, 15.5.20): another instance, or an error | b | nothing |
//! | a kept connection ended before a byte of the response, and the request is safe | unknown: once more over a new connection of the same instance | unknown | what comes of that |
//! | the connection ended or broke with the call in flight | unknown | unknown | the connection |
//! | what came is not HTTP, or its head is too large | unknown; over HTTP/2 a safe request that had no byte of it: once more | unknown | the connection |
//! | PING not answered | unknown | unknown | the instance: ejected |
//! | no response headers in time (HTTP/1) | unknown | unknown | nothing |
//! | the call reset for another reason | unknown | unknown | nothing |
//! | response broke off after its headers | processed | – | the connection, unless only its stream was reset |
//!
//! A lost connection is retired, and whether another can be had is found out by a dial; until then
//! calls prefer other instances. Only that no connection can be had ejects, and silence.
//!
//! The column *row* is the [`Evidence`] of an [`Error`]: *a* is [`Unsent`](Evidence::Unsent), *b*
//! [`Refused`](Evidence::Refused). In both the request was not processed, and moves whatever its method, to each
//! callable instance at most once; after a refusal at most three times. What is
//! [`Unknown`](Evidence::Unknown) moves only if it is idempotent and [`Retry`] is given.

mod ask;
mod attempt;
mod body;
mod call;
mod connections;
mod dial;
mod error;
mod form;
mod head;
mod history;
mod http1;
mod http2;
mod idempotent;
mod options;
mod peer;
mod plan;
mod queue;
mod read_first;
mod route;
mod rules;
mod service;
mod spare;
mod spawn;

#[cfg(feature = "tls")]
pub use self::dial::tls::{InvalidTls, Tls};
pub use self::{
    body::{request::Body, response::ResponseBody},
    dial::{
        cached::CachedResolver,
        own::{ByUri, Destination, Dial},
        resolve::{Resolve, SystemResolver},
        target::{Protocol, Purpose, Target},
    },
    error::{Error, ErrorKind, Evidence},
    idempotent::Idempotent,
    options::{MakeTransport, TransportBuilder},
    rules::{Rules, classify},
    service::{ResponseFuture, Transport},
};
pub(crate) use self::{
    dial::own::Connector,
    form::{TimeLeft, TryLimit},
    route::Route,
};
#[doc(no_inline)]
pub use crate::retry::Retry;
