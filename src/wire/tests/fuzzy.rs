//! Fuzzy watch: what it says, and what is made of what servers say.

use serde_json::{Value, json};

use super::golden;
use crate::{
    model::ServiceFilter,
    wire::{FuzzySync, Head, Payload, Request, ServerRequest, ack},
};

#[test]
fn a_fuzzy_watch_says_what_the_recorded_client_said() {
    let recorded = golden();
    let of_kind = |kind: &'static str| {
        recorded
            .iter()
            .filter(move |line| line.text("type") == kind)
    };
    let mut compared = 0;
    for line in of_kind("NamingFuzzyWatchRequest") {
        let mut body = line.json["body"].clone();
        // A second spelling of `initializing`, which servers pass over.
        body.as_object_mut().unwrap().remove("isInitializing");
        let request = Request::FuzzyWatch {
            namespace: "public".into(),
            filter: ServiceFilter::group("DEFAULT_GROUP").name("fz-*"),
            received: Vec::new(),
            watch: true,
        };
        let ours = request.encode(&Head::default());
        assert_eq!(ours.kind(), line.text("type"));
        assert_eq!(serde_json::from_slice::<Value>(ours.json()).unwrap(), body);
        compared += 1;
    }
    assert_eq!(compared, 2, "3.0.3 takes it, 2.5.1 does not");
    let acked = of_kind("NamingFuzzyWatchChangeNotifyResponse").count();
    assert_eq!(acked, 4);
    for kind in [
        "NamingFuzzyWatchSyncRequest",
        "NamingFuzzyWatchChangeNotifyRequest",
    ] {
        let ack = ack(kind, Some("111"), 200);
        assert_eq!(ack.kind(), "NamingFuzzyWatchChangeNotifyResponse");
    }
}

#[test]
fn a_fuzzy_watch_says_what_is_known_already_and_when_it_ends() {
    let request = |watch, received: &[&str]| {
        let request = Request::FuzzyWatch {
            namespace: "dev".into(),
            filter: ServiceFilter::namespace(),
            received: received.iter().map(|name| name.parse().unwrap()).collect(),
            watch,
        };
        serde_json::from_slice::<Value>(request.encode(&Head::default()).json()).unwrap()
    };
    let known = request(true, &["G@@a"]);
    assert_eq!(known["groupKeyPattern"], "dev>>*>>*");
    assert_eq!(known["receivedGroupKeys"], json!(["dev@@G@@a"]));
    let end = request(false, &[]);
    assert_eq!(
        (&end["watchType"], &end["initializing"]),
        (&json!("CANCEL_WATCH"), &json!(false))
    );
}

#[test]
fn what_cannot_be_read_of_a_fuzzy_watch_costs_itself() {
    let decode =
        |kind: &str, body: Value| ServerRequest::decode(&Payload::new(kind, body.to_string()));
    let (sync, change) = (
        "NamingFuzzyWatchSyncRequest",
        "NamingFuzzyWatchChangeNotifyRequest",
    );
    let contexts = json!([
        {"serviceKey": "public@@G@@a/b", "changedType": "ADD_SERVICE"},
        {"serviceKey": "public@@G@@bad name", "changedType": "ADD_SERVICE"},
        {"serviceKey": "public@@G", "changedType": "ADD_SERVICE"},
        {"serviceKey": null, "changedType": "ADD_SERVICE"},
        {"serviceKey": "public@@G@@b", "changedType": "HEART_BEAT"},
        {"serviceKey": "public@@G@@c", "changedType": "DELETE_SERVICE"},
    ]);
    let (id, read) = decode(
        sync,
        json!({"requestId": "7", "groupKeyPattern": "p", "contexts": contexts}),
    );
    assert_eq!(id.as_deref(), Some("7"));
    let Ok(ServerRequest::FuzzySync(FuzzySync { services, .. })) = read else {
        panic!("{read:?}");
    };
    let seen: Vec<_> = services
        .iter()
        .map(|s| (s.service.to_string(), s.exists))
        .collect();
    assert_eq!(
        seen,
        [("G@@a/b".to_owned(), true), ("G@@c".to_owned(), false)]
    );
    for (kind, body) in [
        (sync, json!({})),
        (sync, json!({"groupKeyPattern": "p", "contexts": 3})),
        (change, json!({})),
        (
            change,
            json!({"serviceKey": "a", "changedType": "ADD_SERVICE"}),
        ),
        (change, json!("nothing")),
    ] {
        assert!(decode(kind, body.clone()).1.is_err(), "{kind} {body}");
    }
}
