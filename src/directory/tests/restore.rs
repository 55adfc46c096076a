//! A set from disk, and the registry's first answer after it.

use std::time::Duration;

use super::support::*;
use crate::{
    directory::{Origin, Standing, Status},
    model::Listing,
};

const HOUR: Duration = Duration::from_secs(3600);

/// What a process before this one knew an hour ago.
fn restored(numbers: std::ops::RangeInclusive<u16>) -> Script {
    let mut script = Script::new();
    let listing = Listing::new(all(numbers));
    script.writer.restore(listing, HOUR, script.now);
    script
}

fn callable(script: &Script) -> Vec<u16> {
    let snapshot = script.sub.snapshot();
    let numbers = (0..2000).filter(|n| {
        let entry = snapshot.find(&at(*n));
        entry.is_some_and(|entry| entry.standing() == Standing::Callable)
    });
    numbers.collect()
}

fn held(script: &Script) -> usize {
    let snapshot = script.sub.snapshot();
    snapshot.entries().iter().filter(|e| e.is_held()).count()
}

#[test]
fn it_serves_without_limit_and_says_how_old_it_is() {
    let mut script = restored(1..=3);
    assert_eq!(callable(&script), [1, 2, 3]);
    assert!(script.sub.snapshot().is_known());
    assert_eq!(script.sub.origin(), Some(Origin::Disk));
    assert_eq!(script.sub.age(script.now), Some(HOUR));
    let since = script.now - HOUR;
    assert_eq!(script.sub.status(), Status::Stale { since });
    assert_eq!(script.writer.poll_timeout(), None);
    script.pass(1_000_000.0);
    assert_eq!(callable(&script), [1, 2, 3]);
    script.writer.handle_connected(script.now);
    assert_eq!(script.sub.status(), Status::Stale { since });
    script.writer.handle_disconnected(script.now);
    assert_eq!(script.sub.status(), Status::Stale { since });
    assert_eq!(callable(&script), [1, 2, 3]);
}

#[test]
fn the_first_answer_that_says_the_same_makes_it_fresh() {
    let mut script = restored(1..=3);
    let revision = script.sub.revision();
    script.writer.handle_connected(script.now);
    script.first(all(1..=3));
    assert_eq!(script.sub.status(), Status::Fresh);
    assert_eq!(script.sub.origin(), Some(Origin::FirstAnswer));
    assert_eq!(script.sub.revision(), revision, "nobody is woken for that");
    script.push(all(1..=2));
    assert_eq!(
        callable(&script),
        [1, 2],
        "seen on this connection, then not"
    );
}

/// As after a reconnect: the few that are missing stay for 3 s, more or the last for 60 s.
#[test]
fn the_first_answer_is_judged_as_after_a_reconnect() {
    for push in [false, true] {
        let answer = |script: &mut Script, numbers: Vec<u16>| {
            script.writer.handle_connected(script.now);
            if push {
                script.push(all(numbers)) // it overtook the answer
            } else {
                script.first(all(numbers))
            }
        };
        let mut few = restored(1..=5);
        answer(&mut few, vec![1, 2, 3, 4, 6]);
        assert_eq!(callable(&few), [1, 2, 3, 4, 5, 6]);
        assert_eq!(few.sub.status(), Status::Held { instances: 1 });
        few.pass(3.5);
        assert_eq!(callable(&few), [1, 2, 3, 4, 6]);

        let mut none = restored(1..=5);
        answer(&mut none, vec![]);
        assert_eq!((callable(&none).len(), held(&none)), (5, 5));
        none.pass(59.0);
        assert_eq!(callable(&none).len(), 5);
        none.pass(2.0);
        assert!(callable(&none).is_empty());
    }
}

#[test]
fn a_held_one_that_cannot_be_reached_is_gone_at_once() {
    let mut script = restored(1..=2);
    script.writer.handle_connected(script.now);
    script.first(vec![]);
    let snapshot = script.sub.snapshot();
    let entry = snapshot.find(&at(1)).unwrap();
    script
        .writer
        .report_unreachable(&at(1), entry.generation(), script.now);
    assert_eq!(callable(&script), [2]);
}

#[test]
fn what_the_registry_said_is_never_replaced_by_it() {
    let mut script = Script::new();
    script.writer.handle_connected(script.now);
    script.first(all(1..=2));
    let revision = script.sub.revision();
    script
        .writer
        .restore(Listing::new(all(3..=9)), HOUR, script.now);
    assert_eq!(
        (callable(&script), script.sub.revision()),
        (vec![1, 2], revision)
    );
    assert_eq!(script.sub.status(), Status::Fresh);

    let mut script = Script::new();
    script.writer.handle_connected(script.now);
    script.first(vec![]);
    script.apply(Listing::new(all(3..=9)), Origin::Disk);
    assert!(callable(&script).is_empty(), "nobody is an answer, too");
}

#[test]
fn nobody_on_disk_says_nothing() {
    let mut script = Script::new();
    script.writer.restore(Listing::default(), HOUR, script.now);
    assert_eq!(
        (script.sub.status(), script.sub.origin()),
        (Status::Unknown, None)
    );
    assert!(!script.sub.snapshot().is_known());
    script.writer.handle_connected(script.now);
    script.first(vec![]);
    assert!(
        !script.sub.snapshot().is_known(),
        "doubted for 3 s, as ever"
    );
}

/// The clock of a machine that just started knows no time so long ago, or it does.
#[test]
fn an_age_beyond_all_time_is_no_panic() {
    let mut script = Script::new();
    script
        .writer
        .restore(Listing::new(all(1..=1)), Duration::MAX, script.now);
    assert_eq!(callable(&script), [1]);
    assert!(matches!(script.sub.status(), Status::Stale { .. }));
}

/// A list that cannot be read is no answer: what was on disk goes on.
#[test]
fn an_answer_that_cannot_be_read_leaves_it() {
    let mut script = restored(1..=3);
    script.writer.handle_connected(script.now);
    script.writer.handle_undecodable("rubbish", script.now);
    assert_eq!(script.sub.status(), Status::Undecodable);
    assert_eq!(callable(&script), [1, 2, 3]);
}
