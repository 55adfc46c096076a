use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    directory::{Entry, Generation},
    endpoint::{
        clock,
        gate::Gate,
        health::{
            machine::{Effect, Event, Standing, Turn},
            record::Record,
        },
        hub::Hub,
        latency::{Latency, Mark, Timing},
        limit::gauge::Gauge,
        rates::Tally,
        slot::Slot,
    },
    model::{Address, Instance},
    sync::{Published, Wakers},
};

/// One generation of one instance, as one consumer holds it.
///
/// In this order, so that what calls write lies beside the `Arc`'s counts, in a line or two; not
/// aligned, since that would give the counts a line of their own, one more to miss. What calls only
/// read keeps the next endpoint's, which is a whole line away, from being written beside this one's.
#[repr(C)]
pub(crate) struct Endpoint<S> {
    // What a pick reads and a call writes, in one line.
    pub(crate) gate: Gate,
    /// Calls that were let in so far, in the lower 48 bits; how many bad answers there were in a
    /// row, if answers count, in the others but the highest, which says that the record waits for an
    /// answer.
    calls: AtomicU64,
    /// The bits of an `f64`.
    weight: AtomicU64,
    generation: Generation,
    /// Calls that wait for the service to be made or to become ready; not admitted.
    waiting: AtomicU32,
    /// How many of the calls failed.
    failures: AtomicU32,
    /// How long it usually takes to answer, in µs; 0 if that is not known. If outcomes count.
    usual: AtomicU32,
    /// Calls that went well (the lower half) and badly since rates were last looked at; if they are.
    tally: AtomicU32,
    /// What limits its calls at once, if anything does.
    pub(super) limit: Option<Box<Gauge>>,
    // What is mostly read.
    pub(crate) slot: Slot<S>,
    instance: Published<Instance>,
    pub(super) hub: Arc<Hub>,
    pub(super) health: Record,
    wakers: Wakers,
    pub(super) latency: Latency,
}

impl<S> Endpoint<S> {
    /// An endpoint of an instance of the newest snapshot, open if that calls it callable.
    pub(crate) fn new(entry: &Entry, hub: Arc<Hub>) -> Self {
        let weight = entry.instance().weight().get();
        let limits = hub.settings.limits();
        Self {
            limit: limits.map(|rules| Box::new(Gauge::new(rules))),
            gate: Gate::new(entry.standing().is_callable()),
            waiting: AtomicU32::new(0),
            weight: AtomicU64::new(weight.to_bits()),
            generation: entry.generation(),
            instance: Published::new(Arc::clone(entry.instance())),
            hub,
            slot: Slot::new(),
            health: Record::default(),
            wakers: Wakers::default(),
            latency: Latency::default(),
            calls: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            usual: AtomicU32::new(0),
            tally: AtomicU32::new(0),
        }
    }

    /// Takes over attributes that change in place.
    pub(crate) fn update(&self, instance: &Arc<Instance>) {
        let weight = instance.weight().get();
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
        self.instance.store(Arc::clone(instance));
        if self.slot.retry() {
            self.gate.usable();
        }
    }

    /// Which presence of the instance this is.
    #[inline]
    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    /// The instance as last listed.
    pub(crate) fn instance(&self) -> Arc<Instance> {
        let instance = self.instance.load_full();
        instance.expect("an endpoint is made with its instance, which is only ever replaced")
    }

    /// The instance's address.
    pub(crate) fn address(&self) -> Address {
        self.instance().address().clone()
    }

    /// Calls in flight and waiting, per weight; infinite at weight 0.
    #[inline]
    pub(crate) fn load(&self) -> f64 {
        let weight = self.weight();
        let calls = self.gate.state().in_flight() + self.waiting();
        if weight > 0.0 {
            calls as f64 / weight
        } else {
            f64::INFINITY
        }
    }

    /// Its weight, as last listed.
    #[inline]
    pub(crate) fn weight(&self) -> f64 {
        f64::from_bits(self.weight.load(Ordering::Relaxed))
    }

    /// The latency to expect in seconds.
    #[inline]
    pub(crate) fn latency(&self, now: Mark, timing: &Timing) -> f64 {
        self.latency.expected(now, timing)
    }

    /// How long calls took lately, smoothed, if that is measured: by a policy that asks for it, or where
    /// outcomes count.
    #[cfg(feature = "status")]
    pub(crate) fn took(&self) -> Option<Duration> {
        let usual = self.usual.load(Ordering::Relaxed);
        let usual = || (usual > 0).then(|| Duration::from_micros(usual.into()));
        self.latency.known().or_else(usual)
    }

    /// Calls that were let in so far, and how many of them failed.
    pub(crate) fn calls(&self) -> [u64; 2] {
        [
            self.calls.load(Ordering::Relaxed) & COUNT,
            u64::from(self.failures.load(Ordering::Relaxed)),
        ]
    }

    /// How many calls wait for the service, not admitted.
    #[inline]
    pub(crate) fn waiting(&self) -> u64 {
        u64::from(self.waiting.load(Ordering::Relaxed))
    }

    /// The tasks that wait for a change of this endpoint.
    pub(crate) const fn wakers(&self) -> &Wakers {
        &self.wakers
    }

    /// One more call waits for the service.
    pub(super) fn begin_waiting(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// One waits no longer.
    pub(super) fn end_waiting(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// One more call was let in; its number, from 0.
    #[inline]
    pub(super) fn count_call(&self) -> u32 {
        self.calls.fetch_add(1, Ordering::Relaxed) as u32 // the lower bits of the count
    }

    /// The call of this number among those that were let in by now.
    pub(super) fn turn(&self, number: u32) -> Turn {
        Turn {
            number,
            of: self.calls.load(Ordering::Relaxed) as u32,
        }
    }

    /// One of them failed.
    pub(super) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is known of its health.
impl<S> Endpoint<S> {
    /// Takes note of what happened; the gate follows.
    pub(super) fn note(&self, event: Event, now: Instant) -> Effect {
        let settings = &self.hub.settings;
        let rules = (settings.health(), settings.outliers());
        self.health.apply(event, now, rules, |effect, news| {
            match (effect.from, effect.to) {
                (from, to) if from == to => {}
                (_, Standing::Open) => self.gate.restore(),
                (_, Standing::Suspect) => self.gate.suspect(),
                (Standing::Outlier, Standing::Ejected) => {}
                (_, Standing::Ejected | Standing::Outlier) => self.gate.eject(),
            }
            if news {
                self.calls.fetch_or(NEWS, Ordering::Relaxed);
            } else {
                self.calls.fetch_and(!NEWS, Ordering::Relaxed);
            }
        })
    }

    /// Takes its probe, if that is on offer.
    pub(super) fn take_probe(&self) -> bool {
        let taken = self.gate.take_probe();
        if taken {
            let _ = self.note(Event::ProbeTaken, clock::now());
        }
        taken
    }

    /// The call that holds the probe goes without having learnt anything; or the maker's own does.
    #[cold]
    pub(super) fn return_probe(&self, own: bool) {
        let event = if own {
            Event::ProbeDropped
        } else {
            Event::ProbeGivenUp
        };
        let _ = self.note(event, clock::now());
        self.hub.notify_janitor();
        if let Some(reports) = self.hub.reports.get().and_then(Weak::upgrade) {
            reports.probe_given_up(); // those who wait for it are the next
        }
    }

    /// Whether an answer has to be told to the record, or ends a row of bad ones.
    #[inline]
    pub(super) fn is_answer_news(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > COUNT
    }

    /// It answered well.
    pub(super) fn end_streak(&self) {
        if self.calls.load(Ordering::Relaxed) & STREAKS != 0 {
            self.calls.fetch_and(!STREAKS, Ordering::Relaxed);
        }
    }

    /// It answered badly; how often in a row, with this.
    pub(super) fn lengthen_streak(&self) -> u64 {
        let before = self.calls.fetch_add(STREAK, Ordering::Relaxed);
        (before & STREAKS) / STREAK + 1
    }

    /// One more call went well, or badly, where rates are looked at.
    #[inline]
    pub(super) fn count_outcome(&self, good: bool) {
        let one = if good { 1 } else { BAD };
        let tally = self.tally.fetch_add(one, Ordering::Relaxed) + one;
        if tally & FULL != 0 {
            self.halve_tally();
        }
    }

    /// Both counts, so that what part went well stays as it is.
    #[cold]
    fn halve_tally(&self) {
        let halved = |tally: u32| (tally & FULL != 0).then_some((tally >> 1) & !FULL);
        let _ = self
            .tally
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, halved);
    }

    /// How many did since this was last asked; of very many, what part.
    pub(super) fn take_tally(&self) -> Tally {
        let tally = self.tally.swap(0, Ordering::Relaxed);
        Tally {
            good: tally % BAD,
            bad: tally / BAD,
        }
    }

    /// Whether the record waits for an answer.
    #[inline]
    pub(super) fn awaits_answer(&self) -> bool {
        self.calls.load(Ordering::Relaxed) & NEWS != 0
    }

    /// All of an answer came.
    #[inline]
    pub(super) fn completed(&self) {
        if self.awaits_answer() {
            self.note_completed();
        }
    }

    #[cold]
    fn note_completed(&self) {
        let _ = self.note(Event::Completed, clock::now());
    }

    /// When its next probe is due; `None` if somebody is at it.
    pub(crate) fn probe_due(&self) -> Option<Instant> {
        self.health.read(|health| health.probe_due())
    }

    /// What is known of it.
    pub(crate) fn standing(&self) -> Standing {
        self.health.read(|health| health.standing())
    }

    /// Whether it is let in again after it could not be reached, and has not answered since.
    pub(crate) fn is_on_probation(&self) -> bool {
        self.health.read(|health| health.is_on_probation())
    }

    /// An answer took from then to now. Says how long that usually is, by one of eight.
    #[inline]
    pub(super) fn observe_usual(&self, since: Mark) {
        let known = self.usual.load(Ordering::Relaxed);
        if known == 0 || self.calls.load(Ordering::Relaxed).is_multiple_of(8) {
            let took = self.age(since).as_micros();
            let took = u32::try_from(took).unwrap_or(u32::MAX).max(1);
            let usual = match known {
                0 => took,
                _ => known - known / 8 + took / 8,
            };
            self.usual.store(usual.max(1), Ordering::Relaxed);
        }
    }

    /// How long ago that was.
    pub(super) fn age(&self, since: Mark) -> Duration {
        self.hub.mark(clock::now()).since(since)
    }

    /// Whether a call that was given up after so long was not given up for impatience.
    pub(super) fn is_overdue(&self, age: Duration) -> bool {
        let usual = Duration::from_micros(self.usual.load(Ordering::Relaxed).into());
        age >= PATIENCE && age >= usual.saturating_mul(3)
    }
}

/// In the word of calls: their count, one bad answer in a row, all of those, and whether an answer
/// is news to the record.
const COUNT: u64 = STREAK - 1;
const STREAK: u64 = 1 << 48;
const STREAKS: u64 = (NEWS - 1) & !COUNT;
const NEWS: u64 = 1 << 63;
/// In the word of outcomes: one that is bad, and that one of the counts is half full.
const BAD: u32 = 1 << 16;
const FULL: u32 = 1 << 31 | 1 << 15;
/// Who gives up sooner says nothing about the instance.
const PATIENCE: Duration = Duration::from_millis(100);

impl<S> fmt::Debug for Endpoint<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address())
            .field("generation", &self.generation)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{directory::Subscription, model::Instance, sync::Bell};

    #[test]
    fn a_tally_keeps_its_rate_however_many_calls_there_are() {
        let instance = Instance::parse("10.0.0.1:80").unwrap();
        let snapshot = Subscription::fixed([instance]).snapshot();
        let hub = Arc::new(Hub::new(Arc::new(Bell::below([]))));
        let endpoint = Endpoint::<()>::new(&snapshot.entries()[0], hub);
        for (calls, good_of_ten) in [(100, 7), (1_000_000, 7), (1_000_000, 1), (0, 0)] {
            for call in 0..calls {
                endpoint.count_outcome(call % 10 < good_of_ten);
            }
            let Tally { good, bad } = endpoint.take_tally();
            if calls < 1_000 {
                assert_eq!(good + bad, calls);
            }
            let rate = f64::from(good) / f64::from((good + bad).max(1));
            assert!(
                (rate - f64::from(good_of_ten) / 10.0).abs() < 0.001,
                "{rate}"
            );
            assert!(calls < 1_000 || good + bad >= 10_000, "enough to be judged");
        }
    }

    #[test]
    fn an_endpoint_stays_within_its_memory() {
        assert!(
            size_of::<Endpoint<()>>() <= 144, // a limit's is a word, and a box where there is one
            "{}",
            size_of::<Endpoint<()>>()
        );
    }
}
