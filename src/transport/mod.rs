//! The connections to one instance, as a tower service over HTTP/1.1 and HTTP/2.
//!
//! A [`Transport`] turns what its connections know into what a balancer needs: a request that no
//! instance processed comes back and moves to another, and a connection that failed takes its
//! instance out of the pick set before the registry has heard of it.
//!
//! # What a failed call says
//!
//! | what happened | the request | row | the instance |
//! |---|---|---|---|
//! | dial refused, unreachable, not in time; name does not resolve | never sent | a | ejected |
//! | TLS or HTTP/2 handshake failed, or was too slow | never sent | a | ejected |
//! | a connection that was just made closed before it took the request | never sent | a | ejected |
//! | a kept connection closed before it took the request | never sent: another connection of the same instance | a | stays |
//! | HTTP/2 connection said GOAWAY before the request | never sent: another connection | a | stays |
//! | REFUSED_STREAM | not processed (RFC 9113, 8.7) | b | stays |
//! | GOAWAY with a last stream id below the call's | not processed (RFC 9113, 6.8): another connection of the same instance if NO_ERROR, else another instance | b | stays if NO_ERROR |
//! | RST or EOF with the call in flight; keep-alive closed as we wrote | unknown | unknown | ejected, and probed at once if that was the first time in 10 s |
//! | PING not answered | unknown | unknown | ejected |
//! | no response headers in time (HTTP/1) | unknown | unknown | stays |
//! | the call reset for another reason | unknown | unknown | stays |
//! | what came is not HTTP | unknown | unknown | ejected |
//! | response broke off after its headers | processed | – | stays |
//!
//! Rows (a) and (b) are promise G5: the request moves, whatever its method, each callable instance
//! at most once; (b) at most three times. [`Evidence`] is the row of an [`Error`]. What is unknown
//! moves only if it is idempotent and [`Retry`] is given.

mod body;
mod dial;
mod error;
mod form;
mod http1;
mod http2;
mod options;
mod retry;
mod rules;
mod service;
mod spawn;

#[cfg(feature = "tls")]
pub use self::dial::tls::{InvalidTls, Tls};
pub use self::{
    body::{request::Body, response::ResponseBody},
    dial::{
        resolve::{Resolve, SystemResolver},
        target::{Protocol, Purpose, Target},
    },
    error::{Error, ErrorKind, Evidence},
    options::{MakeTransport, TransportBuilder},
    retry::{Idempotent, Retry},
    rules::{Rules, classify},
    service::{ResponseFuture, Transport},
};
