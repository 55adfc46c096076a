//! What the errors of clients that others wrote say about an instance: for
//! [`Balance`](crate::balance::BalanceBuilder::classify),
//! [`discover_with`](crate::discover::DiscoverBuilder::classify),
//! [`ResolveLayer`](crate::http::ResolveLayer::classify) and leases.
//!
//! Without a `classify`, an instance that is dead and still listed gets its share of the calls until the
//! registry misses it, which may take half a minute. With this one, the first call finds it:
//!
//! ```
//! # use tower_nacos::{Instance, Subscription};
//! # use hyper_util::{client::legacy::Client as Http, rt::TokioExecutor};
//! use tower_nacos::endpoint::{Verdict, classify};
//!
//! # fn example(orders: &Subscription) {
//! let discover = orders.discover_with().classify(classify::error).build(|instance: &Instance| {
//!     let http = Http::builder(TokioExecutor::new()).build_http::<String>();
//!     let address = instance.address().to_string();
//!     tower::service_fn(move |path: &str| {
//!         http.get(format!("http://{address}{path}").parse().unwrap())
//!     })
//! });
//! # let balance = tower::balance::p2c::Balance::new(discover);
//! # let _ = tower::ServiceExt::oneshot(balance, "/");
//! # }
//!
//! let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
//! assert!(matches!(classify::error(&refused), Verdict::Unreachable(_)));
//! ```
//!
//! An error is asked first, then its [`source`](std::error::Error::source), and so on to the last. The first row that
//! fits decides:
//!
//! | error | says |
//! |---|---|
//! | hyper-util's legacy client, `is_connect` (in reqwest's and tonic's errors, too) | [`Unreachable`](Verdict::Unreachable): no connection, be it for the name, the port, TLS or the time |
//! | hyper, where the user's own body or request was at fault; an HTTP/2 stream that was reset | [`Reachable`](Verdict::Reachable) |
//! | hyper, otherwise: closed, reset, incomplete, not HTTP; an HTTP/2 connection that ended | [`Lost`](Verdict::Lost) |
//! | `io::Error`: refused, no way to the host or its network | `Unreachable` |
//! | `io::Error`: reset, aborted, broken pipe, ended early | `Lost` |
//! | anything else, a time-out of a call included | `Reachable` |
//!
//! A client that follows redirects, or goes through a proxy, has errors about others than the instance:
//! switch that off (`reqwest::redirect::Policy::none()`, `no_proxy()`).

use std::{
    error::Error as StdError,
    fmt,
    io::{self, ErrorKind},
    iter,
};

use hyper_util::client::legacy;
use tower::BoxError;

use crate::endpoint::Verdict;

/// Judges the error of a client built on hyper or on tokio's sockets: hyper, hyper-util, reqwest,
/// tonic's transport, `io::Error`, and what wraps them and tells its
/// [`source`](std::error::Error::source).
pub fn error<E: StdError + 'static>(error: &E) -> Verdict {
    judge(error)
}

/// The same of an error in a box, which tower's layers make of all.
pub fn boxed(error: &BoxError) -> Verdict {
    judge(&**error)
}

fn judge(error: &(dyn StdError + 'static)) -> Verdict {
    chain(error)
        .find_map(|cause| {
            if let Some(error) = cause.downcast_ref::<legacy::Error>() {
                error.is_connect().then_some(About::Instance)
            } else if let Some(error) = cause.downcast_ref::<hyper::Error>() {
                Some(about_hyper(error))
            } else {
                cause.downcast_ref::<io::Error>().and_then(about_io)
            }
        })
        .map_or(Verdict::Reachable, |about| match about {
            About::Call => Verdict::Reachable,
            About::Connection => Verdict::lost(Told(error)),
            About::Instance => Verdict::unreachable(Told(error)),
        })
}

/// An error and what caused it, from the outside in.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(Some(error), |error| StdError::source(*error))
}

enum About {
    Call,
    Connection,
    Instance,
}

fn about_hyper(error: &hyper::Error) -> About {
    if error.is_user() || error.is_body_write_aborted() {
        return About::Call;
    }
    let h2 = error
        .source()
        .and_then(|cause| cause.downcast_ref::<h2::Error>());
    match h2 {
        Some(h2) if h2.is_reset() && !h2.is_go_away() => About::Call,
        _ => About::Connection,
    }
}

fn about_io(error: &io::Error) -> Option<About> {
    match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown => Some(About::Instance),
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::NotConnected => Some(About::Connection),
        _ => None,
    }
}

/// An error with its causes: the innermost is what an operator wants to read.
struct Told<'a>(&'a (dyn StdError + 'static));

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        for cause in chain(self.0).skip(1) {
            let text = cause.to_string();
            // Some show their causes themselves.
            if !last.contains(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
        }
        Ok(())
    }
}
