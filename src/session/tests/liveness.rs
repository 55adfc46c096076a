use super::world::{MS, SEC, World, key};
use crate::session::{CallFailure, Command, Ticket};

#[test]
fn a_quiet_connection_is_checked_every_5_s_and_never_silent_for_20_s() {
    let mut world = World::connected();
    world.run(600 * SEC);
    assert_eq!(world.dials.len(), 1);
    let sent: Vec<_> = world.sent.iter().map(|sent| sent.at).collect();
    for pair in sent.windows(2) {
        assert!(
            pair[1] - pair[0] <= 5 * SEC + 10 * MS,
            "silent for {:?}",
            pair[1] - pair[0]
        );
    }
    let checks = world.sent_of("HealthCheckRequest").len();
    assert!((115..=125).contains(&checks), "{checks}");
}

#[test]
fn pushes_alone_do_not_pass_for_answers() {
    let mut world = World::connected();
    world.subscribe("orders");
    world.run(SEC);
    let checks = world.sent_of("HealthCheckRequest").len();
    for _ in 0..100 {
        world.push("orders", &["10.9.0.1:80"]); // received, and acknowledged
        world.run(200 * MS);
    }
    let checks = world.sent_of("HealthCheckRequest").len() - checks;
    assert!((3..=5).contains(&checks), "{checks}");
}

#[test]
fn r1_a_silent_server_is_given_up_after_three_unanswered_tries() {
    let mut world = World::connected();
    world.run(SEC);
    let quiet = world.sent.last().unwrap().at;
    world
        .script
        .mute
        .extend(["HealthCheckRequest", "ServerCheckRequest"]);
    world.run(20 * SEC);
    let lost = world.hangups[0].0;
    assert!(lost - quiet <= 5 * SEC + 3 * 3 * SEC + 10 * MS, "{lost:?}");
    assert!(lost - quiet >= 9 * SEC);
    let text = format!("{:?}", world.states);
    assert!(text.contains("Silent { tries: 3 }"), "{text}");
    world.script.mute.clear();
    world.run(5 * SEC);
    assert!(world.is_connected());
}

#[test]
fn a_unary_timeout_is_a_failed_try_but_many_at_once_are_one() {
    let mut world = World::connected();
    world.script.mute.extend(["SubscribeServiceRequest"]);
    for i in 0..50 {
        world.subscribe(&format!("s{i}"));
    }
    let sent = world.at();
    world.run(30 * SEC); // health checks are answered: the connection lives
    assert!(world.hangups.is_empty(), "{:?}", world.states);
    world.script.mute.insert("HealthCheckRequest");
    world.run(30 * SEC);
    assert!(!world.hangups.is_empty());
    assert!(sent < world.hangups[0].0);
}

#[test]
fn a_call_that_times_out_on_a_dead_connection_leads_to_its_end_in_9_s() {
    let mut world = World::connected();
    let kinds = ["SubscribeServiceRequest", "HealthCheckRequest"];
    world.script.mute.extend(kinds);
    let at = world.at();
    world.subscribe("orders");
    world.run(10 * SEC);
    assert_eq!(world.hangups[0].0 - at, 9 * SEC);
}

#[test]
fn an_answer_begins_the_count_of_tries_anew() {
    let mut world = World::connected();
    for _ in 0..10 {
        world.script.mute.insert("HealthCheckRequest");
        world.run(5 * SEC); // one or two tries fail
        world.script.mute.clear();
        world.run(10 * SEC);
    }
    assert!(world.hangups.is_empty(), "{:?}", world.states);
}

#[test]
fn refusals_are_answers_and_keep_the_connection() {
    let mut world = World::connected();
    world
        .script
        .refuse
        .insert("HealthCheckRequest", (500, 1_000));
    world.run(60 * SEC);
    assert!(world.hangups.is_empty());
}

#[test]
fn a_status_in_place_of_an_answer_is_one_unless_it_says_unavailable() {
    for (code, lost) in [(8, false), (14, true)] {
        let mut world = World::connected();
        world
            .script
            .mute
            .extend(["HealthCheckRequest", "ServiceQueryRequest"]);
        for i in 0..4 {
            world.command(Command::Query {
                ticket: Ticket(i),
                key: key("orders"),
            });
            let failure = CallFailure::Status {
                code,
                message: "as scripted".to_owned(),
            };
            world.fail_calls_under_way(&failure);
            world.run(10 * MS);
        }
        assert_eq!(!world.hangups.is_empty(), lost, "status {code}");
    }
}

#[test]
fn a_late_answer_of_a_call_that_timed_out_is_ignored() {
    let mut world = World::connected();
    world.script.latency = 4 * SEC;
    world.subscribe("orders");
    world.run(3_500 * MS);
    assert!(world.listed.is_empty());
    world.script.latency = MS;
    world.run(3 * SEC);
    assert_eq!(world.listed.len(), 1, "{:?}", world.listed);
}

/// A machine that slept for a day, and one whose clock runs ahead in the midst of a call.
#[test]
fn a_clock_that_jumps_is_no_reason_to_give_a_connection_up() {
    let mut world = World::connected();
    world.subscribe("orders");
    world.register(1, "web", "10.9.0.9:80");
    world.run(5 * SEC);
    for under_way in [false, true] {
        if under_way {
            world.script.latency = 2 * MS;
            world.command(Command::Query {
                ticket: Ticket(2),
                key: key("orders"),
            });
        }
        let sent = world.sent.len();
        world.now += 24 * 3_600 * SEC;
        world.run(20 * SEC);
        assert!(world.is_connected(), "{:?}", world.states);
        assert_eq!(world.dials.len(), 1);
        let caught_up = world.sent.len() - sent;
        assert!(caught_up < 20, "{caught_up} messages at once");
        assert_eq!(world.peers[&world.link()].published["web"], "10.9.0.9:80");
    }
    assert!(world.done[&2].1.is_ok(), "{:?}", world.done[&2]);
}
