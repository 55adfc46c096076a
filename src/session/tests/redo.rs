use super::world::{MS, SEC, World, config, key};
use crate::model::Origin;
use crate::session::{CallFailure, Command, Operation, Output, Ticket};

#[test]
fn r2_after_a_reconnect_everything_is_asked_for_at_once_and_the_answers_are_lists() {
    let mut world = World::connected();
    let services: Vec<String> = (0..30).map(|i| format!("s{i}")).collect();
    for service in &services {
        world
            .script
            .lists
            .insert(service.clone(), vec!["10.9.0.1:80"]);
        world.subscribe(service);
    }
    world.register(1, "web", "10.9.0.9:80");
    world.run(SEC);
    let (sent, listed) = (world.sent.len(), world.listed.len());
    world.end_stream("UNAVAILABLE");
    world.run(SEC);
    let at = world.states.last().unwrap().0;
    let again = |kind: &str| {
        let sent = world.sent[sent..].iter().filter(|sent| sent.kind == kind);
        sent.map(|sent| sent.at).collect::<Vec<_>>()
    };
    assert_eq!(again("SubscribeServiceRequest"), vec![at; 30]);
    assert_eq!(again("InstanceRequest"), [at]);
    assert_eq!(world.listed.len(), listed + 30);
    assert!(world.listed.iter().all(|l| l.origin == Origin::FirstAnswer));
    let peer = &world.peers[&world.link()];
    assert_eq!(peer.subscribed.len(), 30);
    assert_eq!(peer.published["web"], "10.9.0.9:80");
}

#[test]
fn r1_any_end_of_the_stream_or_the_connection_is_a_loss() {
    type End = fn(&mut World);
    let ends: [End; 4] = [
        |world| world.end_stream("OK"),
        |world| world.end_stream("CANCELLED: close"),
        |world| {
            let (link, now) = (world.link(), world.now);
            world
                .session
                .handle_stream_ended(link, "reset by peer".to_owned(), now);
        },
        |world| {
            world.script.mute.insert("ServiceQueryRequest");
            world.command(Command::Query {
                ticket: Ticket(9),
                key: key("orders"),
            });
            world.fail_calls_under_way(&CallFailure::Lost("broken pipe".to_owned()));
        },
    ];
    for end in ends {
        let mut world = World::connected();
        world.subscribe("orders");
        world.run(SEC);
        let old = world.link();
        end(&mut world);
        world.run(SEC);
        assert!(world.is_connected());
        assert_ne!(world.link(), old);
        assert!(world.peers[&old].hung_up, "the old connection is left open");
        assert_eq!(world.listed.len(), 2);
    }
}

#[test]
fn what_is_said_of_a_link_that_was_given_up_changes_nothing() {
    let mut world = World::connected();
    world.subscribe("orders");
    world.run(SEC);
    let old = world.link();
    world.end_stream("OK");
    world.run(SEC);
    let (sent, listed) = (world.sent.len(), world.listed.len());
    world.push_on(old, "orders", &[]);
    world
        .session
        .handle_stream_ended(old, "late".to_owned(), world.now);
    world
        .session
        .handle_stream_ended(old, "late".to_owned(), world.now);
    world.run(MS);
    assert!(world.is_connected());
    assert_eq!((world.sent.len(), world.listed.len()), (sent, listed));
}

#[test]
fn at_most_64_calls_for_items_are_under_way_at_once() {
    let mut world = World::new();
    world.script.latency = 20 * MS;
    for i in 0..300 {
        world.subscribe(&format!("s{i}"));
    }
    world.run(2 * SEC);
    assert_eq!(world.listed.len(), 300);
    assert_eq!(world.most_calls, 64);
}

#[test]
fn r7_what_fails_is_tried_again_by_itself_and_the_rest_is_not_held_up() {
    let mut world = World::connected();
    for service in ["a", "b", "c"] {
        world.subscribe(service);
    }
    world.run(SEC);
    world
        .script
        .refuse
        .insert("SubscribeServiceRequest", (500, 2));
    let (sent, listed) = (world.sent.len(), world.listed.len());
    world.end_stream("OK");
    world.run(5 * SEC);
    let asked = world.sent[sent..]
        .iter()
        .filter(|sent| sent.kind == "SubscribeServiceRequest");
    assert_eq!(asked.count(), 5);
    assert_eq!(world.listed.len(), listed + 3);
    let spread = world.listed[listed + 2].at - world.listed[listed].at;
    assert!(spread >= 100 * MS, "there was no wait: {spread:?}");
    let failed = |(_, output): &&_| {
        matches!(
            output,
            Output::Failed {
                operation: Operation::Subscribe,
                retries: true,
                ..
            }
        )
    };
    assert_eq!(world.notes.iter().filter(failed).count(), 2);
}

#[test]
fn w9_permanent_refusals_are_not_repeated_on_the_same_connection() {
    for code in [400, 502] {
        let mut world = World::connected();
        world
            .script
            .refuse
            .insert("SubscribeServiceRequest", (code, 1));
        world.subscribe("orders");
        world.run(30 * SEC);
        assert_eq!(world.sent_of("SubscribeServiceRequest").len(), 1, "{code}");
        let failed = |(_, output): &_| matches!(output, Output::Failed { retries: false, .. });
        assert!(world.notes.iter().any(failed));
        world.end_stream("OK"); // another server may think otherwise
        world.run(SEC);
        assert_eq!(world.listed.len(), 1);
    }
}

#[test]
fn w9_503_backs_off_and_403_is_surfaced_and_tried_with_new_headers_at_once() {
    let mut world = World::connected();
    world
        .script
        .refuse
        .insert("SubscribeServiceRequest", (503, 1));
    world.subscribe("orders");
    world.run(5 * SEC);
    let asked: Vec<_> = world
        .sent_of("SubscribeServiceRequest")
        .iter()
        .map(|s| s.at)
        .collect();
    assert_eq!(asked.len(), 2);
    assert!(asked[1] - asked[0] >= 500 * MS);

    world
        .script
        .refuse
        .insert("SubscribeServiceRequest", (403, 9));
    world.subscribe("users");
    world.run(MS * 10);
    let denied =
        |(_, output): &_| matches!(output, Output::Failed { error, .. } if error.is_denied());
    assert!(world.notes.iter().any(denied));
    world.script.refuse.clear();
    let headers = [("accessToken".to_owned(), "new".to_owned())];
    world.session.handle_headers(headers.into(), world.now);
    world.run(10 * MS);
    assert_eq!(world.listed.last().unwrap().service, "users");
    let last = world.sent_of("SubscribeServiceRequest");
    assert_eq!(last.last().unwrap().headers["accessToken"], "new");
}

#[test]
fn r8_with_credentials_a_denial_is_tried_once_more_before_anybody_hears_of_it() {
    for new_headers in [true, false] {
        let mut config = config(1);
        config.credentials = true;
        let mut world = World::with(config, 1);
        world.run(SEC);
        for kind in [
            "InstanceRequest",
            "ServiceQueryRequest",
            "ServiceListRequest",
        ] {
            world.script.refuse.insert(kind, (403, 9));
        }
        world.register(7, "orders", "10.0.0.1:80");
        world.command(Command::Query {
            ticket: Ticket(8),
            key: key("orders"),
        });
        world.command(Command::List {
            ticket: Ticket(9),
            group: "DEFAULT_GROUP".into(),
            page: 1,
            page_size: 10,
        });
        world.run(100 * MS);
        let done = |world: &World| -> Vec<(u64, bool)> {
            let done = world.done.iter();
            done.map(|(ticket, (_, outcome))| (*ticket, outcome.is_ok()))
                .collect()
        };
        let denied = |(_, output): &&_| matches!(output, Output::Failed { error, retries: true, .. } if error.is_denied());
        assert_eq!(world.notes.iter().filter(denied).count(), 2);
        let list = |(_, output): &&_| matches!(output, Output::ListDenied { .. });
        assert_eq!(world.notes.iter().filter(list).count(), 1);
        assert!(done(&world).is_empty());
        if new_headers {
            world.script.refuse.clear();
            let headers = [("accessToken".to_owned(), "new".to_owned())];
            world.session.handle_headers(headers.into(), world.now);
            world.run(100 * MS);
            assert_eq!(done(&world), [(7, true), (8, true), (9, true)]);
        } else {
            world.run(6 * SEC);
            assert_eq!(done(&world), [(7, false), (8, false), (9, false)]);
        }
    }
}

#[test]
fn an_old_connection_is_left_for_another() {
    let mut config = config(2);
    config.max_age = Some(60 * SEC);
    let mut world = World::with(config, 1);
    world.subscribe("orders");
    world.run(40 * SEC);
    let first = world.link();
    world.run(40 * SEC);
    assert!(world.is_connected());
    assert_ne!(world.link(), first);
    assert_eq!(world.open_links(), 1);
    assert_eq!(world.sent_of("SubscribeServiceRequest").len(), 2);
}

#[test]
fn an_answer_without_a_list_is_asked_for_again() {
    let mut world = World::connected();
    world
        .script
        .garble
        .insert("SubscribeServiceRequest", r#"{"resultCode":200}"#);
    world.subscribe("orders");
    world.run(100 * MS);
    assert!(world.listed.is_empty());
    assert!(matches!(
        world.notes[0].1,
        Output::Undecodable { key: Some(_), .. }
    ));
    world.script.garble.clear();
    world.run(5 * SEC);
    assert_eq!(world.listed.len(), 1);
    assert_eq!(world.listed[0].origin, Origin::FirstAnswer);
}

#[test]
fn d14_unsubscribing_is_sent_and_its_answer_is_not_news() {
    let mut world = World::connected();
    world.subscribe("orders");
    world.run(SEC);
    world.unsubscribe("orders");
    world.run(SEC);
    let asked = world.sent_of("SubscribeServiceRequest");
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].json["subscribe"], false);
    assert_eq!(world.listed.len(), 1);
    world.run(200 * SEC);
    assert!(world.sent_of("ServiceQueryRequest").is_empty());
    assert!(world.session.items.is_empty(), "it is kept for ever");
    world.end_stream("OK");
    world.run(SEC);
    assert_eq!(world.sent_of("SubscribeServiceRequest").len(), 2);
}

#[test]
fn subscribing_dropping_and_subscribing_settles_right_however_fast() {
    for gap in [0, 1, 3, 10, 100] {
        let mut world = World::connected();
        world.script.latency = 5 * MS;
        let pause = |world: &mut World| world.run(gap * MS);
        for _ in 0..5 {
            world.subscribe("orders");
            pause(&mut world);
            world.unsubscribe("orders");
            pause(&mut world);
        }
        let listed = world.listed.len();
        world.subscribe("orders");
        world.run(SEC);
        assert!(
            world.listed.len() > listed,
            "the last subscriber has no list (gap {gap})"
        );
        assert_eq!(world.listed.last().unwrap().origin, Origin::FirstAnswer);
        assert!(world.peers[&world.link()].subscribed.contains("orders"));
        world.unsubscribe("orders");
        world.run(SEC);
        assert!(
            world.peers[&world.link()].subscribed.is_empty(),
            "gap {gap}"
        );
    }
}

#[test]
fn who_subscribes_before_the_unsubscription_before_was_sent_gets_a_list_too() {
    let mut one_call = config(1);
    one_call.concurrent_calls = 1;
    let mut world = World::with(one_call, 1);
    world.subscribe("orders");
    world.run(2 * SEC);
    world.script.latency = 100 * MS;
    world.subscribe("users"); // takes the one call
    world.unsubscribe("orders");
    world.subscribe("orders");
    world.run(SEC);
    let listed: Vec<_> = world
        .listed
        .iter()
        .map(|listed| (&*listed.service, listed.origin))
        .collect();
    let expected = ["orders", "users", "orders"].map(|service| (service, Origin::FirstAnswer));
    assert_eq!(listed, expected);
    let asked = world.sent_of("SubscribeServiceRequest");
    assert!(asked.iter().all(|sent| sent.json["subscribe"] == true));
}

#[test]
fn one_request_per_service_is_under_way_and_commands_coalesce() {
    let mut world = World::connected();
    world.script.latency = 100 * MS;
    for _ in 0..50 {
        world.subscribe("orders");
        world.unsubscribe("orders");
    }
    world.subscribe("orders");
    world.run(SEC);
    assert_eq!(world.most_calls, 1);
    assert_eq!(world.sent_of("SubscribeServiceRequest").len(), 1);
    assert_eq!(world.listed.len(), 1);
}

#[test]
fn a_dropped_subscription_whose_request_went_unanswered_is_unsubscribed() {
    let mut world = World::connected();
    world.script.mute.insert("SubscribeServiceRequest");
    world.subscribe("orders");
    world.run(SEC);
    world.unsubscribe("orders");
    world.script.mute.clear();
    world.run(60 * SEC);
    let asked = world.sent_of("SubscribeServiceRequest");
    assert!(
        asked[1..]
            .iter()
            .all(|sent| sent.json["subscribe"] == false)
    );
    assert!(
        (2..=9).contains(&asked.len()),
        "again while the first may still be carried out: {}",
        asked.len()
    );
    assert!(world.session.items.is_empty());
}

#[test]
fn d12_services_of_two_groups_do_not_mix() {
    let mut world = World::with(config(1), 1);
    world.subscribe("orders");
    world.subscribe("g2@@orders");
    world.run(SEC);
    let link = world.link();
    let body = r#"{"requestId":"1","serviceInfo":{"name":"orders","groupName":"g2","hosts":[]}}"#;
    world.stream(link, "NotifySubscriberRequest", body);
    assert_eq!(world.listed.len(), 3);
    assert_eq!(world.session.counters().unwanted_pushes, 0);
    world.unsubscribe("g2@@orders");
    world.stream(link, "NotifySubscriberRequest", body);
    assert_eq!(world.listed.len(), 3);
    assert_eq!(world.session.counters().unwanted_pushes, 1);
}

#[test]
fn the_last_push_spoils_no_first_answer_of_the_next_connection() {
    let mut world = World::connected();
    world.subscribe("orders");
    world.run(5 * SEC);
    world.push("orders", &["10.9.0.1:80"]);
    let pushed = world.at();
    world.end_stream("UNAVAILABLE");
    let listed = world.listed.len();
    world.run_until("listed", |world| world.listed.len() > listed);
    let first = &world.listed[listed];
    assert_eq!(first.origin, Origin::FirstAnswer);
    assert!(first.at < pushed + SEC, "or it shows nothing");
}

#[test]
fn a_type_that_a_server_does_not_know_is_asked_again_seldom() {
    let mut world = World::connected();
    world
        .script
        .refuse
        .insert("SubscribeServiceRequest", (302, 1));
    world.subscribe("orders");
    world.run(2 * SEC);
    assert!(world.listed.is_empty());
    let asked_again = |(_, output): &_| matches!(output, Output::Failed { retries: true, .. });
    assert!(world.notes.iter().any(asked_again));
    world.run(4 * SEC);
    assert_eq!(world.listed.len(), 1, "it was starting");
    assert_eq!(world.sent_of("SubscribeServiceRequest").len(), 2);
}

#[test]
fn a_read_whose_type_a_server_does_not_know_yet_is_asked_again_too() {
    let mut world = World::connected();
    world.subscribe("orders");
    world.run(5 * SEC);
    world.script.refuse.insert("ServiceQueryRequest", (302, 1));
    let link = world.link();
    world.stream(link, "NotifySubscriberRequest", "{");
    world.run(10 * SEC);
    assert_eq!(world.sent_of("ServiceQueryRequest").len(), 2);
}

#[test]
fn an_answer_about_another_service_is_not_taken_for_ours() {
    for kind in ["SubscribeServiceRequest", "ServiceQueryRequest"] {
        let mut world = World::connected();
        let other = r#"{"resultCode":200,"serviceInfo":{"name":"users","groupName":"DEFAULT_GROUP","hosts":[]}}"#;
        if kind == "ServiceQueryRequest" {
            world.subscribe("orders");
            world.run(5 * SEC);
        }
        world.script.garble.insert(kind, other);
        if kind == "ServiceQueryRequest" {
            world.command(Command::Refresh(key("orders")));
        } else {
            world.subscribe("orders");
        }
        world.run(SEC);
        let emptied = world.listed.iter().any(|listed| listed.hosts.is_empty());
        assert!(!emptied, "{kind}");
        let said = |(_, output): &_| matches!(output, Output::Undecodable { reason, .. } if reason.contains("users"));
        assert!(world.notes.iter().any(said), "{kind}: {:?}", world.notes);
        world.script.garble.clear();
        world.run(10 * SEC);
        assert_eq!(world.listed[0].hosts.len(), 2);
    }
}

#[test]
fn a_read_that_is_wanted_right_after_a_push_waits_until_its_answer_counts() {
    let mut world = World::connected();
    world.subscribe("orders");
    world.run(5 * SEC);
    world.push("orders", &["10.9.0.1:80"]);
    world.command(Command::Refresh(key("orders")));
    let listed = world.listed.len();
    world.run(500 * MS);
    assert_eq!(world.listed.len(), listed);
    world.run(SEC);
    assert_eq!(world.listed.len(), listed + 1);
    assert_eq!(world.listed[listed].origin, Origin::Read);
}
