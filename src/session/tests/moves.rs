//! Servers that come and go while the session lives.

use super::world::{MS, SEC, World, address, config};
use crate::{
    model::Host,
    session::{Config, DialError, Server},
};

fn servers(numbers: impl IntoIterator<Item = u8>) -> Vec<Server> {
    let server = |last| Server {
        host: Host::Ip(address(last).ip()),
        port: 9848,
    };
    numbers.into_iter().map(server).collect()
}

fn told(world: &mut World, servers: Vec<Server>) {
    let now = world.now;
    world.session.handle_servers(servers, now);
    world.drain();
}

#[test]
fn a_connection_whose_server_is_still_listed_stays() {
    let mut world = World::connected();
    let (link, dials) = (world.link(), world.dials.len());
    for list in [vec![1], vec![3, 2, 1], vec![1, 9], vec![]] {
        told(&mut world, servers(list));
        world.run(10 * SEC);
        assert_eq!((world.link(), world.dials.len()), (link, dials));
    }
    // The next one goes to where servers are now.
    told(&mut world, servers([1, 9]));
    world.end_stream("UNAVAILABLE");
    world.run(SEC);
    assert_eq!(world.dials.last().unwrap().1, address(9));
}

/// Make before break: the old one hangs up when the new one has everything.
#[test]
fn a_connection_whose_server_is_no_longer_listed_is_left_without_a_gap() {
    let mut world = World::connected();
    world.subscribe("orders");
    world.run(SEC);
    let old = world.link();
    world.script.dials.insert(address(2), DialError::Refused);
    told(&mut world, servers([2]));
    world.run(10 * SEC);
    assert!(world.is_connected(), "it stays while there is no other");
    assert_eq!(world.link(), old);
    world.script.dials.clear();
    world.run_until("another", |world| world.link() != old);
    assert_eq!(world.dials.last().unwrap().1, address(2));
    assert!(!world.peers[&old].hung_up);
    world.run(2 * SEC);
    assert!(world.peers[&old].hung_up);
    assert!(world.peers[&world.link()].subscribed.len() == 1);
    assert_eq!(world.open_links(), 1);
}

/// An address server that leaves a server out once costs nobody a connection, however far the move got.
#[test]
fn a_server_that_is_listed_again_before_the_move_is_over_is_not_left() {
    for wait in [0, 1, 40, 400] {
        let mut world = World::connected();
        world.subscribe("orders");
        world.run(SEC);
        let link = world.link();
        world.script.black_holes.insert(address(2)); // the attempt takes a while
        told(&mut world, servers([2]));
        world.run(wait * MS);
        told(&mut world, servers([2, 1]));
        world.script.black_holes.clear();
        world.run(10 * SEC);
        assert_eq!(world.link(), link, "after {wait} ms");
        assert_eq!((world.open_links(), world.is_connected()), (1, true));
        // Whoever is left out for good is left.
        told(&mut world, servers([2]));
        told(&mut world, servers([2, 3]));
        world.run(SEC);
        assert_ne!(world.link(), link);
    }
}

/// Who was asked to move moves, whatever is listed meanwhile.
#[test]
fn a_server_that_asked_us_to_move_is_left_though_it_is_listed_again() {
    for first in [true, false] {
        let mut world = World::connected();
        let link = world.link();
        let reset = |world: &mut World| world.stream(link, "ConnectResetRequest", "{}");
        if first {
            reset(&mut world);
        }
        told(&mut world, servers([2]));
        if !first {
            reset(&mut world);
        }
        told(&mut world, servers([2, 1]));
        world.run(SEC);
        assert_ne!(world.link(), link, "asked first: {first}");
    }
}

#[test]
fn an_attempt_goes_on_with_the_servers_that_there_are() {
    let mut world = World::with(config(1), 1);
    world.script.black_holes.insert(address(1));
    world.run(100 * MS);
    told(&mut world, servers([2, 3]));
    world.run(SEC);
    assert!(world.is_connected());
    assert_ne!(world.dials.last().unwrap().1, address(1));
    assert_eq!(world.hangups.len(), 1, "the former one is given up");
    assert_eq!(world.open_links(), 1);
}

/// A name's answer that comes after the list changed is of the attempt before.
#[test]
fn a_late_answer_of_a_name_counts_for_nothing() {
    let named = |name: &str| Server {
        host: Host::Name(name.into()),
        port: 9848,
    };
    let config = Config::new(vec![named("a"), named("b"), named("c")], "public".into());
    let mut world = World::with(config, 1); // none resolves
    world.run(100 * MS);
    world.script.names.insert("d", Ok(vec![address(4).ip()]));
    told(&mut world, vec![named("d")]);
    world.run(SEC);
    assert!(world.is_connected());
    // By name it is still the same server.
    let link = world.link();
    told(&mut world, vec![named("d"), named("e")]);
    world.run(10 * SEC);
    assert_eq!(world.link(), link);
}

#[test]
fn who_is_offline_connects_once_there_are_servers() {
    let mut config = config(0);
    config.offline = true;
    let mut world = World::with(config, 1);
    world.subscribe("orders");
    world.run(100 * SEC);
    assert!(world.dials.is_empty() && world.listed.is_empty());
    told(&mut world, servers([1]));
    world.run(SEC);
    assert!(world.is_connected());
    assert_eq!(world.listed.len(), 1);
}
