//! No call enters an instance once its last source says that its going is applied.

use std::{
    future::ready,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use tower::{Service, ServiceExt, service_fn};
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{Candidate, Loads, PickContext, Policy, Random, WeightedRandom},
    directory::{Writer, channel},
    model::ServiceKey,
};

use crate::{
    discover_support::{instance, now},
    steps::soon,
};

const TURNS: usize = 3_000;
const FLAPS: &str = "10.0.0.1:80";

/// Chooses, and lets others run before it says whom.
#[derive(Clone, Debug, Default)]
struct Hesitant(WeightedRandom);

impl Policy for Hesitant {
    type Table = <WeightedRandom as Policy>::Table;

    fn build(&self, instances: &[Candidate]) -> Self::Table {
        self.0.build(instances)
    }

    fn pick(
        &self,
        table: &Self::Table,
        loads: &dyn Loads,
        random: &mut Random,
        context: &PickContext,
    ) -> Option<usize> {
        let at = self.0.pick(table, loads, random, context);
        std::thread::yield_now();
        at
    }
}

/// Calls through a merged set whose one instance comes and goes in both sources; how many reached it when
/// it was gone, and how many there were in all.
async fn flap(gated: bool) -> (u64, u64) {
    let source = |tier: &str| {
        let key = ServiceKey::new("dev", tier.parse().unwrap()).unwrap();
        channel(key, Default::default())
    };
    let ((mut near, a), (mut far, b)) = (source("near"), source("far"));
    let orders = Subscription::merge([(&a, 0), (&b, 0)]);
    let stays = "10.0.0.2:80";
    let list = |writer: &mut Writer, flaps: bool| {
        let flaps = flaps.then(|| instance(FLAPS));
        writer.publish(flaps.into_iter().chain([instance(stays)]), now())
    };
    list(&mut near, true);
    list(&mut far, true);
    let gone = Arc::new(AtomicBool::new(false));
    let [late, calls] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let mut builder = Balance::builder(&orders).policy(Hesitant::default());
    if !gated {
        builder = builder.without_gates();
    }
    let counts = (gone.clone(), late.clone(), calls.clone());
    let balance = builder.build(move |instance: &Instance| {
        let flaps = instance.address().to_string() == FLAPS;
        let (gone, late, calls) = counts.clone();
        service_fn(move |(): ()| {
            calls.fetch_add(1, SeqCst);
            std::thread::yield_now(); // who is on the way in counts as such
            if flaps && gone.load(SeqCst) {
                late.fetch_add(1, SeqCst);
            }
            ready(Ok::<_, io::Error>(()))
        })
    });
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (mut balance, stop) = (balance.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let answer = balance.ready().await.unwrap().call(()).await;
                    answer.expect("somebody is always there");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for turn in 0..TURNS {
        // The last one to drop it takes turns, too.
        let (first, last) = match turn % 2 {
            0 => ((&mut near, &a), (&mut far, &b)),
            _ => ((&mut far, &b), (&mut near, &a)),
        };
        list(first.0, false);
        let revision = list(last.0, false);
        soon("applied", last.1.applied(revision)).await.unwrap();
        gone.store(true, SeqCst);
        (0..3).for_each(|_| std::thread::yield_now());
        gone.store(false, SeqCst);
        list(last.0, true);
        list(first.0, true);
    }
    stop.store(true, SeqCst);
    for caller in callers {
        soon("a caller", caller).await.unwrap();
    }
    (late.load(SeqCst), calls.load(SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_call_enters_what_the_last_source_has_dropped() {
    let (late, calls) = flap(true).await;
    assert!(calls > 1_000, "{calls}");
    assert_eq!(late, 0, "of {calls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn without_gates_calls_do_enter() {
    // Chance decides when; gates let none in however long it goes on.
    soon("a late call", async { while flap(false).await.0 == 0 {} }).await;
}
