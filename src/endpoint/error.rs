use std::{error::Error, fmt, sync::Arc, time::Duration};

use tower::BoxError;

use crate::{
    endpoint::said::in_full,
    model::{Address, ServiceKey},
};

/// Why a call failed.
///
/// Displays in one line with its causes, each said once, so it has no [`source`](Error::source):
/// [`cause`](Self::cause) is for programs that look what is behind it.
///
/// Unless [`is_inner`](Self::is_inner) says that the error is the service's own, or
/// [`is_aborted`](Self::is_aborted) or [`is_try_timed_out`](Self::is_try_timed_out) that there was no
/// waiting for its answer, the request was not handed to any instance.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallError {
    /// The registry is known to list no instance that may be called: no call waits then. (A service whose first list
    /// is empty counts as [unknown](Self::Unknown) for 3 s,
    /// [`unknown_while_empty`](crate::directory::Options::unknown_while_empty).)
    NoInstances {
        /// The service.
        service: ServiceKey,
        /// What is known of those that are listed.
        reason: Arc<str>,
    },
    /// The registry had not said in time which instances there are, or its first list was empty and is not believed
    /// yet: the call waited for [`unknown_wait`](crate::balance::BalanceBuilder::unknown_wait).
    Unknown {
        /// The service.
        service: ServiceKey,
        /// What was waited for, and how long.
        reason: Arc<str>,
    },
    /// No instance that may be called is what the request's hints allow: none has the metadata that
    /// it asks for, or it excludes all that do.
    NoMatch {
        /// The service.
        service: ServiceKey,
        /// What was asked for, and what there is.
        reason: Arc<str>,
    },
    /// More calls at once than the balancer was told to take.
    Overloaded {
        /// The service.
        service: ServiceKey,
        /// The limit, and which.
        reason: Arc<str>,
    },
    /// Every instance that may be called was dialled just now, in vain: while the call waited for that,
    /// or less than `redial_after` before it began (250 ms, unless the builder says otherwise).
    AllUnreachable {
        /// The service.
        service: ServiceKey,
        /// What happened to the one that failed last.
        last_error: Arc<str>,
    },
    /// There is no service to call the instance with: making it panicked.
    Unusable {
        /// The service.
        service: ServiceKey,
        /// The instance.
        instance: Address,
        /// What the panic said.
        reason: Arc<str>,
    },
    /// The instance left the registry. A balancer that is told so drops its service; no call
    /// ends with this.
    Evicted {
        /// The service.
        service: ServiceKey,
        /// The instance.
        instance: Address,
    },
    /// The instance left the registry while the call was in flight, and its time was up
    /// (`abort_in_flight_after`). Whether the request was processed is not known.
    #[non_exhaustive]
    Aborted {
        /// The service.
        service: ServiceKey,
        /// The instance.
        instance: Address,
        /// How long after its eviction.
        after: Duration,
    },
    /// The instance had not answered within the time that a try may last (`per_try_timeout`), and the call
    /// was not sent again: it may not be, or has no tries left. Whether the request was processed is not
    /// known.
    #[non_exhaustive]
    TryTimedOut {
        /// The service.
        service: ServiceKey,
        /// The instance.
        instance: Address,
        /// How long it was waited for.
        after: Duration,
    },
    /// The call was handed to the instance's service, which failed.
    Inner {
        /// The service.
        service: ServiceKey,
        /// The instance.
        instance: Address,
        /// The service's own error.
        error: BoxError,
    },
}

impl CallError {
    pub(crate) fn inner_of<E: Into<BoxError>>(
        service: &ServiceKey,
        instance: Address,
        error: E,
    ) -> Self {
        Self::Inner {
            service: service.clone(),
            instance,
            error: error.into(),
        }
    }

    /// What went wrong, without where.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Inner { error, .. } => in_full(&**error),
            other => other.to_string(),
        }
    }

    /// The error of the instance's own service, if this is one, for programs: what it says is said. Its own
    /// [`source`](Error::source)s lead on.
    pub fn cause(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Inner { error, .. } => Some(&**error),
            _ => None,
        }
    }

    /// Whether no instance may be called.
    pub const fn is_no_instances(&self) -> bool {
        matches!(self, Self::NoInstances { .. })
    }

    /// Whether the registry had not answered in time.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Whether no instance that may be called is what the request's hints allow.
    pub const fn is_no_match(&self) -> bool {
        matches!(self, Self::NoMatch { .. })
    }

    /// Whether the balancer had as many calls as it was told to take.
    pub const fn is_overloaded(&self) -> bool {
        matches!(self, Self::Overloaded { .. })
    }

    /// Whether all that may be called are known to be unreachable.
    pub const fn is_all_unreachable(&self) -> bool {
        matches!(self, Self::AllUnreachable { .. })
    }

    /// Whether there was no service to call the instance with.
    pub const fn is_unusable(&self) -> bool {
        matches!(self, Self::Unusable { .. })
    }

    /// Whether the instance left the registry.
    pub const fn is_evicted(&self) -> bool {
        matches!(self, Self::Evicted { .. })
    }

    /// Whether the call was cut, some time after its instance had left the registry.
    pub const fn is_aborted(&self) -> bool {
        matches!(self, Self::Aborted { .. })
    }

    /// Whether the last try of the call was out of time.
    pub const fn is_try_timed_out(&self) -> bool {
        matches!(self, Self::TryTimedOut { .. })
    }

    /// Whether this is the error of the instance's own service.
    pub const fn is_inner(&self) -> bool {
        matches!(self, Self::Inner { .. })
    }

    /// The service that was to be called.
    pub const fn service(&self) -> &ServiceKey {
        match self {
            Self::NoInstances { service, .. }
            | Self::Unknown { service, .. }
            | Self::NoMatch { service, .. }
            | Self::Overloaded { service, .. }
            | Self::AllUnreachable { service, .. }
            | Self::Unusable { service, .. }
            | Self::Evicted { service, .. }
            | Self::Aborted { service, .. }
            | Self::TryTimedOut { service, .. }
            | Self::Inner { service, .. } => service,
        }
    }

    /// The instance that this is about, if it is about one.
    pub const fn instance(&self) -> Option<&Address> {
        match self {
            Self::Unusable { instance, .. }
            | Self::Evicted { instance, .. }
            | Self::Aborted { instance, .. }
            | Self::TryTimedOut { instance, .. }
            | Self::Inner { instance, .. } => Some(instance),
            Self::NoInstances { .. }
            | Self::Unknown { .. }
            | Self::NoMatch { .. }
            | Self::Overloaded { .. }
            | Self::AllUnreachable { .. } => None,
        }
    }

    /// The error of the instance's own service, if this is one and of that type.
    pub fn inner<E: Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Inner { error, .. } => error.downcast_ref(),
            _ => None,
        }
    }

    /// The error of the instance's own service, if this is one.
    pub fn into_inner(self) -> Result<BoxError, Self> {
        match self {
            Self::Inner { error, .. } => Ok(error),
            other => Err(other),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInstances { service, reason } => {
                write!(f, "no instance of {service} can be called: {reason}")
            }
            Self::Unknown { service, reason } => {
                write!(f, "it is not known which instances {service} has: {reason}")
            }
            Self::NoMatch { service, reason } => {
                write!(f, "no instance of {service} fits the request: {reason}")
            }
            Self::Overloaded { service, reason } => {
                write!(f, "too many calls to {service} at once: {reason}")
            }
            Self::AllUnreachable {
                service,
                last_error,
            } => write!(f, "no instance of {service} can be reached: {last_error}"),
            Self::Unusable {
                service,
                instance,
                reason,
            } => write!(
                f,
                "instance {instance} of {service} cannot be used: making its service panicked: {reason}"
            ),
            Self::Evicted { service, instance } => {
                write!(f, "instance {instance} of {service} left the registry")
            }
            Self::Aborted {
                service,
                instance,
                after,
            } => write!(
                f,
                "the call to instance {instance} of {service} was cut {after:?} after that left the registry (abort_in_flight_after)"
            ),
            Self::TryTimedOut {
                service,
                instance,
                after,
            } => write!(
                f,
                "instance {instance} of {service} did not answer within {after:?} (per_try_timeout)"
            ),
            Self::Inner {
                service,
                instance,
                error,
            } => {
                let said = in_full(&**error);
                // Our transport's errors name it too, for those who use it alone.
                let said = said
                    .strip_prefix(&format!("instance {instance}: "))
                    .unwrap_or(&said);
                write!(
                    f,
                    "the call to instance {instance} of {service} failed: {said}"
                )
            }
        }
    }
}

impl Error for CallError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::said::{Layer, assert_said_once};

    #[test]
    fn all_of_an_inner_error_is_said_once() {
        let service = ServiceKey::new("dev", "orders".parse().unwrap()).unwrap();
        let address: Address = "10.0.0.1:80".parse().unwrap();
        let error = CallError::inner_of(&service, address, Layer::nested());
        let words = [
            "10.0.0.1:80",
            "client error",
            "tcp connect",
            "connection refused",
        ];
        assert_said_once(&error, &words);
        assert_eq!(error.inner::<Layer>().unwrap().0, "client error");
        assert_eq!(
            error.cause().unwrap().source().unwrap().to_string(),
            "tcp connect"
        );
    }
}
