//! The same from several threads: nothing is lost, nothing hangs.

use std::{collections::BTreeMap, time::Duration};

use super::support::{Recorder, Script, addresses, all, fold};
use crate::directory::{Origin, Revision};

const HANG: Duration = Duration::from_secs(20);
const PUSHES: u16 = 3_000;

fn numbers(round: u16) -> impl Iterator<Item = u16> {
    (1..=20).filter(move |n| !(n + round).is_multiple_of(5))
}

/// Pushes from a thread of its own, and closes.
fn write(mut script: Script) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for round in 0..PUSHES {
            script.after(0.001).push(all(numbers(round)));
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_read_while_pushes_come_misses_nothing() {
    let script = Script::listing(all([1]));
    let sub = script.sub.clone();
    let mut changes = sub.changes();
    let writer = write(script);
    let read = async {
        let mut set = BTreeMap::new();
        let mut newest = Revision::default();
        while let Some(change) = changes.next().await {
            assert!(change.revision >= newest);
            newest = change.revision;
            fold(&mut set, &[change]);
        }
        assert!(set.is_empty(), "all left by shutdown");
        newest
    };
    let newest = tokio::time::timeout(HANG, read).await.expect("it ends");
    assert_eq!(newest, sub.revision());
    writer.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applied_returns_whoever_becomes_quiet_wherever() {
    let mut script = Script::listing(all([1]));
    let sub = script.sub.clone();
    let slow = sub.attach(Recorder::new);
    slow.state.lock().unwrap().prompt = false;
    for round in 0..500 {
        let revision = script.push(all(numbers(round)));
        let slow = slow.clone();
        let quiet = std::thread::spawn(move || slow.become_quiet(revision));
        tokio::time::timeout(HANG, sub.applied(revision))
            .await
            .expect("it is woken")
            .unwrap();
        quiet.join().unwrap();
    }
}

#[test]
fn a_consumer_attached_while_pushes_come_misses_none() {
    let script = Script::listing(all([1]));
    let sub = script.sub.clone();
    let writer = write(script);
    let mut attached = Vec::new();
    while !writer.is_finished() {
        let view = sub.only_cluster("DEFAULT");
        attached.push(view.attach(Recorder::new));
        attached.push(sub.attach(Recorder::new));
        if attached.len() > 64 {
            attached.drain(..32);
        }
    }
    writer.join().unwrap();
    let last = addresses(numbers(PUSHES - 1));
    for consumer in attached {
        let open: Vec<_> = consumer
            .open()
            .into_iter()
            .map(|(address, _)| address)
            .collect();
        assert_eq!(open, last);
    }
    assert_eq!(sub.applied_revision(), sub.revision());
}

#[test]
fn two_reports_on_a_held_instance_release_it_once() {
    let mut script = Script::listing(all([1, 2, 3]));
    script
        .reconnect(1.0)
        .apply(Default::default(), Origin::FirstAnswer);
    let (generation, now) = (script.generation(1), script.now);
    let sub = &script.sub;
    let before = sub.revision();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let address = super::support::at(1);
            scope.spawn(move || sub.report_unreachable(&address, generation, now));
        }
    });
    assert_eq!(sub.revision().get(), before.get() + 1);
    assert_eq!(script.callable(), addresses([2, 3]));
}
