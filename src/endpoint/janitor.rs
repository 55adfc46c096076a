use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak, atomic::Ordering},
    thread,
};

use tokio::{runtime::Handle, time::Instant};

#[cfg(feature = "metrics")]
use crate::endpoint::tell;
use crate::{
    endpoint::{
        EndpointSet, MakeEndpoint,
        ejection::{self, PROBE_INTERVAL},
        probes::Probes,
        slot::Obtained,
    },
    model::ServiceKey,
};

/// Starts the task of a set on the runtime that this is called on, unless there is one already.
/// False if there is no runtime, or one panicked before: on a runtime without a timer, say.
pub(super) fn spawn<S: Send + Sync + 'static>(set: &Arc<EndpointSet<S>>) -> bool {
    let Ok(runtime) = Handle::try_current() else {
        return false;
    };
    let hub = Arc::clone(&set.hub);
    if hub.unfit.load(Ordering::Relaxed) {
        return false;
    }
    let weak = Arc::downgrade(set);
    if hub.tended.swap(true, Ordering::AcqRel) {
        hub.bell.notify_one();
        return true;
    }
    let on_duty = OnDuty(Weak::clone(&weak));
    // Owned by the set: it ends when the set is abandoned or gone, both of which ring the bell.
    runtime.spawn(async move {
        let _on_duty = on_duty;
        let mut probes = Probes::new();
        let mut prepared = 0;
        loop {
            let next = match weak.upgrade() {
                Some(set) if !set.is_abandoned() => {
                    let now = ejection::now();
                    let upkeep = set.upkeep(now);
                    set.prepare(&mut prepared);
                    let tidied = set.tidy(now, Some(&mut probes));
                    [upkeep, tidied].into_iter().flatten().min()
                }
                _ => return,
            };
            #[cfg(feature = "metrics")]
            let next = next.into_iter().chain([tell::next(ejection::now())]).min();
            tokio::select! {
                () = hub.bell.notified() => {}
                () = sleep_until(next) => {}
                (endpoint, ended) = probes.next() => if let Some(set) = weak.upgrade() {
                    match ended {
                        Ok(()) => set.reached(&endpoint),
                        Err(reason) => set.failed(&endpoint, true, &reason, false),
                    }
                }
            }
        }
    });
    true
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Drops what is the users', whose panic is not ours.
pub(super) fn discard<T>(key: &ServiceKey, theirs: T) {
    if catch_unwind(AssertUnwindSafe(|| drop(theirs))).is_err() {
        tracing::warn!(
            namespace = &**key.namespace(),
            group = &**key.group(),
            service = &**key.name(),
            "dropping the service of an instance panicked"
        );
    }
}

/// Says that there is a janitor until it goes, with its runtime say: then the next call finds
/// another, and those that wait for what it was about to find out are the next.
struct OnDuty<S>(Weak<EndpointSet<S>>);

impl<S> Drop for OnDuty<S> {
    fn drop(&mut self) {
        if let Some(set) = self.0.upgrade() {
            set.hub
                .unfit
                .fetch_or(thread::panicking(), Ordering::Relaxed);
            set.hub.leave_untended();
            set.waiters.wake_all();
        }
    }
}

impl<S: Send + Sync + 'static> EndpointSet<S> {
    /// Lets go of the services that no longer fit their instances, and makes those of new ones, if
    /// they are to be made ahead of their first use.
    fn prepare(&self, prepared: &mut u64) {
        let Some(make) = self.maker() else {
            return;
        };
        self.renew(&*make);
        let membership = self.membership();
        if *prepared == membership {
            return;
        }
        *prepared = membership;
        if !make.is_eager() {
            return;
        }
        for endpoint in self.roster(true).endpoints() {
            if !endpoint.gate.state().is_open() {
                continue;
            }
            match endpoint.slot.fill(|| make.make(&endpoint.instance())) {
                None => endpoint.wakers().wake_all(),
                Some(Obtained::Panicked) => self.unusable(endpoint),
                Some(_) => {}
            }
        }
    }
}

impl<S: Send + Sync + 'static> EndpointSet<S> {
    fn renew(&self, make: &dyn MakeEndpoint<Service = S>) {
        let updated = mem::take(&mut self.lock().updated);
        for endpoint in updated {
            let Some(service) = endpoint.slot.idle() else {
                continue;
            };
            let instance = endpoint.instance();
            let stale = || make.is_stale(&service, &instance);
            let stale = catch_unwind(AssertUnwindSafe(stale)).unwrap_or(false);
            if stale {
                discard(self.service(), endpoint.slot.discard());
            }
            discard(self.service(), service);
        }
    }
}

impl<S> EndpointSet<S> {
    /// Drops the services of what was evicted and begins the probes that are due: the maker's own
    /// if the janitor asks and it has some, else a call's. Returns when the next one will be.
    pub(super) fn tidy(&self, now: Instant, mut probes: Option<&mut Probes<S>>) -> Option<Instant> {
        self.relieve(|_| true);
        if let Some(probes) = &mut probes {
            probes.forget_evicted();
        }
        let room = probes.as_ref().map_or(usize::MAX, |probes| probes.room());
        let (evicted, probed, next) = {
            let mut guard = self.lock();
            let state = &mut *guard;
            state.draining.retain(|gone| {
                let gone = gone.upgrade();
                gone.is_some_and(|gone| gone.gate.state().in_flight() > 0)
            });
            state.ejected.retain(|endpoint| {
                let gate = endpoint.gate.state();
                gate.is_ejected() && !gate.is_evicted()
            });
            let mut probed = Vec::new();
            let mut next = None;
            if state.ejected.is_empty() {
                state.probed = None;
                state.last_error = None;
            } else if state.all_out() {
                // One a second, whoever rests the shortest, however long it still would.
                let at = state.probed.map_or(now, |last| last + PROBE_INTERVAL);
                if at > now {
                    next = Some(at);
                } else if !state.ejected.iter().any(|e| e.gate.state().offers_probe()) {
                    let resting = state.ejected.iter();
                    let resting = resting.filter_map(|e| Some((e.ejection.due()?, e)));
                    if let Some((_, endpoint)) = resting.min_by_key(|(due, _)| *due) {
                        probed.push(Arc::clone(endpoint));
                        state.probed = Some(now);
                    }
                    next = Some(now + PROBE_INTERVAL);
                } else {
                    next = Some(now + PROBE_INTERVAL); // it may be taken and then hang
                }
            } else {
                state.probed = None;
                for endpoint in &state.ejected {
                    match endpoint.ejection.due() {
                        Some(due) if due <= now && probed.len() < room => {
                            probed.push(Arc::clone(endpoint));
                        }
                        Some(due) if due <= now => {
                            // Again at once; with no room at all, when one of those has ended.
                            next = if room > 0 { Some(now) } else { next };
                        }
                        Some(due) => next = Some(next.map_or(due, |n: Instant| n.min(due))),
                        None => {}
                    }
                }
            }
            let expiry = state.legacies.expire(now);
            let next = next.into_iter().chain(expiry).min();
            (mem::take(&mut state.evicted), probed, next)
        };
        #[cfg(feature = "metrics")]
        self.tell();
        for endpoint in evicted {
            discard(self.service(), endpoint.slot.take());
        }
        let prober = self.prober();
        for endpoint in probed {
            endpoint.ejection.offered();
            if let (Some(probes), Some(prober)) = (&mut probes, &prober)
                && !endpoint.ejection.is_outlier() // only a call tells how it answers
                && probes.begin(&**prober, &endpoint)
            {
                continue;
            }
            endpoint.ejection.leave_to_a_call();
            endpoint.gate.grant_probe();
            self.hub.probes.store(true, Ordering::Release);
            endpoint.wakers().wake_all();
            self.waiters.wake_all();
        }
        next
    }

    fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }
}
