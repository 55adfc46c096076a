use std::{net::IpAddr, time::Duration};

use super::world::{MS, SEC, World, address, config};
use crate::{
    model::Host,
    session::{Config, DialError, Output, Server, SessionState},
};

fn named(names: &[&str]) -> Config {
    let server = |name: &&str| Server {
        host: Host::Name((*name).into()),
        port: 9848,
    };
    Config::new(names.iter().map(server).collect(), "public".into())
}

fn ip(last: u8) -> IpAddr {
    address(last).ip()
}

#[test]
fn r5_names_are_resolved_again_at_each_attempt() {
    let mut world = World::with(named(&["nacos"]), 1);
    world.script.names.insert("nacos", Ok(vec![ip(1)]));
    world.run(SEC);
    assert!(world.is_connected());
    world.script.names.insert("nacos", Ok(vec![ip(2)]));
    world.end_stream("UNAVAILABLE");
    world.run(SEC);
    assert_eq!(world.dials.last().unwrap().1, address(2));
    assert!(world.is_connected());
}

#[test]
fn r5_a_name_without_an_answer_does_not_hold_up_the_others() {
    let mut world = World::with(named(&["nacos-0", "nacos-1"]), 1);
    world.script.names.insert("nacos-0", Ok(vec![ip(1)])); // nacos-1 never answers
    world.run(SEC);
    assert!(world.is_connected());
    assert!(world.dials[0].0 < 250 * MS, "{:?}", world.dials);
}

#[test]
fn a_name_that_does_not_resolve_is_named_in_the_error_and_tried_for_ever() {
    let mut world = World::with(named(&["nacos"]), 1);
    world.script.names.insert("nacos", Err("NXDOMAIN"));
    world.run(60 * SEC);
    let error = world.session.connect_error();
    assert!(error.attempts > 60, "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("nacos:9848: its name cannot be resolved: NXDOMAIN"),
        "{text}"
    );
    let mut silent = World::with(named(&["nacos"]), 1);
    silent.run(4 * SEC);
    assert!(silent.last_error().contains("no answer within 3s"));
    silent.script.names.insert("nacos", Ok(vec![ip(1)]));
    silent.run(10 * SEC);
    assert!(silent.is_connected());
}

#[test]
fn r5_all_servers_down_for_an_hour_and_up_again_is_found_within_two_seconds() {
    let mut world = World::with(config(3), 5);
    world.run(SEC);
    world.subscribe("orders");
    world.run(SEC);
    for last in 1..=3 {
        world.script.dials.insert(address(last), DialError::Refused);
    }
    let end = world.at();
    world.end_stream("UNAVAILABLE");
    world.run(Duration::from_secs(3_600));
    let tries = world.dials.iter().filter(|(at, _)| *at > end).count();
    assert!((4_000..7_000).contains(&tries), "{tries} tries in an hour");
    world.script.dials.clear();
    let listed = world.listed.len();
    world.run(2 * SEC);
    assert!(world.is_connected());
    assert_eq!(world.listed.len(), listed + 1);
}

#[test]
fn r6_the_lost_server_is_not_the_next_if_there_is_another() {
    for seed in 0..20 {
        let mut world = World::with(config(3), seed);
        world.run(SEC);
        world.end_stream("CANCELLED");
        world.run(2 * SEC);
        assert!(world.is_connected());
        assert_ne!(world.dials[0].1, world.dials[1].1);
    }
}

#[test]
fn r6_a_lost_connection_is_followed_within_1200_ms_and_clients_do_not_come_together() {
    let mut waits = Vec::new();
    for seed in 0..40 {
        let mut world = World::with(config(1), seed);
        world.run(5 * SEC);
        let end = world.at();
        world.end_stream("UNAVAILABLE");
        world.run(2 * SEC);
        waits.push(world.dials[1].0 - end);
    }
    assert!(waits.iter().all(|wait| *wait <= 1_200 * MS), "{waits:?}");
    assert!(
        waits
            .iter()
            .max()
            .unwrap()
            .saturating_sub(*waits.iter().min().unwrap())
            > SEC
    );
}

#[test]
fn states_count_the_attempts_since_the_last_connection() {
    let mut world = World::new();
    world.script.dials.insert(address(1), DialError::Refused);
    world.run(5 * SEC);
    world.script.dials.clear();
    world.run(2 * SEC);
    let attempts: Vec<u32> = world
        .states
        .iter()
        .filter_map(|(_, state)| match state {
            SessionState::Connecting { attempt, .. } => Some(*attempt),
            _ => None,
        })
        .collect();
    let counted: Vec<u32> = (1..=attempts.len() as u32).collect();
    assert_eq!(attempts, counted);
    world.end_stream("UNAVAILABLE");
    let Some((
        _,
        SessionState::Connecting {
            attempt,
            last_error,
        },
    )) = world.states.last()
    else {
        panic!("{:?}", world.states);
    };
    assert_eq!(*attempt, 1);
    let error = last_error.as_ref().unwrap().to_string();
    assert_eq!(
        error,
        "Nacos server 10.0.0.1:9848: the stream ended: UNAVAILABLE"
    );
}

#[test]
fn a_session_without_servers_says_so_and_does_not_spin() {
    let mut world = World::with(config(0), 1);
    world.run(60 * SEC);
    assert!(world.last_error().contains("no server is configured"));
}

fn refusals(world: &World) -> Vec<String> {
    let refused = world.notes.iter().filter_map(|(_, output)| match output {
        Output::LoginRefused(failure) => Some(failure.to_string()),
        _ => None,
    });
    refused.collect()
}

#[test]
fn a_refused_login_is_told_when_no_server_is_left_to_be_tried() {
    let refused = || DialError::LoginRefused("unknown user!".to_owned());
    let mut world = World::with(config(3), 1);
    world.script.dials.insert(address(1), refused());
    world.script.dials.insert(address(2), DialError::Refused);
    world.script.black_holes.insert(address(3));
    world.run_until("all were tried", |world| {
        (1..=3).all(|n| world.dials.iter().any(|(_, addr)| *addr == address(n)))
    });
    assert!(refusals(&world).is_empty(), "one may still answer");
    world.run(10 * SEC);
    let said = refusals(&world);
    assert!(said[0].starts_with("Nacos server 10.0.0.1:9848: unknown user!; "));
    for other in [
        "10.0.0.2:9848: connection refused",
        "10.0.0.3:9848: no answer",
    ] {
        assert!(said[0].contains(other), "what each said: {}", said[0]);
    }
    world.script.dials.clear();
    world.run(10 * SEC);
    assert!(world.is_connected(), "it goes on trying");
}

#[test]
fn a_refusal_that_a_starting_server_gives_too_is_no_verdict() {
    let mut world = World::with(config(2), 1);
    let certain = DialError::LoginRefused("wrong".to_owned());
    let doubted = DialError::LoginDoubted("unknown user!".to_owned());
    world.script.dials.insert(address(1), certain);
    world.script.dials.insert(address(2), doubted);
    world.run(60 * SEC);
    assert!(refusals(&world).is_empty(), "the other may know the user");
    let said = world.session.login_refusal().unwrap().to_string();
    assert_eq!(
        said,
        "Nacos server 10.0.0.1:9848: wrong; Nacos server 10.0.0.2:9848: unknown user!"
    );
    world.script.dials.clear();
    world.run(2 * SEC);
    assert!(world.is_connected());
    assert_eq!(world.session.login_refusal(), None);
}

#[test]
fn a_refusal_that_no_starting_server_gives_is_told_at_once() {
    let mut world = World::with(config(1), 1);
    let refused = DialError::LoginRefused("wrong".to_owned());
    world.script.dials.insert(address(1), refused);
    world.run(100 * MS);
    assert_eq!(refusals(&world).len(), 1);
}

#[test]
fn a_server_that_refuses_the_login_and_wants_none_is_connected_to() {
    let mut world = World::new();
    world.script.login_fails = true;
    world.run(SEC);
    assert!(world.is_connected(), "{}", world.last_error());
    assert_eq!(world.sent_of("ServiceListRequest").len(), 1);
    world.subscribe("orders");
    world.run(SEC);
    assert_eq!(world.listed.len(), 1);
}

#[test]
fn a_server_that_refuses_the_login_and_all_without_is_not() {
    let mut world = World::new();
    world.script.login_fails = true;
    for denial in [403, -403] {
        let refuse = ("ServiceListRequest", (denial, 1_000));
        world.script.refuse.extend([refuse]);
        world.run(10 * SEC);
        assert!(!world.is_connected());
        assert!(
            world.last_error().contains("no login"),
            "{}",
            world.last_error()
        );
    }
    assert_eq!(world.open_links(), 0, "none is left behind");
}

#[test]
fn a_login_that_fails_on_the_connection_in_use_ends_it() {
    let mut world = World::new();
    world.run(SEC);
    let (link, now) = (world.link(), world.now);
    let error = DialError::LoginDoubted("no login".to_owned());
    world.session.handle_login_failed(link, error, now);
    world.run(SEC);
    assert!(world.is_connected());
    assert_ne!(world.link(), link);
}

#[test]
fn a_server_whose_name_is_still_resolving_is_left_to_be_tried() {
    let mut config = config(1);
    config.servers.push(Server {
        host: Host::parse("slow").unwrap(),
        port: 9848,
    });
    let mut world = World::with(config, 1);
    let refused = DialError::LoginRefused("unknown user!".to_owned());
    world.script.dials.insert(address(1), refused);
    world.run(10 * SEC);
    assert!(world.dials.len() > 3);
    assert!(refusals(&world).is_empty());
}
