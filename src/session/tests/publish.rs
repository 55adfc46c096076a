use super::world::{MS, SEC, World};
use crate::session::{Command, OperationError, Outcome, Output, Ticket};

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
    world.register(2, "web", "10.9.0.8:80");
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
fn a_deregistration_whose_connection_ended_is_done_with_it() {
    let mut world = World::connected();
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    world.script.mute.insert("InstanceRequest");
    world.deregister(2, "web");
    world.run(100 * MS);
    world.end_stream("UNAVAILABLE");
    assert_eq!(world.done[&2].1, Ok(Outcome::Done));
    world.script.mute.clear();
    world.run(5 * SEC);
    assert!(world.peers[&world.link()].published.is_empty());
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
