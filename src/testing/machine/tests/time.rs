use super::*;

#[test]
fn a_change_is_pushed_once_500_ms_later_on_the_next_scan() {
    let mut world = World::of(Profile::V2_5);
    let (sub, provider) = (world.client(), world.client());
    world.subscribe(sub, "s");
    world.pass(1_040);
    assert_eq!(world.pushes(sub), [(500, vec![])], "the first subscribe's");
    world.register(provider, "s", &at(1)); // at 1,040: due at 1,540
    world.pass(300);
    world.register(provider, "s", &at(2));
    world.pass(2_000);
    assert_eq!(world.pushes(sub), [(1_600, vec![2])]);
}

#[test]
fn a_service_that_changes_for_ever_is_pushed_all_the_time() {
    let mut world = World::of(Profile::V2_5);
    let (sub, provider) = (world.client(), world.client());
    world.subscribe(sub, "s");
    for port in 1..=30 {
        world.register(provider, "s", &at(port));
        world.pass(200);
    }
    let times: Vec<u64> = world.pushes(sub).iter().map(|(ms, _)| *ms).collect();
    assert_eq!(times.len(), 10, "{times:?}");
    assert!(
        times
            .windows(2)
            .all(|t| (500..=700).contains(&(t[1] - t[0]))),
        "{times:?}"
    );
}

#[test]
fn without_a_delay_a_push_follows_in_the_same_call_after_the_answer() {
    let mut world = World::new(at_once());
    let (sub, provider) = (world.client(), world.client());
    world.subscribe(sub, "s");
    assert_eq!(world.pushes(sub), [(0, vec![])]);
    world.register(provider, "s", &at(1));
    assert_eq!(world.pushes(sub), [(0, vec![1])]);
    world.register(sub, "s", &at(2));
    let mut own = world.pushes(sub);
    own[0].1.sort_unstable();
    assert_eq!(own, [(0, vec![1, 2])]);
    world.machine.register("s", &instance(3), world.now);
    world.drain();
    assert_eq!(world.pushes(sub)[0].1.len(), 3);
}

#[test]
fn only_the_first_subscribe_of_a_connection_is_pushed_to_and_only_to_it() {
    let mut world = World::of(Profile::V2_5);
    let (a, b) = (world.client(), world.client());
    world.subscribe(a, "s");
    world.pass(1_000);
    world.pushes(a);
    world.subscribe(b, "s");
    world.subscribe(a, "s");
    world.pass(1_000);
    assert_eq!(world.pushes(b).len(), 1);
    assert_eq!(world.pushes(a), []);
}

#[test]
fn reads_show_the_state_of_the_last_push() {
    let mut world = World::of(Profile::V2_5);
    let client = world.client();
    world.register(client, "s", &at(1));
    assert_eq!(
        ports(&world.query(client, "s")),
        [1],
        "the first read computes"
    );
    world.register(client, "s", &at(2));
    world.pass(450);
    assert_eq!(ports(&world.query(client, "s")), [1]);
    assert_eq!(ports(&world.subscribe(client, "s")), [1]);
    world.pass(100);
    assert_eq!(ports(&world.query(client, "s")), [2]);
}

#[test]
fn a_push_is_repeated_6_s_later_while_unanswered_and_1_s_later_when_refused() {
    let mut world = World::of(Profile::V2_5);
    let sub = world.client();
    world.subscribe(sub, "s");
    world.pass(500);
    let first = world.frames(sub).remove(0).1;
    world.machine.register("s", &instance(1), world.now);
    world.pass(600);
    let second = world.frames(sub).remove(0);
    world.ack(sub, &first, 200);
    world.pass(5_900);
    let again = world.frames(sub);
    assert_eq!(again.len(), 1);
    let (ms, again) = &again[0];
    assert_eq!(*ms, second.0 + 6_000);
    assert_ne!(again.field("/requestId"), second.1.field("/requestId"));
    assert_eq!(again.field("/serviceInfo/hosts/0/port").unwrap(), "1");
    // Refused; and what has changed meanwhile is in the repetition.
    world.ack(sub, again, 500);
    world.machine.register("s", &instance(2), world.now);
    let refused = world.now;
    world.pass(1_000);
    let repeated = world.pushes(sub);
    assert_eq!(
        repeated.len(),
        1,
        "the change's push and the repetition are one"
    );
    assert_eq!(repeated[0].1.len(), 2);
    assert!(refused < world.now);
    world.pass(10_000);
    assert_eq!(
        world.pushes(sub),
        [],
        "an acknowledged push is not repeated"
    );
}

#[test]
fn a_refused_push_is_repeated_after_a_second_for_ever() {
    let mut world = World::of(Profile::V2_5);
    let sub = world.client();
    world.subscribe(sub, "s");
    world.pass(500);
    let mut times = Vec::new();
    for _ in 0..5 {
        let (ms, push) = world.frames(sub).remove(0);
        times.push(ms);
        world.ack(sub, &push, 500);
        world.pass(1_000);
    }
    assert_eq!(times, [500, 1_500, 2_500, 3_500, 4_500]);
}

#[test]
fn a_silent_client_is_asked_and_without_an_answer_given_up() {
    let mut world = World::of(Profile::V2_5);
    let (sub, mute, alive) = (world.client(), world.client(), world.client());
    world.subscribe(sub, "s");
    world.register(mute, "s", &at(1));
    world.pass(1_000);
    world.pushes(sub);
    for _ in 0..30 {
        world.pass(1_000);
        world.call(sub, "HealthCheckRequest", &json!({})).unwrap();
        for (_, frame) in world.frames(alive) {
            world.ack(alive, &frame, 200);
        }
    }
    let asked: Vec<u64> = world.frames(mute).iter().map(|(ms, _)| *ms).collect();
    assert_eq!(asked, [21_000]);
    assert_eq!(world.ends(mute), [(26_000, StreamEnd::Clean)]);
    assert_eq!(world.ends(alive), []);
    assert_eq!(world.pushes(sub), [(26_500, vec![])]);
    let (_, answer) = world.call(mute, "HealthCheckRequest", &json!({})).unwrap();
    assert_eq!(answer["errorCode"], 301, "the transport stays open");
}

#[test]
fn servers_2_2_never_give_a_silent_client_up() {
    let mut world = World::of(Profile::V2_2);
    let mute = world.client();
    world.pass(600_000);
    assert_eq!((world.frames(mute).len(), world.ends(mute).len()), (0, 0));
}

#[test]
fn a_client_may_be_given_up_although_it_answered_the_detection() {
    let mut world = World::new(Settings {
        detection_race: 1.0,
        ..Settings::default()
    });
    let unlucky = world.client();
    world.pass(21_000);
    let (_, asked) = world.frames(unlucky).remove(0);
    world.ack(unlucky, &asked, 200);
    assert_eq!(world.ends(unlucky), [(21_000, StreamEnd::Clean)]);
}

#[test]
fn detection_and_reset_come_on_demand() {
    let mut world = World::of(Profile::V2_5);
    let conn = world.client();
    let now = world.now;
    world
        .machine
        .reset_connection(conn, Some("127.0.0.1:8849"), now);
    world.machine.reset_connection(conn, None, now);
    world.machine.detect(conn, now);
    world.drain();
    let frames = world.frames(conn);
    assert_eq!(frames[0].1.kind, "ConnectResetRequest");
    assert_eq!(frames[0].1.field("/serverPort").unwrap(), "8849");
    assert_eq!(frames[1].1.field("/serverIp"), None);
    assert_eq!(frames[2].1.kind, "ClientDetectionRequest");
    world.pass(5_000);
    assert_eq!(world.ends(conn).len(), 1);
}

#[test]
fn an_empty_service_leaves_the_list_after_a_minute_and_its_subscription_stays() {
    let mut world = World::of(Profile::V2_5);
    let (sub, provider) = (world.client(), world.client());
    world.subscribe(sub, "s");
    world.register(provider, "s", &at(1));
    let list =
        json!({"namespace": "public", "groupName": "DEFAULT_GROUP", "pageNo": 1, "pageSize": 9});
    let listed = |world: &mut World| {
        let (_, answer) = world.call(sub, "ServiceListRequest", &list).unwrap();
        answer["count"].as_u64().unwrap()
    };
    assert_eq!(listed(&mut world), 1);
    let now = world.now;
    world.machine.handle_closed(provider, now);
    for _ in 0..59 {
        world.pass(1_000);
        assert_eq!(listed(&mut world), 1);
        world.pushes(sub);
    }
    world.pass(1_000);
    assert_eq!(listed(&mut world), 0);
    let provider = world.client();
    world.register(provider, "s", &at(1));
    world.pass(600);
    assert_eq!(world.pushes(sub).len(), 1);
}

/// As genuine servers look after persistent instances, one dial for an address in however many
/// services.
#[test]
fn a_persistent_instance_is_unhealthy_at_the_first_dial_that_fails_and_healthy_after_five() {
    let mut world = World::new(Settings {
        tcp_checks: Some(Duration::from_secs(2)),
        ..at_once()
    });
    let conn = world.client();
    let now = world.now;
    for (service, port) in [("s", 1), ("s", 2), ("t", 1)] {
        let instance = instance(port).with_ephemeral(false);
        world.machine.register(service, &instance, now);
    }
    world.machine.register("e", &instance(1), now); // nobody dials an ephemeral one
    let dialled = |world: &mut World| {
        let mut ports: Vec<i32> = Vec::new();
        world.out.retain(|(_, output)| match output {
            Output::Check { port, .. } => {
                ports.push(*port);
                false
            }
            _ => true,
        });
        ports
    };
    let healthy = |world: &mut World, service: &str| {
        let answer = world.query(conn, service);
        let hosts = answer["serviceInfo"]["hosts"].as_array().unwrap();
        hosts.iter().filter(|host| host["healthy"] == true).count()
    };
    world.pass(1_999);
    assert_eq!(dialled(&mut world), Vec::<i32>::new());
    world.pass(1);
    assert_eq!(dialled(&mut world), [1, 2]);
    for (port, accepts) in [(1, false), (2, true)] {
        let now = world.now;
        world.machine.handle_checked("10.0.0.1", port, accepts, now);
        world.drain();
    }
    assert_eq!((healthy(&mut world, "s"), healthy(&mut world, "t")), (1, 0));
    assert_eq!(healthy(&mut world, "e"), 1);
    for good in 1..=5 {
        world.pass(2_000);
        assert_eq!(dialled(&mut world), [1, 2]);
        for port in [1, 2] {
            let now = world.now;
            world.machine.handle_checked("10.0.0.1", port, true, now);
            world.drain();
        }
        assert_eq!(healthy(&mut world, "t"), usize::from(good == 5), "{good}");
    }
    assert_eq!(healthy(&mut world, "s"), 2);
    // Nobody looks after what is gone.
    let now = world.now;
    world.machine.deregister("t", "10.0.0.1:1", now);
    world.machine.deregister("s", "10.0.0.1:1", now);
    world.pass(2_000);
    assert_eq!(dialled(&mut world), [2]);
    // A dial of which nothing was heard is made again.
    world.pass(5_000);
    assert_eq!(dialled(&mut world), [2]);
    let now = world.now;
    world.machine.restart(now);
    world.pass(2_000);
    assert_eq!(dialled(&mut world), [2], "it is still there");
}
