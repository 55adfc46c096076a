use std::{error::Error as StdError, fmt, time::Duration};

use crate::{
    client::RequestError,
    endpoint::{CallError, Progress, in_full},
    http::name::BadAddress,
    model::{Address, InvalidName, ServiceKey},
    transport,
};

/// Why a request got no response.
///
/// Displays in one line with its causes, so that a log line of `{error}` says all: the service,
/// the instance where there was one, and what happened. All is said, so it has no
/// [`source`](StdError::source): [`call_error`](Self::call_error) and [`transport`](Self::transport) are what is
/// behind it.
///
/// Unless a predicate below says that the request was not processed, it may have been: a
/// connection may break after the instance acted and before it answered.
///
/// Example: [calls](crate::http)
pub struct Error(Box<Kind>);

enum Kind {
    Address(BadAddress),
    /// A part of the request that no request can have.
    Request(::http::Error),
    /// A key of another namespace.
    Namespace {
        asked: String,
        own: String,
    },
    TooManyServices {
        service: ServiceKey,
        most: usize,
    },
    /// The registry's client takes no subscriptions any more.
    Registry {
        service: ServiceKey,
        error: RequestError,
    },
    Deadline {
        service: ServiceKey,
        instance: Option<Address>,
        after: Duration,
        /// What was waited for.
        waited_for: String,
        /// Whether an instance's connection had the request.
        taken: bool,
    },
    Call(CallError),
}

impl Error {
    fn new(kind: Kind) -> Self {
        Self(Box::new(kind))
    }

    pub(super) fn address(bad: BadAddress) -> Self {
        Self::new(Kind::Address(bad))
    }

    pub(super) fn name(invalid: &InvalidName) -> Self {
        Self::address(BadAddress::Name(invalid.to_string()))
    }

    pub(super) fn request(error: ::http::Error) -> Self {
        Self::new(Kind::Request(error))
    }

    pub(super) fn namespace(asked: &str, own: &str) -> Self {
        Self::new(Kind::Namespace {
            asked: asked.into(),
            own: own.into(),
        })
    }

    pub(super) fn too_many_services(service: &ServiceKey, most: usize) -> Self {
        Self::new(Kind::TooManyServices {
            service: service.clone(),
            most,
        })
    }

    pub(super) fn registry(service: &ServiceKey, error: RequestError) -> Self {
        Self::new(Kind::Registry {
            service: service.clone(),
            error,
        })
    }

    pub(super) fn deadline(after: Duration, progress: &Progress<'_>) -> Self {
        Self::new(Kind::Deadline {
            service: progress.service.clone(),
            instance: progress.instance.clone(),
            after,
            waited_for: progress.to_string(),
            taken: progress.doubtful,
        })
    }

    /// Whether the request's address names no service: nothing was done. The message says what to
    /// write.
    pub fn is_uri(&self) -> bool {
        matches!(&*self.0, Kind::Address(_) | Kind::Namespace { .. })
    }

    /// Whether the request could not be built: an invalid header, say. Nothing was done.
    pub fn is_request(&self) -> bool {
        matches!(&*self.0, Kind::Request(_)) || self.transport().is_some_and(|e| e.is_request())
    }

    /// Whether the registry lists no instance of the service that may be called, or none that the
    /// request's own [`Hints`](crate::balance::Hints) allow. Nothing was sent.
    pub fn is_no_instances(&self) -> bool {
        self.call_error()
            .is_some_and(|call| call.is_no_instances() || call.is_no_match())
    }

    /// Whether the registry had not said in time which instances there are. Nothing was sent.
    pub fn is_unknown(&self) -> bool {
        self.call_error().is_some_and(CallError::is_unknown)
    }

    /// Whether the client calls as many services as it may, and none of them is idle. Nothing was
    /// sent.
    pub fn is_too_many_services(&self) -> bool {
        matches!(&*self.0, Kind::TooManyServices { .. })
    }

    /// Whether a limit of calls at once was reached, the client's or an instance's. Nothing was sent.
    pub fn is_overloaded(&self) -> bool {
        self.call_error().is_some_and(CallError::is_overloaded)
    }

    /// Whether no connection could be made: the instances that were tried are unreachable, or all
    /// are known to be. Nothing was sent.
    pub fn is_connect(&self) -> bool {
        self.call_error().is_some_and(CallError::is_all_unreachable)
            || self.transport().is_some_and(|e| e.is_connect())
    }

    /// Whether time ran out: the request's deadline, that of its last try, or a limit of the transport.
    pub fn is_timeout(&self) -> bool {
        matches!(&*self.0, Kind::Deadline { .. })
            || self.call_error().is_some_and(CallError::is_try_timed_out)
            || self.transport().is_some_and(|e| e.is_timeout())
    }

    /// Whether the request is known not to have been processed by any instance, so that it may be
    /// sent again whatever its method.
    pub fn is_unprocessed(&self) -> bool {
        match &*self.0 {
            Kind::Deadline { taken, .. } => !taken,
            Kind::Call(call) if call.is_inner() => {
                self.transport().is_some_and(|e| e.is_unprocessed())
            }
            Kind::Call(call) => !call.is_aborted() && !call.is_try_timed_out(),
            _ => true,
        }
    }

    /// Whether the registry's client is closed, or its runtime gone.
    pub fn is_closed(&self) -> bool {
        matches!(&*self.0, Kind::Registry { error, .. } if error.is_closed())
    }

    /// The service that was to be called, if the request named one.
    pub fn service(&self) -> Option<&ServiceKey> {
        match &*self.0 {
            Kind::TooManyServices { service, .. }
            | Kind::Registry { service, .. }
            | Kind::Deadline { service, .. } => Some(service),
            Kind::Call(call) => Some(call.service()),
            Kind::Address(_) | Kind::Request(_) | Kind::Namespace { .. } => None,
        }
    }

    /// The instance that was called last, if one was.
    pub fn instance(&self) -> Option<&Address> {
        match &*self.0 {
            Kind::Deadline { instance, .. } => instance.as_ref(),
            Kind::Call(call) => call.instance(),
            _ => None,
        }
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.call_error().is_some_and(CallError::is_aborted)
    }

    /// The balancer's error, if the call came so far.
    pub fn call_error(&self) -> Option<&CallError> {
        match &*self.0 {
            Kind::Call(call) => Some(call),
            _ => None,
        }
    }

    /// The error of the connection to the instance, if it is that.
    pub fn transport(&self) -> Option<&transport::Error> {
        self.call_error()?.inner()
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        Self::new(Kind::Call(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Address(bad) => bad.fmt(f),
            Kind::Request(error) => write!(f, "the request cannot be built: {}", in_full(error)),
            Kind::Namespace { asked, own } => write!(
                f,
                "the request is for a service in namespace {asked}, and this client's registry \
                 connection is in {own}: a client has one namespace, give another one with \
                 HttpBuilder::registry"
            ),
            Kind::TooManyServices { service, most } => write!(
                f,
                "{service} cannot be called: this client already calls {most} services \
                 (max_services) and none of them is idle"
            ),
            Kind::Registry { service, error } => {
                write!(f, "{service} cannot be subscribed to: {error}")
            }
            Kind::Deadline {
                service,
                after,
                waited_for,
                ..
            } => {
                let after = Duration::from_millis((after.as_secs_f64() * 1e3).round() as u64);
                write!(
                    f,
                    "no response of {service} within the deadline, {after:?} after the call \
                     began: {waited_for}"
                )
            }
            Kind::Call(call) => call.fmt(f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Call(call) => f.debug_tuple("Error").field(call).finish(),
            _ => write!(f, "Error({:?})", self.to_string()),
        }
    }
}

impl StdError for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Layer, assert_said_once};

    #[test]
    fn whatever_is_behind_it_is_said_once() {
        let service = ServiceKey::new("dev", "orders".parse().unwrap()).unwrap();
        let address: Address = "10.0.0.1:80".parse().unwrap();
        let call = CallError::Inner {
            service: service.clone(),
            instance: address,
            error: Layer::nested().into(),
        };
        let words = [
            "10.0.0.1:80",
            "client error",
            "tcp connect",
            "connection refused",
        ];
        assert_said_once(&Error::from(call), &words);
        let name = "".parse::<crate::model::ServiceName>().unwrap_err();
        let words = name.to_string();
        assert_said_once(&Error::name(&name), &[&words]);
        let error = RequestError::InvalidName(name);
        assert_said_once(&Error::registry(&service, error), &[&words]);
        let built = ::http::Request::get("/").header("a\nb", "c").body(());
        let built = built.unwrap_err();
        let words = built.to_string();
        assert_said_once(&Error::request(built), &[&words]);
    }
}
