use super::*;

const REQUEST: &str = "NamingFuzzyWatchRequest";
const SYNC: &str = "NamingFuzzyWatchSyncRequest";
const CHANGE: &str = "NamingFuzzyWatchChangeNotifyRequest";
const ACK: &str = "NamingFuzzyWatchChangeNotifyResponse";

fn world(settings: impl FnOnce(&mut Settings)) -> World {
    let mut ours = at_once();
    ours.profile = Profile::V3_1;
    settings(&mut ours);
    World::new(ours)
}

fn watch(world: &mut World, conn: ConnId, pattern: &str, received: &[&str]) -> Value {
    let request = json!({
        "namespace": "public", "groupKeyPattern": pattern, "receivedGroupKeys": received,
        "watchType": "WATCH", "initializing": true
    });
    world.call(conn, REQUEST, &request).unwrap().1
}

/// What came, each acknowledged: kind of sync or change, and the services with a sign.
fn told(world: &mut World, conn: ConnId) -> Vec<(String, Vec<String>)> {
    let mut told = Vec::new();
    loop {
        world.pass(0);
        world.drain();
        let frames = world.frames(conn);
        if frames.is_empty() {
            return told;
        }
        for (_, frame) in frames {
            let body: Value = serde_json::from_slice(&frame.body).unwrap();
            let sign = |one: &Value| {
                let name = one["serviceKey"]
                    .as_str()
                    .unwrap()
                    .rsplit("@@")
                    .next()
                    .unwrap();
                let sign = if one["changedType"] == "ADD_SERVICE" {
                    "+"
                } else {
                    "-"
                };
                format!("{sign}{name}")
            };
            let services = match &*frame.kind {
                SYNC => body["contexts"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(sign)
                    .collect(),
                CHANGE => vec![sign(&body)],
                other => panic!("{other}"),
            };
            told.push((body["syncType"].as_str().unwrap().to_owned(), services));
            let ack = json!({"requestId": body["requestId"], "resultCode": 200}).to_string();
            world.send(conn, ACK, &ack);
        }
    }
}

fn register(world: &mut World, service: &str) {
    let now = world.now;
    world.machine.register(service, &instance(1), now);
}

#[test]
fn a_watcher_is_told_what_differs_in_batches_and_when_that_is_all() {
    let mut world = world(|_| {});
    let conn = world.client();
    for n in 0..25 {
        register(&mut world, &format!("s{n}"));
    }
    register(&mut world, "other");
    let answer = watch(
        &mut world,
        conn,
        "public>>DEFAULT_GROUP>>s*",
        &["public@@DEFAULT_GROUP@@s0", "public@@DEFAULT_GROUP@@sx"],
    );
    assert_eq!(answer["resultCode"], 200);
    let told = told(&mut world, conn);
    let sizes: Vec<_> = told
        .iter()
        .map(|(kind, services)| (&**kind, services.len()))
        .collect();
    let (batch, end) = ("FUZZY_WATCH_INIT_NOTIFY", "FINISH_FUZZY_WATCH_INIT_NOTIFY");
    assert_eq!(sizes, [(batch, 10), (batch, 10), (batch, 5), (end, 0)]);
    let all: Vec<_> = told.iter().flat_map(|(_, services)| services).collect();
    assert!(all.contains(&&"-sx".to_owned()) && !all.contains(&&"+s0".to_owned()));
}

#[test]
fn nobody_who_does_not_acknowledge_is_told_that_it_is_all() {
    let mut world = world(|_| {});
    let conn = world.client();
    register(&mut world, "s");
    watch(&mut world, conn, "public>>*>>*", &[]);
    assert_eq!(world.frames(conn).len(), 1);
    world.pass(7_000);
    let again = world.frames(conn);
    assert_eq!(again.len(), 1, "the same again");
    assert_eq!(
        again[0].1.field("/syncType").as_deref(),
        Some("FUZZY_WATCH_INIT_NOTIFY")
    );
}

#[test]
fn changes_are_told_to_whom_they_concern_until_they_cancel() {
    let mut world = world(|_| {});
    let (all, some) = (world.client(), world.client());
    watch(&mut world, all, "public>>*>>*", &[]);
    watch(&mut world, some, "public>>DEFAULT_GROUP>>*a*", &[]);
    told(&mut world, all);
    told(&mut world, some);
    register(&mut world, "G@@b");
    register(&mut world, "bab");
    let now = world.now;
    world.machine.deregister("bab", "10.0.0.1:1", now);
    let change = |sign: &str| {
        (
            "FUZZY_WATCH_RESOURCE_CHANGED".to_owned(),
            vec![sign.to_owned()],
        )
    };
    let told_all = told(&mut world, all);
    assert!(
        told_all.contains(&change("+b")) && told_all.contains(&change("+bab")),
        "{told_all:?}"
    );
    assert_eq!(told(&mut world, some).len(), told_all.len() - 1);
    let cancel = json!({"groupKeyPattern": "public>>*>>*", "watchType": "CANCEL_WATCH"});
    assert_eq!(
        world.call(all, REQUEST, &cancel).unwrap().1["resultCode"],
        200
    );
    register(&mut world, "c");
    assert!(told(&mut world, all).is_empty());
}

#[test]
fn the_limits_answer_as_genuine_servers_do() {
    let mut world = world(|settings| (settings.fuzzy_patterns, settings.fuzzy_matches) = (2, 3));
    let conn = world.client();
    for service in ["a1", "a2", "a3", "a4"] {
        register(&mut world, service);
    }
    let full = watch(
        &mut world,
        conn,
        "public>>*>>a*",
        &["public@@DEFAULT_GROUP@@gone"],
    );
    assert_eq!(
        (&full["resultCode"], &full["errorCode"]),
        (&json!(500), &json!(50311))
    );
    let some: Vec<_> = told(&mut world, conn)
        .into_iter()
        .flat_map(|(_, some)| some)
        .collect();
    assert_eq!(
        some,
        ["+a1", "+a2", "+a3"],
        "of that many, and nothing is said to be gone"
    );
    assert_eq!(
        watch(&mut world, conn, "public>>*>>b*", &[])["resultCode"],
        200
    );
    assert_eq!(
        watch(&mut world, conn, "public>>*>>c*", &[])["errorCode"],
        50310
    );
    assert_eq!(watch(&mut world, conn, "nonsense", &[])["errorCode"], 400);
}

#[test]
fn servers_before_3_0_know_nothing_of_it() {
    let mut world = World::of(Profile::V2_5);
    let conn = world.client();
    assert_eq!(
        watch(&mut world, conn, "public>>*>>*", &[])["errorCode"],
        302
    );
}
