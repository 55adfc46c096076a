//! A provider's own word that it goes offline: obeyed at once, for a minute, of one presence.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use super::support::{Recorder, Script, a, addresses, all, at, drain, meta, removed};
use crate::{
    directory::{RemovalCause, Standing, Subscription, TransitionKind, leaving::LAPSES_AFTER},
    model::START_TIME,
};

fn mark(script: &Script, n: u16) {
    let generation = script.generation(n);
    script
        .sub
        .marks()
        .going_offline(&at(n), generation, script.now);
}

#[test]
fn who_says_that_it_leaves_is_closed_at_once_and_for_everybody() {
    let mut script = Script::listing(all([1, 2]));
    let told = Arc::new(AtomicUsize::new(0));
    let telling = Arc::clone(&told);
    script.writer.on_report(move || {
        telling.fetch_add(1, SeqCst);
    });
    let recorder = script.sub.attach(Recorder::new);
    let view = script.sub.only_cluster("DEFAULT");
    let mut changes = script.sub.changes();
    drain(&mut changes);
    mark(&script, 1);
    mark(&script, 1);
    assert_eq!(script.callable(), addresses([2]));
    assert_eq!(view.snapshot().callable_len(), 1);
    assert_eq!(
        recorder.take_transitions(),
        [(at(1), TransitionKind::Closed)]
    );
    assert_eq!(
        removed(&drain(&mut changes)),
        [(at(1), RemovalCause::GoingOffline)]
    );
    assert_eq!(told.load(SeqCst), 1, "the writer's timer is another");
    assert_eq!(script.sub.counters().marked, 1);
    let explained = script.explain(1);
    assert!(
        explained.contains("says that it goes offline"),
        "{explained}"
    );
    // The same list again, or an edit of it, changes nothing of that; being gone ends it.
    script.push(vec![a(1).with_weight(3.0), a(2)]);
    assert_eq!(script.callable(), addresses([2]));
    script.push(all([2]));
    script.push(all([1, 2]));
    assert_eq!(script.callable(), addresses([1, 2]));
}

#[test]
fn a_mark_lapses_if_the_registry_lists_it_on() {
    let mut script = Script::listing(all([1, 2]));
    mark(&script, 1);
    let due = script.now + LAPSES_AFTER;
    assert_eq!(script.writer.poll_timeout(), Some(due));
    script.pass(59.9);
    assert_eq!(script.callable(), addresses([2]));
    script.pass(0.2);
    assert_eq!(script.callable(), addresses([1, 2]));
    // Said again, it counts again.
    mark(&script, 1);
    assert_eq!(script.callable(), addresses([2]));
    // Without a registry, too: who cannot be reached is found out by a dial.
    script.reconnect(90.0);
    assert_eq!(script.callable(), addresses([1, 2]));
}

#[test]
fn a_mark_is_of_one_presence() {
    let start = |time| a(1).with_metadata(meta(&[(START_TIME, time)]));
    let mut script = Script::listing(vec![start("1"), a(2)]);
    let before = script.generation(1);
    script.push(vec![start("2"), a(2)]);
    script.sub.marks().going_offline(&at(1), before, script.now);
    script.sub.marks().going_offline(&at(3), before, script.now);
    assert_eq!(script.callable(), addresses([1, 2]), "the one before");
    mark(&script, 1);
    assert_eq!(script.callable(), addresses([2]));
    script.push(vec![start("3"), a(2)]);
    assert_eq!(script.callable(), addresses([1, 2]), "started anew");
}

#[test]
fn the_last_one_is_closed_as_a_push_would() {
    let script = Script::listing(all([1]));
    mark(&script, 1);
    let snapshot = script.sub.snapshot();
    assert_eq!(snapshot.callable_len(), 0);
    assert_eq!(snapshot.entries()[0].standing(), Standing::GoingOffline);
    assert!(snapshot.remedy().unwrap().contains("wait for others"));
}

#[test]
fn where_no_registry_was_heard_nothing_would_end_it() {
    let fixed = Subscription::fixed([a(1), a(2)]);
    let generation = fixed.snapshot().find(&at(1)).unwrap().generation();
    let now = super::support::start();
    fixed.marks().going_offline(&at(1), generation, now);
    assert_eq!(fixed.snapshot().callable_len(), 2);
    let script = Script::listing(all([1, 2]));
    let (sub, generation) = (script.sub.clone(), script.generation(1));
    script.writer.close();
    sub.marks().going_offline(&at(1), generation, now);
    assert_eq!(sub.snapshot().callable_len(), 2, "the last set serves");
}

/// Counts what it is told of a service.
#[cfg(feature = "metrics")]
#[derive(Default)]
struct Counted(Arc<AtomicUsize>);

#[cfg(feature = "metrics")]
impl metrics::Recorder for Counted {
    fn describe_counter(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn describe_gauge(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn describe_histogram(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        self.0.fetch_add(1, SeqCst);
        metrics::Counter::noop()
    }

    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        self.0.fetch_add(1, SeqCst);
        metrics::Gauge::noop()
    }

    fn register_histogram(
        &self,
        _: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

#[cfg(feature = "metrics")]
#[test]
fn a_call_that_reports_runs_no_recorder() {
    let told = Counted::default();
    let count = Arc::clone(&told.0);
    ::metrics::with_local_recorder(&told, || {
        let mut script = Script::listing(all([1, 2]));
        script.writer.on_report(|| {});
        let before = count.load(SeqCst);
        assert!(before > 0, "it listens");
        mark(&script, 1);
        assert_eq!(script.callable(), addresses([2]));
        assert_eq!(count.load(SeqCst), before, "it may block");
        script.push(vec![a(1).with_weight(3.0), a(2)]);
        assert!(count.load(SeqCst) > before, "told by the writer");
    });
}
