//! From a push to the moment in which no call enters what it took away (feature `metrics`).
//!
//! A machine without I/O: the driver shows it the copies, and it says what to tell.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    directory::{Revision, Subscription},
    metrics::PushMetrics,
    model::ServiceKey,
};

/// The pushes of each service, as far as they changed something.
#[derive(Debug, Default)]
pub(super) struct Applied {
    services: HashMap<ServiceKey, Service>,
    /// What a consumer is not quiet for: few, however many services there are, and so the only ones that are
    /// looked over at each event.
    pending: HashMap<ServiceKey, Pending>,
}

#[derive(Debug)]
struct Service {
    metrics: PushMetrics,
    /// The newest revision that was looked at.
    newest: Revision,
}

#[derive(Debug)]
struct Pending {
    /// The oldest that a consumer is not quiet for; later ones are folded into it.
    revision: Revision,
    /// When its push had left the socket.
    received: Instant,
    /// When it is looked at again, and how long after that once more.
    due: Instant,
    rest: Duration,
}

impl Applied {
    /// A service is subscribed.
    pub(super) fn begin(&mut self, key: &ServiceKey) {
        let service = || Service {
            metrics: PushMetrics::new(key),
            newest: Revision::default(),
        };
        self.services.entry(key.clone()).or_insert_with(service);
    }

    /// It is subscribed no more.
    pub(super) fn end(&mut self, key: &ServiceKey) {
        self.services.remove(key);
        self.pending.remove(key);
    }

    /// A list was published; one that was `pushed` was received then.
    pub(super) fn listed(&mut self, copy: &Subscription, pushed: Option<Instant>, now: Instant) {
        let Some(service) = self.services.get_mut(copy.key()) else {
            return;
        };
        let revision = copy.revision();
        let is_new = std::mem::replace(&mut service.newest, revision) != revision;
        let (true, Some(received)) = (is_new, pushed) else {
            return;
        };
        let mut pending = self.pending.remove(copy.key()).unwrap_or(Pending {
            revision,
            received,
            due: now,
            rest: FIRST_REST,
        });
        if !pending.look(service, copy, now) {
            self.pending.insert(copy.key().clone(), pending);
        }
    }

    /// When to look again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.due).min()
    }

    /// Looks at what is due.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        copy: impl Fn(&ServiceKey) -> Option<Subscription>,
    ) {
        self.pending.retain(|key, pending| {
            if pending.due > now {
                return true;
            }
            match (self.services.get_mut(key), copy(key)) {
                (Some(service), Some(copy)) => !pending.look(service, &copy, now),
                _ => false,
            }
        });
    }
}

impl Pending {
    /// Whether it is applied, and when to look again if not.
    fn look(&mut self, service: &mut Service, copy: &Subscription, now: Instant) -> bool {
        let applied = copy.applied_revision() >= self.revision;
        if applied {
            let took = now.saturating_duration_since(self.received);
            service.metrics.applied(took);
        } else {
            self.due = now + self.rest;
            self.rest = (self.rest * 2).min(LONGEST_REST);
        }
        service.metrics.pending(!applied);
        applied
    }
}

const FIRST_REST: Duration = Duration::from_millis(1);
/// So that what is told is late by a tenth of a second at most, and a blocked call costs ten looks a second.
const LONGEST_REST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    };

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::{
        directory::{Consumer, Options, Snapshot, Transition, channel},
        model::Instance,
    };

    /// A balancer with a call that stays on its way into an instance.
    struct Entering(AtomicBool);

    impl Consumer for Entering {
        fn close(&self, _: &Arc<Snapshot>, _: &[Transition]) {}

        fn reopen(&self, _: &Arc<Snapshot>, _: &[Transition]) {}

        fn wake(&self) {}

        fn quiet(&self) -> Revision {
            Revision(if self.0.load(Relaxed) { 0 } else { u64::MAX })
        }
    }

    #[expect(clippy::disallowed_methods, reason = "an instant can only be read")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_push_counts_from_its_last_byte_until_the_last_call_is_through() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let scrape = recorder.handle();
        let told = |name: &str| {
            let rendered = scrape.render();
            let value = rendered.lines().find_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                series
                    .starts_with(&format!("{name}{{"))
                    .then(|| value.parse().unwrap())
            });
            value.unwrap_or(f64::NAN)
        };
        let (unapplied, took) = (UNAPPLIED, format!("{TOOK}_sum"));
        ::metrics::with_local_recorder(&recorder, || {
            let key = ServiceKey::new("", "orders".parse().unwrap()).unwrap();
            let (mut writer, orders) = channel(key.clone(), Options::default());
            let entering = Arc::new(Entering(AtomicBool::new(false)));
            let consumer = Arc::clone(&entering);
            let _attached = orders.attach(|_, _| consumer);
            let begin = start();
            let at = |ms: u64| begin + Duration::from_millis(ms);
            let list = |port| [Instance::parse(&format!("10.0.0.1:{port}")).unwrap()];
            let mut applied = Applied::default();
            applied.begin(&key);
            assert_eq!(told(unapplied), 0.0, "from the start");

            // An answer is no push, and one that says the same is none that matters.
            writer.publish(list(1), at(0));
            applied.listed(&orders, None, at(0));
            writer.publish(list(1), at(5));
            applied.listed(&orders, Some(at(5)), at(6));
            assert!(told(&took).is_nan());

            writer.publish(list(2), at(10));
            applied.listed(&orders, Some(at(10)), at(260));
            assert_eq!((told(unapplied), told(&took)), (0.0, 0.25));
            assert_eq!(applied.poll_timeout(), None);

            entering.0.store(true, Relaxed);
            writer.publish(list(3), at(300));
            applied.listed(&orders, Some(at(300)), at(300));
            writer.publish(list(4), at(310));
            applied.listed(&orders, Some(at(310)), at(310));
            let mut looks = 0;
            while let Some(due) = applied.poll_timeout().filter(|due| *due < at(1_300)) {
                applied.handle_timeout(due, |_| Some(orders.clone()));
                looks += 1;
            }
            assert!((10..30).contains(&looks), "{looks} in a second");
            assert_eq!((told(unapplied), told(&took)), (1.0, 0.25));
            entering.0.store(false, Relaxed);
            applied.handle_timeout(at(2_300), |_| Some(orders.clone()));
            assert_eq!((told(unapplied), told(&took)), (0.0, 2.25));

            // Whoever goes takes what is not applied along.
            entering.0.store(true, Relaxed);
            writer.publish(list(5), at(3_000));
            applied.listed(&orders, Some(at(3_000)), at(3_000));
            assert_eq!(told(unapplied), 1.0);
            applied.end(&key);
            assert_eq!((told(unapplied), applied.poll_timeout()), (0.0, None));
        });
    }

    const UNAPPLIED: &str = "tower_nacos_pushes_unapplied";
    const TOOK: &str = "tower_nacos_push_to_applied_seconds";
}
