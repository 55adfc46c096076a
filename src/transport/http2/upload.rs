use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use tokio::task::AbortHandle;

use crate::transport::body::recording::Recording;

/// Sends a body on its stream, as fast as the peer takes it. Ready when it is sent, or when there
/// is nobody to send it to; the response tells which. Dropped before, it resets the stream.
pub(in crate::transport) struct Upload {
    recording: Arc<Recording>,
    stream: SendStream<Bytes>,
    done: bool,
}

/// Aborts a task unless told that it may go on.
pub(in crate::transport) struct AbortOnDrop(Option<AbortHandle>);

impl Upload {
    pub(in crate::transport) const fn new(
        recording: Arc<Recording>,
        stream: SendStream<Bytes>,
    ) -> Self {
        Self {
            recording,
            stream,
            done: false,
        }
    }

    pub(in crate::transport) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_send(cx));
        self.done = true;
        Poll::Ready(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stream = &mut self.stream;
        loop {
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(());
            }
            // One byte's room is enough to take a frame: what is beyond waits inside of h2.
            stream.reserve_capacity(1);
            while stream.capacity() == 0 {
                match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Poll::Ready(()),
                }
            }
            let frame = match ready!(self.recording.poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(())) => {
                    stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(());
                }
                None => {
                    stream.reserve_capacity(0);
                    let _ = stream.send_data(Bytes::new(), true);
                    return Poll::Ready(());
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    let last = self.recording.is_end_stream();
                    if data.is_empty() && !last {
                        continue;
                    }
                    if stream.send_data(data, last).is_err() || last {
                        return Poll::Ready(());
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        stream.reserve_capacity(0);
                        let _ = stream.send_trailers(trailers);
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}

impl Future for Upload {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll(&mut self, cx)
    }
}

impl Drop for Upload {
    /// Given up, by its caller or since the body panicked: else the peer would wait for the rest
    /// without end, and the call for the peer.
    fn drop(&mut self) {
        if !self.done {
            self.recording.give_up();
            self.stream.send_reset(Reason::CANCEL);
        }
    }
}

impl AbortOnDrop {
    pub(in crate::transport) const fn new(task: AbortHandle) -> Self {
        Self(Some(task))
    }

    pub(in crate::transport) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}
