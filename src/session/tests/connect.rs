use super::world::{MS, SEC, World, address, config};
use crate::session::{CallFailure, Config, DialError, SessionState};

#[test]
fn w4_the_setup_carries_the_labels_the_tenant_an_ability_table_and_our_address() {
    let config = Config {
        app_name: "shop".to_owned(),
        ..config(1)
    };
    let mut world = World::with(config, 1);
    world.run(SEC);
    let setup = world.sent_of("ConnectionSetupRequest")[0];
    assert_eq!(
        setup.json["labels"],
        serde_json::json!({
            "module": "naming", "source": "sdk", "AppName": "shop", "tls.enable": "false",
        })
    );
    assert_eq!(setup.json["tenant"], "public");
    assert_eq!(
        setup.json["abilityTable"],
        serde_json::json!({"fuzzyWatch": true})
    );
    assert_eq!(setup.client_ip, "192.168.0.9");
    let kinds: Vec<&str> = world.sent.iter().map(|sent| &*sent.kind).collect();
    assert_eq!(
        kinds[..3],
        [
            "ServerCheckRequest",
            "ConnectionSetupRequest",
            "HealthCheckRequest"
        ]
    );
}

#[test]
fn w2_only_naming_requests_carry_headers() {
    let mut config = config(1);
    let token = ("accessToken".to_owned(), "t".to_owned());
    config.headers.0.extend([token]);
    let mut world = World::with(config, 1);
    world.subscribe("orders");
    world.run(SEC);
    for sent in &world.sent {
        match &*sent.kind {
            "SubscribeServiceRequest" => {
                assert_eq!(sent.headers["accessToken"], "t");
                assert_eq!(sent.headers["app"], "unknown");
            }
            _ => assert!(sent.headers.is_empty(), "{sent:?}"),
        }
    }
    assert_eq!(world.sent_of("SubscribeServiceRequest").len(), 1);
}

#[test]
fn w5_a_server_that_negotiates_is_ready_when_it_acknowledged_and_not_before() {
    let mut world = World::new();
    world.script.registers_after = 700 * MS;
    world.run(600 * MS);
    assert!(!world.is_connected());
    assert!(world.sent_of("HealthCheckRequest").is_empty());
    world.run(200 * MS);
    let (
        at,
        SessionState::Connected {
            server,
            connection_id,
            ..
        },
    ) = world.states.last().unwrap()
    else {
        panic!("{:?}", world.states);
    };
    // dial, check, registration, acknowledgement, one call
    assert_eq!(*at, MS + MS + 700 * MS + MS + MS);
    assert_eq!(
        (*server, connection_id.as_deref()),
        (address(1), Some("c1"))
    );
}

#[test]
fn w5_a_server_that_does_not_negotiate_is_asked_every_30_ms_until_it_says_yes() {
    let mut world = World::new();
    world.script.negotiates = false;
    world.script.registers_after = 200 * MS;
    world.run(SEC);
    let asked: Vec<_> = world
        .sent_of("HealthCheckRequest")
        .iter()
        .map(|s| s.at)
        .collect();
    assert_eq!(asked.len(), 8, "{asked:?}"); // 2, 33, 64 … 219 ms
    assert_eq!(asked[1] - asked[0], 31 * MS);
    assert!(world.is_connected());
}

#[test]
fn w5_without_an_acknowledgement_for_5_s_the_next_server_is_tried() {
    let mut world = World::with(config(2), 3);
    world.script.acknowledges = false;
    world.run(5 * SEC);
    assert_eq!(world.dials.len(), 1);
    world.run(SEC);
    assert_eq!(world.dials.len(), 2);
    assert_ne!(world.dials[0].1, world.dials[1].1);
    assert!(
        world
            .last_error()
            .contains("did not acknowledge the setup within 5s")
    );
    world.script.acknowledges = true;
    world.run(10 * SEC);
    assert!(world.is_connected());
}

#[test]
fn w5_without_a_registration_for_5_s_the_attempt_fails_and_says_why() {
    let mut world = World::new();
    world.script.negotiates = false;
    world.script.registers_after = 60 * SEC;
    world.run(5 * SEC + 500 * MS);
    let error = world.last_error();
    assert!(
        error.contains("did not register the connection within 5s"),
        "{error}"
    );
}

#[test]
fn w9_301_before_the_registration_is_not_yet_and_afterwards_a_loss() {
    let mut world = World::new();
    world.script.negotiates = false;
    world.script.registers_after = 100 * MS;
    world.run(SEC);
    assert!(world.is_connected());
    assert_eq!(world.dials.len(), 1);
    world.script.refuse.insert("HealthCheckRequest", (301, 1));
    world.run(6 * SEC);
    assert_eq!(world.dials.len(), 2);
    assert!(world.is_connected());
    let lost = world.states.iter().find_map(|(_, state)| match state {
        SessionState::Connecting { last_error, .. } => last_error.clone(),
        _ => None,
    });
    let lost = lost.unwrap().to_string();
    assert!(lost.contains("no longer knows the connection"), "{lost}");
}

#[test]
fn w9_minus_401_is_a_loss() {
    let mut world = World::connected();
    world
        .script
        .refuse
        .insert("SubscribeServiceRequest", (-401, 1));
    world.subscribe("orders");
    world.run(2 * SEC);
    assert_eq!(world.dials.len(), 2);
    assert!(world.is_connected());
    assert_eq!(world.listed.len(), 1);
}

#[test]
fn w9_300_means_the_next_server() {
    let mut world = World::with(config(2), 3);
    world.script.refuse.insert("ServerCheckRequest", (300, 1));
    world.run(SEC);
    assert!(world.is_connected());
    assert_eq!(world.dials.len(), 2);
    assert_ne!(world.dials[0].1, world.dials[1].1);
    assert!(
        world
            .states
            .iter()
            .any(|(_, state)| { format!("{state:?}").contains("Starting(\"as scripted\")") })
    );
}

#[test]
fn p12_acknowledged_but_unregistered_is_an_l7_proxy_and_says_so() {
    let mut world = World::new();
    world.script.splits = true;
    world.run(10 * SEC);
    assert!(
        !world
            .states
            .iter()
            .any(|(_, s)| matches!(s, SessionState::Connected { .. }))
    );
    let error = world.last_error();
    assert!(
        error.contains("an L7 proxy splits the connection; use TCP"),
        "{error}"
    );
    world.script.splits = false;
    world.run(3 * SEC);
    assert!(world.is_connected());
}

#[test]
fn a_server_that_ends_the_stream_before_the_registration_turned_us_away() {
    let mut world = World::new();
    world.script.registers_after = SEC;
    world.run(10 * MS);
    let link = *world.peers.keys().next().unwrap();
    world
        .session
        .handle_stream_ended(link, "OK".to_owned(), world.now);
    world.drain();
    assert!(
        world
            .last_error()
            .contains("turned the connection away (OK)")
    );
    assert_eq!(world.hangups.len(), 1);
    world.run(3 * SEC);
    assert!(world.is_connected());
}

#[test]
fn every_way_to_fail_to_connect_is_bounded_and_teaches() {
    type Break = fn(&mut World);
    let cases: [(Break, &str); 9] = [
        (
            |w| {
                w.script.dials.insert(address(1), DialError::Refused);
            },
            "main port + 1000",
        ),
        (
            |w| {
                let error = DialError::NotHttp2("HTTP/1.1 400".to_owned());
                w.script.dials.insert(address(1), error);
            },
            "it may be the HTTP port",
        ),
        (
            |w| {
                w.script.black_holes.insert(address(1));
            },
            "no answer to the dial within 3s",
        ),
        (
            |w| {
                w.script.mute.insert("ServerCheckRequest");
            },
            "no answer to the server check within 3s",
        ),
        (
            |w| {
                w.script.garble.insert("ServerCheckRequest", "<html>");
            },
            "no Nacos server answers there",
        ),
        (
            |w| {
                w.script.refuse.insert("ServerCheckRequest", (300, 1_000));
            },
            "still starting",
        ),
        (
            |w| {
                w.script.refuse.insert("ServerCheckRequest", (403, 1_000));
            },
            "the server check was refused: the server answered 403: as scripted",
        ),
        (
            |w| {
                w.script.mute.insert("HealthCheckRequest");
            },
            "did not register the connection within 5s",
        ),
        (
            |w| w.script.registers_after = 60 * SEC,
            "did not acknowledge the setup",
        ),
    ];
    for (break_it, text) in cases {
        let mut world = World::new();
        break_it(&mut world);
        world.run(30 * SEC);
        let error = world.session.connect_error();
        assert!(
            error.to_string().contains(text),
            "{text:?} is not in {error}"
        );
        assert!(error.to_string().contains("10.0.0.1:9848"), "{error}");
        assert!(error.attempts >= 3, "{error:?}");
        assert!(!world.is_connected());
    }
}

#[test]
fn a_grpc_server_that_is_not_nacos_is_told_from_one_that_is() {
    let mut world = World::new();
    world.script.mute.insert("ServerCheckRequest");
    world.run(10 * MS);
    world.fail_calls_under_way(&CallFailure::Status {
        code: 12,
        message: "unknown service Request".to_owned(),
    });
    world.run(MS);
    let error = world.last_error();
    assert!(error.contains("no Nacos server answers there"), "{error}");
    assert!(error.contains("gRPC status 12"), "{error}");
}

#[test]
fn while_the_first_attempt_is_under_way_the_error_says_what_it_waits_for() {
    let mut world = World::new();
    world.script.mute.insert("ServerCheckRequest");
    world.run(SEC);
    assert_eq!(
        world.last_error(),
        "not connected after 1 attempt; now waiting for 10.0.0.1:9848 to answer the server check"
    );
}

#[test]
fn a_server_that_does_not_register_is_asked_ever_more_seldom() {
    let mut world = World::new();
    world.script.negotiates = false;
    world.script.registers_after = 60 * SEC;
    world.run(5 * SEC);
    let asked = world.sent_of("HealthCheckRequest").len();
    assert!((25..=35).contains(&asked), "{asked} times in 5 s");
}
