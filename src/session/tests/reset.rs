use super::world::{MS, SEC, World, address, config};
use crate::model::Origin;
use crate::session::{DialError, SessionState};

fn settled(servers: u8, seed: u64) -> World {
    let mut world = World::with(config(servers), seed);
    world.subscribe("orders");
    world.register(1, "web", "10.9.0.9:80");
    world.run(10 * SEC);
    assert!(world.is_connected());
    world
}

fn reset(world: &mut World, body: &str) {
    let link = world.link();
    world.stream(link, "ConnectResetRequest", body);
}

#[test]
fn w8_the_new_connection_has_everything_before_the_old_one_is_closed_by_us() {
    let mut world = settled(2, 1);
    let (old, listed) = (world.link(), world.listed.len());
    reset(&mut world, r#"{"requestId":"3"}"#);
    assert_eq!(world.sent.last().unwrap().kind, "ConnectResetResponse");
    assert_eq!(world.sent.last().unwrap().json["requestId"], "3");
    world.run_until("hung up", |world| !world.hangups.is_empty());
    assert_eq!(world.hangups[0].1, old);
    let new = world.link();
    assert_ne!(new, old);
    assert_ne!(world.peers[&new].addr, world.peers[&old].addr);
    assert_eq!(world.peers[&new].published["web"], "10.9.0.9:80");
    assert!(world.peers[&new].subscribed.contains("orders"));
    assert_eq!(world.listed.len(), listed + 1);
    assert_eq!(world.listed[listed].origin, Origin::FirstAnswer);
    let connecting = |(_, state): &&_| matches!(state, SessionState::Connecting { .. });
    assert_eq!(
        world.states.iter().filter(connecting).count(),
        1,
        "never disconnected"
    );
    world.run(30 * SEC);
    assert_eq!(world.dials.len(), 2);
}

#[test]
fn w8_a_recommended_server_that_is_ours_is_taken_with_our_port() {
    for seed in 0..10 {
        let mut world = settled(4, seed);
        let current = world.dials[0].1;
        let other = (1..=4).map(address).find(|addr| *addr != current).unwrap();
        let body = format!(r#"{{"serverIp":"{}","serverPort":"8848"}}"#, other.ip());
        reset(&mut world, &body);
        world.run(2 * SEC);
        assert_eq!(world.dials[1].1, other);
        assert_eq!(world.open_links(), 1);
    }
}

#[test]
fn w8_a_recommended_server_is_tried_once() {
    let mut world = settled(2, 1);
    let current = world.dials[0].1;
    let other = (1..=2).map(address).find(|addr| *addr != current).unwrap();
    world.script.dials.insert(other, DialError::Refused);
    reset(&mut world, &format!(r#"{{"serverIp":"{}"}}"#, other.ip()));
    world.run(2 * SEC);
    assert_eq!(world.dials[1].1, other);
    assert_eq!(
        world.dials[2].1, current,
        "the failed one is excluded from the next attempt"
    );
    assert!(world.is_connected());
    assert_eq!(world.open_links(), 1);
}

#[test]
fn w8_a_recommended_server_that_is_not_ours_is_never_dialled() {
    let mut world = settled(3, 1);
    reset(
        &mut world,
        r#"{"serverIp":"10.66.0.1","serverPort":"8848"}"#,
    );
    world.run(SEC);
    assert_eq!(world.dials.len(), 2);
    let ours: Vec<_> = (1..=3).map(address).collect();
    assert!(ours.contains(&world.dials[1].1));
    assert_ne!(world.dials[0].1, world.dials[1].1);
}

#[test]
fn w8_until_the_new_one_is_ready_the_old_one_serves_then_only_the_new_streams_pushes_count() {
    let mut world = settled(2, 1);
    let old = world.link();
    world.script.registers_after = SEC;
    reset(&mut world, "{}");
    world.run(500 * MS);
    assert_eq!(world.open_links(), 2);
    world.push_on(old, "orders", &["10.9.0.1:80"]);
    assert_eq!(world.listed.last().unwrap().origin, Origin::Push);
    world.script.mute.insert("InstanceRequest"); // keeps the handover open
    world.run(2 * SEC);
    assert_eq!(world.open_links(), 2);
    let listed = world.listed.len();
    world.push_on(old, "orders", &[]);
    assert_eq!(world.listed.len(), listed);
    let acks = world.sent_of("NotifySubscriberResponse");
    assert_eq!(acks.last().unwrap().link, old, "acknowledged all the same");
    world.stream(old, "ClientDetectionRequest", r#"{"requestId":"8"}"#);
    assert_eq!(world.sent.last().unwrap().link, old);
    let new = world.link();
    let asked = world.sent_of("SubscribeServiceRequest");
    assert_eq!(asked.last().unwrap().link, new);
    world.push_on(new, "orders", &["10.9.0.2:80"]);
    assert_eq!(world.listed.last().unwrap().hosts, ["10.9.0.2:80"]);
}

#[test]
fn the_handover_is_bounded() {
    let mut world = settled(2, 1);
    world
        .script
        .refuse
        .insert("InstanceRequest", (500, u32::MAX));
    reset(&mut world, "{}");
    world.run(5 * SEC);
    assert_eq!(world.open_links(), 2);
    world.run(8 * SEC);
    assert_eq!(world.open_links(), 1);
    assert!(world.is_connected());
}

#[test]
fn a_connection_that_ends_while_we_move_is_replaced_by_the_one_in_the_making() {
    let mut world = settled(2, 1);
    world.script.registers_after = SEC;
    reset(&mut world, "{}");
    world.run(500 * MS);
    let old = *world.peers.keys().next().unwrap();
    world
        .session
        .handle_stream_ended(old, "OK".to_owned(), world.now);
    world.run(3 * SEC);
    assert!(world.is_connected());
    assert_eq!(world.dials.len(), 2);
    assert_eq!(world.open_links(), 1);
}

#[test]
fn a_new_connection_that_ends_during_the_handover_is_replaced() {
    let mut world = settled(2, 1);
    world.script.mute.insert("InstanceRequest");
    reset(&mut world, "{}");
    world.run(SEC);
    assert_eq!(world.open_links(), 2);
    world.end_stream("OK");
    world.script.mute.clear();
    world.run(5 * SEC);
    assert!(world.is_connected());
    assert_eq!(world.open_links(), 1);
    assert_eq!(world.peers[&world.link()].published.len(), 1);
}

#[test]
fn while_no_other_server_takes_us_the_old_connection_stays_in_use() {
    let mut world = settled(1, 1);
    world.script.dials.insert(address(1), DialError::Refused);
    reset(&mut world, "{}");
    world.run(60 * SEC);
    assert!(world.is_connected());
    world.push("orders", &[]);
    assert_eq!(world.listed.last().unwrap().origin, Origin::Push);
    world.script.dials.clear();
    world.run(3 * SEC);
    assert_eq!(world.open_links(), 1);
    assert_eq!(
        world.hangups.last().unwrap().1,
        *world.peers.keys().next().unwrap()
    );
}

#[test]
fn being_asked_twice_to_move_moves_once() {
    let mut world = settled(3, 1);
    let link = world.link();
    for _ in 0..3 {
        world.stream(link, "ConnectResetRequest", "{}");
    }
    world.run(10 * SEC);
    assert_eq!(world.dials.len(), 2);
    assert_eq!(world.open_links(), 1);
}

#[test]
fn being_asked_to_move_during_a_handover_ends_it_so_that_there_are_never_three_links() {
    let mut world = settled(3, 1);
    world.script.mute.insert("InstanceRequest");
    reset(&mut world, "{}");
    world.run(SEC);
    assert_eq!(world.open_links(), 2);
    reset(&mut world, "{}"); // of the new one; the harness counts links at each dial
    world.run(SEC);
    assert_eq!(world.dials.len(), 3);
    world.script.mute.clear();
    world.run(10 * SEC);
    assert_eq!(world.open_links(), 1);
    assert_eq!(world.peers[&world.link()].published.len(), 1);
}

#[test]
fn r6_servers_that_send_everybody_away_are_not_stormed() {
    let mut world = settled(2, 1);
    let end = world.at() + 60 * SEC;
    while world.at() < end {
        reset(&mut world, "{}");
        world.run(20 * MS);
    }
    let moves = world.dials.len() - 1;
    assert!(
        (40..180).contains(&moves),
        "{moves} connections in a minute"
    );
}

#[test]
fn each_connection_is_asked_with_its_own_token_and_none_before_it_is_in_use() {
    let mut world = World::with(config(2), 7);
    world.script.tokens = true;
    world.run(SEC);
    let old = world.link();
    world.script.registers_after = 2 * SEC;
    world.stream(old, "ConnectResetRequest", r#"{"requestId":"1"}"#);
    world.run_until("the new one is connected", |world| world.open_links() == 2);
    world.subscribe("orders"); // on the old one, whose server knows nothing of the new token
    world.run(5 * SEC);
    let new = world.link();
    assert_ne!(new, old);
    let asked = world.sent_of("SubscribeServiceRequest");
    assert_eq!(asked.len(), 2);
    for (sent, link) in asked.iter().zip([old, new]) {
        assert_eq!(sent.link, link);
        assert_eq!(sent.headers["accessToken"], format!("{link:?}"));
    }
}
