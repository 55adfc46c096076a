use std::{
    future::Future,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use tokio::time::Sleep;

use crate::{
    balance::{Policy, core::Core, requests::Began},
    directory::Status,
    endpoint::{CallError, Fate},
};

/// What one call takes of its balancer's limits: a place among the calls in flight, and one among
/// those that wait to know whom to call.
///
/// Holds no reference to the balancer, which its owner does: give back what it took with
/// [`exit`](Self::exit).
#[derive(Default)]
pub(super) struct Passage {
    /// While it waits for the registry's first answer.
    wait: Option<Pin<Box<Sleep>>>,
    entry: Entry,
    began: Began,
}

/// What a call is to the limit of calls in flight.
#[derive(Default)]
enum Entry {
    /// Not polled yet.
    #[default]
    Outside,
    /// Counted.
    Counted,
    /// Not counted, or no longer.
    Free,
    /// What became of it is known.
    Over,
}

impl Passage {
    /// Counts the call against the limit, if there is one; once, and again if there was no room.
    #[inline]
    pub(super) fn enter<S, P: Policy, R, C, V>(
        &mut self,
        core: &Core<S, P, R, C, V>,
    ) -> Result<(), CallError> {
        if !matches!(self.entry, Entry::Outside) {
            return Ok(());
        }
        self.began = core.requests.begin();
        let Some(limit) = core.limits.max_in_flight else {
            self.entry = Entry::Free;
            return Ok(());
        };
        let more = |calls| (calls < limit).then_some(calls + 1);
        let entered = core
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if entered.is_err() {
            return Err(CallError::Overloaded {
                service: core.set().service().clone(),
                reason: format!("{limit} calls in flight (max_in_flight)").into(),
            });
        }
        self.entry = Entry::Counted;
        Ok(())
    }

    /// No longer in flight, nor among those that wait.
    #[inline]
    pub(super) fn exit<S, P: Policy, R, C, V>(&mut self, core: &Core<S, P, R, C, V>) {
        self.stop_waiting(core);
        if self.hand_over() {
            core.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What became of the call is known: no longer in flight, and counted by that, once.
    #[inline]
    pub(super) fn end<S, P: Policy, R, C, V>(&mut self, core: &Core<S, P, R, C, V>, fate: Fate) {
        let is_over = matches!(self.entry, Entry::Over);
        self.exit(core);
        self.entry = Entry::Over;
        if !is_over {
            core.requests.end(fate, self.began);
        }
    }

    /// The same for one that has failed.
    #[cold]
    pub(super) fn fail<S, P: Policy, R, C, V>(
        &mut self,
        core: &Core<S, P, R, C, V>,
        error: &CallError,
        fate: Fate,
    ) {
        core.set().tell_failure(error);
        self.end(core, fate);
    }

    /// The same for one whose caller lets go of it, if it had begun and has not ended.
    #[inline]
    pub(super) fn give_up<S, P: Policy, R, C, V>(&mut self, core: &Core<S, P, R, C, V>) {
        match self.entry {
            Entry::Outside | Entry::Over => self.exit(core),
            Entry::Counted | Entry::Free => self.end(core, Fate::Aborted),
        }
    }

    /// When it began, if that is measured.
    pub(super) const fn began(&self) -> Began {
        self.began
    }

    /// Leaves it to somebody else to count the call out. False if it is not counted.
    #[inline]
    pub(super) fn hand_over(&mut self) -> bool {
        let counted = matches!(self.entry, Entry::Counted);
        self.entry = Entry::Over;
        counted
    }

    /// Waits for instances to be known, not for ever and not with everybody. Ready with the
    /// error.
    pub(super) fn poll_wait<S, P: Policy, R, C, V>(
        &mut self,
        core: &Core<S, P, R, C, V>,
        cx: &mut Context<'_>,
    ) -> Poll<CallError> {
        let limits = core.limits;
        if self.wait.is_none() {
            let more = |waiting| (waiting < limits.max_waiting).then_some(waiting + 1);
            let entered = core
                .waiting
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            if entered.is_err() {
                let reason = format!(
                    "{} calls wait to know whom to call (max_waiting)",
                    limits.max_waiting
                );
                return Poll::Ready(CallError::Overloaded {
                    service: core.set().service().clone(),
                    reason: reason.into(),
                });
            }
            if tokio::runtime::Handle::try_current().is_err() {
                core.waiting.fetch_sub(1, Ordering::Relaxed);
                if let Some(error) = core.set().nobody_known() {
                    return Poll::Ready(error);
                }
                return Poll::Ready(CallError::Unknown {
                    service: core.set().service().clone(),
                    reason:
                        "the registry has not answered, and there is no tokio runtime to wait on"
                            .into(),
                });
            }
            self.wait = Some(Box::pin(tokio::time::sleep(limits.unknown_wait)));
        }
        let waited = self.wait.as_mut().map(|wait| wait.as_mut().poll(cx));
        if waited != Some(Poll::Ready(())) {
            return Poll::Pending;
        }
        if let Some(error) = core.set().nobody_known() {
            if core.set().awaits_probe() {
                return Poll::Pending; // which ends, and wakes this
            }
            return Poll::Ready(error);
        }
        let subscription = core.shared.subscription();
        if matches!(subscription.status(), Status::Fresh) {
            // It answered, with an empty list that nothing has contradicted meanwhile.
            return Poll::Ready(core.set().nobody());
        }
        let reason = format!(
            "waited {:?} (unknown_wait); {}",
            limits.unknown_wait,
            subscription.unknown_because()
        );
        Poll::Ready(CallError::Unknown {
            service: core.set().service().clone(),
            reason: reason.into(),
        })
    }

    /// No longer among those that wait.
    #[inline]
    pub(super) fn stop_waiting<S, P: Policy, R, C, V>(&mut self, core: &Core<S, P, R, C, V>) {
        if self.wait.take().is_some() {
            core.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
