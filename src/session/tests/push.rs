use super::world::{MS, SEC, World, key};
use crate::model::Origin;
use crate::session::{Command, Config, Outcome, Output, Ticket};

fn subscribed() -> World {
    let mut world = World::connected();
    world.subscribe("orders");
    world.run(100 * MS);
    assert_eq!(world.listed.len(), 1);
    world.run(2 * SEC);
    world
}

fn origins(world: &World) -> Vec<(Vec<&str>, Origin)> {
    let listed = world.listed.iter();
    listed
        .map(|l| (l.hosts.iter().map(|h| &**h).collect(), l.origin))
        .collect()
}

#[test]
fn d1_the_first_list_is_the_answer_to_the_subscription() {
    let world = subscribed();
    let first = &world.listed[0];
    assert_eq!(first.origin, Origin::FirstAnswer);
    assert_eq!(first.hosts, ["10.9.0.1:80", "10.9.0.2:80"]);
    let asked = &world.sent_of("SubscribeServiceRequest")[0].json;
    assert_eq!(asked["clusters"], "");
    assert_eq!(asked["namespace"], "public");
    assert_eq!(asked["subscribe"], true);
}

#[test]
fn d2_d3_pushes_are_passed_on_in_their_order_the_empty_one_included() {
    let mut world = subscribed();
    world.push("orders", &["10.9.0.1:80"]);
    world.push("orders", &[]);
    world.push("orders", &["10.9.0.2:80"]);
    assert_eq!(
        origins(&world)[1..],
        [
            (vec!["10.9.0.1:80"], Origin::Push),
            (vec![], Origin::Push),
            (vec!["10.9.0.2:80"], Origin::Push),
        ]
    );
}

#[test]
fn w6_a_push_is_acknowledged_at_once_with_its_id_on_its_stream() {
    let mut world = subscribed();
    let (link, at) = (world.link(), world.at());
    world.push("orders", &[]);
    let acks = world.sent_of("NotifySubscriberResponse");
    assert_eq!(acks.len(), 1);
    assert_eq!((acks[0].at, acks[0].link), (at, link));
    assert_eq!(acks[0].json["requestId"], "17");
    assert_eq!(acks[0].json["resultCode"], 200);
}

#[test]
fn w7_a_detection_is_answered_at_once_at_any_time() {
    let mut world = World::new();
    world.script.registers_after = SEC;
    world.run(100 * MS);
    let link = *world.peers.keys().next().unwrap();
    world.stream(link, "ClientDetectionRequest", r#"{"requestId":"4"}"#);
    world.run(3 * SEC);
    world.stream(link, "ClientDetectionRequest", r#"{"requestId":"5"}"#);
    let answers = world.sent_of("ClientDetectionResponse");
    let ids: Vec<_> = answers
        .iter()
        .map(|sent| sent.json["requestId"].clone())
        .collect();
    assert_eq!(ids, ["4", "5"]);
    assert_eq!(answers[1].at, world.at());
}

#[test]
fn an_undecodable_push_is_acknowledged_and_costs_one_read_of_that_service() {
    let mut world = subscribed();
    world.subscribe("users");
    world.run(2 * SEC);
    let link = world.link();
    let broken =
        r#"{"requestId":"9","serviceInfo":{"name":"orders","groupName":"DEFAULT_GROUP","hosts":[{"#;
    world.stream(link, "NotifySubscriberRequest", broken);
    let ack = world.sent_of("NotifySubscriberResponse")[0];
    assert_eq!(
        (&ack.json["requestId"], &ack.json["resultCode"]),
        (&"9".into(), &200.into())
    );
    world.run(5 * SEC);
    let reads = world.sent_of("ServiceQueryRequest");
    assert_eq!(reads.len(), 1);
    assert_eq!(reads[0].json["serviceName"], "orders");
    assert_eq!(reads[0].json["healthyOnly"], false);
    assert_eq!(world.listed.last().unwrap().origin, Origin::Read);
    assert_eq!(world.session.counters().undecodable, 1);
    let noted = |(_, output): &_| matches!(output, Output::Undecodable { key: Some(k), .. } if *k == key("orders"));
    assert!(world.notes.iter().any(noted), "{:?}", world.notes);
}

#[test]
fn an_undecodable_push_of_nobody_knows_what_costs_one_read_of_each() {
    let mut world = subscribed();
    world.subscribe("users");
    world.run(2 * SEC);
    let link = world.link();
    for _ in 0..20 {
        world.stream(link, "NotifySubscriberRequest", "{");
    }
    world.run(900 * MS);
    let mut reads: Vec<_> = world
        .sent_of("ServiceQueryRequest")
        .iter()
        .map(|sent| sent.json["serviceName"].clone())
        .collect();
    reads.sort_by_key(ToString::to_string);
    assert_eq!(reads, ["orders", "users"]);
}

#[test]
fn a_read_that_is_as_broken_as_the_push_is_not_repeated() {
    let mut world = subscribed();
    world
        .script
        .garble
        .insert("ServiceQueryRequest", "{\"resultCode\":200,");
    let link = world.link();
    world.stream(link, "NotifySubscriberRequest", "{");
    world.run(20 * SEC);
    assert_eq!(world.sent_of("ServiceQueryRequest").len(), 1);
    assert_eq!(world.listed.len(), 1);
}

#[test]
fn a_push_without_hosts_says_nothing_and_is_acknowledged() {
    let mut world = subscribed();
    let link = world.link();
    let body = r#"{"requestId":"9","serviceInfo":{"name":"orders","groupName":"DEFAULT_GROUP","hosts":null}}"#;
    world.stream(link, "NotifySubscriberRequest", body);
    world.run(SEC);
    assert_eq!(world.listed.len(), 1);
    assert_eq!(world.sent_of("NotifySubscriberResponse").len(), 1);
    assert!(world.sent_of("ServiceQueryRequest").is_empty());
}

#[test]
fn a_push_for_a_service_that_nobody_asked_for_is_acknowledged_counted_and_ignored() {
    let mut world = subscribed();
    world.push("others", &["10.9.0.1:80"]);
    assert_eq!(world.listed.len(), 1);
    assert_eq!(world.session.counters().unwanted_pushes, 1);
    assert_eq!(world.sent_of("NotifySubscriberResponse").len(), 1);
}

#[test]
fn a_request_of_an_unknown_type_is_neither_answered_nor_a_loss() {
    let mut world = subscribed();
    let link = world.link();
    world.stream(link, "NamingGossipRequest", r#"{"requestId":"1"}"#);
    world.stream(link, "Nonsense", "not json");
    world.run(SEC);
    assert!(world.is_connected());
    assert!(!world.sent.iter().any(|sent| sent.kind.contains("Gossip")));
}

#[test]
fn a_lower_stamp_on_one_stream_is_applied_and_counted() {
    let mut world = subscribed();
    let link = world.link();
    for (stamp, port) in [(9_000, 1), (8_000, 2)] {
        let body = format!(
            r#"{{"requestId":"1","serviceInfo":{{"name":"orders","groupName":"DEFAULT_GROUP","lastRefTime":{stamp},"hosts":[{{"ip":"1.1.1.1","port":{port}}}]}}}}"#
        );
        world.stream(link, "NotifySubscriberRequest", &body);
    }
    assert_eq!(world.listed.last().unwrap().hosts, ["1.1.1.1:2"]);
    assert_eq!(world.session.counters().lower_stamps, 1);
}

#[test]
fn o4_a_read_is_dropped_if_a_push_came_from_1_s_before_it_was_sent_until_its_answer() {
    // A broken push makes the session read; a good one comes around that read.
    let read = |before: bool| {
        let mut world = subscribed();
        world.script.latency = 200 * MS;
        let link = world.link();
        world.stream(link, "NotifySubscriberRequest", "{");
        if before {
            world.run(100 * MS); // the read is under way
            world.push("orders", &["10.9.0.2:80"]);
        }
        world.run(5 * SEC);
        world
    };
    let world = read(true);
    assert_eq!(
        world.listed.last().unwrap().hosts,
        ["10.9.0.2:80"],
        "resurrected"
    );
    assert_eq!(world.session.counters().dropped_reads, 1);
    let world = read(false);
    assert_eq!(world.listed.last().unwrap().origin, Origin::Read);
}

#[test]
fn o4_a_read_waits_until_a_recent_push_is_1_s_old_so_that_it_counts() {
    let mut world = subscribed();
    world.push("orders", &["10.9.0.2:80"]);
    let pushed = world.at();
    let link = world.link();
    world.stream(link, "NotifySubscriberRequest", "{");
    world.run(3 * SEC);
    let read = world.sent_of("ServiceQueryRequest")[0].at;
    assert!(
        read > pushed + SEC && read < pushed + SEC + 10 * MS,
        "{read:?}"
    );
    assert_eq!(world.listed.last().unwrap().origin, Origin::Read);
    assert_eq!(world.session.counters().dropped_reads, 0);
}

#[test]
fn a_push_makes_the_read_that_was_due_needless() {
    let mut world = subscribed();
    world.push("orders", &["10.9.0.2:80"]);
    let link = world.link();
    world.stream(link, "NotifySubscriberRequest", "{");
    world.run(500 * MS);
    world.push("orders", &["10.9.0.1:80"]);
    world.run(10 * SEC);
    assert!(world.sent_of("ServiceQueryRequest").is_empty());
}

#[test]
fn o4_a_push_that_overtakes_the_first_answer_stays_a_push_and_the_answer_is_dropped() {
    let mut world = World::connected();
    world.script.latency = 100 * MS;
    world.subscribe("orders");
    world.run(50 * MS);
    world.push("orders", &["10.9.0.1:80"]);
    world.run(SEC);
    // Were it called an answer, what a push removed before the reconnect would stay away for good.
    assert_eq!(origins(&world), [(vec!["10.9.0.1:80"], Origin::Push)]);
    assert_eq!(world.session.counters().dropped_reads, 1);
}

#[test]
fn a_service_without_pushes_is_read_about_every_60_s_and_a_push_puts_that_off() {
    let mut world = subscribed();
    world.run(400 * SEC);
    let reads: Vec<_> = world
        .sent_of("ServiceQueryRequest")
        .iter()
        .map(|s| s.at)
        .collect();
    assert!((5..=8).contains(&reads.len()), "{reads:?}");
    for pair in reads.windows(2) {
        assert!((48 * SEC..=72 * SEC + 10 * MS).contains(&(pair[1] - pair[0])));
    }
    assert!(
        world.listed[1..]
            .iter()
            .all(|listed| listed.origin == Origin::Read)
    );
    let before = world.sent_of("ServiceQueryRequest").len();
    for _ in 0..20 {
        world.push("orders", &["10.9.0.1:80"]);
        world.run(40 * SEC);
    }
    assert_eq!(world.sent_of("ServiceQueryRequest").len(), before);
}

#[test]
fn the_safety_read_is_off_by_option() {
    let config = Config {
        safety_read: None,
        ..super::world::config(1)
    };
    let mut world = World::with(config, 1);
    world.subscribe("orders");
    world.run(600 * SEC);
    assert!(world.sent_of("ServiceQueryRequest").is_empty());
}

#[test]
fn queries_and_lists_wait_for_the_connection_and_answer_their_tickets() {
    let mut world = World::new();
    let query = |ticket| Command::Query {
        ticket: Ticket(ticket),
        key: key("orders"),
    };
    world.command(query(1));
    world.command(query(2));
    world.command(Command::Cancel(Ticket(2)));
    world.command(Command::List {
        ticket: Ticket(3),
        group: "DEFAULT_GROUP".into(),
        page: 1,
        page_size: 50,
    });
    assert!(world.sent.is_empty());
    world.run(SEC);
    let (_, Ok(Outcome::Listing(Some(listing)))) = &world.done[&1] else {
        panic!("{:?}", world.done);
    };
    assert_eq!(listing.instances().len(), 2);
    assert!(!world.done.contains_key(&2));
    let names = Outcome::Names {
        count: 1,
        names: vec!["orders".to_owned()],
    };
    assert_eq!(world.done[&3].1, Ok(names));
    let list = &world.sent_of("ServiceListRequest")[0].json;
    assert_eq!(
        (&list["namespace"], &list["pageNo"]),
        (&"public".into(), &1.into())
    );
    assert!(
        world.listed.is_empty(),
        "a query is its caller's, not the directory's"
    );
}

#[test]
fn a_query_survives_a_reconnect_is_tried_three_times_and_fails_at_once_for_good_reasons() {
    let mut world = World::connected();
    let query = |ticket| Command::Query {
        ticket: Ticket(ticket),
        key: key("orders"),
    };
    world.script.mute.insert("ServiceQueryRequest");
    world.command(query(1));
    world.end_stream("UNAVAILABLE");
    world.script.mute.clear();
    world.run(SEC);
    assert!(world.done[&1].1.is_ok());

    world.script.refuse.insert("ServiceQueryRequest", (500, 3));
    world.command(query(2));
    world.run(10 * SEC);
    let error = world.done[&2].1.clone().unwrap_err().to_string();
    assert_eq!(error, "the server answered 500: as scripted");

    for (ticket, code, text) in [(3, 403, "access denied"), (4, 400, "answered 400")] {
        world.script.refuse.insert("ServiceQueryRequest", (code, 1));
        world.command(query(ticket));
        world.run(10 * MS);
        let error = world.done[&ticket].1.clone().unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}
