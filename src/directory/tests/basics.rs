//! Lists, snapshots and changes on an intact connection (D1 to D6, D9, D13, D15).

use std::{sync::Arc, task::Poll, time::Duration};

use super::support::{
    Recorder, Script, a, addresses, all, at, callable, drain, fold, meta, now_or_never, poll,
    removed, start,
};
use crate::{
    directory::{Cause, ChangeKind, Origin, Revision, Standing, Status, TransitionKind},
    model::{Instance, Listing, Rejected},
};

#[test]
fn d1_the_first_answer_is_the_initial_set() {
    let mut script = Script::new();
    assert_eq!(script.sub.status(), Status::Unknown);
    assert!(!script.sub.snapshot().is_known());
    assert!(now_or_never(script.sub.ready()).is_pending());
    let revision = script.first(all([1, 2]));
    assert_eq!(revision, Revision(1));
    assert_eq!(script.callable(), addresses([1, 2]));
    assert_eq!(now_or_never(script.sub.ready()), Poll::Ready(Ok(())));
    assert_eq!(script.sub.status(), Status::Fresh);
}

#[test]
fn d2_pushes_add_remove_and_modify() {
    let mut script = Script::listing(all([1, 2]));
    let mut changes = script.sub.changes();
    assert_eq!(drain(&mut changes).len(), 2);
    script.push(vec![a(3), a(2).with_cluster("HZ")]);
    let seen = drain(&mut changes);
    assert_eq!(removed(&seen[..1]), [(at(1), Cause::GoneFromList)]);
    assert_eq!(
        seen[1..]
            .iter()
            .map(|c| (c.instance.address().clone(), c.kind))
            .collect::<Vec<_>>(),
        [(at(2), ChangeKind::Updated), (at(3), ChangeKind::Added)]
    );
    assert!(seen.iter().all(|change| change.revision == Revision(2)));
    assert!(
        seen.iter()
            .all(|change| change.received_at == Some(script.now))
    );
}

#[test]
fn d3_the_last_instance_can_leave() {
    let mut script = Script::listing(all([1]));
    script.push(Vec::new());
    assert!(script.sub.snapshot().is_known());
    assert_eq!(script.sub.snapshot().entries().len(), 0);
    assert!(
        script.explain(1).contains("lists it no longer"),
        "{}",
        script.explain(1)
    );
}
