use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project::pin_project;
use tokio::time::{Instant, Sleep};

use crate::{endpoint, sync::poll_budget};

/// Until when a request waits for its response's head, in the request's extensions.
///
/// Everything up to there counts: waiting for the registry's first answer, for a connection, for the instance, and for
/// every further instance that the request moves to. The response's body does not count: the caller reads it, in its own
/// time. When the deadline passes, the call fails with [`is_timeout`](crate::http::Error::is_timeout), and the instance
/// is told as if the caller had gone away. If it has passed before the call begins, nothing is sent.
///
/// Default: none, since only the caller knows how long an answer is of use. HTTP/1.1 responses have the transport's own
/// limit.
///
/// A service that is called itself passes on what is left of its own deadline by giving the same
/// `Deadline` to what it calls. It is of this process: nothing of it is sent.
///
/// Example: [calls](crate::http)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A moment of tokio's clock.
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// So long from now; more than a year counts as a year.
    pub fn within(time: Duration) -> Self {
        Self(endpoint::now() + time.min(YEAR))
    }

    /// The moment.
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// What is left of it; nothing once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(endpoint::now())
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A deadline and, once something waits for it, its timer.
#[pin_project]
pub(super) struct Timer {
    deadline: Option<Began>,
    #[pin]
    sleep: Option<Sleep>,
}

#[derive(Clone, Copy)]
struct Began {
    deadline: Instant,
    at: Instant,
}

impl Timer {
    pub(super) fn new(deadline: Option<Deadline>) -> Self {
        Self {
            deadline: deadline.map(|deadline| Began {
                deadline: deadline.0,
                at: endpoint::now(),
            }),
            sleep: None,
        }
    }

    /// Whether the deadline had passed before the call began.
    pub(super) fn was_over(&self) -> bool {
        self.deadline
            .is_some_and(|began| began.deadline <= began.at)
    }

    /// Ready when the deadline has passed, with how long that took. Without one it costs nothing.
    ///
    /// Outside of a tokio runtime there is no timer; there a deadline holds as often as the future
    /// is polled.
    pub(super) fn poll_passed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Duration> {
        let mut this = self.project();
        let Some(Began { deadline, at }) = *this.deadline else {
            return Poll::Pending;
        };
        let passed = deadline.saturating_duration_since(at);
        if this.sleep.is_none() {
            if deadline <= endpoint::now() {
                ready!(poll_budget(cx));
                return Poll::Ready(passed);
            }
            if tokio::runtime::Handle::try_current().is_err() {
                return Poll::Pending;
            }
            this.sleep.set(Some(tokio::time::sleep_until(deadline)));
        }
        match this.sleep.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(cx).map(|()| passed),
            None => Poll::Pending,
        }
    }
}
