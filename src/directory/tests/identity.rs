//! What is one instance, and when it is another (D10 and the design's rules of identity).

use super::support::{Recorder, Script, a, addresses, all, at, callable, drain, meta, removed};
use crate::{
    directory::{Options, RemovalCause, TransitionKind},
    model::Instance,
};

fn started(n: u16, start: &str) -> Instance {
    a(n).with_metadata(meta(&[("startTime", start)]))
}

#[test]
fn absent_and_present_again_is_a_new_generation() {
    let mut script = Script::listing(all([1, 2]));
    let generation = script.generation(1);
    script.push(all([2]));
    script.push(all([1, 2]));
    assert!(script.generation(1) > generation);
}

#[test]
fn a_restart_that_shows_in_the_metadata_is_a_new_generation() {
    let mut script = Script::listing(vec![started(1, "10"), a(2)]);
    let generation = script.generation(1);
    let recorder = script.sub.attach(Recorder::new);
    let mut changes = script.sub.changes();
    drain(&mut changes);
    script.push(vec![started(1, "20"), a(2)]);
    assert!(script.generation(1) > generation);
    assert_eq!(
        recorder.take_transitions(),
        [
            (at(1), TransitionKind::Evicted),
            (at(1), TransitionKind::Opened)
        ]
    );
    let seen = drain(&mut changes);
    assert_eq!(removed(&seen), [(at(1), RemovalCause::Restarted)]);
    assert_eq!(seen.len(), 2);
}

#[test]
fn the_keys_that_identify_a_start_can_be_set() {
    let mut script = Script::with(Options::default().start_keys(["pod"]));
    script.push(vec![
        started(1, "10").with_metadata(meta(&[("pod", "x"), ("startTime", "1")])),
    ]);
    let generation = script.generation(1);
    script.push(vec![
        a(1).with_metadata(meta(&[("pod", "x"), ("startTime", "2")])),
    ]);
    assert_eq!(script.generation(1), generation);
    script.push(vec![
        a(1).with_metadata(meta(&[("pod", "y"), ("startTime", "2")])),
    ]);
    assert!(script.generation(1) > generation);
}

#[test]
fn d10_twins_are_one_instance_whatever_their_order() {
    let twins = [started(1, "10"), started(1, "20")];
    let mut script = Script::listing(vec![twins[0].clone(), a(2)]);
    // The newcomer wins.
    script.push(vec![twins[1].clone(), a(2), twins[0].clone()]);
    let revision = script.sub.revision();
    let generation = script.generation(1);
    assert_eq!(script.callable(), addresses([1, 2]));
    let winner = |script: &Script| {
        let snapshot = script.sub.snapshot();
        let instance = snapshot.find(&at(1)).unwrap().instance();
        instance.metadata().get("startTime").unwrap().to_owned()
    };
    assert_eq!(winner(&script), "20");
    // And stays, in whatever order they come.
    for _ in 0..4 {
        script.push(vec![twins[0].clone(), a(2), twins[1].clone()]);
        script.push(vec![twins[1].clone(), twins[0].clone(), a(2)]);
    }
    assert_eq!(script.sub.revision(), revision);
    assert!(script.writer.counters().duplicates >= 9);
    // Removing one evicts nothing, and falling back to the other starts nothing.
    script.push(vec![twins[0].clone(), a(2)]);
    assert_eq!(winner(&script), "10");
    assert_eq!(script.generation(1), generation);
}

#[test]
fn d10_removing_the_twin_that_lost_changes_nothing() {
    let mut script = Script::listing(vec![started(1, "10")]);
    script.push(vec![started(1, "10"), started(1, "20")]);
    let revision = script.sub.revision();
    script.push(vec![started(1, "20")]);
    assert_eq!(script.sub.revision(), revision);
}

#[test]
fn d10_the_twin_chosen_last_gives_way_only_when_unhealthy() {
    let (old, new) = (started(1, "10"), started(1, "20"));
    let mut script = Script::listing(vec![old.clone()]);
    script.push(vec![old.clone(), new.clone()]);
    let generation = script.generation(1);
    script.push(vec![old.clone(), new.clone().with_healthy(false)]);
    let snapshot = script.sub.snapshot();
    assert_eq!(
        snapshot
            .find(&at(1))
            .unwrap()
            .instance()
            .metadata()
            .get("startTime"),
        Some("10")
    );
    assert_eq!(script.generation(1), generation);
    script.push(vec![old.with_healthy(false), new.with_healthy(false)]);
    assert_eq!(script.sub.snapshot().entries().len(), 1);
}

#[test]
fn d10_of_twins_that_come_together_the_healthy_one_counts_then_the_content() {
    let mut script = Script::new();
    let (x, y) = (a(1).with_cluster("A"), a(1).with_cluster("B"));
    script.push(vec![x.clone().with_healthy(false), y.clone()]);
    assert_eq!(
        **script.sub.snapshot().entries()[0].instance().cluster(),
        *"B"
    );
    for list in [vec![x.clone(), y.clone()], vec![y, x]] {
        let mut script = Script::new();
        script.push(list);
        assert_eq!(
            **script.sub.snapshot().entries()[0].instance().cluster(),
            *"A"
        );
    }
}

#[test]
fn d10_one_address_in_two_clusters_is_a_member_of_both() {
    let (hz, sh) = (a(1).with_cluster("HZ"), a(1).with_cluster("SH"));
    let mut script = Script::listing(vec![hz, sh.clone()]);
    let (in_hz, in_sh) = (script.sub.only_cluster("HZ"), script.sub.only_cluster("SH"));
    assert_eq!(script.sub.snapshot().entries().len(), 1);
    assert_eq!(
        (callable(&in_hz), callable(&in_sh)),
        (addresses([1]), addresses([1]))
    );
    script.push(vec![sh]);
    assert_eq!(
        (callable(&in_hz), callable(&in_sh)),
        (vec![], addresses([1]))
    );
    assert_eq!(
        script.generation(1),
        in_sh.snapshot().entries()[0].generation()
    );
}

#[test]
fn twins_of_a_held_instance_are_remembered() {
    let (old, new) = (started(1, "10"), started(1, "20"));
    let mut script = Script::listing(vec![old.clone()]);
    script.push(vec![old.clone(), new]);
    let generation = script.generation(1);
    script.after(5.0).reconnect(1.0).first(Vec::new());
    script.after(1.0).push(vec![old]);
    assert_eq!(script.generation(1), generation);
}

#[test]
fn names_and_ipv6_addresses_are_addresses_like_others() {
    let parse = |text: &str| Instance::parse(text).unwrap();
    let texts = [
        "[::1]:80",
        "b.orders:80",
        "10.0.0.9:80",
        "a.orders:80",
        "[fe80::2]:80",
    ];
    let mut script = Script::listing(texts.map(parse).to_vec());
    assert_eq!(script.callable().len(), 5);
    assert!(
        script
            .sub
            .snapshot()
            .entries()
            .is_sorted_by_key(|e| e.instance().address().clone())
    );
    let revision = script.sub.revision();
    script
        .writer
        .publish(texts.map(parse).into_iter().rev(), script.now);
    assert_eq!(script.sub.revision(), revision);
    script.push(texts[1..].iter().map(|text| parse(text)).collect());
    assert_eq!(script.callable().len(), 4);
}
