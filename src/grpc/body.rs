use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tokio::time::Sleep;
use tonic::{Code, Status};

use crate::{
    endpoint,
    grpc::error::{code_of_source, deadline_exceeded},
    model::ServiceKey,
    traces::CallSpan,
    transport,
};

/// The body of a response: messages and trailers, within the call's deadline.
///
/// Fails with the [`Status`] that a generated client shows. Dropped, it resets the stream.
///
/// Example: [a channel](crate::grpc)
#[pin_project]
pub struct ChannelBody {
    /// `None` once the deadline has passed.
    #[pin]
    inner: Option<transport::ResponseBody>,
    deadline: Option<Deadline>,
    service: Arc<ServiceKey>,
    span: Option<Box<CallSpan>>,
}

/// When a call is given up, and after how long that is.
pub(super) struct Deadline {
    sleep: Pin<Box<Sleep>>,
    timeout: Duration,
}

impl Deadline {
    pub(super) fn within(timeout: Duration) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(timeout)),
            timeout,
        }
    }

    pub(super) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        self.sleep.as_mut().poll(cx).map(|()| self.timeout)
    }
}

impl Deadline {
    /// How long it was, if it has passed, whatever its timer says, which is a ms late.
    pub(super) fn passed(&self) -> Option<Duration> {
        self.has_passed().then_some(self.timeout)
    }

    fn has_passed(&self) -> bool {
        self.sleep.deadline() <= endpoint::now()
    }
}

impl ChannelBody {
    pub(super) const fn new(
        inner: transport::ResponseBody,
        deadline: Option<Deadline>,
        service: Arc<ServiceKey>,
    ) -> Self {
        Self {
            inner: Some(inner),
            deadline,
            service,
            span: None,
        }
    }

    /// Tells the span of the call what came of it.
    pub(super) fn trace(&mut self, span: Box<CallSpan>) {
        self.span = Some(span);
    }

    fn poll_in_time(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let mut inner = inner;
        if let Poll::Ready(frame) = inner.as_mut().poll_frame(cx) {
            let more = matches!(&frame, Some(Ok(data)) if data.is_data()) && !inner.is_end_stream();
            // A stream that never pauses has its end too.
            let late = this
                .deadline
                .as_ref()
                .filter(|deadline| more && deadline.has_passed());
            if let Some(timeout) = late.map(|deadline| deadline.timeout) {
                this.inner.set(None);
                let still = "its response went on and on";
                return Poll::Ready(Some(Err(deadline_exceeded(this.service, timeout, still))));
            }
            let failed = |error: transport::Error| {
                let text = format!("the response of {} broke off: {error}", this.service);
                let mut status = Status::new(code_of_source(&error), text);
                status.set_source(Arc::new(error));
                status
            };
            return Poll::Ready(frame.map(|frame| frame.map_err(failed)));
        }
        let Some(deadline) = this.deadline else {
            return Poll::Pending;
        };
        deadline.poll_passed(cx).map(|timeout| {
            this.inner.set(None);
            let waited_for = "its response had begun and not ended";
            Some(Err(deadline_exceeded(this.service, timeout, waited_for)))
        })
    }
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(span) = self.as_mut().project().span.take() else {
            return self.poll_in_time(cx);
        };
        let polled = span.within(|| self.as_mut().poll_in_time(cx));
        let goes_on = match &polled {
            Poll::Ready(Some(Ok(frame))) => match frame.trailers_ref() {
                Some(trailers) => span.read(trailers),
                None => Some(span),
            },
            Poll::Ready(Some(Err(status))) => {
                span.ended(status.code());
                None
            }
            Poll::Ready(None) => {
                span.ended(Code::Unknown); // no trailers: that is no gRPC
                None
            }
            Poll::Pending => Some(span),
        };
        *self.project().span = goes_on;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl fmt::Debug for ChannelBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBody")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}
