use super::*;

fn hosts(world: &mut World, conn: ConnId, service: &str) -> Vec<Value> {
    let answer = world.query(conn, service);
    answer["serviceInfo"]["hosts"].as_array().unwrap().clone()
}

#[test]
fn a_server_that_negotiates_acknowledges_a_setup_with_any_ability_table() {
    for (profile, table, acknowledged) in [
        (Profile::V2_0, r#","abilityTable":{}"#, false),
        (Profile::V2_2, r#","abilityTable":{}"#, false),
        (Profile::V2_3, r#","abilityTable":{}"#, true),
        (
            Profile::V2_5,
            r#","abilityTable":{"fuzzyWatch":true}"#,
            true,
        ),
        (Profile::V2_5, r#","abilityTable":null"#, false),
        (Profile::V3_0, "", false),
        (Profile::V3_0, r#","abilityTable":{}"#, true),
        (Profile::V3_1, r#","abilityTable":{}"#, true),
    ] {
        let mut world = World::of(profile);
        let conn = world.open();
        let (_, check) = world.call(conn, "ServerCheckRequest", &json!({})).unwrap();
        let said = check.get("supportAbilityNegotiation").is_some();
        assert_eq!(said, profile >= Profile::V2_3, "{profile:?}");
        let setup = format!(r#"{{"labels":{LABELS}{table}}}"#);
        world.send(conn, "ConnectionSetupRequest", &setup);
        let frames = world.frames(conn);
        assert_eq!(
            frames.len(),
            usize::from(acknowledged),
            "{profile:?} {table}"
        );
        if acknowledged {
            assert_eq!(frames[0].1.kind, "SetupAckRequest");
            assert_eq!(frames[0].1.field("/requestId"), None);
            let fuzzy = frames[0].1.field("/abilityTable/fuzzyWatch").is_some();
            assert_eq!(fuzzy, profile >= Profile::V3_0);
            let agent = frames[0].1.field("/abilityTable/agent").is_some();
            assert_eq!(agent, profile == Profile::V3_1);
        }
        let (kind, _) = world.call(conn, "HealthCheckRequest", &json!({})).unwrap();
        assert_eq!(kind, "HealthCheckResponse");
    }
}

#[test]
fn twins_are_two_entries_that_change_places_with_each_push() {
    let mut world = World::new(at_once());
    let sub = world.client();
    world.subscribe(sub, "s");
    world.pushes(sub);
    let a = instance(1).with_weight(1.0);
    let b = instance(1).with_weight(2.0);
    let now = world.now;
    world.machine.register_as("a", "s", [&a], now);
    world.machine.register_as("b", "s", [&b], now);
    for _ in 0..4 {
        world.machine.push_again("s", now);
    }
    world.drain();
    let orders: Vec<String> = world
        .frames(sub)
        .iter()
        .skip(1)
        .map(|(_, frame)| frame.field("/serviceInfo/hosts/0/weight").unwrap())
        .collect();
    assert_eq!(orders.len(), 5);
    assert!(
        orders.windows(2).all(|pair| pair[0] != pair[1]),
        "{orders:?}"
    );
    world.machine.register_as("a", "s", [], now);
    assert_eq!(world.machine.view().addresses("s"), ["10.0.0.1:1"]);
}

#[test]
fn one_connection_publishes_one_set_and_deregisters_all_of_it() {
    let mut world = World::new(at_once());
    let (p, q) = (world.client(), world.client());
    let batch = |ports: &[u16]| {
        let instances: Vec<Value> = ports.iter().map(|port| at(*port)).collect();
        json!({"namespace": "public", "groupName": "DEFAULT_GROUP", "serviceName": "s",
            "type": "batchRegisterInstance", "instances": instances})
    };
    world.register(q, "s", &at(9));
    world
        .call(p, "BatchInstanceRequest", &batch(&[1, 2, 3]))
        .unwrap();
    world.call(p, "BatchInstanceRequest", &batch(&[2])).unwrap();
    let (_, empty) = world.call(p, "BatchInstanceRequest", &batch(&[])).unwrap();
    assert_eq!(empty["resultCode"], 200);
    assert_eq!(
        world.machine.view().addresses("s"),
        ["10.0.0.1:2", "10.0.0.1:9"]
    );
    world.register(p, "s", &at(4));
    assert_eq!(
        world.machine.view().addresses("s"),
        ["10.0.0.1:4", "10.0.0.1:9"]
    );
    let deregister = json!({"namespace": "public", "groupName": "DEFAULT_GROUP",
        "serviceName": "s", "type": "deregisterInstance", "instance": at(777)});
    world.call(p, "InstanceRequest", &deregister).unwrap();
    assert_eq!(world.machine.view().addresses("s"), ["10.0.0.1:9"]);
    let now = world.now;
    world.machine.handle_closed(q, now);
    assert!(world.machine.view().addresses("s").is_empty());
}

#[test]
fn what_json_has_no_number_for_travels_as_a_text() {
    let mut world = World::new(at_once());
    let conn = world.client();
    for (given, shown) in [
        (json!("NaN"), json!("NaN")),
        (json!("-Infinity"), json!("-Infinity")),
        (json!("2.5"), json!(2.5)),
        (json!(3), json!(3.0)),
        (json!(null), json!(0.0)),
    ] {
        let answer = world.register(conn, "s", &json!({"ip": "h", "port": 1, "weight": given}));
        assert_eq!(answer["resultCode"], 200);
        assert_eq!(hosts(&mut world, conn, "s")[0]["weight"], shown);
    }
    let answer = world.register(conn, "s", &json!({"ip": "h", "port": 1, "weight": {}}));
    assert_eq!(
        (&answer["resultCode"], &answer["errorCode"]),
        (&json!(500), &json!(502))
    );
}

#[test]
fn older_servers_know_less() {
    let mut world = World::of(Profile::V2_0);
    let conn = world.client();
    for kind in ["BatchInstanceRequest", "PersistentInstanceRequest"] {
        let (_, answer) = world.call(conn, kind, &json!({})).unwrap();
        assert_eq!(answer["errorCode"], 302, "{kind}");
    }
    // Nobody checks parameters, and the answer to a subscription lists what is disabled.
    let odd = json!({"ip": "h", "port": 70_000, "enabled": false});
    assert_eq!(world.register(conn, "s", &odd)["resultCode"], 200);
    let answer = world.subscribe(conn, "s");
    assert_eq!(ports(&answer), [70_000]);
    assert!(hosts(&mut world, conn, "s").is_empty());
    world.pass(600);
    assert_eq!(world.pushes(conn), [(500, vec![])]);
}

#[test]
fn a_service_is_ephemeral_or_persistent_and_persistent_ones_outlive_their_client() {
    let mut world = World::new(at_once());
    let conn = world.client();
    let body = json!({"namespace": "public", "groupName": "DEFAULT_GROUP", "serviceName": "s",
        "type": "registerInstance", "instance": at(1)});
    let (kind, _) = world
        .call(conn, "PersistentInstanceRequest", &body)
        .unwrap();
    assert_eq!(kind, "InstanceResponse");
    let refused = world.register(conn, "s", &at(2));
    assert_eq!(refused["errorCode"], 400);
    let now = world.now;
    world.machine.restart(now);
    let conn = world.client();
    assert_eq!(hosts(&mut world, conn, "s")[0]["ephemeral"], false);
}

#[test]
fn a_name_that_servers_refuse_is_refused() {
    let mut world = World::of(Profile::V2_5);
    let conn = world.client();
    for service in ["a b", "@a", "a@@b", "订单"] {
        let answer = world.subscribe(conn, service);
        assert_eq!(answer["errorCode"], 400, "{service}");
        assert!(answer.get("serviceInfo").is_none());
    }
    let long = json!({"ip": "h", "port": 1, "metadata": {"k": "v".repeat(1_024)}});
    assert_eq!(world.register(conn, "s", &long)["errorCode"], 400);
    let id = json!({"requestId": "12"});
    let (_, answer) = world.call(conn, "HealthCheckRequest", &id).unwrap();
    assert_eq!(answer["requestId"], "12");
}
