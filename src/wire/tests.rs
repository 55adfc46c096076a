//! The wire pinned to what real servers sent (`tests/golden`), and to what no server should send.

use std::{fs, path::Path};

use base64::prelude::{BASE64_STANDARD, Engine};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::model::{Instance, Listing, Metadata, ServiceKey, Weight};

mod fuzzy;
mod kept;

/// One line of a transcript.
struct Line {
    at: String,
    json: Value,
}

impl Line {
    fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_default()
    }

    fn payload(&self) -> Option<Payload> {
        let bytes = BASE64_STANDARD
            .decode(self.json["payload"].as_str()?)
            .unwrap();
        Some(Payload::decode(&*bytes).unwrap())
    }
}

fn golden() -> Vec<Line> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut lines = Vec::new();
    for server in ["alibaba-2.5.1", "alibaba-3.0.3", "rnacos-0.8.8"] {
        for file in fs::read_dir(root.join(server)).unwrap() {
            let path = file.unwrap().path();
            for (at, text) in fs::read_to_string(&path).unwrap().lines().enumerate() {
                let at = format!("{}:{}", path.strip_prefix(&root).unwrap().display(), at + 1);
                lines.push(Line {
                    at,
                    json: serde_json::from_str(text).unwrap(),
                });
            }
        }
    }
    assert!(lines.len() > 2_000, "the transcripts are missing");
    lines
}

fn notify(info: impl Into<bytes::Bytes>) -> Payload {
    Payload::new("NotifySubscriberRequest", info)
}

fn push_of(hosts: &str) -> Payload {
    notify(format!(
        r#"{{"requestId":"5","serviceInfo":{{"name":"s","groupName":"g","hosts":{hosts}}}}}"#
    ))
}

fn listing_of(hosts: &str) -> Listing {
    match ServerRequest::decode(&push_of(hosts)).1 {
        Ok(ServerRequest::Notify {
            listing: Some(listing),
            ..
        }) => listing,
        other => panic!("{other:?}"),
    }
}

fn key() -> ServiceKey {
    ServiceKey::new("public", "DEFAULT_GROUP@@orders".parse().unwrap()).unwrap()
}

fn assert_hosts(at: &str, listing: Option<&Listing>, info: &Value) {
    let Some(hosts) = info["hosts"].as_array() else {
        assert!(listing.is_none(), "{at}: a list out of nothing");
        return;
    };
    let listing = listing.unwrap_or_else(|| panic!("{at}: no list"));
    assert_eq!(
        listing.instances().len() + listing.rejected().len(),
        hosts.len(),
        "{at}"
    );
    assert_eq!(
        listing.stamp(),
        info["lastRefTime"].as_i64().unwrap_or(0),
        "{at}"
    );
    assert_eq!(
        listing.is_protected(),
        info["reachProtectionThreshold"].as_bool().unwrap_or(false),
        "{at}"
    );
    let kept = hosts.iter().filter(|host| {
        let ip = host["ip"].as_str().unwrap();
        !ip.is_empty() && (1..=65535).contains(&host["port"].as_i64().unwrap())
    });
    for (instance, host) in listing.instances().iter().zip(kept) {
        let said = |key: &str| host[key].as_bool().unwrap();
        assert_eq!(
            instance.address().host().to_string(),
            host["ip"].as_str().unwrap(),
            "{at}"
        );
        assert_eq!(
            i64::from(instance.address().port()),
            host["port"].as_i64().unwrap(),
            "{at}"
        );
        let weight = host["weight"].as_f64().map_or(Weight::ONE, Weight::new);
        assert_eq!(instance.weight(), weight, "{at}");
        assert_eq!(instance.is_healthy(), said("healthy"), "{at}");
        assert_eq!(instance.is_enabled(), said("enabled"), "{at}");
        assert_eq!(instance.is_ephemeral(), said("ephemeral"), "{at}");
        assert_eq!(
            &**instance.cluster(),
            host["clusterName"].as_str().unwrap(),
            "{at}"
        );
        let metadata: Metadata = host["metadata"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), v.as_str().unwrap()))
            .collect();
        assert_eq!(*instance.metadata(), metadata, "{at}");
    }
}

#[test]
fn every_server_payload_decodes_to_what_its_body_says() {
    let (mut answers, mut pushes, mut watched) = (0, 0, 0);
    for line in golden().iter().filter(|line| line.text("from") == "server") {
        let Some(payload) = line.payload() else {
            continue;
        };
        let body = &line.json["body"];
        let at = &line.at;
        assert_eq!(payload.kind(), line.text("type"), "{at}");
        assert!(payload.body.as_ref().unwrap().type_url.is_empty(), "{at}");
        assert_eq!(
            &serde_json::from_slice::<Value>(payload.json()).unwrap(),
            body,
            "{at}"
        );
        if line.text("via") == "stream" {
            pushes += 1;
            let (id, request) = ServerRequest::decode(&payload);
            assert_eq!(
                id.as_deref().unwrap_or_default(),
                body["requestId"].as_str().unwrap_or_default(),
                "{at}"
            );
            match request.unwrap_or_else(|e| panic!("{at}: {e}")) {
                ServerRequest::Notify { service, listing } => {
                    let info = &body["serviceInfo"];
                    assert_eq!(&**service.name(), info["name"].as_str().unwrap(), "{at}");
                    assert_eq!(
                        &**service.group(),
                        info["groupName"].as_str().unwrap(),
                        "{at}"
                    );
                    assert_hosts(at, listing.as_ref(), info);
                }
                ServerRequest::SetupAck { fuzzy_watch } => {
                    let said = body["abilityTable"]["fuzzyWatch"] == true;
                    assert_eq!(fuzzy_watch, said, "{at}");
                }
                ServerRequest::FuzzySync(sync) => {
                    watched += 1;
                    assert_eq!(
                        sync.pattern,
                        body["groupKeyPattern"].as_str().unwrap(),
                        "{at}"
                    );
                    let finished = body["syncType"] == "FINISH_FUZZY_WATCH_INIT_NOTIFY";
                    assert_eq!(sync.is_finished, finished, "{at}");
                    let contexts = body["contexts"].as_array().unwrap();
                    assert_eq!(sync.services.len(), contexts.len(), "{at}");
                    for (ours, theirs) in sync.services.iter().zip(contexts) {
                        assert_watched(at, ours, theirs);
                    }
                }
                ServerRequest::FuzzyChange(change) => {
                    watched += 1;
                    assert_watched(at, &change, body);
                }
                ServerRequest::ClientDetection => {
                    assert_eq!(payload.kind(), "ClientDetectionRequest");
                }
                ServerRequest::ConnectReset { server } => assert_eq!(
                    server.map(|(ip, _)| ip).unwrap_or_default(),
                    body["serverIp"].as_str().unwrap_or_default(),
                    "{at}"
                ),
                ServerRequest::Other(kind) => panic!("{at}: {kind}"),
            }
            continue;
        }
        answers += 1;
        let code = body["resultCode"].as_i64().unwrap();
        match Answer::decode(&payload).unwrap_or_else(|e| panic!("{at}: {e}")) {
            Ok(answer) => {
                assert_eq!(code, 200, "{at}");
                match answer {
                    Answer::Subscribe { listing, .. } | Answer::Query { listing, .. } => {
                        assert_hosts(at, listing.as_ref(), &body["serviceInfo"]);
                    }
                    Answer::List { count, names } => {
                        assert_eq!(Some(count), body["count"].as_u64(), "{at}");
                        assert_eq!(json!(names), body["serviceNames"], "{at}");
                    }
                    Answer::ServerCheck {
                        connection_id,
                        negotiates,
                    } => {
                        assert_eq!(
                            connection_id.as_deref(),
                            body["connectionId"].as_str(),
                            "{at}"
                        );
                        assert_eq!(
                            negotiates,
                            body["supportAbilityNegotiation"].as_bool().unwrap_or(false),
                            "{at}"
                        );
                    }
                    Answer::Done => {}
                }
            }
            Err(error) => {
                let said = body["errorCode"]
                    .as_i64()
                    .filter(|code| *code != 0)
                    .unwrap_or(code);
                assert_eq!(i64::from(error.code), said, "{at}");
            }
        }
    }
    assert!(
        answers > 500 && pushes > 300,
        "{answers} answers, {pushes} pushes"
    );
    assert_eq!(watched, 4, "two batches and two changes");
}

fn assert_watched(at: &str, ours: &WatchedService, theirs: &Value) {
    let key = format!("{}@@{}", ours.namespace, ours.service);
    assert_eq!(theirs["serviceKey"], key, "{at}");
    let kind = if ours.exists {
        "ADD_SERVICE"
    } else {
        "DELETE_SERVICE"
    };
    assert_eq!(theirs["changedType"], kind, "{at}");
}

#[test]
fn w1_the_envelope_has_the_field_numbers_of_the_proto() {
    let payload = Request::HealthCheck.encode(&Head {
        client_ip: "1.2.3.4".to_owned(),
        headers: [("app".to_owned(), "a".to_owned())].into(),
    });
    let mut bytes = vec![0x12, 0]; // metadata, of a length set below
    bytes.extend(b"\x1a\x12HealthCheckRequest");
    bytes.extend(b"\x3a\x08\x0a\x03app\x12\x01a");
    bytes.extend(b"\x42\x071.2.3.4");
    bytes.extend(b"\x1a\x04\x12\x02{}");
    // prost writes fields by number: 3 (type), 7 (headers), 8 (clientIp).
    bytes[1] = (bytes.len() - 2 - 6) as u8;
    assert_eq!(payload.encode_to_vec(), bytes);
}

#[test]
fn w1_requests_say_what_the_recorded_client_said() {
    let recorded = golden();
    let is = |line: &&Line, kind: &str| {
        line.text("from") == "client" && line.text("type") == kind && line.payload().is_some()
    };
    for line in recorded
        .iter()
        .filter(|line| is(line, "SubscribeServiceRequest"))
    {
        let body = &line.json["body"];
        if body["clusters"] != "" || body["namespace"].as_str().is_none_or(str::is_empty) {
            continue;
        }
        let Ok(service) = crate::model::ServiceName::new(
            body["groupName"].as_str().unwrap_or_default(),
            body["serviceName"].as_str().unwrap_or_default(),
        ) else {
            continue;
        };
        let request = Request::Subscribe {
            key: ServiceKey::new(body["namespace"].as_str().unwrap(), service).unwrap(),
            subscribe: body["subscribe"].as_bool().unwrap(),
        };
        let ours = request.encode(&Head::default());
        assert_eq!(
            &serde_json::from_slice::<Value>(ours.json()).unwrap(),
            body,
            "{}",
            line.at
        );
    }
    let instance = Instance::parse("10.0.0.3:8080")
        .unwrap()
        .with_weight(2.5)
        .with_metadata([("zone", "a")].into_iter().collect());
    let ours = Request::Register {
        key: key(),
        instance,
    }
    .encode(&Head::default());
    assert_eq!(
        serde_json::from_slice::<Value>(ours.json()).unwrap(),
        json!({
            "namespace": "public", "serviceName": "orders", "groupName": "DEFAULT_GROUP",
            "type": "registerInstance",
            "instance": {"ip": "10.0.0.3", "port": 8080, "weight": 2.5, "healthy": true,
                "enabled": true, "ephemeral": true, "clusterName": "DEFAULT",
                "metadata": {"zone": "a"}},
        })
    );
}

#[test]
fn metadata_that_instances_of_a_list_have_in_common_is_there_once() {
    let hosts = |metadata: &dyn Fn(usize) -> String| {
        let host = |at| {
            format!(
                r#"{{"ip":"10.0.0.1","port":{},"metadata":{}}}"#,
                at + 1,
                metadata(at)
            )
        };
        let hosts: Vec<String> = (0..300).map(host).collect();
        listing_of(&format!("[{}]", hosts.join(",")))
    };
    let alike = hosts(&|at| match at % 2 {
        0 => r#"{"zone":"a","version":"2"}"#.to_owned(),
        _ => r#"{"version":2,"zone":"a","gone":null}"#.to_owned(),
    });
    let [first, rest @ ..] = alike.instances() else {
        panic!("300 are listed");
    };
    for instance in rest {
        assert!(instance.metadata().is_shared_with(first.metadata()));
    }
    // Where each has its own nothing is mixed up, and who repeats what nobody looks for has it all the same.
    let own = hosts(&|at| format!(r#"{{"version":"2","at":"{}"}}"#, at.min(298)));
    for (at, instance) in own.instances().iter().enumerate() {
        let expected = [("at", at.min(298).to_string()), ("version", "2".to_owned())];
        assert_eq!(*instance.metadata(), expected.into_iter().collect());
    }
}

#[test]
fn w2_headers_travel_in_the_envelope_only() {
    let head = Head {
        client_ip: String::new(),
        headers: [("accessToken".to_owned(), "secret".to_owned())].into(),
    };
    let payload = Request::Query { key: key() }.encode(&head);
    assert_eq!(
        payload.metadata.as_ref().unwrap().headers["accessToken"],
        "secret"
    );
    assert!(!String::from_utf8_lossy(payload.json()).contains("secret"));
}

#[test]
fn w3_unknown_and_missing_fields_are_tolerated() {
    let listing = listing_of(r#"[{"ip":"1.2.3.4","port":80,"new":{"x":[1]}}]"#);
    assert_eq!(
        listing.instances(),
        [Instance::parse("1.2.3.4:80").unwrap().into()]
    );

    let bare = Payload::new("SubscribeServiceResponse", r#"{"resultCode":200}"#);
    assert_eq!(
        Answer::decode(&bare),
        Ok(Ok(Answer::Subscribe {
            service: None,
            listing: None
        }))
    );
    let refused = Payload::new(
        "SubscribeServiceResponse",
        r#"{"resultCode":500,"errorCode":403}"#,
    );
    assert_eq!(Answer::decode(&refused).unwrap().unwrap_err().code, 403);
    let error = Payload::new(
        "ErrorResponse",
        r#"{"resultCode":500,"errorCode":301,"message":"m"}"#,
    );
    assert_eq!(
        Answer::decode(&error).unwrap().unwrap_err(),
        ServerError {
            code: 301,
            message: "m".to_owned()
        }
    );
    assert_eq!(
        ServerRequest::decode(&Payload::new("FromTheFutureRequest", "{}")).1,
        Ok(ServerRequest::Other("FromTheFutureRequest".to_owned()))
    );
    assert!(Answer::decode(&Payload::default()).is_err());
}

#[test]
fn d9_a_push_without_hosts_carries_no_list() {
    for hosts in ["null", r#"null,"lastRefTime":7"#] {
        assert_eq!(
            ServerRequest::decode(&push_of(hosts)).1,
            Ok(ServerRequest::Notify {
                service: "g@@s".parse().unwrap(),
                listing: None
            })
        );
    }
    assert_eq!(listing_of("[]"), Listing::default());
}

#[test]
fn one_bad_host_among_many_costs_that_host_alone() {
    for (bad, name) in [
        (r#"{"ip":"10.9.9.9","port":"eighty"}"#, "10.9.9.9:eighty"),
        (r#"{"ip":"10.9.9.9","port":70000}"#, "10.9.9.9:70000"),
        (r#"{"ip":"10.9.9.9","port":0}"#, "10.9.9.9:0"),
        (r#"{"ip":"10.9.9.9","port":-1}"#, "10.9.9.9:-1"),
        (
            r#"{"ip":"10.9.9.9","port":18446744073709551616}"#,
            "10.9.9.9:18446744073709551616",
        ),
        (r#"{"ip":"","port":80}"#, ":80"),
        (
            r#"{"ip":"10.9.9.9","port":80,"weight":"heavy"}"#,
            "10.9.9.9:80",
        ),
        (
            r#"{"ip":"10.9.9.9","port":80,"healthy":"yes"}"#,
            "10.9.9.9:80",
        ),
        (
            r#"{"ip":"10.9.9.9","port":80,"metadata":{"a":[]}}"#,
            "10.9.9.9:80",
        ),
        (r#"{"port":80}"#, ":80"),
        ("17", "17"),
        ("null", "null"),
    ] {
        let good: Vec<String> = (1..1000)
            .map(|n| format!(r#"{{"ip":"10.0.{}.{}","port":80}}"#, n / 250, n % 250))
            .collect();
        let listing = listing_of(&format!("[{},{bad}]", good.join(",")));
        assert_eq!(listing.instances().len(), 999, "{bad}");
        let [rejected] = listing.rejected() else {
            panic!("{bad}: {:?}", listing.rejected())
        };
        assert_eq!(rejected.text(), name);
        assert!(!rejected.reason().is_empty());
    }
}

#[test]
fn what_is_beside_the_point_costs_nothing_when_it_has_another_type() {
    let hosts =
        r#"[{"ip":"10.0.0.1","port":80}],"lastRefTime":"late","reachProtectionThreshold":[1]"#;
    let listing = listing_of(hosts);
    assert_eq!(listing.instances().len(), 1);
    assert_eq!((listing.stamp(), listing.is_protected()), (0, false));
}

#[test]
fn a_host_in_invalid_utf8_is_left_out_and_the_rest_stays() {
    let mut json = br#"{"requestId":"5","serviceInfo":{"name":"s","groupName":"g","hosts":[
        {"ip":"10.0.0.1","port":80},{"ip":"10.0.0.2","port":80,"metadata":{"a":""#
        .to_vec();
    json.extend([0xff, 0xfe]);
    json.extend(br#""}}]}}"#);
    let Ok(ServerRequest::Notify {
        listing: Some(listing),
        ..
    }) = ServerRequest::decode(&notify(json)).1
    else {
        panic!()
    };
    assert_eq!(
        listing.instances(),
        [Instance::parse("10.0.0.1:80").unwrap().into()]
    );
    assert_eq!(listing.rejected()[0].text(), "10.0.0.2:80");
}

#[test]
fn weights_names_and_addresses_of_every_kind_are_read() {
    for (weight, read) in [
        ("null", 1.0),
        ("\"NaN\"", 1.0),
        ("\"Infinity\"", 10_000.0),
        ("\"-Infinity\"", 0.0),
        ("\"2.5\"", 2.5),
        ("-3", 0.0),
        ("1e308", 10_000.0),
        ("10001", 10_000.0),
        ("0", 0.0),
    ] {
        let listing = listing_of(&format!(r#"[{{"ip":"h","port":1,"weight":{weight}}}]"#));
        assert_eq!(listing.instances()[0].weight().get(), read, "{weight}");
    }
    for (ip, shown) in [
        ("::1", "[::1]:1"),
        ("[fe80::2]", "[fe80::2]:1"),
        ("Orders-0", "orders-0:1"),
    ] {
        let listing = listing_of(&format!(r#"[{{"ip":"{ip}","port":1}}]"#));
        assert_eq!(listing.instances()[0].address().to_string(), shown);
    }
}

#[test]
fn a_broken_envelope_is_an_error_that_still_names_push_and_service() {
    for json in [
        r#"{"requestId":"5","serviceInfo":{"name":"s","groupName":"g","hosts":[{"ip":"1.1.1.1","#,
        r#"{"requestId":"5","serviceInfo":{"name":"s","groupName":"g","hosts":[{"weight":NaN}]}}"#,
        r#"{"requestId":"5","serviceInfo":{"name":"g@@s","hosts":7}}"#,
    ] {
        let payload = notify(json);
        let (id, request) = ServerRequest::decode(&payload);
        let error = request.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("NotifySubscriberRequest cannot be read: "),
            "{error}"
        );
        assert_eq!(error.service(), Some(&"g@@s".parse().unwrap()), "{json}");
        assert_eq!(id.as_deref(), Some("5"));
    }
}

#[test]
fn w6_the_id_of_a_push_is_read_with_it_wherever_it_stands_and_spoils_nothing() {
    let info = r#""serviceInfo":{"name":"s","groupName":"g","hosts":[{"ip":"1.1.1.1","port":80}]}"#;
    for (json, id) in [
        (format!(r#"{{"requestId":"5",{info}}}"#), Some("5")),
        (format!(r#"{{{info},"requestId":"5"}}"#), Some("5")),
        (format!(r#"{{{info},"requestId":"5\u0036"}}"#), Some("56")),
        (format!(r#"{{{info},"requestId":""}}"#), Some("")),
        (format!(r#"{{{info},"requestId":null}}"#), None),
        (format!(r#"{{{info},"requestId":5}}"#), None),
        (format!(r#"{{{info},"requestId":{{"a":["b"]}}}}"#), None),
        (format!(r#"{{{info}}}"#), None),
    ] {
        let (read, request) = ServerRequest::decode(&notify(json.clone()));
        assert_eq!(read.as_deref(), id, "{json}");
        let Ok(ServerRequest::Notify { listing, .. }) = request else {
            panic!("{json}: {request:?}");
        };
        assert_eq!(listing.unwrap().instances().len(), 1, "{json}");
    }
    // A host that cannot be read, and bytes that are no text.
    let mut json = format!(r#"{{"requestId":"5",{info}}}"#)
        .replace("80", "\"x\"")
        .into_bytes();
    assert_eq!(
        ServerRequest::decode(&notify(json.clone())).0.as_deref(),
        Some("5")
    );
    let at = json.len() - 8;
    json[at] = 0xff;
    assert_eq!(ServerRequest::decode(&notify(json)).0.as_deref(), Some("5"));
}

#[test]
fn w6_an_acknowledgement_repeats_the_request_id() {
    let ack = ack("NotifySubscriberRequest", Some("42"), 200);
    assert_eq!(ack.kind(), "NotifySubscriberResponse");
    let json: Value = serde_json::from_slice(ack.json()).unwrap();
    assert_eq!(
        (json["requestId"].as_str(), json["resultCode"].as_i64()),
        (Some("42"), Some(200))
    );
}

#[test]
fn megabytes_of_metadata_and_thousands_of_hosts_are_read() {
    let big = "x".repeat(10 << 20);
    let listing = listing_of(&format!(
        r#"[{{"ip":"h","port":1,"metadata":{{"k":"{big}"}}}}]"#
    ));
    assert_eq!(
        listing.instances()[0].metadata().get("k").map(str::len),
        Some(10 << 20)
    );
    let hosts: Vec<String> = (0..10_000)
        .map(|n| format!(r#"{{"ip":"10.{}.{}.1","port":80}}"#, n / 250, n % 250))
        .collect();
    assert_eq!(
        listing_of(&format!("[{}]", hosts.join(",")))
            .instances()
            .len(),
        10_000
    );
}

/// A JSON value of the kinds that a field of a host might hold.
fn anything() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| json!(n).to_string()),
        any::<String>().prop_map(|s| json!(s).to_string()),
        Just("[]".to_owned()),
        Just(r#"{"a":"b","c":null,"d":1.5}"#.to_owned()),
    ]
}

fn some_host() -> impl Strategy<Value = String> {
    let field = prop::sample::select(vec![
        "ip",
        "port",
        "weight",
        "healthy",
        "enabled",
        "ephemeral",
        "clusterName",
        "metadata",
        "x",
    ]);
    prop::collection::vec((field, anything()), 0..6).prop_map(|fields| {
        let fields: Vec<String> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_hosts_say_each_is_kept_or_named(
        hosts in prop::collection::vec(some_host(), 0..8),
        good in 0_usize..8,
    ) {
        let good = good.min(hosts.len());
        let mut all = hosts;
        all.insert(good, r#"{"ip":"10.0.0.1","port":80,"weight":3}"#.to_owned());
        let listing = listing_of(&format!("[{}]", all.join(",")));
        prop_assert_eq!(listing.instances().len() + listing.rejected().len(), all.len());
        let kept = listing.instances().iter().any(|i| i.weight().get() == 3.0);
        prop_assert!(kept);
        for instance in listing.instances() {
            let weight = instance.weight().get();
            prop_assert!((0.0..=10_000.0).contains(&weight));
            prop_assert!(instance.address().port() != 0);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..256),
        kind in prop::sample::select(vec![
            "NotifySubscriberRequest", "ConnectResetRequest", "SubscribeServiceResponse",
            "ErrorResponse", "ServiceListResponse", "",
        ]),
    ) {
        let _ = Payload::decode(&*bytes);
        let payload = Payload::new(kind, bytes);
        let _ = Answer::decode(&payload);
        let _ = ServerRequest::decode(&payload);
    }

    #[test]
    fn a_damaged_push_is_a_list_or_an_error(cut in 0_usize..400, flip in any::<(usize, u8)>()) {
        let hosts = r#"[{"ip":"10.0.0.1","port":80,"metadata":{"a":"b"}},{"ip":"::1","port":81}]"#;
        let mut json = push_of(hosts).json().to_vec();
        let at = flip.0 % json.len();
        json[at] = flip.1;
        json.truncate(json.len().saturating_sub(cut % 40));
        let payload = notify(json);
        let _ = ServerRequest::decode(&payload);
    }
}
