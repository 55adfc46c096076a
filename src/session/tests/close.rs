use super::world::{MS, SEC, World, key};
use crate::session::{Command, DialError, Operation, OperationError, SessionState, Ticket};

fn settled() -> World {
    let mut world = World::connected();
    world.subscribe("orders");
    world.subscribe("users");
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    world
}

fn is_closed(world: &World) -> bool {
    world.states.last().unwrap().1 == SessionState::Closed
}

#[test]
fn closing_deregisters_and_unsubscribes_everything_then_hangs_up() {
    let mut world = settled();
    let (link, sent) = (world.link(), world.sent.len());
    world.command(Command::Close);
    assert!(!is_closed(&world));
    world.run(10 * MS);
    assert!(is_closed(&world));
    let said: Vec<_> = world.sent[sent..].iter().map(|sent| &*sent.kind).collect();
    let unsubscribe = "SubscribeServiceRequest";
    assert_eq!(said, ["InstanceRequest", unsubscribe, unsubscribe]);
    assert_eq!(world.hangups, [(world.at() - 9 * MS, link)]);
    assert!(world.session.unfinished().is_empty());
    assert_eq!(world.session.poll_timeout(), None);
}

#[test]
fn closing_says_what_it_could_not_do_and_is_bounded() {
    let mut world = settled();
    world.script.refuse.insert("InstanceRequest", (500, 1));
    world.command(Command::Close);
    world.run(SEC);
    assert!(is_closed(&world));
    assert_eq!(
        world.session.unfinished(),
        [(Operation::Deregister, key("web"))]
    );

    let mut world = settled();
    world
        .script
        .mute
        .extend(["InstanceRequest", "SubscribeServiceRequest"]);
    world.command(Command::Close);
    assert_eq!(
        world.session.unfinished().len(),
        3,
        "at the driver's deadline"
    );
    world.run(10 * SEC);
    assert!(is_closed(&world));
    assert_eq!(world.session.unfinished().len(), 3);
}

#[test]
fn closing_without_a_connection_is_immediate_and_stops_every_attempt() {
    let mut world = World::new();
    world
        .script
        .dials
        .insert(super::world::address(1), DialError::Refused);
    world.subscribe("orders");
    world.command(Command::Query {
        ticket: Ticket(5),
        key: key("orders"),
    });
    world.run(SEC);
    world.command(Command::Close);
    assert!(is_closed(&world));
    assert_eq!(world.done[&5].1, Err(OperationError::Closed));
    let dials = world.dials.len();
    world.run(60 * SEC);
    assert_eq!(world.dials.len(), dials);
}

#[test]
fn a_connection_that_ends_while_closing_ends_the_close() {
    let mut world = settled();
    world.script.mute.insert("SubscribeServiceRequest");
    world.command(Command::Close);
    world.run(10 * MS);
    world.end_stream("OK");
    assert!(is_closed(&world));
    world.run(60 * SEC);
    assert_eq!(world.dials.len(), 1);
}

#[test]
fn after_the_close_every_ticket_is_answered_and_nothing_is_sent() {
    let mut world = settled();
    world.command(Command::Close);
    world.run(SEC);
    let sent = world.sent.len();
    world.register(7, "web", "10.9.0.9:80");
    world.deregister(8, "web");
    world.subscribe("orders");
    world.command(Command::Close);
    assert_eq!(world.done[&7].1, Err(OperationError::Closed));
    assert_eq!(world.done[&8].1, Err(OperationError::Closed));
    world.run(60 * SEC);
    assert_eq!(world.sent.len(), sent);
}

#[test]
fn a_registration_that_goes_unanswered_into_the_close_may_be_listed() {
    let mut world = World::connected();
    world.script.mute.insert("InstanceRequest");
    world.register(1, "web", "10.9.0.9:80");
    world.run(10 * MS);
    world.command(Command::Close);
    world.run(5 * SEC);
    assert!(is_closed(&world));
    let unfinished = world.session.unfinished();
    assert_eq!(unfinished, [(Operation::Deregister, key("web"))]);
}

#[test]
fn a_close_whose_connection_is_lost_names_what_may_still_be_listed() {
    let mut world = settled();
    world
        .script
        .mute
        .extend(["InstanceRequest", "HealthCheckRequest"]);
    world.command(Command::Close);
    world.run(10 * MS);
    world.end_stream("UNAVAILABLE");
    assert!(is_closed(&world));
    let left = [(Operation::Deregister, key("web"))];
    assert_eq!(world.session.unfinished(), left);
    // Or was lost before.
    let mut world = settled();
    let refused = DialError::Refused;
    world.script.dials.insert(super::world::address(1), refused);
    world.end_stream("UNAVAILABLE");
    world.run(5 * SEC);
    world.command(Command::Close);
    assert!(is_closed(&world));
    assert_eq!(world.session.unfinished(), left);
}

#[test]
fn a_close_deregisters_what_is_held_though_the_update_under_way_is_refused() {
    let mut world = settled();
    world.script.refuse.insert("InstanceRequest", (400, 1));
    world.register_weighing(2, "web", "10.9.0.9:80", 5.0);
    world.command(Command::Close);
    let link = world.link();
    world.run(10 * MS);
    assert!(is_closed(&world));
    assert!(world.session.unfinished().is_empty());
    let last = world.sent_of("InstanceRequest").pop().unwrap().clone();
    assert_eq!(last.json["type"], "deregisterInstance");
    assert_eq!(last.link, link);
}
