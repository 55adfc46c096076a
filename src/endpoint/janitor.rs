use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak, atomic::Ordering},
    thread,
};

use tokio::{runtime::Handle, time::Instant};

#[cfg(feature = "metrics")]
use crate::endpoint::telling;
use crate::{
    directory::Snapshot,
    endpoint::{
        checks::watch::Watch, clock, health::machine::Event, helpers::Upkeep, hub::Hub,
        make::MakeEndpoint, member::Endpoint, probes::Probes, set::EndpointSet, settings::Settings,
        slot::Obtained,
    },
    logs,
    model::ServiceKey,
    sync::Bell,
};

impl<S: Send + Sync + 'static> EndpointSet<S> {
    /// A set that starts from `snapshot` and rings `quiet` when a closed gate has become quiet.
    ///
    /// Called on a tokio runtime it starts a small task there, which ends with the set: it drops
    /// the services of evicted instances and probes ejected ones. Without a runtime both happen at
    /// the next use.
    pub(crate) fn open(
        service: ServiceKey,
        snapshot: Arc<Snapshot>,
        quiet: Arc<Bell>,
        prefer: Option<Arc<str>>,
        gated: bool,
    ) -> Arc<Self> {
        Self::open_with(service, snapshot, quiet, prefer, gated, |_| {})
    }

    /// The same, with settings that matter as endpoints are made.
    pub(crate) fn open_with(
        service: ServiceKey,
        snapshot: Arc<Snapshot>,
        quiet: Arc<Bell>,
        prefer: Option<Arc<str>>,
        gated: bool,
        set_up: impl FnOnce(&Settings),
    ) -> Arc<Self> {
        let set = Arc::new(Self::new(service, snapshot, quiet, prefer, gated));
        let reports: Weak<Self> = Arc::downgrade(&set);
        let _ = set.hub.reports.set(reports);
        set_up(set.settings());
        set.spawn_janitor();
        set
    }

    /// Sees to it that the janitor's work is done, if there is none and some has come up: by a new
    /// one on the caller's runtime, or here and now if there is no runtime either.
    #[inline]
    pub(crate) fn maintain(self: &Arc<Self>) {
        if let Some(now) = self.hub.take_duty()
            && !self.spawn_janitor()
        {
            let next = self.sweep(now, None);
            self.hub.put_off(next);
        }
    }

    /// Starts the janitor on the runtime that this is called on, unless there is one already. False
    /// if there is no runtime, or one panicked before: on a runtime without a timer, say.
    fn spawn_janitor(self: &Arc<Self>) -> bool {
        let Ok(runtime) = Handle::try_current() else {
            return false;
        };
        let hub = Arc::clone(&self.hub);
        if hub.is_unfit() {
            return false;
        }
        if !hub.hire() {
            hub.work.notify_one();
            return true;
        }
        let on_duty = OnDuty(Arc::downgrade(self));
        // Owned by the set: it ends when the set is abandoned or gone, both of which ring for it.
        runtime.spawn(work(on_duty, hub));
        true
    }
}

async fn work<S: Send + Sync + 'static>(on_duty: OnDuty<S>, hub: Arc<Hub>) {
    let mut probes = Probes::new();
    let mut prepared = 0;
    let mut checks = Watch::default();
    loop {
        let next = match on_duty.0.upgrade() {
            Some(set) if !set.is_abandoned() => {
                let now = clock::now();
                let upkeep = set.helpers.upkeep();
                let due = upkeep.as_ref().and_then(|upkeep| upkeep.upkeep(now));
                set.prepare(&mut prepared, upkeep.as_deref());
                checks.keep(&set);
                let swept = set.sweep(now, Some(&mut probes));
                [due, swept].into_iter().flatten().min()
            }
            _ => return,
        };
        #[cfg(feature = "metrics")]
        let next = next.into_iter().chain([telling::next(clock::now())]).min();
        tokio::select! {
            () = hub.work.notified() => {}
            () = sleep_until(next) => {}
            (endpoint, ended) = probes.next() => if let Some(set) = on_duty.0.upgrade() {
                set.probed(&endpoint, ended);
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Says that there is a janitor until it goes, with its runtime say: then the next call finds
/// another, and those that wait for what it was about to find out are the next.
struct OnDuty<S>(Weak<EndpointSet<S>>);

impl<S> Drop for OnDuty<S> {
    fn drop(&mut self) {
        if let Some(set) = self.0.upgrade() {
            set.forget_checks();
            set.hub.dismiss(thread::panicking());
            set.waiters.wake_all();
        }
    }
}

impl<S: Send + Sync + 'static> EndpointSet<S> {
    /// Lets go of the services that no longer fit their instances, and makes those of new ones, if
    /// they are to be made ahead of their first use.
    fn prepare(&self, prepared: &mut u64, upkeep: Option<&dyn Upkeep>) {
        let Some(make) = self.helpers.maker() else {
            return;
        };
        self.replace_stale(&*make);
        let membership = self.membership();
        if !make.is_eager() {
            return;
        }
        let called = upkeep.and_then(Upkeep::called);
        // Who is called of those who may be may change by itself.
        if *prepared == membership && called.is_none() {
            return;
        }
        *prepared = membership;
        for endpoint in self.roster(true).endpoints() {
            let called = called.as_ref();
            if !endpoint.gate.state().is_open()
                || called.is_some_and(|called| !called.contains(&endpoint.generation()))
            {
                continue;
            }
            match endpoint.slot.fill(|| make.make(&endpoint.instance())) {
                None => endpoint.wakers().wake_all(),
                Some(Obtained::Panicked) => self.unusable(endpoint),
                Some(_) => {}
            }
        }
    }

    fn replace_stale(&self, make: &dyn MakeEndpoint<Service = S>) {
        let updated = mem::take(&mut self.lock().updated);
        for endpoint in updated {
            let Some(service) = endpoint.slot.idle() else {
                continue;
            };
            let instance = endpoint.instance();
            let stale = || make.is_stale(&service, &instance);
            let stale = catch_unwind(AssertUnwindSafe(stale)).unwrap_or(false);
            if stale {
                self.discard(endpoint.slot.discard());
            }
            self.discard(service);
        }
    }
}

impl<S> EndpointSet<S> {
    /// Making the instance's service panicked.
    pub(super) fn unusable(&self, endpoint: &Arc<Endpoint<S>>) {
        endpoint.gate.unusable();
        if endpoint.slot.unusable().is_none() {
            endpoint.gate.usable(); // its attributes changed meanwhile: it is to be tried again
        }
        let service = &self.service();
        logs::of_service!(
            warn, BALANCE, self.client(), service,
            instance = %endpoint.address(),
            "making the service of an instance panicked; it gets no call until its attributes change"
        );
        self.announce(endpoint);
        self.waiters.wake_all();
    }

    /// Drops the services of what was evicted and begins the probes that are due: the maker's own
    /// if the janitor asks and it has some, else a call's. Returns when to come again.
    pub(super) fn sweep(
        &self,
        now: Instant,
        mut probes: Option<&mut Probes<S>>,
    ) -> Option<Instant> {
        if let Some(probes) = &mut probes {
            probes.forget_evicted();
            for endpoint in probes.expire(now) {
                let timeout = self.hub.settings.health().probe_timeout;
                let reason = format!("its probe took longer than {timeout:?} (probe_timeout)");
                self.probed(&endpoint, Err(reason));
            }
        }
        self.lift_outliers(|_| true);
        self.settle_refusals();
        let (evicted, ailing, expiry) = {
            let mut state = self.lock();
            state.draining.retain(|gone| {
                let gone = gone.upgrade();
                gone.is_some_and(|gone| gone.gate.state().in_flight() > 0)
            });
            state.forget_recovered();
            let evicted = mem::take(&mut state.evicted);
            (evicted, state.ailing.clone(), state.legacies.expire(now))
        };
        #[cfg(feature = "metrics")]
        self.tell();
        for endpoint in evicted {
            self.discard(endpoint.slot.take());
        }
        let mut next = expiry.into_iter().chain(self.judge_rates(now)).min();
        for endpoint in &ailing {
            let due = self.attend(endpoint, now, probes.as_deref_mut());
            next = next.into_iter().chain(due).min();
        }
        let expiry = probes.as_ref().and_then(|probes| probes.next_expiry());
        next.into_iter().chain(expiry).min()
    }

    /// Begins the probe of an instance if that is due. Returns when to come again.
    fn attend(
        &self,
        endpoint: &Arc<Endpoint<S>>,
        now: Instant,
        probes: Option<&mut Probes<S>>,
    ) -> Option<Instant> {
        self.age(endpoint);
        let rules = self.hub.settings.health();
        let (wants_probe, by_dial) = endpoint
            .health
            .read(|health| (health.wants_probe(now), health.is_a_dials_matter()));
        if !wants_probe {
            return endpoint.health.read(|health| health.next(rules));
        }
        if by_dial
            && let Some(probes) = probes
            && let Some(prober) = self.helpers.prober()
        {
            if !probes.has_room() {
                return None; // when one of those has ended
            }
            let until = now.checked_add(rules.probe_timeout);
            let until = until.unwrap_or(now + ENDLESS);
            if probes.begin(&*prober, endpoint, until) {
                let _ = endpoint.note(Event::ProbeBegan, now);
                self.tell_probe(endpoint, true);
                return None;
            }
        }
        let _ = endpoint.note(Event::ProbeOffered, now);
        self.tell_probe(endpoint, false);
        endpoint.gate.grant_probe();
        self.hub.probes.store(true, Ordering::Release);
        endpoint.wakers().wake_all();
        self.waiters.wake_all();
        endpoint.health.read(|health| health.next(rules))
    }

    fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }
}

/// In the place of a time that is too long to be told.
const ENDLESS: std::time::Duration = std::time::Duration::from_secs(30 * 365 * 24 * 3600);
