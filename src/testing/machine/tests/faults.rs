use super::*;

fn subscribed() -> (World, ConnId) {
    let mut world = World::new(at_once());
    let sub = world.client();
    world.machine.register("s", &instance(1), world.now);
    world.subscribe(sub, "s");
    world.pushes(sub);
    (world, sub)
}

fn pushed_with(fault: Fault) -> Vec<(u64, Frame)> {
    let (mut world, sub) = subscribed();
    world
        .machine
        .script(Script::next_push(fault).of_service("s"));
    world.machine.register("s", &instance(2), world.now);
    world.pass(100);
    world.drain();
    world.frames(sub)
}

#[test]
fn a_push_is_corrupted_as_scripted() {
    let body = |fault| pushed_with(fault).remove(0).1.body;
    let json = |fault| serde_json::from_slice::<Value>(&body(fault));
    for broken in [Fault::Truncate, Fault::BareNan, Fault::InvalidUtf8] {
        assert!(json(broken.clone()).is_err(), "{broken:?}");
    }
    assert!(std::str::from_utf8(&body(Fault::InvalidUtf8)).is_err());
    assert!(String::from_utf8_lossy(&body(Fault::BareNan)).contains(r#""weight":NaN"#));
    let info = |fault| json(fault).unwrap()["serviceInfo"].clone();
    assert_eq!(info(Fault::EmptyHosts)["hosts"], json!([]));
    assert_eq!(info(Fault::NullHosts)["hosts"], json!(null));
    assert_eq!(info(Fault::NoServiceInfo), json!(null));
    assert!(info(Fault::WrongTypes)["hosts"][0]["port"].is_object());
    assert_eq!(
        info(Fault::WrongTypes)["hosts"].as_array().unwrap().len(),
        2
    );
    assert_eq!(body(Fault::Body("x".into())), "x");
    assert_eq!(pushed_with(Fault::Duplicate).len(), 2);
}

#[test]
fn a_dropped_push_is_not_repeated_and_a_delayed_one_holds_up_what_follows() {
    let (mut world, sub) = subscribed();
    world.machine.script(Script::next_push(Fault::Drop));
    world.machine.register("s", &instance(2), world.now);
    world.pass(10_000);
    assert_eq!(world.pushes(sub), []);
    world
        .machine
        .script(Script::next_push(Fault::Delay(Duration::from_secs(2))));
    world.machine.deregister("s", "10.0.0.1:1", world.now);
    world.pass(1_000);
    assert_eq!(world.pushes(sub), []);
    world.machine.deregister("s", "10.0.0.1:2", world.now);
    world.pass(1_000);
    assert_eq!(world.pushes(sub), [(12_000, vec![2]), (12_000, vec![])]);
}

#[test]
fn an_answer_is_refused_withheld_or_corrupted_as_scripted() {
    let (mut world, sub) = subscribed();
    let kind = "ServiceQueryRequest";
    let query = json!({"namespace": "public", "groupName": "DEFAULT_GROUP", "serviceName": "s"});
    world
        .machine
        .script(Script::next(kind, Fault::Refuse(403)).of_service("other"));
    world
        .machine
        .script(Script::next(kind, Fault::Refuse(403)).times(2));
    world
        .machine
        .script(Script::next(kind, Fault::RefuseAsError(301)));
    world.machine.script(Script::next(kind, Fault::Drop));
    world
        .machine
        .script(Script::next(kind, Fault::NoServiceInfo));
    for _ in 0..2 {
        let (kind, answer) = world.call(sub, kind, &query).unwrap();
        assert_eq!(
            (&*kind, &answer["errorCode"]),
            ("QueryServiceResponse", &json!(403))
        );
    }
    let (error, answer) = world.call(sub, kind, &query).unwrap();
    assert_eq!(
        (&*error, &answer["errorCode"]),
        ("ErrorResponse", &json!(301))
    );
    assert_eq!(world.call(sub, kind, &query), None);
    let (_, answer) = world.call(sub, kind, &query).unwrap();
    assert_eq!(
        (&answer["resultCode"], answer.get("serviceInfo")),
        (&json!(200), None)
    );
    assert_eq!(ports(&world.query(sub, "s")), [1]);
}

#[test]
fn a_setup_is_ignored_delayed_or_failed_as_scripted() {
    let mut world = World::of(Profile::V2_5);
    let kind = "ConnectionSetupRequest";
    world.machine.script(Script::next(kind, Fault::Drop));
    world
        .machine
        .script(Script::next(kind, Fault::Delay(Duration::from_millis(300))));
    world.machine.script(Script::next(kind, Fault::Fail(14)));
    world
        .machine
        .script(Script::next("SetupAckRequest", Fault::Drop));
    let ignored = world.client();
    let late = world.client();
    world.pass(299);
    assert_eq!(world.machine.view().registered(), []);
    world.pass(1);
    assert_eq!(world.machine.view().registered(), [late]);
    assert_ne!(ignored, late);
    let failed = world.client();
    assert!(matches!(world.ends(failed)[0].1, StreamEnd::Status(14, _)));
    let unacknowledged = world.open();
    let setup = format!(r#"{{"labels":{LABELS},"abilityTable":{{}}}}"#);
    world.send(unacknowledged, kind, &setup);
    assert_eq!(world.frames(unacknowledged).len(), 0);
    assert!(world.machine.view().registered().contains(&unacknowledged));
}

#[test]
fn the_clock_steps_back_and_nothing_else_does() {
    let (mut world, sub) = subscribed();
    let stamp = |world: &mut World| {
        let answer = world.query(sub, "s");
        answer["serviceInfo"]["lastRefTime"].as_i64().unwrap()
    };
    let before = stamp(&mut world);
    world.machine.step_clock(-3_600_000);
    world.pass(1_000);
    assert_eq!(stamp(&mut world), before - 3_600_000 + 1_000);
}

#[test]
fn raw_pushes_reach_all_subscribers_and_change_no_list() {
    let (mut world, sub) = subscribed();
    let now = world.now;
    world
        .machine
        .push_raw("s", r#"{"hosts":[{"ip":"x","weight":1e999}]}"#, now);
    world.machine.push_body("s", vec![0xff, 0xfe], now);
    world.drain();
    let frames = world.frames(sub);
    assert!(frames[0].1.text().contains("1e999"));
    assert_eq!(&frames[1].1.body[..], [0xff, 0xfe]);
    world.ack(sub, &frames[0].1, 500);
    world.pass(20_000);
    assert_eq!(world.pushes(sub), [], "nobody repeats them");
    assert_eq!(ports(&world.query(sub, "s")), [1]);
}

#[test]
fn a_restart_loses_clients_and_what_they_published() {
    let (mut world, sub) = subscribed();
    let provider = world.client();
    world.register(provider, "s", &at(3));
    world.machine.set_weight("s", "10.0.0.1:1", 5.0, world.now);
    world.machine.restart(world.now);
    assert_eq!(world.machine.view().subscribers("s"), []);
    assert!(world.machine.view().addresses("s").is_empty());
    let (_, answer) = world.call(sub, "HealthCheckRequest", &json!({})).unwrap();
    assert_eq!(answer["errorCode"], 301);
    let sub = world.client();
    world.machine.register("s", &instance(1), world.now);
    let answer = world.subscribe(sub, "s");
    assert_eq!(
        answer["serviceInfo"]["hosts"][0]["weight"], 5.0,
        "edits are on disk"
    );
}

#[test]
fn garbage_is_answered_or_ignored_and_never_panics() {
    let (mut world, sub) = subscribed();
    let now = world.now;
    world.machine.handle_unary(sub, 77, &[0xff; 9], now);
    world.drain();
    assert!(world.out.iter().any(|(_, o)| matches!(
        o,
        Output::Fail {
            call: 77,
            code: 13,
            ..
        }
    )));
    for body in [
        "",
        "{",
        "[]",
        "null",
        r#"{"labels":3}"#,
        r#"{"requestId":[]}"#,
    ] {
        world.send(sub, "NotifySubscriberResponse", body);
        world.send(sub, "ConnectionSetupRequest", body);
        world.send(sub, "Whatever", body);
    }
    for kind in [
        "InstanceRequest",
        "BatchInstanceRequest",
        "SubscribeServiceRequest",
    ] {
        for body in [
            json!({"instance": 1}),
            json!({"instances": {}}),
            json!([]),
            json!({"type": []}),
        ] {
            let (_, answer) = world.call(sub, kind, &body).unwrap();
            assert_ne!(answer["resultCode"], 200, "{kind} {body}");
        }
    }
}
