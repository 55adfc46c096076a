//! TLS on the client's side, for registries and instances alike: always verified. What goes wrong
//! says what to do.

#[cfg(feature = "tls")]
mod parts;
mod socket;

#[cfg(feature = "tls")]
pub(crate) use self::parts::{TlsParts, explain};
pub(crate) use self::socket::{HasEnded, Socket};
