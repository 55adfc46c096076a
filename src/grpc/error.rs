use std::{error::Error as StdError, fmt, time::Duration};

use tonic::{Code, Status};

use crate::{
    endpoint::{CallError, Progress},
    model::ServiceKey,
    transport,
};

/// Why a call through a [`Channel`](crate::grpc::Channel) failed before the instance answered.
///
/// Generated clients show it as a [`Status`], which is its source; [`Error::of`] finds it in that
/// status again. The code is UNAVAILABLE unless there is a better one: DEADLINE_EXCEEDED,
/// RESOURCE_EXHAUSTED for [`max_in_flight`](crate::balance::BalanceBuilder::max_in_flight) and
/// `max_waiting`, that of the [`Status`] which the call's own messages failed with (a message
/// larger than the client may send, say), and for an HTTP/2 reset what the
/// [gRPC specification](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors)
/// maps its code to. The message names service, instance and reason, with all that is behind it.
///
/// Its source is that status, where tonic looks for one: the same error once more, and the one of this crate whose
/// words a source repeats.
///
/// Example: [a channel](crate::grpc)
#[derive(Debug)]
pub struct Error {
    status: Status,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Call(CallError),
    Deadline {
        service: ServiceKey,
        /// Whether an instance had the call.
        entered: bool,
    },
}

impl Error {
    pub(super) fn call(error: CallError) -> Self {
        let status = Status::new(code_of(&error), error.to_string());
        Self {
            status,
            cause: Cause::Call(error),
        }
    }

    pub(super) fn deadline(timeout: Duration, progress: &Progress<'_>) -> Self {
        Self {
            status: deadline_exceeded(progress.service, timeout, progress),
            cause: Cause::Deadline {
                service: progress.service.clone(),
                entered: progress.doubtful,
            },
        }
    }

    /// The instance gave the call up as its time was over.
    pub(super) fn late(timeout: Duration, error: &CallError) -> Self {
        let service = error.service();
        Self {
            status: deadline_exceeded(service, timeout, error),
            cause: Cause::Deadline {
                service: service.clone(),
                entered: true,
            },
        }
    }

    /// This error in what a generated client made of it.
    pub fn of(status: &Status) -> Option<&Self> {
        let mut next = status.source();
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// What generated clients show.
    pub const fn status(&self) -> &Status {
        &self.status
    }

    /// The balancer's error, unless the deadline passed.
    pub const fn call_error(&self) -> Option<&CallError> {
        match &self.cause {
            Cause::Call(error) => Some(error),
            Cause::Deadline { .. } => None,
        }
    }

    /// The error of the connection to the instance, if it is that.
    pub fn transport(&self) -> Option<&transport::Error> {
        self.call_error().and_then(CallError::inner)
    }

    /// The service that was called.
    pub const fn service(&self) -> &ServiceKey {
        match &self.cause {
            Cause::Call(error) => error.service(),
            Cause::Deadline { service, .. } => service,
        }
    }

    /// Whether no instance may be called.
    pub fn is_no_instances(&self) -> bool {
        self.call_error().is_some_and(CallError::is_no_instances)
    }

    /// Whether the call's deadline passed.
    pub const fn is_deadline(&self) -> bool {
        matches!(self.cause, Cause::Deadline { .. })
    }

    /// Whether no instance processed the call, so that making it again is safe whatever it does.
    pub fn is_unprocessed(&self) -> bool {
        match &self.cause {
            Cause::Call(error) if error.is_inner() => {
                let transport = self.transport();
                transport.is_some_and(transport::Error::is_unprocessed)
            }
            Cause::Call(error) => !error.is_aborted() && !error.is_try_timed_out(),
            Cause::Deadline { entered, .. } => !entered,
        }
    }
}

pub(super) fn deadline_exceeded(
    service: &ServiceKey,
    timeout: Duration,
    waited_for: impl fmt::Display,
) -> Status {
    Status::deadline_exceeded(format!(
        "the call to {service} took more than {timeout:?}: {waited_for}"
    ))
}

fn code_of(error: &CallError) -> Code {
    match error {
        CallError::Overloaded { .. } => Code::ResourceExhausted,
        CallError::TryTimedOut { .. } => Code::DeadlineExceeded,
        CallError::Inner { error, .. } => code_of_source(&**error),
        _ => Code::Unavailable,
    }
}

/// The code of the caller's own [`Status`], which its request's body failed with; that for an
/// HTTP/2 reset, if that is what happened; UNAVAILABLE otherwise.
pub(super) fn code_of_source(error: &(dyn StdError + 'static)) -> Code {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(own) = error.downcast_ref::<Status>() {
            return own.code();
        }
        if let Some(http2) = error.downcast_ref::<h2::Error>()
            && http2.is_reset()
        {
            return match http2.reason() {
                Some(h2::Reason::CANCEL) => Code::Cancelled,
                Some(h2::Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
                Some(h2::Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
                Some(h2::Reason::REFUSED_STREAM) => Code::Unavailable,
                _ => Code::Internal,
            };
        }
        next = match error.downcast_ref::<transport::Error>() {
            Some(ours) => ours.cause(),
            None => error.source(),
        };
    }
    Code::Unavailable
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status.message())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.status)
    }
}
