//! Which services there are: told by servers, or read from them page by page.

use std::{collections::BTreeSet, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::world::{MS, SEC, World, config};
use crate::{
    model::ServiceFilter,
    session::{CallFailure, Command, Names, OperationError, Output, Trouble},
};

const WATCH: &str = "NamingFuzzyWatchRequest";
const LIST: &str = "ServiceListRequest";
const ACK: &str = "NamingFuzzyWatchChangeNotifyResponse";

fn filter() -> ServiceFilter {
    ServiceFilter::group("G").name("order-*")
}

/// Connected to a server that tells, or to one that has pages, and watching.
fn watching(told: bool) -> World {
    let mut world = World::with(config(2), 7);
    world.script.fuzzy_watch = told;
    world.run(100 * MS);
    assert!(world.is_connected());
    world.command(Command::Watch(filter()));
    world.run(10 * MS);
    world
}

/// The server has so many services.
fn have(world: &mut World, services: usize) {
    let named = (0..services).map(|n| (format!("order-{n:05}"), Vec::new()));
    world.script.lists = named.collect();
}

impl World {
    /// A batch of what differs, of the pattern that was asked for last.
    fn sync(&mut self, changes: &[(&str, &str)], kind: &str) {
        let context = |(name, change): &(&str, &str)| json!({ "serviceKey": format!("public@@G@@{name}"), "changedType": change });
        let contexts: Vec<Value> = changes.iter().map(context).collect();
        let body = json!({
            "requestId": "7", "syncType": kind, "groupKeyPattern": "public>>G>>order-*",
            "contexts": contexts, "totalBatch": 1, "currentBatch": 1,
        });
        let link = self.link();
        self.stream(link, "NamingFuzzyWatchSyncRequest", &body.to_string());
    }

    fn batch(&mut self, added: &[&str]) {
        let added: Vec<_> = added.iter().map(|name| (*name, "ADD_SERVICE")).collect();
        self.sync(&added, "FUZZY_WATCH_INIT_NOTIFY");
    }

    fn finish(&mut self) {
        self.sync(&[], "FINISH_FUZZY_WATCH_INIT_NOTIFY");
    }

    fn change(&mut self, name: &str, change: &str) {
        let body = json!({
            "requestId": "8", "syncType": "FUZZY_WATCH_RESOURCE_CHANGED",
            "serviceKey": format!("public@@G@@{name}"), "changedType": change,
        });
        let link = self.link();
        self.stream(
            link,
            "NamingFuzzyWatchChangeNotifyRequest",
            &body.to_string(),
        );
    }

    /// What was said of services, in short: `=` all, `~` all but for a missed one, `+`, `-`.
    fn said(&self) -> Vec<String> {
        let names = |names: &mut dyn Iterator<Item = &crate::model::ServiceName>| {
            let names: Vec<&str> = names.map(|name| &**name.name()).collect();
            if names.len() > 5 {
                names.len().to_string()
            } else {
                names.join(" ")
            }
        };
        let said = self.notes.iter().filter_map(|(_, note)| match note {
            Output::Services {
                names: said,
                filter: of,
                ..
            } => {
                assert_eq!(*of, filter());
                Some(match said {
                    Names::All {
                        names: all,
                        certain: true,
                    } => format!("={}", names(&mut all.iter())),
                    Names::All { names: all, .. } => format!("~{}", names(&mut all.iter())),
                    Names::Some(some) => format!("+{}", names(&mut some.iter())),
                    Names::Gone(one) => format!("-{}", one.name()),
                })
            }
            _ => None,
        });
        said.collect()
    }

    fn troubles(&self) -> Vec<&Trouble> {
        let troubles = self.notes.iter().filter_map(|(_, note)| match note {
            Output::ServicesTrouble { trouble, .. } => Some(trouble),
            _ => None,
        });
        troubles.collect()
    }

    fn received_keys(&self) -> Vec<Value> {
        let watches = self.sent_of(WATCH).into_iter();
        watches
            .map(|sent| sent.json["receivedGroupKeys"].clone())
            .collect()
    }
}

#[test]
fn a_server_that_tells_is_asked_once_and_acknowledged() {
    let mut world = watching(true);
    let asked = &world.sent_of(WATCH)[0].json;
    assert_eq!(asked["groupKeyPattern"], "public>>G>>order-*");
    assert_eq!(asked["initializing"], true);
    world.batch(&["order-a", "order-b"]);
    world.finish();
    world.change("order-c", "ADD_SERVICE");
    world.change("order-a", "DELETE_SERVICE");
    world.run(100 * SEC);
    assert_eq!(
        world.said(),
        [
            "+order-a order-b",
            "=order-a order-b",
            "+order-c",
            "-order-a"
        ]
    );
    assert_eq!(
        (world.sent_of(WATCH).len(), world.sent_of(ACK).len()),
        (1, 4)
    );
    assert!(world.sent_of(LIST).is_empty() && world.troubles().is_empty());
}

#[test]
fn what_is_known_need_not_be_told_again() {
    let mut world = watching(true);
    world.batch(&["order-a", "order-b"]);
    world.finish();
    world.end_stream("gone");
    world.run_until("another connection", |world| {
        world.sent_of(WATCH).len() == 2
    });
    let known = json!(["public@@G@@order-a", "public@@G@@order-b"]);
    assert_eq!(world.received_keys()[1], known);
    let difference = [("order-a", "DELETE_SERVICE"), ("order-c", "ADD_SERVICE")];
    world.sync(&difference, "FUZZY_WATCH_INIT_NOTIFY");
    assert_eq!(
        world.said()[2..],
        ["+order-c"],
        "what it forgot is not gone"
    );
    world.finish();
    assert_eq!(world.said()[3..], ["=order-b order-c"]);
}

/// As a genuine 3.1.0 did to a client that was back before the providers: a batch is made when it is
/// asked for and sent a second later, a change at once.
#[test]
fn what_changed_since_it_was_asked_for_is_newer_than_the_batch() {
    let mut world = watching(true);
    world.change("order-b", "ADD_SERVICE");
    world.change("order-b", "DELETE_SERVICE");
    world.batch(&["order-a", "order-b"]);
    world.finish();
    assert_eq!(world.said().last().unwrap(), "=order-a");
    world.end_stream("gone");
    world.run_until("another connection", |world| {
        world.sent_of(WATCH).len() == 2
    });
    world.change("order-a", "ADD_SERVICE");
    world.sync(&[("order-a", "DELETE_SERVICE")], "FUZZY_WATCH_INIT_NOTIFY");
    world.finish();
    assert_eq!(world.said().last().unwrap(), "=order-a");
    world.sync(
        &[("order-a", "DELETE_SERVICE")],
        "FUZZY_WATCH_DIFF_SYNC_NOTIFY",
    );
    world.finish();
    assert_eq!(
        world.said().last().unwrap(),
        "=",
        "later it is what it says"
    );
}

#[test]
fn everything_is_asked_for_now_and_then() {
    let mut world = watching(true);
    world.batch(&["order-a"]);
    world.finish();
    world.run(Duration::from_secs(140));
    assert_eq!(world.sent_of(WATCH).len(), 1);
    for _ in 0..80 {
        if world.sent_of(WATCH).len() == 1 {
            world.run(SEC);
        }
    }
    assert_eq!(world.sent_of(WATCH).len(), 2);
    world.finish();
    assert_eq!(world.said().last().unwrap(), "=order-a");
}

#[test]
fn a_sync_that_never_ends_is_asked_for_again_and_then_read() {
    let mut world = watching(true);
    have(&mut world, 3);
    world.batch(&["order-a"]);
    world.run(Duration::from_secs(29));
    assert_eq!(world.sent_of(WATCH).len(), 1);
    world.run(Duration::from_secs(70));
    assert_eq!(world.troubles(), [&Trouble::Unfinished]);
    let watches = world.sent_of(WATCH);
    let ends: Vec<_> = watches
        .iter()
        .map(|sent| sent.json["watchType"].clone())
        .collect();
    assert_eq!(ends, ["WATCH", "WATCH", "WATCH", "CANCEL_WATCH"]);
    assert!(
        world
            .said()
            .iter()
            .any(|said| said.starts_with("~order-00000"))
    );
}

#[test]
fn a_sync_that_comes_twice_says_nothing_new() {
    let mut world = watching(true);
    for _ in 0..2 {
        world.batch(&["order-a"]);
        world.finish();
    }
    assert_eq!(world.said(), ["+order-a", "=order-a", "=order-a"]);
}

/// A batch does not say what it answers: of one that was asked for before the last ask, what has gone
/// since is not there again.
#[test]
fn a_batch_that_was_asked_for_before_the_last_ask_brings_nothing_back() {
    let mut world = watching(true);
    world.batch(&["order-a"]);
    world.change("order-b", "ADD_SERVICE");
    world.change("order-b", "DELETE_SERVICE");
    world.run_until("it is asked again", |world| world.sent_of(WATCH).len() == 2);
    world.change("order-c", "ADD_SERVICE");
    world.change("order-c", "DELETE_SERVICE");
    world.batch(&["order-b", "order-a"]); // of the first ask
    world.finish();
    assert_eq!(world.said().last().unwrap(), "=order-a");
    world.change("order-a", "DELETE_SERVICE");
    world.batch(&["order-a", "order-c"]); // of the second
    world.finish();
    assert_eq!(world.said().last().unwrap(), "=");
    // What is asked for later says more.
    world.run(140 * SEC);
    world.run_until("it is asked anew", |world| world.sent_of(WATCH).len() == 3);
    world.batch(&["order-a"]);
    world.finish();
    assert_eq!(world.said().last().unwrap(), "=order-a");
}

#[test]
fn what_is_about_something_else_is_passed_over() {
    let mut world = watching(true);
    world.batch(&["users", "order-a"]);
    world.change("users", "ADD_SERVICE");
    world.change("order-b", "INSTANCE_CHANGED");
    let link = world.link();
    let other = json!({ "serviceKey": "dev@@G@@order-x", "changedType": "ADD_SERVICE" });
    world.stream(
        link,
        "NamingFuzzyWatchChangeNotifyRequest",
        &other.to_string(),
    );
    let other =
        json!({ "groupKeyPattern": "public>>H>>*", "syncType": "FINISH_FUZZY_WATCH_INIT_NOTIFY" });
    world.stream(link, "NamingFuzzyWatchSyncRequest", &other.to_string());
    assert_eq!(world.said(), ["+order-a"]);
}

#[test]
fn what_cannot_be_read_is_asked_for_again_but_not_all_the_time() {
    let mut world = watching(true);
    world.finish();
    let link = world.link();
    for _ in 0..100 {
        world.stream(link, "NamingFuzzyWatchChangeNotifyRequest", "not json");
        world.run(SEC / 10);
        if world.sent_of(WATCH).len() > 1 {
            world.finish();
        }
    }
    assert_eq!(world.sent_of(WATCH).len(), 2, "in ten seconds");
    assert!(world.session.counters().undecodable >= 100);
}

#[test]
fn over_the_servers_limits_pages_are_read_and_it_is_said() {
    for (code, trouble, ends) in [
        (50310, Trouble::TooManyPatterns, 1),
        (50311, Trouble::TooManyMatches, 2),
    ] {
        let mut world = World::with(config(1), 7);
        world.script.fuzzy_watch = true;
        world.script.refuse.insert(WATCH, (code, 1));
        have(&mut world, 600);
        world.run(100 * MS);
        world.command(Command::Watch(filter()));
        world.run(SEC);
        assert_eq!(world.troubles(), [&trouble]);
        assert_eq!(
            world.sent_of(WATCH).len(),
            ends,
            "one that is held is ended: {code}"
        );
        assert_eq!(world.said(), ["+600", "~600"]);
    }
}

#[test]
fn a_server_that_tells_after_all_not_is_read() {
    let mut world = World::with(config(1), 7);
    world.script.fuzzy_watch = true;
    world.script.refuse.insert(WATCH, (302, 9));
    have(&mut world, 2);
    world.run(100 * MS);
    world.command(Command::Watch(filter()));
    world.run(SEC);
    assert_eq!(
        world.said(),
        ["+order-00000 order-00001", "~order-00000 order-00001"]
    );
    assert!(world.troubles().is_empty());
}

#[test]
fn all_groups_at_once_need_a_server_that_tells() {
    let all = ServiceFilter::namespace();
    for (told, code) in [(false, None), (true, Some(50310))] {
        let mut world = World::with(config(1), 7);
        world.script.fuzzy_watch = told;
        if let Some(code) = code {
            world.script.refuse.insert(WATCH, (code, 9));
        }
        world.run(100 * MS);
        world.command(Command::Watch(all.clone()));
        world.run(100 * SEC);
        let [Trouble::Failed { error, retries }] = world.troubles()[..] else {
            panic!("{:?}", world.troubles());
        };
        assert!(matches!(error, OperationError::Unlistable(_)) && !retries);
        assert!(error.to_string().contains("name the group"));
        assert_eq!(error.to_string().contains("max.pattern.count"), told);
        assert!(world.sent_of(LIST).is_empty());
        world.command(Command::Watch(all.clone()));
        world.run(SEC);
        assert_eq!(world.troubles().len(), 2, "who asks again hears it again");
    }
}

#[test]
fn pages_are_read_one_after_the_other_and_again_after_a_while() {
    let mut world = World::with(config(1), 7);
    have(&mut world, 2_500);
    world.run(100 * MS);
    world.command(Command::Watch(filter()));
    world.run(SEC);
    assert_eq!(world.most_calls, 1, "at most one page is under way");
    let pages = |world: &World| {
        let pages = world.sent_of(LIST).into_iter();
        pages
            .map(|sent| sent.json["pageNo"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(pages(&world), [1, 2, 3]);
    assert_eq!(world.said(), ["+1000", "+1000", "+500", "~2500"]);
    world.run(100 * SEC);
    let passes = pages(&world).len() / 3;
    assert!((9..=13).contains(&passes), "{passes} in 100 s");
    assert_eq!(
        world.said().len(),
        3 + passes,
        "what is known is not told again"
    );
    world.script.lists.insert("order-x".to_owned(), Vec::new());
    world.script.lists.insert("users".to_owned(), Vec::new());
    world.run(12 * SEC);
    assert!(world.said().contains(&"+order-x".to_owned()));
    assert_eq!(world.said().last().unwrap(), "~2501");
}

#[test]
fn a_hundred_thousand_names_are_a_list_like_any_other() {
    let mut world = World::with(config(1), 7);
    have(&mut world, 100_000);
    world.run(100 * MS);
    world.command(Command::Watch(filter()));
    world.run(SEC);
    assert_eq!(world.said().last().unwrap(), "~100000");
    assert_eq!(world.sent_of(LIST).len(), 100);
}

#[test]
fn pages_that_do_not_add_up_say_nothing_of_what_is_missing() {
    for (services, count) in [(3, 5), (3, 0), (1_200, 1_000), (1_200, 100_000)] {
        let mut world = World::with(config(1), 7);
        have(&mut world, services);
        world.script.count = Some(count);
        world.run(100 * MS);
        world.command(Command::Watch(filter()));
        world.run(100 * SEC);
        let all = world
            .said()
            .iter()
            .filter(|said| said.starts_with('~'))
            .count();
        // A count that is reached ends the reading: more than it says is not looked for.
        assert_eq!(
            all > 0,
            (services, count) == (1_200, 1_000),
            "{services} {count}"
        );
        let uneven = |trouble: &&Trouble| matches!(trouble, Trouble::Uneven { .. });
        assert_eq!(
            world.troubles().iter().any(uneven),
            all == 0,
            "{services} {count}"
        );
        let reads = world.sent_of(LIST).len();
        assert!(reads < 60, "{reads} in 100 s");
    }
}

#[test]
fn a_registry_of_pages_without_end_is_no_registry() {
    let mut world = World::with(config(1), 7);
    have(&mut world, 1_000);
    world.script.count = Some(u64::MAX);
    let page: Vec<String> = (0..1_000).map(|n| format!("order-{n}")).collect();
    let page = json!({ "resultCode": 200, "count": u64::MAX, "serviceNames": page }).to_string();
    world
        .script
        .garble
        .insert(LIST, Box::leak(page.into_boxed_str()));
    world.run(100 * MS);
    world.command(Command::Watch(filter()));
    world.run(10 * SEC);
    let pages = world.sent_of(LIST).len();
    assert!(
        (2..20).contains(&pages),
        "the same page again ends a reading: {pages}"
    );
}

#[test]
fn a_reading_that_is_cut_begins_anew() {
    let mut world = World::with(config(2), 7);
    have(&mut world, 2_500);
    world.run(100 * MS);
    world.command(Command::Watch(filter()));
    world.run(MS);
    assert_eq!(world.sent_of(LIST).len(), 2);
    world.end_stream("gone");
    world.run(5 * SEC);
    let pages = world.sent_of(LIST).into_iter();
    let pages: Vec<_> = pages
        .map(|sent| sent.json["pageNo"].as_u64().unwrap())
        .collect();
    assert_eq!(pages, [1, 2, 1, 2, 3]);
    let all = world
        .said()
        .into_iter()
        .filter(|said| said.starts_with('~'));
    assert_eq!(all.collect::<Vec<_>>(), ["~2500"]);
}

#[test]
fn a_page_that_fails_is_asked_for_again_from_the_first() {
    let mut world = World::with(config(1), 7);
    have(&mut world, 1_500);
    world.script.refuse.insert(LIST, (500, 2));
    world.run(100 * MS);
    world.command(Command::Watch(filter()));
    world.run(5 * SEC);
    assert_eq!(world.said(), ["+1000", "+500", "~1500"]);
    assert_eq!(world.troubles().len(), 2);
}

#[test]
fn what_nobody_wants_any_longer_is_ended_and_costs_nothing() {
    for told in [true, false] {
        let mut world = watching(told);
        world.command(Command::Unwatch(filter()));
        world.run(SEC);
        let (before, said) = (world.sent.len(), world.said().len());
        assert_eq!(world.sent_of(WATCH).len(), if told { 2 } else { 0 });
        world.run(4 * SEC);
        if told {
            world.batch(&["order-a"]);
            world.finish();
            world.change("order-b", "ADD_SERVICE");
        }
        world.run(100 * SEC);
        let asks = |kind: &str| world.sent[before..].iter().any(|sent| sent.kind == kind);
        assert!(!asks(WATCH) && !asks(LIST));
        assert_eq!(world.said().len(), said);
    }
}

#[test]
fn a_watch_whose_end_is_refused_is_ended_with_patience() {
    for code in [500, 302, 403, 503] {
        let mut world = watching(true);
        world.batch(&["order-a"]);
        world.finish();
        world.script.refuse.insert(WATCH, (code, u32::MAX));
        let before = world.sent_of(WATCH).len();
        world.command(Command::Unwatch(filter()));
        world.run(10 * SEC);
        let asked = world.sent_of(WATCH).len() - before;
        assert!((1..50).contains(&asked), "{code}: {asked} times in 10 s");
        world.script.refuse.clear();
        world.command(Command::Watch(filter()));
        world.run(SEC);
        world.finish();
        assert_eq!(world.said().last().unwrap(), "=order-a", "{code}");
    }
}

#[test]
fn pages_do_not_wait_for_the_end_of_a_watch() {
    let mut world = watching(true);
    have(&mut world, 3);
    // No sync ends, so pages are read after three of them, and the watch cannot be ended.
    world.run(80 * SEC);
    assert!(world.sent_of(LIST).is_empty());
    world.script.refuse.insert(WATCH, (500, u32::MAX));
    world.run(30 * SEC);
    assert!(!world.sent_of(LIST).is_empty());
}

#[test]
fn who_wants_it_again_at_once_is_told_everything() {
    let mut world = watching(true);
    world.batch(&["order-a"]);
    world.finish();
    world.command(Command::Unwatch(filter()));
    world.command(Command::Watch(filter()));
    world.run(100 * MS);
    let before = world.said().len();
    world.finish();
    assert_eq!(world.said()[before..], ["=order-a"]);
    assert!(world.sent_of(WATCH).len() >= 2);
}

#[test]
fn names_of_old_servers_carry_their_group_and_nonsense_is_left_out() {
    let mut world = World::with(config(1), 7);
    let names = [
        "G@@order-a",
        "order-b",
        "order c",
        "",
        "@@",
        "order-../../etc/passwd",
    ];
    let body = json!({ "resultCode": 200, "count": names.len(), "serviceNames": names });
    let body = body.to_string();
    world
        .script
        .garble
        .insert(LIST, Box::leak(body.into_boxed_str()));
    world.run(100 * MS);
    world.command(Command::Watch(filter()));
    world.run(SEC);
    let all: BTreeSet<_> = world.said()[1][1..].split(' ').map(str::to_owned).collect();
    let read = ["order-../../etc/passwd", "order-a", "order-b"];
    assert_eq!(all, read.map(str::to_owned).into());
}

#[test]
fn a_close_does_not_wait_for_a_list() {
    for told in [true, false] {
        let mut world = watching(told);
        world.script.mute.insert(WATCH);
        world.command(Command::Close);
        world.run(10 * MS);
        assert!(!world.is_connected());
    }
}

/// Whatever goes wrong, and whatever comes and goes meanwhile: once nothing goes wrong any more, what
/// was said is what there is.
#[test]
fn after_any_faults_what_was_said_is_what_there_is() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::with(config(3), seed);
        world.script.fuzzy_watch = true;
        world.script.tells = Some(BTreeSet::new());
        world.script.latency = rng.random_range(1..100) * MS;
        let (mut wanted, mut read, mut said) = (false, 0, BTreeSet::new());
        for _ in 0..rng.random_range(5..60) {
            match rng.random_range(0..16) {
                0..=6 => world.turn(&format!("public@@G@@order-{}", rng.random_range(0..8))),
                7 => {
                    world.command(Command::Watch(filter()));
                    wanted = true;
                }
                8 => {
                    world.command(Command::Unwatch(filter()));
                    (wanted, said) = (false, BTreeSet::new());
                }
                9 => drop(world.script.mute.insert(WATCH)),
                10 => {
                    let code = [300, 301, 500, 503, -401][rng.random_range(0..5)];
                    world
                        .script
                        .refuse
                        .insert(WATCH, (code, rng.random_range(1..4)));
                }
                11 => world.fail_calls_under_way(&CallFailure::Timeout),
                12 => world.fail_calls_under_way(&CallFailure::Lost("as scripted".to_owned())),
                13 if world.is_connected() => {
                    let link = world.link();
                    world.stream(link, "ConnectResetRequest", "{}");
                }
                14 if world.is_connected() => world.end_stream("gone"),
                _ => world.script.mute.clear(),
            }
            world.run(rng.random_range(0..3_000) * MS);
            hear(&world, &mut read, &mut said);
        }
        world.script.mute.clear();
        world.script.refuse.clear();
        if !wanted {
            world.command(Command::Watch(filter()));
        }
        world.run(60 * SEC);
        hear(&world, &mut read, &mut said);
        let there = world.script.tells.as_ref().unwrap().iter();
        let there: BTreeSet<_> = there.map(|key| key.replace("public@@G@@", "")).collect();
        assert_eq!(said, there, "seed {seed}");
        assert!(
            world
                .troubles()
                .iter()
                .all(|trouble| matches!(trouble, Trouble::Failed { .. }))
        );
    }
}

/// What follows from what was said since the last time.
fn hear(world: &World, read: &mut usize, said: &mut BTreeSet<String>) {
    for (_, note) in &world.notes[*read..] {
        let Output::Services { names, .. } = note else {
            continue;
        };
        let name = |service: &crate::model::ServiceName| service.name().to_string();
        match names {
            Names::All { names, .. } => *said = names.iter().map(name).collect(),
            Names::Some(names) => said.extend(names.iter().map(name)),
            Names::Gone(one) => drop(said.remove(&name(one))),
        }
    }
    *read = world.notes.len();
}
