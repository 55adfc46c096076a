//! How a call's tries stand, and the timer that they share: lent by the thread, so that a call allocates nothing.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project::pin_project;
use tokio::{
    runtime::Handle,
    task,
    time::{Instant, Sleep, sleep_until},
};

use crate::endpoint::clock;

/// Given back when it is dropped.
pub(super) struct Trying(Option<Pin<Box<State>>>);

#[pin_project]
struct State {
    course: Course,
    #[pin]
    timer: Timer,
}

/// How far they have come.
pub(super) struct Course {
    pub(super) began: Instant,
    /// When the try that is under way went into its instance.
    pub(super) entered: Instant,
    /// Whether a second one was begun beside it, or is not to be.
    pub(super) hedged: bool,
    /// How often it went out of which nobody knows what came, or that came to no answer.
    pub(super) used: u32,
    /// Until when the try that is under way may last, or the rest before the next.
    pub(super) until: Option<Instant>,
    /// Whether the next has not begun yet: the time is a rest, and those that were tried may be asked again
    /// if nobody else is there.
    pub(super) resting: bool,
}

/// Costs nothing until something waits for it.
#[pin_project]
#[derive(Default)]
pub(crate) struct Timer {
    set: Option<Instant>,
    #[pin]
    sleep: Option<Sleep>,
}

thread_local! {
    /// Of calls that have ended on this thread.
    static ENDED: RefCell<Vec<Pin<Box<State>>>> = const { RefCell::new(Vec::new()) };
}

impl Trying {
    pub(super) fn new(now: Instant) -> Self {
        let course = Course {
            began: now,
            entered: now,
            hedged: false,
            used: 0,
            until: None,
            resting: false,
        };
        // A thread that is being torn down has none to lend.
        let ended = ENDED.try_with(|ended| ended.borrow_mut().pop());
        Self(Some(match ended.ok().flatten() {
            Some(mut state) => {
                *state.as_mut().project().course = course;
                state
            }
            None => Box::pin(State {
                course,
                timer: Timer::default(),
            }),
        }))
    }

    pub(super) fn course(&self) -> &Course {
        &self.0.as_ref().expect(LENT).course
    }

    pub(super) fn course_mut(&mut self) -> &mut Course {
        self.parts().0
    }

    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (course, timer) = self.parts();
        match course.until {
            Some(until) => timer.poll(until, cx),
            None => Poll::Pending,
        }
    }

    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (course, timer) = self.parts();
        let Some(until) = course.until.filter(|_| course.resting) else {
            return Poll::Ready(());
        };
        let rested = if has_timers() {
            timer.poll(until, cx)
        } else {
            Poll::Ready(()) // nothing would ever wake it
        };
        if rested.is_ready() {
            course.until = None;
        }
        rested
    }

    fn parts(&mut self) -> (&mut Course, Pin<&mut Timer>) {
        let state = self.0.as_mut().expect(LENT).as_mut().project();
        (state.course, state.timer)
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        let Some(mut state) = self.0.take() else {
            return;
        };
        // Its timer is of this call's runtime, and the next call may be another's.
        state.as_mut().project().timer.set(Timer::default());
        let _ = ENDED.try_with(|ended| {
            let mut ended = ended.borrow_mut();
            if ended.len() < MOST_LENT {
                ended.push(state);
            }
        });
    }
}

impl Timer {
    /// Ready at that time. Outside of a runtime, which has no timer, that is as late as somebody polls.
    pub(crate) fn poll(self: Pin<&mut Self>, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if *this.set != Some(until) {
            if !has_timers() {
                return if until <= clock::now() {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                };
            }
            match this.sleep.as_mut().as_pin_mut() {
                Some(sleep) => sleep.reset(until),
                None => this.sleep.set(Some(sleep_until(until))),
            }
            *this.set = Some(until);
        }
        match this.sleep.as_pin_mut() {
            Some(sleep) => sleep.poll(cx),
            None => Poll::Pending,
        }
    }
}

/// Whether this is on a runtime. A task is on one, and to ask for the runtime itself is a count that all of its
/// threads write.
fn has_timers() -> bool {
    task::try_id().is_some() || Handle::try_current().is_ok()
}

const LENT: &str = "taken out as it is dropped, and not before";
/// How many a thread keeps for calls to come: as many as it is likely to have under way at once.
const MOST_LENT: usize = 64;
