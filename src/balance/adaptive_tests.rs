//! Limits of calls at once, through the balancer.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};
use tower::{Service, ServiceExt, service_fn};

use super::*;
use crate::{
    Subscription,
    endpoint::{Outcome, Unclassified, WithOutcomes},
    model::Instance,
};

/// What instances do: how many are in each at once, and the most that ever were.
#[derive(Clone, Default)]
struct Inside(Arc<Mutex<BTreeMap<String, [usize; 2]>>>);

impl Inside {
    fn enter(&self, instance: &str) -> impl Drop + use<> {
        let mut inside = self.0.lock().unwrap();
        let [now, most] = inside.entry(instance.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        Leave(self.clone(), instance.to_owned())
    }

    fn of(&self, instance: &str) -> [usize; 2] {
        let inside = self.0.lock().unwrap();
        inside.get(instance).copied().unwrap_or_default()
    }
}

struct Leave(Inside, String);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().get_mut(&self.1).unwrap()[0] -= 1;
    }
}

fn orders(instances: usize) -> Subscription {
    let address = |at| format!("10.0.0.{}:80", at + 1);
    Subscription::fixed((0..instances).map(|at| Instance::parse(&address(at)).unwrap()))
}

const fn fixed(limit: u32) -> AdaptiveConcurrency {
    AdaptiveConcurrency::new()
        .min(limit)
        .max(limit)
        .initial(limit)
}

/// Answers once `gate` has a permit for it.
fn gated(
    builder: BalanceBuilder,
    inside: &Inside,
    gate: &Arc<Semaphore>,
) -> impl Service<(), Response = (), Error: std::fmt::Debug, Future: Send> + Clone + Send + use<> {
    let (inside, gate) = (inside.clone(), Arc::clone(gate));
    builder.build(move |instance: &Instance| {
        let (inside, gate) = (inside.clone(), Arc::clone(&gate));
        let address = instance.address().to_string();
        service_fn(move |()| {
            let (guard, gate) = (inside.enter(&address), Arc::clone(&gate));
            async move {
                gate.acquire().await.unwrap().forget();
                drop(guard);
                Ok::<_, Infallible>(())
            }
        })
    })
}

fn call<S>(balance: &S) -> BoxFuture<'static, ()>
where
    S: Service<(), Response = (), Error: std::fmt::Debug, Future: Send> + Clone + Send + 'static,
{
    let balance = balance.clone();
    async move { balance.oneshot(()).await.unwrap() }.boxed()
}

async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_at_its_limit_is_passed_over_and_only_then_a_call_waits() {
    let (inside, gate) = (Inside::default(), Arc::new(Semaphore::new(0)));
    let builder = Balance::builder(&orders(3)).adaptive_concurrency(fixed(2));
    let balance = gated(builder, &inside, &gate);
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        calls.spawn(call(&balance));
    }
    settle().await;
    for instance in ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"] {
        assert_eq!(inside.of(instance), [2, 2], "{instance}");
    }
    // Room for one, which one gets.
    gate.add_permits(1);
    calls.join_next().await.unwrap().unwrap();
    settle().await;
    gate.add_permits(9);
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    for instance in ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"] {
        let [now, most] = inside.of(instance);
        assert!(now == 0 && most == 2, "{instance}: {most}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_s_favourite_gives_way_too() {
    let (inside, gate) = (Inside::default(), Arc::new(Semaphore::new(0)));
    let builder = Balance::builder(&orders(3))
        .policy(WeightedRoundRobin::new())
        .adaptive_concurrency(fixed(4));
    let (spy, blocked) = (inside.clone(), Arc::clone(&gate));
    let balance = builder.build(move |instance: &Instance| {
        let (spy, gate) = (spy.clone(), Arc::clone(&blocked));
        let address = instance.address().to_string();
        service_fn(move |()| {
            let stuck = address == "10.0.0.1:80";
            let (guard, gate) = (spy.enter(&address), Arc::clone(&gate));
            async move {
                if stuck {
                    gate.acquire().await.unwrap().forget();
                }
                drop(guard);
                Ok::<_, Infallible>(())
            }
        })
    });
    let mut calls = JoinSet::new();
    for _ in 0..300 {
        calls.spawn(call(&balance));
    }
    settle().await;
    assert_eq!(inside.of("10.0.0.1:80"), [4, 4]);
    for _ in 0..296 {
        calls.join_next().await.unwrap().unwrap();
    }
    assert_eq!(calls.len(), 4, "nobody waited for the one that is stuck");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_forgotten_however_many_wait_and_give_up() {
    let inside = Inside::default();
    let spy = inside.clone();
    let builder = Balance::builder(&orders(4)).adaptive_concurrency(fixed(1));
    let balance = builder.build(move |instance: &Instance| {
        let (spy, address) = (spy.clone(), instance.address().to_string());
        service_fn(move |()| {
            let guard = spy.enter(&address);
            async move {
                sleep(Duration::from_millis(10)).await;
                drop(guard);
                Ok::<_, Infallible>(())
            }
        })
    });
    let mut calls = JoinSet::new();
    for at in 0..1_000_u64 {
        let call = call(&balance);
        calls.spawn(async move {
            // Some go as they are told of room, or just before.
            let patience = if at % 3 == 0 { at % 50 * 10 } else { 1_000_000 };
            tokio::time::timeout(Duration::from_millis(patience), call)
                .await
                .is_ok()
        });
    }
    let began = tokio::time::Instant::now();
    let answered = calls.join_all().await.into_iter().filter(|ok| *ok).count();
    assert!(answered >= 666, "{answered}");
    // Four at once for 10 ms each, and nobody stood about meanwhile.
    let least = Duration::from_millis(10 * (answered as u64).div_ceil(4));
    let took = began.elapsed();
    assert!(
        took <= least + Duration::from_millis(120),
        "{took:?}, {least:?}"
    );
    for at in 1..=4 {
        assert_eq!(inside.of(&format!("10.0.0.{at}:80")), [0, 1]);
    }
    assert_eq!(balance.counts(), [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_is_anybody_where_several_threads_leave_and_come_at_once() {
    let inside = Inside::default();
    let spy = inside.clone();
    let builder = Balance::builder(&orders(3)).adaptive_concurrency(fixed(1));
    let balance = builder.build(move |instance: &Instance| {
        let (spy, address) = (spy.clone(), instance.address().to_string());
        service_fn(move |()| {
            let guard = spy.enter(&address);
            async move {
                tokio::task::yield_now().await;
                drop(guard);
                Ok::<_, Infallible>(())
            }
        })
    });
    let mut callers = JoinSet::new();
    for caller in 0..32 {
        let balance = balance.clone();
        callers.spawn(async move {
            for number in 0..200 {
                let call = call(&balance);
                if (caller + number) % 5 == 0 {
                    // Given up wherever it is by then: waiting, told of room, or inside.
                    let gone = Box::pin(tokio::task::yield_now());
                    drop(futures_util::future::select(call, gone).await);
                } else {
                    call.await;
                }
            }
        });
    }
    let all = tokio::time::timeout(Duration::from_secs(60), callers.join_all());
    all.await.expect("a hang is all that takes so long");
    for at in 1..=3 {
        assert_eq!(inside.of(&format!("10.0.0.{at}:80")), [0, 1]);
    }
    assert_eq!(balance.counts(), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_has_too_much_to_do_is_slowed_down_and_not_ejected() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let make = move |instance: &Instance| {
        let (busy, count) = (
            instance.address().to_string() == "10.0.0.1:80",
            Arc::clone(&count),
        );
        service_fn(move |()| {
            count.fetch_add(usize::from(busy), SeqCst);
            async move {
                sleep(Duration::from_millis(if busy { 1 } else { 20 })).await;
                Ok::<_, Infallible>(if busy { 429 } else { 200 })
            }
        })
    };
    let outcome = |result: Result<&u16, &Infallible>| match result {
        Ok(429) => Outcome::Overloaded,
        _ => Outcome::Success,
    };
    let mut seen = Vec::new();
    for limits in [None, Some(AdaptiveConcurrency::new())] {
        let mut builder = Balance::builder(&orders(3));
        if let Some(limits) = limits {
            builder = builder.adaptive_concurrency(limits);
        }
        let balance = builder
            .outliers(Outliers::new().consecutive(1), outcome)
            .build(make.clone());
        calls.store(0, SeqCst);
        let mut all = JoinSet::new();
        for _ in 0..3_000 {
            let balance = balance.clone();
            all.spawn(async move { balance.oneshot(()).await.unwrap() });
            sleep(Duration::from_millis(1)).await;
        }
        all.join_all().await;
        let busy = balance.explain(&"10.0.0.1:80".parse().unwrap());
        assert_eq!(busy.verdict, Pickable::Yes, "{busy}");
        assert_eq!(balance.counters().outlier_ejections, 0);
        let activity = busy.activity.unwrap();
        match limits {
            None => assert_eq!(activity.limit, None),
            Some(_) => {
                assert_eq!(activity.limit, Some(1), "{busy}");
                assert!(busy.to_string().contains("limited to 1 at once"), "{busy}");
            }
        }
        seen.push(calls.load(SeqCst));
    }
    let [without, with] = seen[..] else {
        unreachable!()
    };
    println!("of 3000 calls one who refuses at once got {without}, limited {with}");
    assert!(with * 5 < without, "{with} of {without}");
}

#[tokio::test(start_paused = true)]
async fn a_judge_s_overload_counts_where_there_are_no_outliers_and_a_late_try_too() {
    let judge = WithOutcomes::new(
        Unclassified::default(),
        |result: Result<&u16, &Infallible>| match result {
            Ok(429) => Outcome::Overloaded,
            _ => Outcome::Success,
        },
    );
    let balance = Balance::builder(&orders(1))
        .adaptive_concurrency(AdaptiveConcurrency::new())
        .judge(judge)
        .build(|_: &Instance| service_fn(|()| async { Ok::<_, Infallible>(429_u16) }));
    for _ in 0..200 {
        assert_eq!(balance.clone().oneshot(()).await.unwrap(), 429);
        sleep(Duration::from_millis(10)).await;
    }
    let limit = |explanation: BalanceExplanation| explanation.activity.unwrap().limit.unwrap();
    let only = "10.0.0.1:80".parse().unwrap();
    assert_eq!(limit(balance.explain(&only)), 1);
    let late = Balance::builder(&orders(1))
        .adaptive_concurrency(AdaptiveConcurrency::new())
        .per_try_timeout(Duration::from_millis(50))
        .build(|_: &Instance| service_fn(|()| std::future::pending::<Result<(), Infallible>>()));
    for _ in 0..40 {
        assert!(late.clone().oneshot(()).await.is_err());
    }
    let after = limit(late.explain(&only));
    assert!(after <= 5, "{after}");
    assert_eq!(late.counts(), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn leases_count_until_they_are_reported_and_are_never_refused() {
    let picker = Balance::builder(&orders(1))
        .adaptive_concurrency(AdaptiveConcurrency::new())
        .picker();
    let only = "10.0.0.1:80".parse().unwrap();
    let limit = || picker.explain(&only).activity.unwrap().limit.unwrap();
    let leases: Vec<_> = (0..50).map(|_| picker.try_pick().unwrap()).collect();
    assert_eq!(limit(), 20);
    drop(leases);
    for _ in 0..100 {
        let mut lease = picker.pick().await.unwrap();
        sleep(Duration::from_millis(10)).await;
        lease.overloaded();
    }
    assert_eq!(limit(), 1);
    // What is usual is known by one that is answered; three times that, and nobody waited for no reason.
    let other = Balance::builder(&orders(1))
        .adaptive_concurrency(AdaptiveConcurrency::new())
        .picker();
    for given_up in [false, true] {
        for _ in 0..60 {
            let mut lease = other.pick().await.unwrap();
            sleep(Duration::from_millis(if given_up { 400 } else { 40 })).await;
            if !given_up {
                lease.succeeded();
            }
        }
        let limit = other.explain(&only).activity.unwrap().limit.unwrap();
        assert_eq!(limit < 5, given_up, "{limit}");
    }
    assert_eq!(picker.counts(), [0, 0, 0]);
    assert_eq!(other.counts(), [0, 0, 0]);
}

#[tokio::test]
async fn what_cannot_be_meant_is_said() {
    let new = AdaptiveConcurrency::new;
    let wrong = [
        new().min(0),
        new().min(30).initial(20),
        new().max(10),
        new().min(10).max(5).initial(7),
        new().max(u32::MAX),
        new().tolerance(0.5),
        new().tolerance(f64::NAN),
        new().tolerance(f64::INFINITY),
    ];
    for limits in wrong {
        let builder = Balance::builder(&orders(1)).adaptive_concurrency(limits);
        let error = builder.check().unwrap_err().to_string();
        assert!(error.contains("adaptive_concurrency"), "{error}");
        let channel = crate::grpc::Channel::builder(&orders(1)).adaptive_concurrency(limits);
        assert_eq!(channel.try_build().unwrap_err().to_string(), error);
        let nacos = crate::Client::connect_lazy("127.0.0.1:1").unwrap();
        let client = crate::http::Client::builder(&nacos).adaptive_concurrency(limits);
        assert_eq!(client.try_build().unwrap_err().to_string(), error);
        // And does no harm.
        let balance = builder
            .build(|_: &Instance| service_fn(|()| std::future::ready(Ok::<_, Infallible>(()))));
        balance.clone().oneshot(()).await.unwrap();
        let told = balance.explain(&"10.0.0.1:80".parse().unwrap());
        assert_eq!(told.activity.unwrap().limit, Some(20));
    }
    for fine in [new(), new().min(1).max(1).initial(1), new().max(1_000_000)] {
        let builder = Balance::builder(&orders(1)).adaptive_concurrency(fine);
        builder.check().unwrap();
    }
}
