//! What Alibaba's servers and rnacos really sent on their streams, said to a connected session.

use std::{fs, path::Path};

use serde_json::Value;

use super::world::{SEC, World};
use crate::model::Origin;

fn lines(file: &str) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = fs::read_to_string(root.join(file)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Says every recorded stream message of `file` to a session that wants all its services; returns
/// how many there were that want an acknowledgement.
fn replay(world: &mut World, file: &str) -> usize {
    let mut wanting = 0;
    let is_from_server = |line: &&Value| line["from"] == "server" && line["via"] == "stream";
    for line in lines(file).iter().filter(is_from_server) {
        let Some(kind) = line["type"].as_str() else {
            continue; // the end of a stream
        };
        let info = &line["body"]["serviceInfo"];
        if let (Some(group), Some(name)) = (info["groupName"].as_str(), info["name"].as_str()) {
            world.subscribe(&format!("{group}@@{name}"));
        }
        let (link, before) = (world.link(), world.sent.len());
        world.stream(link, kind, &line["body"].to_string());
        if matches!(
            kind,
            "NotifySubscriberRequest" | "ClientDetectionRequest" | "ConnectResetRequest"
        ) {
            wanting += 1;
            let ack = &world.sent[before];
            assert_eq!(ack.kind, kind.replace("Request", "Response"), "{file}");
            assert_eq!(ack.json["requestId"], line["body"]["requestId"], "{file}");
            assert_eq!(ack.json["resultCode"], 200, "{file}");
        }
    }
    wanting
}

#[test]
fn w6_every_recorded_push_detection_and_reset_is_acknowledged_with_its_id() {
    let scenarios = [
        "acks",
        "burst",
        "delay",
        "idle",
        "operator",
        "ownership",
        "reset",
        "weights",
    ];
    let mut wanting = 0;
    for server in ["alibaba-2.5.1", "alibaba-3.0.3", "rnacos-0.8.8"] {
        for scenario in scenarios {
            let file = format!("{server}/{scenario}.jsonl");
            if !Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/golden")
                .join(&file)
                .exists()
            {
                continue; // rnacos was not asked everything
            }
            let mut world = World::connected();
            wanting += replay(&mut world, &file);
            world.run(5 * SEC);
            assert!(world.is_connected(), "{file}");
            assert_eq!(world.session.counters().undecodable, 0, "{file}");
        }
    }
    assert!(wanting > 200, "{wanting}");
}

#[test]
fn t1_a_recorded_series_of_changes_is_passed_on_push_by_push() {
    let mut world = World::connected();
    let pushes = replay(&mut world, "alibaba-3.0.3/delay.jsonl");
    assert!(pushes >= 30, "{pushes}");
    let listed = world
        .listed
        .iter()
        .filter(|listed| listed.origin != Origin::Read);
    assert_eq!(listed.count(), pushes);
}
