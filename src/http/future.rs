use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::http::{Request, Response};
use pin_project::pin_project;
use tower::Service;

use crate::{
    balance::{InExtensions, P2c, Policy},
    http::{
        balanced::HttpBalance,
        deadline::{Deadline, Timer},
        error::Error,
    },
    sync::poll_budget,
    traces::CallSpan,
    transport::{Body, ResponseBody},
};

/// The future of a request: its response's head, with a body to be read, or why there is none.
///
/// Dropped, it gives the call up: an HTTP/2 stream is reset, an HTTP/1.1 connection closed.
///
/// Example: [calls](crate::http)
#[must_use = "futures do nothing unless polled"]
#[pin_project]
pub struct ResponseFuture<P: Policy = P2c> {
    #[pin]
    state: State<P>,
    /// Off unless set.
    span: Option<Box<CallSpan>>,
}

type Call<P> = <HttpBalance<P, InExtensions> as Service<Request<Body>>>::Future;

#[expect(
    clippy::large_enum_variant,
    reason = "the small one is rare, and a box would cost every call an allocation"
)]
#[pin_project(project = Stage)]
enum State<P: Policy> {
    /// Before it began.
    Failed(Option<Error>),
    Calling {
        #[pin]
        call: Call<P>,
        #[pin]
        timer: Timer,
    },
}

impl<P: Policy> ResponseFuture<P> {
    pub(super) fn new(
        call: Call<P>,
        deadline: Option<Deadline>,
        span: Option<Box<CallSpan>>,
    ) -> Self {
        Self {
            state: State::Calling {
                call,
                timer: Timer::new(deadline),
            },
            span,
        }
    }

    pub(super) const fn failed(error: Error) -> Self {
        Self {
            state: State::Failed(Some(error)),
            span: None,
        }
    }
}

impl<P: Policy> Future for ResponseFuture<P> {
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(span) = this.span else {
            return this.state.poll(cx);
        };
        let result = ready!(span.within(|| this.state.poll(cx)));
        match (&result, this.span.take()) {
            (Ok(response), Some(span)) => span.answered(response.status()),
            (Err(error), Some(span)) => span.failed(error.kind()),
            (_, None) => {}
        }
        Poll::Ready(result)
    }
}

impl<P: Policy> State<P> {
    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<ResponseBody>, Error>> {
        match self.project() {
            Stage::Failed(error) => {
                ready!(poll_budget(cx));
                let error = error.take();
                Poll::Ready(Err(error.expect("polled again after it was ready")))
            }
            Stage::Calling { mut call, timer } => {
                // What is too late already is not begun: an instance might process it.
                if !timer.was_over()
                    && let Poll::Ready(result) = call.as_mut().poll(cx)
                {
                    return Poll::Ready(result.map_err(Error::from));
                }
                let after = ready!(timer.poll_passed(cx));
                let error = Error::deadline(after, &call.progress());
                let answer = call.as_mut().last_answer();
                call.expire();
                Poll::Ready(answer.ok_or(error))
            }
        }
    }
}

impl<P: Policy> fmt::Debug for ResponseFuture<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ResponseFuture");
        match &self.state {
            State::Failed(error) => shown.field("failed", error),
            State::Calling { call, .. } => shown.field("call", call),
        };
        shown.finish()
    }
}
