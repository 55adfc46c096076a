//! Batches on servers that put one in the place of the one before, and on those that add it up.

use super::world::{SEC, World, config, key};
use crate::{
    model::Instance,
    session::{Command, OperationError, Outcome, Ticket},
};

/// A server that does not negotiate, which may be of either kind.
fn world(adds_up: bool) -> World {
    let mut world = World::new();
    world.script.negotiates = false;
    world.script.adds_up = adds_up;
    world.run(SEC);
    world
}

impl World {
    fn register_ports(&mut self, ticket: u64, ports: &[u16]) {
        let at = |port: &u16| Instance::parse(&format!("10.0.0.1:{port}")).unwrap();
        self.command(Command::RegisterBatch {
            ticket: Ticket(ticket),
            key: key("web"),
            instances: ports.iter().map(at).collect(),
        });
    }

    /// What the server lists.
    fn ports(&self) -> Vec<u16> {
        let batches = &self.peers[&self.link()].batches;
        let listed = batches.get("web").into_iter().flatten();
        listed
            .map(|address| address.rsplit_once(':').unwrap().1.parse().unwrap())
            .collect()
    }

    fn take_backs(&self) -> usize {
        let batches = self.sent_of("BatchInstanceRequest").into_iter();
        batches
            .filter(|sent| sent.json["type"] == "deregisterInstance")
            .count()
    }
}

#[test]
fn what_a_batch_had_is_taken_back() {
    for adds_up in [true, false] {
        let mut world = world(adds_up);
        let steps: [&[u16]; 5] = [&[1, 2, 3], &[2, 4], &[4], &[5, 6, 7], &[6]];
        for (ticket, ports) in (1..).zip(steps) {
            world.register_ports(ticket, ports);
            world.run(SEC);
            assert_eq!(world.done[&ticket].1, Ok(Outcome::Done));
            assert_eq!(world.ports(), ports, "{adds_up}");
        }
        assert_eq!(world.take_backs(), 4);
        world.run(60 * SEC);
        assert_eq!(world.take_backs(), 4, "once each, whatever was said to it");
        world.register_ports(9, &[1, 2, 3]);
        world.run(SEC);
        world.deregister(10, "web");
        world.run(SEC);
        assert_eq!(world.done[&10].1, Ok(Outcome::Done));
        assert!(world.ports().is_empty());
    }
}

#[test]
fn a_server_that_negotiates_is_not_asked() {
    let mut world = World::connected();
    world.register_ports(1, &[1, 2, 3]);
    world.run(SEC);
    world.register_ports(2, &[3]);
    world.run(SEC);
    world.deregister(3, "web");
    world.run(SEC);
    assert!(world.ports().is_empty());
    assert_eq!(world.take_backs(), 0);
}

#[test]
fn what_was_sent_before_the_answer_to_the_one_before_is_taken_back_as_well() {
    let mut world = world(true);
    world.register_ports(1, &[1, 2]);
    world.register_ports(2, &[2, 3]);
    world.register_ports(3, &[3, 4]);
    world.run(SEC);
    assert_eq!(world.ports(), [3, 4]);
    for ticket in 1..4 {
        assert_eq!(world.done[&ticket].1, Ok(Outcome::Done));
    }
    // Wanted again before it was taken back.
    world.register_ports(4, &[4]);
    world.register_ports(5, &[3, 4]);
    world.run(SEC);
    assert_eq!(world.ports(), [3, 4]);
    // And nothing at all before that.
    world.register_ports(6, &[5, 6]);
    world.deregister(7, "web");
    world.run(SEC);
    assert!(world.ports().is_empty());
}

#[test]
fn a_refused_batch_takes_nothing_back() {
    let mut world = world(true);
    world.register_ports(1, &[1, 2]);
    world.run(SEC);
    world.script.refuse.insert("BatchInstanceRequest", (400, 1));
    world.register_ports(2, &[2, 3]);
    world.run(SEC);
    let refused = world.done[&2].1.clone().unwrap_err();
    assert!(matches!(refused, OperationError::Refused(_)), "{refused}");
    assert_eq!(world.ports(), [1, 2]);
}

#[test]
fn what_cannot_be_taken_back_now_is_later() {
    let mut world = world(true);
    world.register_ports(1, &[1, 2]);
    world.run(SEC);
    world.register_ports(2, &[2]); // one is an ordinary registration
    world.script.refuse.insert("BatchInstanceRequest", (500, 2));
    world.run(10 * SEC);
    assert_eq!(world.take_backs(), 3, "two in vain");
    assert_eq!(world.ports(), [2]);
}

/// A token may have run out just then.
#[test]
fn a_denial_that_a_login_answers_leaves_nothing_behind() {
    for (ports, left) in [(&[2_u16][..], &[2_u16][..]), (&[], &[])] {
        let mut config = config(1);
        config.credentials = true;
        let mut world = World::with(config, 1);
        world.script.negotiates = false;
        world.script.adds_up = true;
        world.run(SEC);
        world.register_ports(1, &[1, 2, 3]);
        world.run(SEC);
        world.script.refuse.insert("BatchInstanceRequest", (403, 1));
        if ports.is_empty() {
            world.deregister(2, "web");
        } else {
            world.register_ports(2, ports); // one is an ordinary registration
        }
        world.run(SEC);
        let headers = [("accessToken".to_owned(), "new".to_owned())];
        world.session.handle_headers(headers.into(), world.now);
        world.run(10 * SEC);
        assert_eq!(world.done[&2].1, Ok(Outcome::Done));
        assert_eq!(world.ports(), left);
    }
}

#[test]
fn another_connection_has_nothing_to_take_back() {
    let mut world = world(true);
    world.register_ports(1, &[1, 2]);
    world.run(SEC);
    world.end_stream("OK");
    world.register_ports(2, &[3]);
    world.run(5 * SEC);
    assert_eq!(world.ports(), [3]);
    assert_eq!(world.take_backs(), 0);
}
