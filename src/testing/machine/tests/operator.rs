use super::*;

fn put(world: &mut World, call: OperatorCall) -> u16 {
    let answer = world.machine.operator(&call, world.now);
    world.drain();
    answer.status
}

fn edit(port: u16) -> OperatorCall {
    OperatorCall::new("PUT", "/nacos/v1/ns/instance")
        .with("serviceName", "s")
        .with("ip", "10.0.0.1")
        .with("port", port)
}

fn first(world: &mut World, conn: ConnId) -> Value {
    let answer = world.query(conn, "s");
    answer["serviceInfo"]["hosts"][0].clone()
}

#[test]
fn an_edit_outlives_the_registration_for_a_minute() {
    let mut world = World::new(at_once());
    let provider = world.client();
    let given = json!({"ip": "10.0.0.1", "port": 1, "weight": 3, "metadata": {"a": "1", "b": "1"}});
    world.register(provider, "s", &given);
    let call = edit(1).with("weight", 7).with("metadata", r#"{"a":"2"}"#);
    assert_eq!(put(&mut world, call), 200);
    let now = world.now;
    world.machine.handle_closed(provider, now);
    world.pass(59_000);
    let provider = world.client();
    world.register(provider, "s", &given);
    let shown = first(&mut world, provider);
    assert_eq!(shown["weight"], 7.0);
    assert_eq!(shown["metadata"], json!({"a": "2", "b": "1"}));
    let now = world.now;
    world.machine.handle_closed(provider, now);
    world.pass(60_000);
    let provider = world.client();
    world.register(provider, "s", &given);
    assert_eq!(first(&mut world, provider)["weight"], 3.0);
}

#[test]
fn a_put_that_names_only_metadata_sets_the_weight_to_1_and_a_patch_does_not() {
    let mut world = World::new(at_once());
    let conn = world.client();
    world.register(
        conn,
        "s",
        &json!({"ip": "10.0.0.1", "port": 1, "weight": 3}),
    );
    let mut patch = edit(1).with("metadata", "k=v");
    patch.method = "PATCH".to_owned();
    assert_eq!(put(&mut world, patch), 200);
    assert_eq!(first(&mut world, conn)["weight"], 3.0);
    assert_eq!(put(&mut world, edit(1).with("metadata", "k=w")), 200);
    let shown = first(&mut world, conn);
    assert_eq!(
        (&shown["weight"], &shown["metadata"]["k"]),
        (&json!(1.0), &json!("w"))
    );
}

#[test]
fn protection_needs_a_record_of_the_service_and_starts_at_the_threshold() {
    let mut world = World::new(at_once());
    let conn = world.client();
    let now = world.now;
    for port in 1..=2 {
        world
            .machine
            .register("s", &instance(port).with_healthy(false), now);
    }
    let flag = |world: &mut World| {
        let answer = world.query(conn, "s");
        let info = &answer["serviceInfo"];
        assert_eq!(info["hosts"].as_array().unwrap().len(), 2);
        info["reachProtectionThreshold"].as_bool().unwrap()
    };
    assert!(!flag(&mut world));
    world.machine.set_protect_threshold("s", 0.0, now);
    assert!(flag(&mut world));
    assert_eq!(first(&mut world, conn)["healthy"], true);
    world.machine.set_healthy("s", "10.0.0.1:2", true, now);
    assert!(!flag(&mut world));
    world.machine.set_protect_threshold("s", 0.5, now);
    assert!(flag(&mut world));
}

#[test]
fn the_paths_of_2_x_are_gone_on_3_x_but_for_clients_and_those_of_3_x_unknown_before() {
    let mut old = World::of(Profile::V2_5);
    let mut new = World::of(Profile::V3_0);
    let mut admin = edit(1);
    admin.path = "/nacos/v3/admin/ns/instance".to_owned();
    for world in [&mut old, &mut new] {
        let mut register = edit(1);
        register.method = "POST".to_owned();
        assert_eq!(put(world, register), 200);
    }
    assert_eq!(
        (put(&mut old, edit(1)), put(&mut old, admin.clone())),
        (200, 404)
    );
    assert_eq!((put(&mut new, edit(1)), put(&mut new, admin)), (410, 200));
    let ready = OperatorCall::new("GET", "/nacos/v3/admin/core/state/readiness");
    assert_eq!(
        (put(&mut old, ready.clone()), put(&mut new, ready)),
        (404, 200)
    );
    let unknown = edit(1).with("serviceName", "other");
    assert_eq!(put(&mut old, unknown), 400);
}

#[test]
fn direct_edits_reach_every_cluster_of_an_address_and_can_be_forgotten() {
    let mut world = World::new(at_once());
    let conn = world.client();
    let now = world.now;
    world.machine.register("s", &instance(1), now);
    world
        .machine
        .register("s", &instance(1).with_cluster("HZ"), now);
    assert!(world.machine.set_weight("s", "10.0.0.1:1", 9.0, now));
    let metadata: Metadata = [("zone", "a")].into_iter().collect();
    assert!(
        world
            .machine
            .set_metadata("s", "10.0.0.1:1", &metadata, now)
    );
    assert!(!world.machine.set_enabled("s", "10.0.0.1:2", false, now));
    let answer = world.query(conn, "s");
    for host in answer["serviceInfo"]["hosts"].as_array().unwrap() {
        assert_eq!(
            (&host["weight"], &host["metadata"]["zone"]),
            (&json!(9.0), &json!("a"))
        );
    }
    assert!(world.machine.set_enabled("s", "10.0.0.1:1", false, now));
    assert!(ports(&world.query(conn, "s")).is_empty());
    world.machine.clear_edits("s", now);
    assert_eq!(ports(&world.query(conn, "s")), [1, 1]);
    assert!(world.machine.deregister("s", "10.0.0.1:1", now));
    assert!(!world.machine.deregister("s", "10.0.0.1:1", now));
}

#[test]
fn after_each_start_users_are_unknown_for_a_while_and_tokens_are_not() {
    let after = Duration::from_secs(5);
    let mut world = World::new(Settings {
        login: Some(Login::new("nacos", "secret")),
        profile: Profile::V3_1,
        users_after: after,
        ..Settings::default()
    });
    let right = OperatorCall::new("POST", "/nacos/v3/auth/user/login");
    let right = right.with("username", "nacos").with("password", "secret");
    for _ in 0..2 {
        assert_eq!(put(&mut world, right.clone()), 403);
        world.now += after - Duration::from_millis(1);
        assert_eq!(put(&mut world, right.clone()), 403);
        world.now += Duration::from_millis(1);
        assert_eq!(put(&mut world, right.clone()), 200);
        world.machine.restart(world.now);
    }
}

#[test]
fn with_a_login_naming_requests_need_a_token_that_has_not_ended() {
    for (profile, path) in [
        (Profile::V2_5, "/nacos/v1/auth/login"),
        (Profile::V3_0, "/nacos/v1/auth/users/login"),
        (Profile::V3_0, "/nacos/v3/auth/user/login"),
    ] {
        let login = Login::new("nacos", "secret").with_token_ttl(Duration::from_secs(10));
        let mut world = World::new(Settings {
            login: Some(login),
            profile,
            ..Settings::default()
        });
        let conn = world.client();
        assert_eq!(world.query(conn, "s")["errorCode"], 403);
        let (kind, _) = world.call(conn, "HealthCheckRequest", &json!({})).unwrap();
        assert_eq!(kind, "HealthCheckResponse", "needs none");
        let call = OperatorCall::new("POST", path).with("username", "nacos");
        let wrong = call.clone().with("password", "wrong");
        assert_ne!(put(&mut world, wrong), 200);
        let answer = world
            .machine
            .operator(&call.with("password", "secret"), world.now);
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(answer["tokenTtl"], 10);
        let body = json!({"namespace": "public", "groupName": "g", "serviceName": "s"});
        let query = Frame::new("ServiceQueryRequest", body.to_string())
            .with_header("accesstoken", answer["accessToken"].as_str().unwrap());
        let code = |world: &mut World| {
            world
                .machine
                .handle_unary(conn, 0, &query.encode(), world.now);
            let Some(Output::Answer { payload, .. }) = world.machine.poll_output() else {
                panic!("no answer");
            };
            let answer = Frame::decode(&payload).unwrap();
            assert_eq!(answer.kind, "QueryServiceResponse");
            answer.field("/errorCode").unwrap()
        };
        assert_eq!(code(&mut world), "0");
        world.pass(10_000);
        assert_eq!(code(&mut world), "403");
    }
}
