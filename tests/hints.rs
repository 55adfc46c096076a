//! What a request may ask of the pick.

mod discover_support;

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use discover_support::{Book, Echo, idle_context, instance, logs::Logs, now, registry};
use tower::Service;
use tower::load::CompleteOnResponse;
use tower_nacos::{
    Balance, Instance,
    balance::{
        Alias, Candidate, Hints, InExtensions, Loads, P2c, PickContext, Picker, Policy, Random,
        Selector, WeightedRoundRobin,
    },
    directory::{Subscription, Writer},
    endpoint::{CallError, NeverRecover, Unclassified},
    model::Address,
};

type Hinted = Balance<Echo, P2c, NeverRecover, CompleteOnResponse, Unclassified, fn(&u32) -> Hints>;

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";

thread_local! {
    static NEXT: Mutex<Hints> = const { Mutex::new(Hints::new()) };
}

fn versioned(address: &str, version: &str) -> Instance {
    instance(address).with_metadata([("version", version)].into_iter().collect())
}

fn registry_of(list: impl IntoIterator<Item = Instance>) -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    writer.publish(list, now());
    (writer, orders)
}

fn three() -> (Writer, Subscription) {
    registry_of([versioned(A, "1"), versioned(B, "2"), versioned(C, "2")])
}

/// Asks what [`ask`] was told last.
fn balance(orders: &Subscription) -> Hinted {
    let told: fn(&u32) -> Hints = |_| NEXT.with(|next| next.lock().unwrap().clone());
    Balance::builder(orders)
        .hints(told)
        .build(Book::default().maker())
}

fn ask(balance: &Hinted, hints: &Hints) -> Result<String, CallError> {
    NEXT.with(|next| *next.lock().unwrap() = hints.clone());
    let mut balance = balance.clone();
    match pin!(balance.call(1)).poll(&mut idle_context()) {
        Poll::Ready(answer) => answer.map(|address| address.to_string()),
        Poll::Pending => panic!("all of it happens in the first poll"),
    }
}

fn seen(balance: &Hinted, hints: &Hints) -> Vec<String> {
    let mut seen: Vec<String> = (0..200).map(|_| ask(balance, hints).unwrap()).collect();
    seen.sort();
    seen.dedup();
    seen
}

fn addresses(list: &[&str]) -> Vec<Address> {
    list.iter().map(|a| a.parse().unwrap()).collect()
}

#[test]
fn no_hints_ask_for_nothing() {
    let (_writer, orders) = three();
    assert_eq!(seen(&balance(&orders), &Hints::new()), [A, B, C]);
}

#[test]
fn only_never_falls_back_and_says_what_there_is() {
    let (mut writer, orders) = three();
    let balance = balance(&orders);
    let two = Hints::new().only(("version", "2"));
    assert_eq!(seen(&balance, &two), [B, C]);
    let error = ask(&balance, &Hints::new().only(("version", "3"))).unwrap_err();
    assert!(error.is_no_match(), "{error}");
    let text = error.to_string();
    for part in ["version=3", "version = 1 (1) or 2 (2)", "orders"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    writer.publish([versioned(A, "1"), versioned(B, "2")], now());
    assert_eq!(seen(&balance, &two), [B]);
    writer.publish([versioned(A, "1")], now());
    assert!(ask(&balance, &two).unwrap_err().is_no_match());
    writer.publish([], now());
    assert!(ask(&balance, &two).unwrap_err().is_no_instances());
}

#[test]
fn prefer_falls_back_and_comes_back() {
    let (mut writer, orders) = three();
    let balance = balance(&orders);
    let gray = Hints::new().prefer(("version", "gray"));
    assert_eq!(seen(&balance, &gray), [A, B, C]);
    writer.publish([versioned(A, "1"), versioned(B, "gray")], now());
    assert_eq!(seen(&balance, &gray), [B]);
    let first = gray.only(("version", "1"));
    assert_eq!(seen(&balance, &first), [A], "contradictory: only wins");
}

#[test]
fn a_selector_of_two_values_matches_nothing_and_says_so() {
    let (_writer, orders) = three();
    let both = Selector::new([("version", "1"), ("version", "2")]);
    let error = ask(&balance(&orders), &Hints::new().only(both)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("two values of version"), "{text}");
}

#[test]
fn what_is_excluded_gets_no_call_and_nothing_left_is_an_error() {
    let (_writer, orders) = three();
    let balance = balance(&orders);
    let but = |list: &[&str]| Hints::new().exclude(addresses(list));
    assert_eq!(seen(&balance, &but(&[A])), [B, C]);
    assert_eq!(seen(&balance, &but(&[A, C, "10.9.9.9:1"])), [B]);
    let error = ask(&balance, &but(&[A, B, C])).unwrap_err();
    assert!(error.is_no_match(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("excludes all 3") && text.contains(B),
        "{text}"
    );
    let rest = but(&[B, C]).only(("version", "2"));
    let error = ask(&balance, &rest).unwrap_err();
    assert!(error.to_string().contains("excludes all 2"), "{error}");
}

#[test]
fn a_cluster_that_is_asked_for_comes_first_and_an_unknown_one_is_passed_by() {
    let (_writer, orders) = registry_of([
        instance(A).with_cluster("HZ"),
        instance(B).with_cluster("HZ"),
        instance(C).with_cluster("SH"),
    ]);
    let balance = balance(&orders);
    assert_eq!(seen(&balance, &Hints::new().cluster("SH")), [C]);
    assert_eq!(seen(&balance, &Hints::new().cluster("HZ")), [A, B]);
    assert_eq!(seen(&balance, &Hints::new().cluster("BJ")), [A, B, C]);
    assert_eq!(seen(&balance, &Hints::new().cluster("")), [A, B, C]);
    let other = Hints::new().cluster("SH").exclude(addresses(&[C]));
    assert_eq!(seen(&balance, &other), [A, B], "it is a preference");
}

#[test]
fn more_selectors_than_have_tables_still_find_their_instances() {
    let (_writer, orders) =
        registry_of((0..100).map(|at| versioned(&format!("10.0.1.{at}:80"), &format!("v{at}"))));
    let balance = balance(&orders);
    for round in 0..4 {
        for at in 0..100 {
            let one = Hints::new().only(("version", format!("v{at}")));
            let found = ask(&balance, &one).unwrap();
            assert_eq!(found, format!("10.0.1.{at}:80"), "round {round}");
        }
    }
}

/// Counts its tables, and how many instances the last one was of.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl Policy for Counting {
    type Table = Alias;

    fn build(&self, candidates: &[Candidate]) -> Alias {
        self.0.fetch_add(1, Ordering::SeqCst);
        Alias::new(candidates)
    }

    fn pick(
        &self,
        table: &Alias,
        _: &dyn Loads,
        random: &mut Random,
        _: &PickContext,
    ) -> Option<usize> {
        table.draw(random)
    }
}

fn counted(orders: &Subscription) -> (Picker<Counting>, Counting) {
    let counting = Counting::default();
    let builder = Balance::builder(orders).policy(counting.clone());
    (builder.picker(), counting)
}

fn pick(picker: &Picker<Counting>, hints: Hints) -> String {
    match pin!(picker.pick_by(hints)).poll(&mut idle_context()) {
        Poll::Ready(lease) => lease.unwrap().address().to_string(),
        Poll::Pending => panic!("all of it happens in the first poll"),
    }
}

#[test]
fn what_requests_make_up_costs_few_tables_and_few_warnings() {
    let (logs, _guard) = Logs::begin();
    let (_writer, orders) = three();
    let (picker, counting) = counted(&orders);
    let known = Hints::new().only(("version", "1"));
    for made_up in 0..5_000 {
        pick(&picker, Hints::new().cluster(format!("c{made_up}")));
        pick(&picker, Hints::new().prefer(("user", made_up.to_string())));
        assert_eq!(pick(&picker, known.clone()), A);
    }
    let tables = counting.0.load(Ordering::SeqCst);
    assert!(tables <= 1 + 64, "{tables} tables");
    let text = logs.text();
    let warned = text.matches(" WARN ").count();
    assert!((1..=3).contains(&warned), "{warned} warnings: {text}");
}

#[tokio::test(start_paused = true)]
async fn tables_that_nobody_asks_for_any_more_are_given_up() {
    let (mut writer, orders) = three();
    let (picker, counting) = counted(&orders);
    let (kept, left) = (("version", "1"), ("version", "2"));
    pick(&picker, Hints::new().only(left));
    let mut last = 0;
    for push in 0..60_u32 {
        let weight = 1.0 + f64::from(push);
        writer.publish(
            [versioned(A, "1").with_weight(weight), versioned(B, "2")],
            now(),
        );
        let before = counting.0.load(Ordering::SeqCst);
        pick(&picker, Hints::new().only(kept));
        last = counting.0.load(Ordering::SeqCst) - before;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(last, 2, "everybody's, and the one that is asked for");
    assert_eq!(pick(&picker, Hints::new().only(left)), B);
}

#[tokio::test]
async fn hints_are_found_in_the_extensions_of_an_http_request() {
    let (_writer, orders) = three();
    let called = Arc::new(Mutex::new(Vec::new()));
    let book = Arc::clone(&called);
    let mut balance = Balance::builder(&orders)
        .policy(WeightedRoundRobin::new())
        .hints_in_extensions()
        .build(move |instance: &Instance| {
            let (address, book) = (instance.address().to_string(), Arc::clone(&book));
            tower::service_fn(move |_: http::Request<()>| {
                book.lock().unwrap().push(address.clone());
                std::future::ready(Ok::<_, io::Error>(()))
            })
        });
    for _ in 0..10 {
        let mut request = http::Request::new(());
        let hints = Hints::new().only([("version", "1")]).key("user 7");
        request.extensions_mut().insert(hints);
        balance.call(request).await.unwrap();
    }
    assert!(called.lock().unwrap().iter().all(|address| address == A));
    balance.call(http::Request::new(())).await.unwrap();
    let _ = InExtensions;
}
