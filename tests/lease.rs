//! `Balance::builder(..).picker()`: instances for callers who make their calls themselves.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    collections::BTreeSet,
    future::Future,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    task::Poll,
    time::Duration,
};

use discover_support::{idle_context, instance, now, registry};
use tower_nacos::{
    Balance, Subscription,
    balance::{Hints, Lease, Maglev, PeakEwma, Pickable, Picker, WeightedRoundRobin},
    directory::Writer,
    endpoint::{CallError, Verdict},
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";

fn listed(addresses: &[&str]) -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    list(&mut writer, addresses);
    (writer, orders)
}

fn list(writer: &mut Writer, addresses: &[&str]) {
    writer.publish(addresses.iter().map(|a| instance(a)), now());
}

/// What a pick comes to that has nothing to wait for.
#[track_caller]
fn pick(picker: &Picker<impl tower_nacos::balance::Policy>) -> Result<Lease, CallError> {
    match pin!(picker.pick()).poll(&mut idle_context()) {
        Poll::Ready(picked) => picked,
        Poll::Pending => panic!("it waits"),
    }
}

fn out(picker: &Picker<impl tower_nacos::balance::Policy>, address: &str) -> bool {
    let explained = picker.explain(&address.parse().unwrap());
    matches!(explained.verdict, Pickable::Ejected { .. })
}

const fn shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
const fn sendable<T: Send + 'static>(_: &T) {}

#[test]
fn a_picker_and_its_leases_can_be_shared() {
    let (_writer, orders) = listed(&[A]);
    let picker = Balance::builder(&orders).picker();
    shareable(&picker);
    sendable(&picker.pick());
    sendable(&pick(&picker).unwrap());
}

#[test]
fn a_lease_names_its_instance_and_counts_until_it_is_dropped() {
    let (mut writer, orders) = registry();
    let metadata = [("zone", "hz")].into_iter().collect();
    writer.publish([instance(A).with_metadata(metadata), instance(B)], now());
    let picker = Balance::builder(&orders).picker();
    let mut both = BTreeSet::new();
    let leases: Vec<Lease> = (0..2).map(|_| pick(&picker).unwrap()).collect();
    for lease in &leases {
        both.insert(lease.address().to_string());
        if lease.address().to_string() == A {
            assert_eq!(lease.metadata().get("zone"), Some("hz"));
        }
    }
    assert_eq!(both.len(), 2, "the second goes to the one with fewer calls");
    assert_eq!(picker.counts(), [2, 0, 0]);
    drop(leases);
    assert_eq!(picker.counts(), [0, 0, 0]);
}

#[test]
fn it_picks_as_the_policy_says() {
    let (_writer, orders) = listed(&[A, B, C]);
    let turns = Balance::builder(&orders)
        .policy(WeightedRoundRobin::new())
        .picker();
    let seen: BTreeSet<_> = (0..3)
        .map(|_| pick(&turns).unwrap().address().to_string())
        .collect();
    assert_eq!(seen.len(), 3);

    let sticky = Balance::builder(&orders).policy(Maglev::new()).picker();
    let by = |key: &str| match pin!(sticky.pick_by(Hints::new().key(key))).poll(&mut idle_context())
    {
        Poll::Ready(lease) => lease.unwrap().address().to_string(),
        Poll::Pending => panic!("it waits"),
    };
    for key in ["jo", "al", "bo"] {
        assert_eq!(by(key), by(key));
    }
}

#[test]
fn what_may_not_be_called_is_never_handed_out() {
    let (mut writer, orders) = listed(&[A, B, C]);
    let picker = Balance::builder(&orders).picker();
    for _ in 0..300 {
        list(&mut writer, &[A, B, C]);
        let built = picker.pick();
        let revision = writer.publish([instance(A), instance(B).with_weight(0.0)], now());
        assert_eq!(orders.applied_revision(), revision);
        let Poll::Ready(Ok(late)) = pin!(built).poll(&mut idle_context()) else {
            panic!("A can be called");
        };
        assert_eq!(late.address().to_string(), A);
        assert_eq!(picker.try_pick().unwrap().address().to_string(), A);
    }
    assert_eq!(picker.counters().calls_after_evict, 0);
}

#[test]
fn a_lease_outlives_its_instance_and_holds_up_nothing() {
    let (mut writer, orders) = listed(&[A]);
    let picker = Balance::builder(&orders).picker();
    let mut lease = pick(&picker).unwrap();
    assert!(!lease.is_evicted());
    let revision = writer.publish([instance(B)], now());
    assert_eq!(orders.applied_revision(), revision, "it is in flight");
    assert!(lease.is_evicted());
    lease.failed(Verdict::unreachable("gone")); // of no consequence to B
    drop(lease);
    assert_eq!(pick(&picker).unwrap().address().to_string(), B);
}

#[test]
fn an_unreachable_instance_is_handed_out_no_more_and_others_are() {
    let (_writer, orders) = listed(&[A, B]);
    let picker = Balance::builder(&orders).picker();
    let mut lease = pick(&picker).unwrap();
    let bad = lease.address().to_string();
    lease.failed(Verdict::unreachable("connection refused"));
    lease.succeeded(); // the first report counts
    drop(lease);
    assert!(out(&picker, &bad));
    for _ in 0..100 {
        let mut other = pick(&picker).unwrap();
        assert_ne!(other.address().to_string(), bad);
        other.failed(Verdict::Reachable); // a failure, and not of its connection
    }
    let explained = picker.explain(&bad.parse().unwrap());
    assert_eq!(explained.activity.unwrap().failures, 1);
    assert_eq!(picker.counts(), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_a_lease_that_brings_its_instance_back_or_does_not() {
    let (_writer, orders) = listed(&[A]);
    let picker = Balance::builder(&orders).picker();
    let mut lease = picker.pick().await.unwrap();
    lease.failed(Verdict::unreachable("connection refused"));
    drop(lease);
    let error = picker.pick().await.unwrap_err();
    assert!(error.is_all_unreachable(), "{error}");
    assert!(error.to_string().contains("connection refused"), "{error}");

    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let dropped = picker.pick().await.unwrap(); // the probe
    {
        // There is one probe at a time, and who comes next waits for what it finds.
        let mut next = pin!(picker.pick());
        assert!(next.as_mut().poll(&mut idle_context()).is_pending());
    }
    drop(dropped); // says nothing
    assert!(out(&picker, A));

    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let mut failed = picker.pick().await.unwrap();
    failed.failed(Verdict::unreachable("still"));
    drop(failed);
    assert!(out(&picker, A));

    tokio::time::sleep(Duration::from_millis(1_100)).await;
    picker.pick().await.unwrap().succeeded();
    assert!(!out(&picker, A));
    assert!(picker.pick().await.is_ok());
}

#[test]
fn the_limit_of_calls_in_flight_is_one_of_leases() {
    let (_writer, orders) = listed(&[A, B]);
    let picker = Balance::builder(&orders).max_in_flight(2).picker();
    let mut leases: Vec<Lease> = (0..2).map(|_| pick(&picker).unwrap()).collect();
    assert!(pick(&picker).unwrap_err().is_overloaded());
    assert!(picker.try_pick().unwrap_err().is_overloaded());
    leases.pop();
    leases.push(picker.try_pick().unwrap());
    assert!(picker.try_pick().unwrap_err().is_overloaded());
    leases[0].succeeded(); // in flight until it is dropped
    assert!(pick(&picker).unwrap_err().is_overloaded());
    leases.clear();
    assert!(pick(&picker).is_ok());
}

#[tokio::test(start_paused = true)]
async fn while_nothing_is_known_it_waits_so_long_and_try_pick_does_not() {
    let (mut writer, orders) = registry();
    let picker = Balance::builder(&orders)
        .unknown_wait(Duration::from_millis(700))
        .max_waiting(2)
        .picker();
    assert!(picker.try_pick().unwrap_err().is_unknown());
    let began = tokio::time::Instant::now();
    let error = picker.pick().await.unwrap_err();
    assert!(error.is_unknown(), "{error}");
    assert!(error.to_string().contains("waited 700ms"), "{error}");
    assert_eq!(began.elapsed(), Duration::from_millis(700));

    // Given up while they wait: the places are free again.
    for _ in 0..3 {
        let mut first = pin!(picker.pick());
        let mut second = pin!(picker.pick());
        assert!(first.as_mut().poll(&mut idle_context()).is_pending());
        assert!(second.as_mut().poll(&mut idle_context()).is_pending());
        assert!(picker.pick().await.unwrap_err().is_overloaded());
    }
    let waits = tokio::spawn({
        let picker = picker.clone();
        async move { picker.pick().await.map(|lease| lease.address().to_string()) }
    });
    tokio::task::yield_now().await;
    list(&mut writer, &[B]);
    assert_eq!(waits.await.unwrap().unwrap(), B);
    list(&mut writer, &[]);
    let error = picker.pick().await.unwrap_err();
    assert!(error.is_no_instances(), "{error}");
    assert_eq!(picker.counts(), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_learnt_from_the_lease() {
    let (_writer, orders) = listed(&[A, B]);
    let picker = Balance::builder(&orders).policy(PeakEwma::new()).picker();
    let mut slow = picker.pick().await.unwrap();
    let address = slow.address().to_string();
    tokio::time::sleep(Duration::from_secs(3)).await;
    slow.succeeded();
    drop(slow);
    let mut again = 0;
    for _ in 0..256 {
        let mut other = picker.pick().await.unwrap();
        again += u32::from(other.address().to_string() == address);
        other.succeeded();
    }
    assert!(
        again < 16,
        "{again}: of two draws both are the same in one of 256"
    );
}

/// Picks on threads of their own while instances come and go: what is let in at an evicted gate is
/// counted by the gate itself.
#[test]
fn under_churn_no_lease_is_of_what_left_and_all_counts_come_to_nothing() {
    let (mut writer, orders) = listed(&[A, B, C]);
    let picker = Balance::builder(&orders).picker();
    let (done, picked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    if let Ok(mut lease) = picker.try_pick() {
                        picked.fetch_add(1, SeqCst);
                        match picked.load(SeqCst) % 7 {
                            0 => drop(lease),
                            1 => lease.failed(Verdict::Reachable),
                            _ => lease.succeeded(),
                        }
                    }
                }
            });
        }
        let mut rounds = 0;
        while rounds < 2_000 || picked.load(SeqCst) < 10_000 {
            list(&mut writer, [&[A, B][..], &[C], &[A, B, C]][rounds % 3]);
            rounds += 1;
        }
        done.store(true, SeqCst);
    });
    assert_eq!(picker.counts(), [0, 0, 0]);
    assert_eq!(picker.counters().calls_after_evict, 0);
}
