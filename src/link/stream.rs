use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use futures_core::Stream;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{CallError, Heard};
use crate::wire::Payload;

/// Our end of the stream. Dropping it ends our side.
#[derive(Clone, Debug)]
pub(crate) struct StreamSender(mpsc::UnboundedSender<Payload>);

/// The server's end of the stream.
pub(crate) struct StreamReceiver {
    state: State,
    heard: Heard,
    limit: usize,
}

enum State {
    /// The server has not said anything yet.
    Opening(Opening),
    Open(Box<Streaming<Payload>>),
    Ended,
}

type Opening = Pin<Box<dyn Future<Output = Result<Streaming<Payload>, CallError>> + Send>>;

pub(super) struct Outbound(mpsc::UnboundedReceiver<Payload>);

/// Unbounded, because a bound would make the driver wait for a server that does not read. What is
/// sent here is one setup and one acknowledgement for each message received.
pub(super) fn outbound() -> (StreamSender, Outbound) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (StreamSender(sender), Outbound(receiver))
}

impl StreamSender {
    /// Queues a message. A stream that ended takes it silently: its end is reported by the
    /// receiver.
    pub(crate) fn send(&self, payload: Payload) {
        let _ = self.0.send(payload);
    }
}

impl StreamReceiver {
    pub(super) const fn new(opening: Opening, heard: Heard, limit: usize) -> Self {
        Self {
            state: State::Opening(opening),
            heard,
            limit,
        }
    }

    /// The next message and when its last byte left the socket; `Ok(None)` is the clean end.
    ///
    /// Cancel-safe: a message is never lost by dropping the future.
    pub(crate) async fn next(&mut self) -> Result<Option<(Payload, Option<Instant>)>, CallError> {
        if let State::Opening(opening) = &mut self.state {
            match opening.await {
                Ok(open) => self.state = State::Open(Box::new(open)),
                Err(error) => {
                    self.state = State::Ended;
                    return Err(error);
                }
            }
        }
        let State::Open(open) = &mut self.state else {
            return Ok(None);
        };
        let message = open.message().await;
        if !matches!(message, Ok(Some(_))) {
            self.state = State::Ended;
        }
        match message {
            Ok(Some(payload)) => Ok(Some((payload, self.heard.last()))),
            Ok(None) => Ok(None),
            Err(status) => Err(CallError::from_status(&status, &self.heard, self.limit)),
        }
    }
}

impl Stream for Outbound {
    type Item = Payload;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Payload>> {
        self.0.poll_recv(cx)
    }
}
