use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::world::{MS, SEC, World, address, config};
use crate::session::{CallFailure, Command, DialError, SessionState, Ticket};

const SERVICES: [&str; 5] = ["a", "b", "c", "d", "e"];
const KINDS: [&str; 5] = [
    "ServerCheckRequest",
    "HealthCheckRequest",
    "SubscribeServiceRequest",
    "InstanceRequest",
    "ServiceQueryRequest",
];

/// Whatever went wrong, once nothing goes wrong any more the server holds exactly what is wanted,
/// on one connection, and every caller has an answer.
#[test]
fn after_any_faults_the_server_holds_what_is_wanted() {
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::with(config(3), seed);
        let mut subscribed = BTreeSet::new();
        let mut published = BTreeMap::new();
        let mut tickets = Vec::new();
        for step in 0..rng.random_range(5..60) {
            let service = SERVICES[rng.random_range(0..SERVICES.len())];
            let kind = KINDS[rng.random_range(0..KINDS.len())];
            match rng.random_range(0..20) {
                0..=2 => {
                    world.subscribe(service);
                    subscribed.insert(service.to_owned());
                }
                3..=4 => {
                    world.unsubscribe(service);
                    subscribed.remove(service);
                }
                5 | 6 => {
                    let address = format!("10.9.0.9:{}", 1_000 + step);
                    world.register(step, service, &address);
                    tickets.push(step);
                    published.entry(service.to_owned()).or_insert(address);
                }
                7 => {
                    world.deregister(step, service);
                    tickets.push(step);
                    published.remove(service);
                }
                8 => {
                    world.command(Command::Query {
                        ticket: Ticket(step),
                        key: super::world::key(service),
                    });
                    tickets.push(step);
                }
                9 => {
                    world.script.mute.insert(kind);
                }
                10 => {
                    let code = [300, 301, 500, 503, -401][rng.random_range(0..5)];
                    world
                        .script
                        .refuse
                        .insert(kind, (code, rng.random_range(1..4)));
                }
                11 => {
                    let dead = address(rng.random_range(1..=3));
                    world.script.dials.insert(dead, DialError::Refused);
                }
                12 => world.fail_calls_under_way(&CallFailure::Lost("as scripted".to_owned())),
                13 => world.fail_calls_under_way(&CallFailure::Timeout),
                14 => {
                    let open = world
                        .peers
                        .iter()
                        .filter(|(_, p)| p.streaming && !p.hung_up);
                    let open: Vec<_> = open.map(|(link, _)| *link).collect();
                    if let Some(link) = open.first() {
                        world.stream(*link, "ConnectResetRequest", "{}");
                    }
                }
                15 => {
                    let open = world
                        .peers
                        .iter()
                        .filter(|(_, p)| p.streaming && !p.hung_up);
                    let open: Vec<_> = open.map(|(link, _)| *link).collect();
                    if let Some(link) = open.last() {
                        world
                            .session
                            .handle_stream_ended(*link, "OK".to_owned(), world.now);
                    }
                }
                16 => world.script.splits = rng.random(),
                17 => {
                    world.script.mute.clear();
                    world.script.dials.clear();
                }
                _ => world.script.latency = rng.random_range(0..200) * MS,
            }
            world.run(rng.random_range(0..3_000) * MS);
        }
        if seed % 4 == 0 {
            world.command(Command::Close); // amid the faults
            world.run(20 * SEC);
            let last = &world.states.last().unwrap().1;
            assert_eq!(*last, SessionState::Closed, "seed {seed}");
            assert_eq!(world.session.poll_timeout(), None, "seed {seed}");
            assert_eq!(world.open_links(), 0, "seed {seed}");
            let answered = |ticket| world.done.contains_key(ticket);
            assert!(tickets.iter().all(answered), "seed {seed}");
            continue;
        }
        world.script.mute.clear();
        world.script.refuse.clear();
        world.script.dials.clear();
        world.script.splits = false;
        world.script.latency = MS;
        world.run(60 * SEC);
        assert!(
            world.is_connected(),
            "seed {seed}: {:?}",
            world.states.last()
        );
        assert_eq!(world.open_links(), 1, "seed {seed}");
        let peer = &world.peers[&world.link()];
        assert_eq!(peer.subscribed, subscribed, "seed {seed}");
        assert_eq!(peer.published, published, "seed {seed}");
        for ticket in tickets {
            assert!(
                world.done.contains_key(&ticket),
                "seed {seed}: {ticket} has no answer"
            );
        }
        let states = world.states.len();
        world.run(300 * SEC);
        assert_eq!(world.states.len(), states, "seed {seed}: it does not rest");
    }
}

#[test]
fn the_same_seed_and_the_same_history_give_the_same_behaviour() {
    let run = || {
        let mut world = World::with(config(3), 11);
        for service in SERVICES {
            world.subscribe(service);
        }
        world.register(1, "web", "10.9.0.9:80");
        for _ in 0..10 {
            world.run(7 * SEC);
            world.end_stream("OK");
            world.run(SEC);
        }
        (format!("{:?}", world.sent), world.dials)
    };
    assert_eq!(run(), run());
}
