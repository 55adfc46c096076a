//! Whatever happens to the sources, in whatever order: the merged set is their union by the rules.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use proptest::prelude::*;

use super::support::{Recorder, Script, a, all, callable, drain, fold, meta};
use crate::{
    directory::{Attached, Entry, Generation, Snapshot, Standing, Subscription},
    model::{Address, Instance, Listing, Origin},
};

#[derive(Clone, Debug)]
enum Step {
    List(Vec<Instance>),
    Lose,
    Connect(Vec<Instance>),
    Pass(u16),
    Unreachable(u16),
    Mark(u16),
}

fn instance() -> impl Strategy<Value = Instance> {
    (0..6_u16, 0..4_u8, 0..4_u8, 0..6_u8, 0..3_u8).prop_map(
        |(n, healthy, weight, enabled, start)| {
            a(n).with_healthy(healthy > 0)
                .with_weight(f64::from(weight))
                .with_enabled(enabled > 0)
                .with_metadata(meta(&[("startTime", ["1", "2", "2"][usize::from(start)])]))
        },
    )
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let list = || prop::collection::vec(instance(), 0..6);
    let step = prop_oneof![
        8 => list().prop_map(Step::List),
        1 => Just(Step::Lose),
        2 => list().prop_map(Step::Connect),
        2 => (0..90_u16).prop_map(Step::Pass),
        1 => (0..6_u16).prop_map(Step::Unreachable),
        1 => (0..6_u16).prop_map(Step::Mark),
    ];
    (0..3_usize, step)
}

/// The entry that counts for each address, by the rules, of sources in order of tier and as given.
fn union<'a>(sources: &'a [Arc<Snapshot>]) -> BTreeMap<Address, (usize, &'a Entry)> {
    let mut union: BTreeMap<Address, (usize, &'a Entry)> = BTreeMap::new();
    for (at, snapshot) in sources.iter().enumerate() {
        for entry in snapshot.entries() {
            let address = entry.instance().address().clone();
            let held = union.get(&address).map(|(_, e)| e.is_held());
            if held.is_none_or(|held| held && !entry.is_held()) {
                union.insert(address, (at, entry));
            }
        }
    }
    union
}

fn check(both: &Subscription, sources: &[Arc<Snapshot>]) {
    let snapshot = both.snapshot();
    let union = union(sources);
    let addresses = snapshot.entries().iter().map(|e| e.instance().address());
    assert!(addresses.eq(union.keys()), "the addresses of all sources");
    for entry in snapshot.entries() {
        let instance = entry.instance();
        let (at, counts) = union[instance.address()];
        assert_eq!(entry.is_held(), counts.is_held());
        assert_eq!(instance.source().unwrap().tier(), [0, 1, 1][at]);
        assert_eq!(instance.weight(), counts.instance().weight());
        assert_eq!(instance.metadata(), counts.instance().metadata());
        let leaves = sources
            .iter()
            .filter_map(|s| s.find(instance.address()))
            .any(|e| e.leaving && e.instance().metadata() == instance.metadata());
        assert_eq!(entry.leaving, leaves);
        assert_eq!(entry.standing() == Standing::GoingOffline, leaves);
        let may = !leaves && instance.is_enabled() && !instance.weight().is_zero();
        let well = union.values().any(|(_, e)| {
            e.instance().is_healthy()
                && e.instance().is_enabled()
                && !e.instance().weight().is_zero()
        });
        if entry.standing().is_callable() {
            assert!(may);
        } else if may && instance.is_healthy() {
            panic!(
                "{} could be called: {:?}",
                instance.address(),
                entry.standing()
            );
        }
        assert!(
            well || !may || entry.standing().is_callable(),
            "the last rung is called"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_the_union_by_the_rules(steps in prop::collection::vec(step(), 1..40)) {
        let mut sources = [Script::new(), Script::new(), Script::new()];
        let both = Subscription::merge([(&sources[1].sub, 1), (&sources[0].sub, 0), (&sources[2].sub, 1)]);
        let mut changes = both.changes();
        let mut set = BTreeMap::new();
        let gates: Attached<Recorder> = both.attach(Recorder::new);
        for (at, step) in steps {
            let before = both.snapshot();
            let was: Vec<_> = sources.iter().map(|s| s.sub.snapshot()).collect();
            let script = &mut sources[at];
            let generation = |n: u16| before.find(a(n).address()).map(Entry::generation);
            match step {
                Step::List(list) => { script.after(0.1).push(list); }
                Step::Lose => script.writer.handle_disconnected(script.now),
                Step::Connect(list) => {
                    script.writer.handle_connected(script.now);
                    script.apply(Listing::new(list), Origin::FirstAnswer);
                }
                Step::Pass(seconds) => { script.pass(f64::from(seconds)); }
                Step::Unreachable(n) => {
                    if let Some(generation) = generation(n) {
                        both.report_unreachable(a(n).address(), generation, script.now);
                    }
                }
                Step::Mark(n) => {
                    if let Some(generation) = generation(n) {
                        both.marks().going_offline(a(n).address(), generation, script.now);
                    }
                }
            }
            let now: Vec<_> = sources.iter().map(|s| s.sub.snapshot()).collect();
            check(&both, &now);
            let after = both.snapshot();
            let (counted, counts) = (union(&was), union(&now));
            for entry in after.entries() {
                let address = entry.instance().address();
                let Some(old) = before.find(address) else { continue };
                let ((then, a), (now, b)) = (counted[address], counts[address]);
                let restarted = then == now && a.generation() != b.generation();
                prop_assert_eq!(old.generation() != entry.generation(), restarted, "one endpoint");
            }
            let open: Vec<_> = after.callable().map(|e| (e.instance().address().clone(), e.generation())).collect();
            prop_assert_eq!(gates.open(), open, "gates follow the snapshot");
            fold(&mut set, &drain(&mut changes));
            let folded: Vec<(Address, Generation)> = set.iter().map(|(a, (g, _))| (a.clone(), *g)).collect();
            let expected: Vec<_> = after.callable().map(|e| (e.instance().address().clone(), e.generation())).collect();
            prop_assert_eq!(folded, expected, "changes fold to the snapshot");
            for source in &sources {
                prop_assert_eq!(source.sub.applied_revision(), source.sub.revision());
            }
        }
    }
}

#[test]
fn merged_sets_come_and_go_while_their_sources_publish() {
    let mut near = Script::listing(all(0..4));
    let mut far = Script::listing(all(4..8));
    let (a, b) = (near.sub.clone(), far.sub.clone());
    let done = AtomicBool::new(false);
    let run = |script: &mut Script, base: u16| {
        for turn in 0..2_000 {
            script.after(0.1).push(all([base + turn % 4, 8 + turn % 3]));
        }
    };
    thread::scope(|scope| {
        let writers = [
            scope.spawn(|| run(&mut near, 0)),
            scope.spawn(|| run(&mut far, 4)),
        ];
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    let both = Subscription::merge([(&a, 0), (&b, 1)]);
                    let gates: Attached<Recorder> = both.attach(Recorder::new);
                    let _ = (a.applied_revision(), both.applied_revision(), both.status());
                    drop(both);
                    drop(gates);
                }
            });
        }
        let ended = writers.map(|writer| writer.join());
        done.store(true, SeqCst); // before a writer's panic goes on, or the readers would never end
        for end in ended {
            end.unwrap();
        }
    });
    for source in [&near.sub, &far.sub] {
        assert!(source.handle.shared.root.consumers().is_empty());
        assert_eq!(source.applied_revision(), source.revision());
    }
    let both = Subscription::merge([(&near.sub, 0), (&far.sub, 1)]);
    check(&both, &[near.sub.snapshot(), far.sub.snapshot()]);
}

#[test]
fn sources_that_publish_at_once_lose_nothing() {
    for round in 0..40 {
        let mut near = Script::listing(all(0..4));
        let mut far = Script::listing(all(4..8));
        let both = Subscription::merge([(&near.sub, 0), (&far.sub, 1)]);
        let gates: Attached<Recorder> = both.attach(Recorder::new);
        let turns = 50;
        let run = |script: &mut Script, base: u16| {
            for turn in 0..turns {
                script
                    .after(0.1)
                    .push(all([base + turn % 4, 8 + (turn + round) % 3]));
            }
        };
        let looking = both.clone();
        thread::scope(|scope| {
            scope.spawn(|| run(&mut near, 0));
            scope.spawn(|| run(&mut far, 4));
            scope.spawn(|| {
                for _ in 0..turns {
                    let _ = (looking.status(), looking.applied_revision(), looking.hint());
                    let _ = looking.explain(a(1).address());
                    let _ = callable(&looking);
                }
            });
        });
        check(&both, &[near.sub.snapshot(), far.sub.snapshot()]);
        let open: Vec<_> = gates
            .open()
            .into_iter()
            .map(|(address, _)| address)
            .collect();
        assert_eq!(open, callable(&both));
        assert_eq!(near.sub.applied_revision(), near.sub.revision());
    }
}
