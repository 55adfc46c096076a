//! Who may be called: enabled, weight, selection, health (D4, D6, D7, D8, D11).

use super::support::{Recorder, Script, a, addresses, all, at, callable, drain, meta, removed};
use crate::{
    directory::{Mode, OnAllUnhealthy, Options, Origin, RemovalCause, Standing, TransitionKind},
    model::{Instance, Listing},
};

fn sick(n: u16) -> Instance {
    a(n).with_healthy(false)
}

fn flagged(numbers: impl IntoIterator<Item = u16>) -> Listing {
    Listing::new(all(numbers)).with_protected(true)
}

#[test]
fn d4_a_disabled_instance_leaves_and_comes_back() {
    let mut script = Script::listing(all([1, 2]));
    let generation = script.generation(1);
    let recorder = script.sub.attach(Recorder::new);
    let mut changes = script.sub.changes();
    drain(&mut changes);
    script.push(vec![a(1).with_enabled(false), a(2)]);
    assert_eq!(script.callable(), addresses([2]));
    assert_eq!(
        removed(&drain(&mut changes)),
        [(at(1), RemovalCause::Disabled)]
    );
    script.push(all([1, 2]));
    assert_eq!(script.callable(), addresses([1, 2]));
    assert_eq!(
        script.generation(1),
        generation,
        "it was listed all the while"
    );
    assert_eq!(
        recorder.take_transitions(),
        [
            (at(1), TransitionKind::Closed),
            (at(1), TransitionKind::Opened)
        ]
    );
}

#[test]
fn d6_weight_zero_is_listed_and_not_called() {
    let mut script = Script::listing(all([1]));
    let mut changes = script.sub.changes();
    drain(&mut changes);
    script.push(vec![a(1).with_weight(0.0)]);
    assert_eq!(script.callable(), []);
    assert_eq!(script.sub.snapshot().entries().len(), 1);
    assert_eq!(
        removed(&drain(&mut changes)),
        [(at(1), RemovalCause::WeightZero)]
    );
}

#[test]
fn d7_unhealthy_instances_are_not_called_while_others_are_well() {
    let mut script = Script::listing(all([1, 2]));
    let mut changes = script.sub.changes();
    drain(&mut changes);
    script.push(vec![sick(1), a(2)]);
    assert_eq!(script.callable(), addresses([2]));
    assert_eq!(
        removed(&drain(&mut changes)),
        [(at(1), RemovalCause::Unhealthy)]
    );
    assert_eq!(script.sub.snapshot().mode(), Mode::Normal);
}

#[test]
fn d8_when_all_are_unhealthy_all_are_called() {
    let mut script = Script::listing(all([1, 2]));
    script.push(vec![sick(1), sick(2), a(3).with_weight(0.0)]);
    assert_eq!(script.callable(), addresses([1, 2]));
    assert_eq!(script.sub.snapshot().mode(), Mode::Panic);
    script.push(vec![sick(1), a(2)]);
    assert_eq!(script.callable(), addresses([2]));
    assert_eq!(script.sub.snapshot().mode(), Mode::Normal);
}

#[test]
fn d8_fail_fast_calls_none_of_the_unhealthy() {
    let mut script = Script::with(Options::default().on_all_unhealthy(OnAllUnhealthy::FailFast));
    script.push(vec![sick(1), sick(2)]);
    assert_eq!(script.callable(), []);
    assert_eq!(script.sub.snapshot().mode(), Mode::Normal);
    assert_eq!(
        script.sub.snapshot().entries()[0].standing(),
        Standing::Unhealthy
    );
}

#[test]
fn d8_while_flagged_health_is_what_it_was_before() {
    let mut script = Script::listing(all([1, 2, 3]));
    script.push(vec![a(1), sick(2), sick(3)]);
    script.apply(flagged([1, 2, 3]), Origin::Push);
    assert_eq!(
        script.callable(),
        addresses([1]),
        "the flag makes nobody well"
    );
    assert_eq!(script.sub.snapshot().mode(), Mode::Flagged);
    // One that was never seen unflagged is of unknown health: the second rung.
    script.apply(flagged([1, 2, 3, 4]), Origin::Push);
    assert_eq!(script.callable(), addresses([1]));
    assert_eq!(
        script.sub.snapshot().find(&at(4)).unwrap().standing(),
        Standing::HealthUnknown
    );
    script.apply(flagged([2, 3, 4]), Origin::Push);
    assert_eq!(script.callable(), addresses([4]));
    assert_eq!(script.sub.snapshot().mode(), Mode::Flagged);
    script.apply(flagged([2, 3]), Origin::Push);
    assert_eq!(script.callable(), addresses([2, 3]));
    assert_eq!(script.sub.snapshot().mode(), Mode::Panic);
    script.push(all([2, 3]));
    assert_eq!(script.callable(), addresses([2, 3]));
    assert_eq!(script.sub.snapshot().mode(), Mode::Normal);
}

#[test]
fn d8_a_first_list_that_is_flagged_is_called_as_a_whole() {
    let mut script = Script::new();
    script.apply(flagged([1, 2]), Origin::FirstAnswer);
    assert_eq!(script.callable(), addresses([1, 2]));
    assert_eq!(script.sub.snapshot().mode(), Mode::Flagged);
}

#[test]
fn the_flag_alone_is_a_revision() {
    let mut script = Script::listing(all([1]));
    let revision = script.sub.revision();
    script.apply(flagged([1]), Origin::Push);
    assert!(script.sub.revision() > revision);
    let revision = script.sub.revision();
    script.apply(flagged([1]), Origin::Push);
    assert_eq!(script.sub.revision(), revision);
}

#[test]
fn d11_a_cluster_is_selected_here_and_leaving_it_removes() {
    let mut script = Script::listing(vec![a(1).with_cluster("HZ"), a(2).with_cluster("SH")]);
    let hz = script.sub.only_cluster("HZ");
    let recorder = hz.attach(Recorder::new);
    assert_eq!(callable(&hz), addresses([1]));
    let mut changes = hz.changes();
    drain(&mut changes);
    script.push(vec![a(1).with_cluster("SH"), a(2).with_cluster("SH")]);
    assert_eq!(callable(&hz), []);
    assert_eq!(
        removed(&drain(&mut changes)),
        [(at(1), RemovalCause::LeftSelection)]
    );
    assert_eq!(
        recorder.take_transitions(),
        [(at(1), TransitionKind::Closed)]
    );
    assert_eq!(
        script.callable(),
        addresses([1, 2]),
        "the others see an update in place"
    );
    assert_eq!(
        hz.snapshot().entries()[0].standing(),
        Standing::OutsideSelection
    );
}

#[test]
fn d11_what_happens_outside_of_a_selection_is_no_revision_there() {
    let mut script = Script::listing(vec![a(1).with_cluster("HZ")]);
    let hz = script.sub.only_cluster("HZ");
    let recorder = hz.attach(Recorder::new);
    script.push(vec![a(1).with_cluster("HZ"), a(2).with_cluster("SH")]);
    // It is listed, so an entry appears, but no gate moves.
    assert_eq!(recorder.take_transitions(), []);
    assert_eq!(callable(&hz), addresses([1]));
}

#[test]
fn the_ladder_is_climbed_within_each_selection() {
    let mut script = Script::listing(all([]));
    script.push(vec![sick(1).with_cluster("HZ"), a(2).with_cluster("SH")]);
    assert_eq!(script.callable(), addresses([2]));
    let hz = script.sub.only_cluster("HZ");
    assert_eq!(callable(&hz), addresses([1]));
    assert_eq!(hz.snapshot().mode(), Mode::Panic);
    let none = hz.only_metadata("version", "2");
    assert_eq!(callable(&none), [], "a selection never falls back");
}

#[test]
fn equal_selections_share_one_view() {
    let script = Script::listing(vec![
        a(1).with_cluster("HZ").with_metadata(meta(&[("v", "2")])),
        a(2).with_cluster("HZ"),
    ]);
    let one = script.sub.only_cluster("HZ").only_metadata("v", "2");
    let two = script.sub.only_metadata("v", "2").only_cluster("HZ");
    assert!(std::sync::Arc::ptr_eq(&one.snapshot(), &two.snapshot()));
    assert_eq!(callable(&one), addresses([1]));
    let wide = script.sub.only_clusters(["SH", "HZ"]);
    assert_eq!(callable(&wide), addresses([1, 2]));
}
