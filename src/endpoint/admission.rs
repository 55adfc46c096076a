use std::{
    fmt, mem,
    sync::{Arc, atomic::Ordering},
    task::Context,
};

use crate::{
    endpoint::{Endpoint, ejection},
    sync::{Ticket, guarded},
};

/// The part of a call between admission and the end of `Service::call`.
pub(crate) struct Entering<'a, S>(&'a Endpoint<S>);

/// An admitted call, counted as in flight until dropped.
pub(crate) struct Admitted<S> {
    /// `None` once a handle has taken over.
    endpoint: Option<Arc<Endpoint<S>>>,
    probe: bool,
}

/// A call that still wants to be admitted to an endpoint: a place among those that wait, once it
/// has to, and the probe token, if it holds that.
pub(crate) struct Place<S> {
    endpoint: Arc<Endpoint<S>>,
    probe: bool,
    waiting: bool,
    ticket: Option<Ticket>,
}

/// A call in flight on an instance, counted in its load until this is dropped.
///
/// A [`TrackCompletion`](tower::load::CompleteOnResponse) that puts it beside a response's body
/// keeps the call counted until the body has ended.
pub struct InFlight(Arc<dyn Finish>);

trait Finish: Send + Sync {
    fn finish(&self);
}

impl<S> Endpoint<S> {
    /// Lets one call in, until the two guards are dropped, or refuses it.
    pub(crate) fn admit(
        this: &Arc<Self>,
        probe: bool,
        gated: bool,
    ) -> Option<(Entering<'_, S>, Admitted<S>)> {
        let admitted = match (gated, probe) {
            (true, false) => this.gate.admit(),
            (true, true) => this.gate.admit_probe(),
            #[cfg(feature = "testing")]
            (false, _) => {
                this.gate.admit_always();
                Ok(())
            }
            #[cfg(not(feature = "testing"))]
            (false, _) => this.gate.admit(),
        };
        match admitted {
            Ok(()) => Some((
                Entering(this),
                Admitted {
                    endpoint: Some(Arc::clone(this)),
                    probe,
                },
            )),
            Err(refused) => {
                if refused.quieted {
                    guarded(|| this.hub.quiet.notify_waiters());
                }
                None
            }
        }
    }

    /// The holder of the probe token goes without having learnt anything.
    fn return_probe(&self) {
        self.ejection.postpone(ejection::now());
        self.hub.ring();
    }
}

impl<S> Place<S> {
    pub(crate) fn new(endpoint: Arc<Endpoint<S>>, probe: bool) -> Self {
        Self {
            endpoint,
            probe,
            waiting: false,
            ticket: None,
        }
    }

    pub(crate) const fn endpoint(&self) -> &Arc<Endpoint<S>> {
        &self.endpoint
    }

    pub(crate) const fn is_probe(&self) -> bool {
        self.probe
    }

    /// Whether the endpoint would let this call in now.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.endpoint.gate.state();
        if self.probe {
            state.admits_probe()
        } else {
            state.is_open()
        }
    }

    /// Counts this call as waiting and has its task woken when something changes. Look again
    /// after this.
    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting {
            self.waiting = true;
            self.endpoint.waiting.fetch_add(1, Ordering::Relaxed);
        }
        self.endpoint.wakers.register(&mut self.ticket, cx.waker());
    }

    /// Hands the probe token on, to the admitted call or to a verdict.
    pub(crate) fn hand_over_probe(&mut self) -> bool {
        mem::take(&mut self.probe)
    }
}

impl<S> Admitted<S> {
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint<S>> {
        let endpoint = self.endpoint.as_ref();
        endpoint.expect("only `into_handle`, which ends `self`, takes it")
    }

    /// The verdict on the instance is in: whether this call was its probe.
    pub(crate) fn judged(&mut self) -> bool {
        mem::take(&mut self.probe)
    }
}

impl<S: Send + Sync + 'static> Admitted<S> {
    /// The same as a handle that users keep.
    pub(crate) fn into_handle(mut self) -> InFlight {
        let endpoint = self.endpoint.take();
        InFlight(endpoint.expect("only this method, which ends `self`, takes it"))
    }
}

impl<S: Send + Sync> Finish for Endpoint<S> {
    fn finish(&self) {
        self.gate.finish();
    }
}

impl<S> Drop for Entering<'_, S> {
    fn drop(&mut self) {
        if self.0.gate.leave() {
            guarded(|| self.0.hub.quiet.notify_waiters());
        }
    }
}

impl<S> Drop for Admitted<S> {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.gate.finish();
            if self.probe {
                endpoint.return_probe();
            }
        }
    }
}

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.endpoint.wakers.leave(ticket);
        }
        if self.waiting {
            self.endpoint.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        if self.probe {
            self.endpoint.return_probe();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").finish_non_exhaustive()
    }
}
