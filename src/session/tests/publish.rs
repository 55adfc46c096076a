use super::world::{MS, SEC, World, key};
use crate::model::Instance;
use crate::session::{Command, DialError, OperationError, Outcome, Output, Ticket};

#[test]
fn a_registration_is_done_when_the_server_confirmed_it() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    assert!(world.done.is_empty());
    world.run(10 * MS);
    assert_eq!(world.done[&1].1, Ok(Outcome::Done));
    let sent = &world.sent_of("InstanceRequest")[0].json;
    assert_eq!(sent["type"], "registerInstance");
    assert_eq!(sent["instance"]["weight"], 1.0);
    assert_eq!(sent["instance"]["ephemeral"], true);
}

#[test]
fn a_second_registration_of_a_service_is_an_error_that_says_why_and_changes_nothing() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    world.register(2, "web", "10.9.0.8:80"); // not its address
    let error = world.done[&2].1.clone().unwrap_err();
    assert!(matches!(error, OperationError::AlreadyRegistered(_)));
    let text = error.to_string();
    assert!(
        text.contains("10.9.0.9:80") && text.contains("second client"),
        "{text}"
    );
    world.run(SEC);
    assert_eq!(world.sent_of("InstanceRequest").len(), 1);
    world.deregister(3, "web");
    world.register(4, "web", "10.9.0.8:80");
    world.run(SEC);
    assert_eq!(world.done[&4].1, Ok(Outcome::Done));
    assert_eq!(world.done[&3].1, Ok(Outcome::Done));
    assert_eq!(world.peers[&world.link()].published["web"], "10.9.0.8:80");
}

#[test]
fn a_deregistration_waits_for_its_answer() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    world.script.refuse.insert("InstanceRequest", (500, 2));
    world.deregister(2, "web");
    world.run(10 * MS);
    assert!(!world.done.contains_key(&2));
    world.run(5 * SEC);
    assert_eq!(world.done[&2].1, Ok(Outcome::Done));
    assert!(world.peers[&world.link()].published.is_empty());
    world.deregister(3, "web");
    assert_eq!(world.done[&3].1, Err(OperationError::NotRegistered));
}

#[test]
fn a_deregistration_whose_connection_ended_is_not_done_and_says_what_may_be_listed() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    world.script.mute.insert("InstanceRequest");
    world.deregister(2, "web");
    world.run(100 * MS);
    world.end_stream("UNAVAILABLE");
    let error = world.done[&2].1.clone().unwrap_err();
    assert!(matches!(error, OperationError::Unconfirmed(_)));
    let text = error.to_string();
    assert!(
        text.contains("10.9.0.9:80") && text.contains("30 s"),
        "{text}"
    );
    world.script.mute.clear();
    world.run(5 * SEC);
    assert!(world.peers[&world.link()].published.is_empty());
    world.deregister(3, "web");
    assert_eq!(world.done[&3].1, Err(OperationError::NotRegistered));
}

#[test]
fn a_frozen_connection_confirms_no_deregistration() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    world
        .script
        .mute
        .extend(["InstanceRequest", "HealthCheckRequest"]);
    world.deregister(2, "web");
    world.run_until("the end", |world| world.done.contains_key(&2));
    let end = world.done[&2].1.clone();
    assert!(
        matches!(end, Err(OperationError::Unconfirmed(_))),
        "{end:?}"
    );
}

#[test]
fn a_deregistration_while_disconnected_says_what_the_lost_connection_carried() {
    let lost_for = |time| {
        let mut world = World::connected();
        world.register(1, "web", "10.9.0.9:80");
        world.run(SEC);
        let refused = DialError::Refused;
        world.script.dials.insert(super::world::address(1), refused);
        world.end_stream("UNAVAILABLE");
        world.run(time);
        world.deregister(2, "web");
        world.done[&2].1.clone()
    };
    let error = lost_for(20 * SEC).unwrap_err();
    assert!(matches!(error, OperationError::Unconfirmed(_)));
    assert_eq!(lost_for(181 * SEC), Ok(Outcome::Done), "forgotten by now");
    // Nobody was ever told.
    let mut world = World::new();
    world.register(1, "web", "10.9.0.9:80");
    world.deregister(2, "web");
    assert_eq!(world.done[&1].1, Err(OperationError::Superseded));
    assert_eq!(world.done[&2].1, Ok(Outcome::Done));
}

#[test]
fn the_same_address_is_updated_in_place_and_the_same_again_is_the_same_call() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    world.register(2, "web", "10.9.0.9:80"); // under way: one request answers both
    world.run(10 * MS);
    assert_eq!(world.done[&1].1, Ok(Outcome::Done));
    assert_eq!(world.done[&2].1, Ok(Outcome::Done));
    world.register(3, "web", "10.9.0.9:80");
    assert_eq!(world.done[&3].1, Ok(Outcome::Done), "it is so");
    assert_eq!(world.sent_of("InstanceRequest").len(), 1);
    world.register_weighing(4, "web", "10.9.0.9:80", 5.0);
    assert!(!world.done.contains_key(&4), "not before the answer");
    world.run(10 * MS);
    assert_eq!(world.done[&4].1, Ok(Outcome::Done));
    let sent = world.sent_of("InstanceRequest");
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[1].json["instance"]["weight"], 5.0);
    // The newest is what the next connection gets.
    world.end_stream("OK");
    world.run(5 * SEC);
    let sent = world.sent_of("InstanceRequest");
    assert_eq!(sent.last().unwrap().json["instance"]["weight"], 5.0);
    assert_eq!(sent.len(), 3);
}

#[test]
fn updates_while_one_is_under_way_end_with_the_newest() {
    let mut world = World::connected();
    world.script.latency = 20 * MS;
    for (ticket, weight) in [(1, 1.0), (2, 2.0), (3, 3.0)] {
        world.register_weighing(ticket, "web", "10.9.0.9:80", weight);
        world.run(5 * MS);
    }
    world.run(SEC);
    let sent = world.sent_of("InstanceRequest");
    let weights: Vec<_> = sent.iter().map(|s| &s.json["instance"]["weight"]).collect();
    assert_eq!(weights, [1.0, 3.0], "what was overtaken is not sent");
    assert!((1..=3).all(|ticket| world.done[&ticket].1 == Ok(Outcome::Done)));
    assert!(world.done[&1].0 < world.done[&2].0);
}

#[test]
fn an_update_that_is_refused_leaves_what_was_confirmed() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    world.script.refuse.insert("InstanceRequest", (400, 1));
    world.register_weighing(2, "web", "10.9.0.9:80", 5.0);
    world.run(SEC);
    assert!(matches!(&world.done[&2].1, Err(OperationError::Refused(e)) if e.code == 400));
    world.end_stream("OK");
    world.run(5 * SEC);
    let sent = world.sent_of("InstanceRequest");
    assert_eq!(sent.last().unwrap().json["instance"]["weight"], 1.0);
    assert_eq!(world.peers[&world.link()].published["web"], "10.9.0.9:80");
}

#[test]
fn an_update_that_is_refused_leaves_what_was_confirmed_while_it_waited_its_turn() {
    let mut world = World::connected();
    world.script.latency = 20 * MS;
    world.register_weighing(1, "web", "10.9.0.9:80", 1.0);
    world.run(5 * MS);
    world.register_weighing(2, "web", "10.9.0.9:80", 2.0);
    world.script.refuse.insert("InstanceRequest", (400, 1));
    world.run(SEC);
    assert_eq!(world.done[&1].1, Ok(Outcome::Done));
    assert!(world.done[&2].1.is_err());
    world.register_weighing(3, "web", "10.9.0.9:80", 1.0);
    assert_eq!(world.done[&3].1, Ok(Outcome::Done), "it is what is held");
}

#[test]
fn what_a_server_holds_is_taken_back_whatever_it_refuses() {
    // A is registered, its deregistration fails, and B is refused: A is listed.
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.1:80");
    world.run(SEC);
    world.script.refuse.insert("InstanceRequest", (500, 1));
    world.deregister(2, "web");
    world.run(10 * MS);
    world.script.refuse.insert("InstanceRequest", (400, 1));
    world.register(3, "web", "10.9.0.2:80");
    world.run(10 * MS);
    assert!(world.done[&3].1.is_err());
    world.run(10 * SEC);
    assert_eq!(world.done[&2].1, Ok(Outcome::Done));
    assert!(world.peers[&world.link()].published.is_empty());
    assert!(world.session.items.is_empty());
    let last = world
        .sent_of("InstanceRequest")
        .last()
        .unwrap()
        .json
        .clone();
    assert_eq!(
        last["instance"]["ip"], "10.9.0.1",
        "what is listed is named"
    );
}

#[test]
fn a_registration_that_was_carried_out_unanswered_and_then_refused_is_taken_back() {
    let mut world = World::connected();
    world.script.mute.insert("InstanceRequest");
    world.register(1, "web", "10.9.0.9:80");
    world.run(MS);
    let link = world.link();
    let published = &mut world.peers.get_mut(&link).unwrap().published;
    published.insert("web".to_owned(), "10.9.0.9:80".to_owned()); // carried out
    world.script.mute.clear();
    world.script.refuse.insert("InstanceRequest", (400, 1));
    world.run(10 * SEC);
    assert!(matches!(&world.done[&1].1, Err(OperationError::Refused(e)) if e.code == 400));
    assert!(world.peers[&link].published.is_empty());
    world.run(30 * SEC);
    assert!(world.session.items.is_empty(), "it is kept for ever");
}

#[test]
fn a_publication_refused_for_good_is_tried_again_on_the_next_connection() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    world.script.refuse.insert("InstanceRequest", (400, 1));
    world.end_stream("OK");
    world.run(60 * SEC);
    assert!(world.peers[&world.link()].published.is_empty(), "refused");
    world.end_stream("OK");
    world.run(5 * SEC);
    assert_eq!(world.peers[&world.link()].published["web"], "10.9.0.9:80");
}

#[test]
fn a_registration_is_redone_on_a_new_connection_without_a_word_to_its_caller() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    for _ in 0..3 {
        world.end_stream("UNAVAILABLE");
        world.run(5 * SEC);
        assert_eq!(world.peers[&world.link()].published["web"], "10.9.0.9:80");
    }
    assert_eq!(world.done.len(), 1);
}

#[test]
fn a_registration_made_while_disconnected_waits_and_a_cancelled_one_stays_wanted() {
    let mut world = World::new();
    world.register(1, "web", "10.9.0.9:80");
    world.register(2, "api", "10.9.0.9:81");
    world.command(Command::Cancel(Ticket(2)));
    world.run(SEC);
    assert_eq!(world.done.keys().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(world.peers[&world.link()].published.len(), 2);
}

#[test]
fn a_refused_registration_is_reported_and_forgotten_unless_it_was_confirmed_before() {
    let mut world = World::connected();
    world.script.refuse.insert("InstanceRequest", (400, 1));
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    assert!(matches!(&world.done[&1].1, Err(OperationError::Refused(e)) if e.code == 400));
    world.register(2, "web", "10.9.0.9:80"); // not "already registered"
    world.run(SEC);
    assert_eq!(world.done[&2].1, Ok(Outcome::Done));
    world.script.refuse.insert("InstanceRequest", (403, 1));
    world.end_stream("OK");
    world.run(20 * SEC);
    let denied =
        |(_, output): &_| matches!(output, Output::Failed { error, .. } if error.is_denied());
    assert!(world.notes.iter().any(denied));
    assert_eq!(world.peers[&world.link()].published["web"], "10.9.0.9:80");
}

#[test]
fn registering_and_deregistering_in_one_breath_leaves_nothing() {
    for gap in [0, 1, 3] {
        let mut world = World::connected();
        world.script.latency = 2 * MS;
        world.register(1, "web", "10.9.0.9:80");
        world.run(gap * MS);
        world.deregister(2, "web");
        world.run(SEC);
        assert_eq!(world.done[&2].1, Ok(Outcome::Done));
        assert!(world.done.contains_key(&1));
        let last = world.sent_of("InstanceRequest").last().unwrap().at;
        assert_eq!(world.done[&2].0, last + 2 * MS, "before the answer");
        assert!(world.peers[&world.link()].published.is_empty(), "gap {gap}");
    }
}

#[test]
fn who_registers_again_what_stands_after_a_refusal_hears_of_it() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    let heavier = Instance::parse("10.9.0.9:80").unwrap().with_weight(2.0);
    world.script.mute.insert("InstanceRequest");
    world.command(Command::Register {
        ticket: Ticket(2),
        key: key("web"),
        instance: Box::new(heavier),
    });
    world.run(SEC);
    world.script.mute.clear();
    world.script.refuse.insert("InstanceRequest", (400, 1));
    world.run_until("refused", |world| world.done.contains_key(&2));
    assert!(world.done[&2].1.is_err());
    world.register(3, "web", "10.9.0.9:80"); // before the server confirmed that it stands again
    world.run(10 * SEC);
    assert_eq!(world.done[&3].1, Ok(Outcome::Done));
}
