//! Whatever a registry says, in whatever order: streams, gates and snapshots agree.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::support::{Recorder, Script, a, drain, fold, meta};
use crate::{
    directory::{Generation, Mode, Origin, Standing, Subscription},
    model::{Address, Instance, Listing},
};

#[derive(Clone, Debug)]
enum Step {
    List(Vec<Instance>, bool, u8),
    Reconnect,
    Pass(u16),
    Unreachable(u16),
}

fn instance() -> impl Strategy<Value = Instance> {
    (0..6_u16, 0..4_u8, 0..5_u8, 0..6_u8, 0..3_u8, 0..3_u8).prop_map(
        |(n, healthy, weight, enabled, start, cluster)| {
            a(n).with_healthy(healthy > 0)
                .with_weight(f64::from(weight.min(2)))
                .with_enabled(enabled > 0)
                .with_cluster(["HZ", "SH", "BJ"][usize::from(cluster)])
                .with_metadata(meta(&[("startTime", ["1", "2", "2"][usize::from(start)])]))
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let list = prop::collection::vec(instance(), 0..8);
    prop_oneof![
        8 => (list, any::<bool>(), 0..8_u8).prop_map(|(l, p, o)| {
            // A server that raises the flag calls everybody healthy.
            let told = |i: Instance| if p { i.with_healthy(true) } else { i };
            Step::List(l.into_iter().map(told).collect(), p, o)
        }),
        2 => Just(Step::Reconnect),
        2 => (0..90_u16).prop_map(Step::Pass),
        1 => (0..6_u16).prop_map(Step::Unreachable),
    ]
}

/// One watched view: a stream that is read now and then, and a consumer's gates.
struct Watched {
    sub: Subscription,
    changes: crate::directory::Changes,
    set: BTreeMap<Address, (Generation, Arc<Instance>)>,
    recorder: crate::directory::Attached<Recorder>,
}

impl Watched {
    fn new(sub: Subscription) -> Self {
        Self {
            changes: sub.changes(),
            set: BTreeMap::new(),
            recorder: sub.attach(Recorder::new),
            sub,
        }
    }

    fn check(&mut self, read: bool) {
        let snapshot = self.sub.snapshot();
        let callable: Vec<_> = snapshot
            .callable()
            .map(|entry| (entry.instance().address().clone(), entry.generation()))
            .collect();
        assert_eq!(self.recorder.open(), callable, "gates follow the snapshot");
        assert!(
            snapshot
                .entries()
                .is_sorted_by(|a, b| a.instance().address() < b.instance().address())
        );
        let candidates = snapshot.entries().iter().any(|entry| {
            matches!(
                entry.standing(),
                Standing::Unhealthy | Standing::HealthUnknown
            )
        });
        assert!(
            !candidates || !callable.is_empty(),
            "the ladder leaves a rung"
        );
        for entry in snapshot.callable() {
            assert!(entry.instance().is_enabled() && !entry.instance().weight().is_zero());
            if snapshot.mode() == Mode::Normal {
                assert!(entry.instance().is_healthy());
            }
        }
        if read {
            let seen = drain(&mut self.changes);
            let first_add = seen.iter().position(|c| c.cause().is_none());
            assert!(
                seen[first_add.unwrap_or(seen.len())..]
                    .iter()
                    .all(|c| c.cause().is_none())
            );
            fold(&mut self.set, &seen);
            let folded: Vec<_> = self.set.iter().map(|(a, (g, _))| (a.clone(), *g)).collect();
            assert_eq!(folded, callable, "changes fold to the snapshot");
            for (address, (_, instance)) in &self.set {
                let entry = snapshot.find(address).unwrap();
                assert!(Arc::ptr_eq(instance, entry.instance()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streams_gates_and_snapshots_agree(steps in prop::collection::vec((step(), any::<bool>()), 1..40)) {
        let mut script = Script::new();
        let hz = script.sub.only_cluster("HZ");
        let mut watched = [Watched::new(script.sub.clone()), Watched::new(hz)];
        let mut lived: BTreeMap<Generation, Address> = BTreeMap::new();
        for (step, read) in steps {
            let before = script.sub.snapshot();
            match step {
                Step::List(list, protected, origin) => {
                    let origin = match origin {
                        0 => Origin::Read,
                        1 => Origin::FirstAnswer,
                        _ => Origin::Push,
                    };
                    let listing = Listing::new(list.clone()).with_protected(protected);
                    let held = before.entries().iter().any(|entry| entry.is_held());
                    let awaiting = script.sub.handle.shared.lock().is_awaiting();
                    script.apply(listing.clone(), origin);
                    let after = script.sub.snapshot();
                    if origin == Origin::Push && !held && !awaiting {
                        let mut listed: Vec<_> = list.iter().map(|i| i.address().clone()).collect();
                        listed.sort();
                        listed.dedup();
                        let entries = after.entries().iter().map(|e| e.instance().address().clone());
                        prop_assert!(entries.eq(listed), "a push is obeyed");
                    }
                    if origin == Origin::Push {
                        let again = script.apply(listing, Origin::Push);
                        prop_assert_eq!(again, after.revision(), "the same list is no revision");
                    }
                }
                Step::Reconnect => { script.reconnect(0.5); }
                Step::Pass(seconds) => { script.pass(f64::from(seconds)); }
                Step::Unreachable(n) => {
                    if let Some(entry) = before.find(a(n).address()) {
                        script.sub.report_unreachable(a(n).address(), entry.generation(), script.now);
                    }
                }
            }
            let after = script.sub.snapshot();
            if Arc::ptr_eq(&before, &after) {
                prop_assert_eq!(before.revision(), after.revision());
            } else {
                prop_assert!(after.revision() > before.revision(), "revisions strictly rise");
            }
            for entry in after.entries() {
                let address = entry.instance().address();
                let owner = lived.entry(entry.generation()).or_insert_with(|| address.clone());
                prop_assert_eq!(&*owner, address, "a generation belongs to one address");
                if let Some(old) = before.find(address) {
                    prop_assert!(old.generation() <= entry.generation());
                }
            }
            for gone in before.entries() {
                if after.find(gone.instance().address()).is_none() {
                    // Absent now: whatever comes back must be new.
                    prop_assert!(lived.contains_key(&gone.generation()) || before.revision().get() == 0);
                }
            }
            prop_assert_eq!(script.sub.applied_revision(), script.sub.revision());
            for view in &mut watched {
                view.check(read);
            }
        }
        for view in &mut watched {
            view.check(true);
        }
    }
}
