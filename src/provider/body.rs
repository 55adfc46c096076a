use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project::pin_project;
use tokio::sync::futures::OwnedNotified;

use super::traffic::{InFlight, poll_cut};

/// What a body's error can be.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response that passed an [`OfflineLayer`](super::OfflineLayer): the call counts as in
/// flight until it ends or is dropped.
///
/// Example: [a provider](crate::provider)
#[pin_project]
#[derive(Debug)]
pub struct OfflineBody<B> {
    #[pin]
    inner: Option<B>,
    /// What the layer says itself.
    text: Option<Bytes>,
    in_flight: Option<InFlight>,
    #[pin]
    cut: Option<OwnedNotified>,
}

/// The body was not ended when `drain_timeout` had passed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this instance went offline, and the response did not end within `drain_timeout`")]
struct Cut;

impl<B> OfflineBody<B> {
    pub(super) const fn of_call(inner: B, in_flight: Option<InFlight>) -> Self {
        Self {
            inner: Some(inner),
            text: None,
            in_flight,
            cut: None,
        }
    }

    pub(super) const fn text(text: &'static str) -> Self {
        Self {
            inner: None,
            text: Some(Bytes::from_static(text.as_bytes())),
            in_flight: None,
            cut: None,
        }
    }

    pub(super) const fn empty() -> Self {
        Self {
            inner: None,
            text: None,
            in_flight: None,
            cut: None,
        }
    }
}

impl<B> http_body::Body for OfflineBody<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(this.text.take().map(Frame::data).map(Ok));
        };
        // One that is always ready never waits for anything, and ends so all the same.
        if let Some(in_flight) = this.in_flight.take_if(|calls| calls.traffic().is_cut()) {
            drop(in_flight);
            return Poll::Ready(Some(Err(Cut.into())));
        }
        match inner.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(end) => {
                drop(this.in_flight.take());
                Poll::Ready(end.map(|result| result.map_err(Into::into)))
            }
            Poll::Pending => {
                let Some(in_flight) = this.in_flight.as_ref() else {
                    return Poll::Pending;
                };
                if poll_cut(this.cut, in_flight.traffic(), cx).is_pending() {
                    return Poll::Pending;
                }
                drop(this.in_flight.take());
                Poll::Ready(Some(Err(Cut.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.is_end_stream(),
            None => self.text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.text) {
            (Some(inner), _) => inner.size_hint(),
            (None, Some(text)) => SizeHint::with_exact(text.len() as u64),
            (None, None) => SizeHint::with_exact(0),
        }
    }
}
