//! A list of which only the changes are decoded is the list that serde makes of the whole message.

use std::{cell::RefCell, sync::Arc};

use proptest::sample::select;

use super::*;
use crate::wire::equal::counted;

/// Lets every message, however short, be read against what is kept.
fn decode(payload: &Payload, kept: &mut Kept) -> (Option<String>, Result<ServerRequest, String>) {
    let (id, request) = ServerRequest::decode_against(payload, |_| Some(kept));
    (id, request.map_err(|error| error.to_string()))
}

/// What serde makes of it. `Debug` and not equality: metadata of different order, NaN and the like.
fn whole(payload: &Payload) -> String {
    let (id, request) = ServerRequest::decode(payload);
    format!("{:?}", (id, request.map_err(|error| error.to_string())))
}

fn agree(payload: &Payload, kept: &mut Kept) -> Result<(), TestCaseError> {
    let read = decode(payload, kept);
    if let Ok(ServerRequest::Notify {
        listing: Some(listing),
        ..
    }) = &read.1
    {
        kept.listed(listing.instances());
    }
    let text = String::from_utf8_lossy(payload.json()).into_owned();
    prop_assert_eq!(format!("{read:?}"), whole(payload), "{}", text);
    agree_on_answer(payload, kept)
}

thread_local! {
    static SHORT: RefCell<Kept> = RefCell::default();
}

fn instances(payload: &Payload, kept: &mut Kept) -> Vec<Arc<Instance>> {
    match decode(payload, kept).1 {
        Ok(ServerRequest::Notify {
            listing: Some(listing),
            ..
        }) => listing.into_instances(),
        other => panic!("{other:?}"),
    }
}

/// The answer to a read that carries the same as a push.
fn agree_on_answer(payload: &Payload, kept: &mut Kept) -> Result<(), TestCaseError> {
    let answer = |read| format!("{read:?}");
    for kind in [
        "SubscribeServiceResponse",
        "QueryServiceResponse",
        "ErrorResponse",
    ] {
        let payload = Payload::new(kind, payload.json().to_vec());
        let read = answer(Answer::decode_against(&payload, Some(kept)));
        prop_assert_eq!(read, answer(Answer::decode(&payload)));
    }
    // A service of its own, whose lists are all short ones, each of them read twice.
    SHORT.with_borrow_mut(|kept| {
        for kind in ["SubscribeServiceResponse", "QueryServiceResponse"] {
            let payload = Payload::new(kind, payload.json().to_vec());
            let read = answer(Answer::decode_short(&payload, kept));
            prop_assert_eq!(read, answer(Answer::decode(&payload)));
        }
        Ok(())
    })?;
    Ok(())
}

/// A host as Alibaba's server writes it.
fn host(n: u16, version: u8) -> String {
    format!(
        r#"{{"instanceId":"10.0.0.1#{n}","ip":"10.0.0.1","port":{n},"weight":1.0,"healthy":true,"enabled":true,"ephemeral":true,"clusterName":"DEFAULT","serviceName":"g@@s","metadata":{{"version":"{version}","note":"a \"b\" {{"}},"ipDeleteTimeout":30000}}"#
    )
}

fn push(hosts: &[String]) -> Payload {
    push_of(&format!("[{}]", hosts.join(",")))
}

fn all(numbers: impl IntoIterator<Item = u16>) -> Vec<String> {
    numbers.into_iter().map(|n| host(n, 1)).collect()
}

/// How many of `now` are the very instances of `before`.
fn shared(before: &[Arc<Instance>], now: &[Arc<Instance>]) -> usize {
    let known = |one: &&Arc<Instance>| before.iter().any(|other| Arc::ptr_eq(one, other));
    now.iter().filter(known).count()
}

#[test]
fn only_what_changed_is_decoded_whatever_the_order() {
    let mut hosts = all(1..=200);
    let mut kept = Kept::default();
    let mut before = instances(&push(&hosts), &mut kept);
    let mut check = |hosts: &[String], fresh: usize| {
        let payload = push(hosts);
        let now = instances(&payload, &mut kept);
        assert_eq!(now.len(), hosts.len());
        assert_eq!(shared(&before, &now), hosts.len() - fresh);
        before = now;
        agree(&payload, &mut kept).unwrap();
    };
    check(&hosts, 0);
    hosts[17] = host(18, 2);
    check(&hosts, 1);
    hosts.remove(0);
    check(&hosts, 0);
    hosts.drain(50..80);
    check(&hosts, 0);
    hosts.insert(3, host(1_000, 1));
    check(&hosts, 1);
    hosts.reverse();
    check(&hosts, 0);
    hosts.swap(0, 100);
    hosts.push(host(1_001, 1));
    check(&hosts, 1);
    // One address twice, word for word: one of them is made anew.
    hosts.push(hosts[5].clone());
    check(&hosts, 1);
    check(&hosts, 0);
    // All of them at once.
    let others: Vec<_> = (1..=200).map(|n| host(n, 9)).collect();
    check(&others, 200);
    check(&[], 0);
}

/// Of a list that came by another way nothing is known, however many instances it has.
#[test]
fn what_is_kept_is_of_the_last_list_only() {
    let mut kept = Kept::default();
    let payload = push(&all(1..=200));
    let before = instances(&payload, &mut kept);
    kept.listed(&before);
    assert_eq!(shared(&before, &instances(&payload, &mut kept)), 200);
    let others = instances(&payload, &mut Kept::default());
    kept.listed(&others);
    assert_eq!(shared(&before, &instances(&payload, &mut kept)), 0);
}

#[test]
fn an_update_of_nothing_makes_no_instance() {
    let mut kept = Kept::default();
    let mut hosts = all(1..=3);
    let before = instances(&push(&hosts), &mut kept);
    // White space, and another order of the keys.
    hosts[0] = hosts[0].replace(',', " , ");
    hosts[1] = hosts[1].replace(
        r#""healthy":true,"enabled":true"#,
        r#""enabled":true,"healthy":true"#,
    );
    let now = instances(&push(&hosts), &mut kept);
    assert_eq!(shared(&before, &now), 3);
}

fn read(hosts: &[String], kept: &mut Kept) -> Listing {
    let json = push(hosts).json().to_vec();
    let payload = Payload::new("QueryServiceResponse", json);
    match Answer::decode_with(&payload, Some(kept)) {
        Ok(Ok(Answer::Query { listing, .. })) => listing.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A short list that a read brings again is not decoded; another one is, and what could not be used each time.
#[test]
fn a_short_list_that_is_read_again_makes_no_instance() {
    let mut kept = Kept::default();
    let mut hosts = all(1..=20);
    let before = read(&hosts, &mut kept).into_instances();
    assert_eq!(shared(&before, read(&hosts, &mut kept).instances()), 20);
    hosts[3] = host(4, 2);
    let changed = read(&hosts, &mut kept).into_instances();
    assert_eq!(changed[3].metadata().get("version"), Some("2"));
    let again = read(&hosts, &mut kept);
    assert_eq!(shared(&before, again.instances()), 19);
    assert_eq!(shared(&changed, again.instances()), 1);
    hosts.push(r#"{"ip":"10.0.0.1","port":0}"#.to_owned());
    for _ in 0..2 {
        let listing = read(&hosts, &mut kept);
        assert_eq!(
            (listing.instances().len(), listing.rejected().len()),
            (20, 1)
        );
        assert_eq!(shared(&before, listing.instances()), 0);
    }
}

/// After a push, too, what is kept are the instances that the directory keeps: those that came first.
#[test]
fn a_push_of_a_short_list_leaves_no_instance_in_memory_twice() {
    let mut kept = Kept::default();
    let mut hosts = all(1..=20);
    let first = read(&hosts, &mut kept).into_instances();
    hosts.reverse();
    kept.listed(&instances(&push(&hosts), &mut Kept::default()));
    read(&hosts, &mut kept);
    assert_eq!(shared(&first, read(&hosts, &mut kept).instances()), 20);
    // One changed: its new one is the push's.
    hosts[3] = host(17, 2);
    let pushed = instances(&push(&hosts), &mut Kept::default());
    kept.listed(&pushed);
    read(&hosts, &mut kept);
    let now = read(&hosts, &mut kept).into_instances();
    assert_eq!(shared(&first, &now), 19);
    assert!(Arc::ptr_eq(&now[3], &pushed[3]));
    // Of a list that is not short nothing is kept this way.
    kept.listed(&instances(&push(&all(1..=200)), &mut Kept::default()));
    assert_eq!(shared(&first, read(&hosts, &mut kept).instances()), 0);
}

/// Ways to write a list of the same hosts, or nearly, in another order.
fn shuffled(hosts: &[String]) -> [Vec<String>; 4] {
    let mut reversed = hosts.to_vec();
    reversed.reverse();
    let mut turned = hosts.to_vec();
    turned.rotate_left(hosts.len() / 3);
    let (odd, even): (Vec<_>, Vec<_>) = (0..hosts.len()).partition(|n| n % 2 == 1);
    let parted = odd.into_iter().chain(even).map(|n| hosts[n].clone());
    let mut doubled = hosts.to_vec();
    doubled.truncate(hosts.len() / 2);
    doubled.extend_from_within(..);
    [reversed, turned, parted.collect(), doubled]
}

/// Equal places are no equal hosts: the whole digest decides.
#[test]
fn hosts_that_are_all_looked_for_in_one_place_are_read_as_serde_reads_them() {
    counted::COLLIDE.set(true);
    let mut hosts = all(1..=300);
    let mut kept = Kept::default();
    agree(&push(&hosts), &mut kept).unwrap();
    for order in shuffled(&hosts) {
        agree(&push(&order), &mut kept).unwrap();
        hosts[7] = host(8, 3);
        agree(&push(&hosts), &mut kept).unwrap();
    }
    counted::COLLIDE.set(false);
}

/// And they make nothing quadratic, nor do hosts that begin with the same 60 bytes, or are the same.
#[test]
fn collisions_made_on_purpose_cost_no_more_than_thrice() {
    const MANY: u16 = 10_000;
    let hosts = all(1..=MANY);
    let order = |which: usize| push(&shuffled(&hosts)[which]);
    let cost = |collide: bool, first: &Payload, then: &Payload| {
        let mut kept = Kept::default();
        instances(first, &mut kept);
        counted::COLLIDE.set(collide);
        let bytes = counted::bytes(|| drop(instances(then, &mut kept)));
        counted::COLLIDE.set(false);
        bytes
    };
    let first = push(&hosts);
    for which in 0..4 {
        let then = order(which);
        let (usual, made) = (cost(false, &first, &then), cost(true, &first, &then));
        let length = then.json().len();
        println!("order {which}: {usual} bytes digested of {length}, {made} if all collide");
        assert!(
            made <= 3 * usual.max(length),
            "{which}: {made}, {usual}, {length}"
        );
        // A few bytes for each of the message's, whatever is in it.
        assert!(made <= 4 * length, "{which}: {made} of {length}");
    }
    // One host, ten thousand times; and then another, as often.
    let (one, other) = (vec![host(1, 1); MANY.into()], vec![host(1, 2); MANY.into()]);
    for (first, then) in [(&one, &one), (&one, &other), (&one, &hosts), (&hosts, &one)] {
        let (first, then) = (push(first), push(then));
        let made = cost(true, &first, &then);
        assert!(
            made <= 9 * then.json().len(),
            "{made} of {}",
            then.json().len()
        );
    }
}

/// Where small hosts stand in place of large ones, nobody asks each of them whether it is a large one.
#[test]
fn small_hosts_in_the_place_of_large_ones_cost_no_more_than_they_are_long() {
    let large = |n| {
        host(n, 1).replace(
            "\"metadata\":{",
            &format!("\"metadata\":{{\"a\":\"{}\",", "}".repeat(200_000)),
        )
    };
    let mut kept = Kept::default();
    let first: Vec<_> = (1..=4).map(large).collect();
    assert!(first[0].len() > 200_000);
    instances(&push(&first), &mut kept);
    // Where a large one would end there is always what a host ends with.
    let small = |n| {
        host(n, 1).replace(
            "\"metadata\":{",
            &format!("\"metadata\":{{\"a\":\"{}\",", "}".repeat(2_000)),
        )
    };
    let hosts: Vec<_> = (5..=2_000).map(small).collect();
    let then = push(&hosts);
    let digested = counted::bytes(|| drop(instances(&then, &mut kept)));
    let length = then.json().len();
    println!("{digested} bytes digested of {length}");
    assert!(digested <= 6 * length, "{digested} of {length}");
}

/// What is cut out of a message makes it no less wrong.
#[test]
fn what_serde_refuses_is_refused() {
    let hosts = all(1..=3).join(",");
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let texts = [
        format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}]}}"#),
        format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}]}}}}x"#),
        format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts},]}}}}"#),
        format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[,{hosts}]}}}}"#),
        format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts} {hosts}]}}}}"#),
        format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts},7]}}}}"#),
        format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}],"hosts":[]}}}}"#),
        format!(
            r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}],"h\u006fsts":[]}}}}"#
        ),
        format!(
            r#"{{"serviceInfo":{{"name":"s","groupName":"g","h\u006fsts":[],"hosts":[{hosts}]}}}}"#
        ),
        format!(
            r#"{{"serviceInfo":{{"name":"s","groupName":"g","n\u0061me":"t","hosts":[{hosts}]}}}}"#
        ),
        format!(
            r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}]}},"serviceInfo":null}}"#
        ),
        format!(r#"{{"serviceInfo":{{"name":"s","name":"s","groupName":"g","hosts":[{hosts}]}}}}"#),
        format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}],"name":"t"}}}}"#),
        format!(r#"{{"serviceInfo":{{"hosts":[{hosts}],"name":"s","groupName":"g"}}}}"#),
        format!(r#"{{"x":{deep},"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}]}}}}"#),
        format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}],"x":{deep}}}}}"#),
        format!(
            r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}],"lastRefTime":{deep}}}}}"#
        ),
        format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":{deep}}}}}"#),
        format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{{"x":{deep}}}]}}}}"#),
        format!(
            r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{{"metadata":{deep}}}]}}}}"#
        ),
        format!(r#"{{"x":"\"hosts\":[","serviceInfo":{{"name":"s@@g","hosts":[{hosts}]}}}}"#),
        format!(r#"{{"serviceInfo":{{"name":"","groupName":"g","hosts":[{hosts}]}}}}"#),
        format!(
            r#" {{ "serviceInfo" : {{ "name" : "s" , "groupName":"g","hosts" : [ {hosts} ] }} }} "#
        ),
    ];
    for text in texts {
        let mut kept = Kept::default();
        instances(&push(&all(1..=3)), &mut kept);
        agree(&notify(text), &mut kept).unwrap();
    }
}

/// Every list that a real server sent, after every other, and after itself.
#[test]
fn what_servers_sent_is_read_as_serde_reads_it() {
    let mut kept = Kept::default();
    let mut pushes: Vec<Payload> = golden().iter().filter_map(Line::payload).collect();
    let kinds = [
        "NotifySubscriberRequest",
        "SubscribeServiceResponse",
        "QueryServiceResponse",
    ];
    pushes.retain(|payload| kinds.contains(&payload.kind()));
    assert!(pushes.len() > 400);
    for payload in &pushes {
        let payload = &notify(payload.json().to_vec());
        agree(payload, &mut kept).unwrap();
        agree(payload, &mut kept).unwrap();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Change(usize, u8),
    Remove(usize, usize),
    Insert(usize, u16),
    Twice(usize, usize),
    Reverse,
    Rotate(usize),
    Swap(usize, usize),
    /// Whatever it makes of it.
    Byte(usize, u8),
    Cut(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0_usize..10_000;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, to)| Step::Change(at, to)),
        (at(), 1_usize..9).prop_map(|(at, many)| Step::Remove(at, many)),
        (at(), 1..60_u16).prop_map(|(at, n)| Step::Insert(at, n)),
        (at(), at()).prop_map(|(from, to)| Step::Twice(from, to)),
        Just(Step::Reverse),
        at().prop_map(Step::Rotate),
        (at(), at()).prop_map(|(a, b)| Step::Swap(a, b)),
        (
            at(),
            prop_oneof![any::<u8>(), select(b"{}[],:\"\\ 0e-nt".to_vec())]
        )
            .prop_map(|(at, byte)| Step::Byte(at, byte)),
        at().prop_map(Step::Cut),
    ]
}

proptest! {
    #[test]
    fn any_run_of_lists_is_read_as_serde_reads_it(
        many in 0..40_u16,
        steps in prop::collection::vec(step(), 1..12),
    ) {
        let mut hosts = all(1..=many);
        let mut kept = Kept::default();
        agree(&push(&hosts), &mut kept)?;
        for step in steps {
            let len = hosts.len().max(1);
            let mut payload = None;
            match step {
                Step::Insert(at, n) => hosts.insert(at % (hosts.len() + 1), host(n, 3)),
                Step::Byte(at, byte) => {
                    let mut json = push(&hosts).json().to_vec();
                    let at = at % json.len();
                    json[at] = byte;
                    payload = Some(notify(json));
                }
                Step::Cut(at) => {
                    let mut json = push(&hosts).json().to_vec();
                    json.remove(at % json.len());
                    payload = Some(notify(json));
                }
                _ if hosts.is_empty() => {}
                Step::Change(at, to) => hosts[at % len] = host((at % len) as u16 + 1, to),
                Step::Remove(at, many) => {
                    let from = at % len;
                    hosts.drain(from..(from + many).min(len));
                }
                Step::Twice(from, to) => hosts.insert(to % len, hosts[from % len].clone()),
                Step::Reverse => hosts.reverse(),
                Step::Rotate(by) => hosts.rotate_left(by % len),
                Step::Swap(a, b) => hosts.swap(a % len, b % len),
            }
            let payload = payload.unwrap_or_else(|| push(&hosts));
            agree(&payload, &mut kept)?;
        }
    }

    #[test]
    fn any_bytes_are_read_as_serde_reads_them(
        before in "[\\[\\]{}\",: a\\\\0]{0,12}",
        bytes in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        let mut kept = Kept::default();
        instances(&push(&all(1..=3)), &mut kept);
        agree(&notify(bytes.clone()), &mut kept)?;
        let hosts = all(1..=3).join(",");
        let rest = String::from_utf8_lossy(&bytes);
        for text in [
            format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g",{before}"hosts":[{hosts}]}}}}"#),
            format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":{before}[{hosts}]}}}}"#),
            format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{before}{hosts}]}}}}"#),
            format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}{before}]}}}}"#),
            format!(r#"{{"serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}]{before}}}}}"#),
            format!(r#"{{"x":"{rest}","serviceInfo":{{"name":"s","groupName":"g","hosts":[{hosts}]}}}}"#),
        ] {
            instances(&push(&all(1..=3)), &mut kept);
            agree(&notify(text), &mut kept)?;
        }
    }
}
