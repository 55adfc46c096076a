//! What a `Discovery` and the services in it promise, seen through their public interface.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{future::poll_fn, pin::Pin, task::Poll};

use discover_support::{Book, Echo, idle_context, instance, now, registry};
use futures_core::Stream;
use tower::{Service, ServiceExt, balance::p2c::Balance, discover::Change, load::Load};
use tower_nacos::{
    discover::{Discovery, Guarded, Key},
    endpoint::CallError,
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";

/// What a stream says now: removed and inserted, in order.
fn look(discovery: &mut Discovery<Echo>) -> (Vec<String>, Vec<(Key, Guarded<Echo>)>) {
    let mut said = Vec::new();
    let mut inserted = Vec::new();
    let mut cx = idle_context();
    while let Poll::Ready(change) = Pin::new(&mut *discovery).poll_next(&mut cx) {
        match change.expect("endless").unwrap() {
            Change::Insert(key, service) => {
                said.push(format!("+{key}"));
                inserted.push((key, service));
            }
            Change::Remove(key) => said.push(format!("-{key}")),
        }
    }
    (said, inserted)
}

async fn ready(service: &mut Guarded<Echo>) -> Result<(), CallError> {
    let ready = poll_fn(|cx| Service::<u32>::poll_ready(service, cx));
    let ready = tokio::time::timeout(std::time::Duration::from_secs(20), ready).await;
    ready.expect("ready or not, but not waiting")
}

#[tokio::test]
async fn removals_come_first_and_a_return_is_another_key() {
    let (mut writer, orders) = registry();
    let mut discovery = orders.discover(Book::default().maker());
    assert_eq!(
        look(&mut discovery).0,
        Vec::<String>::new(),
        "unknown is not empty"
    );
    writer.publish([instance(A), instance(B)], now());
    let (said, first) = look(&mut discovery);
    assert_eq!(said, [format!("+{A}"), format!("+{B}")]);
    writer.publish([instance(B), instance(C)], now());
    assert_eq!(look(&mut discovery).0, [format!("-{A}"), format!("+{C}")]);
    // Away and back between two looks: another generation, hence another key.
    writer.publish([instance(B)], now());
    writer.publish([instance(B), instance(C)], now());
    assert_eq!(look(&mut discovery).0, [format!("-{C}"), format!("+{C}")]);
    writer.publish([instance(A), instance(B), instance(C)], now());
    let (said, second) = look(&mut discovery);
    assert_eq!(said, [format!("+{A}")]);
    assert_eq!(first[0].0.address(), second[0].0.address());
    assert_ne!(first[0].0, second[0].0);
}

#[tokio::test]
async fn after_the_end_of_the_subscription_the_last_set_stays() {
    let (mut writer, orders) = registry();
    writer.publish([instance(A)], now());
    let mut balance = Balance::new(orders.discover(Book::default().maker()));
    balance.ready().await.unwrap();
    writer.close();
    for _ in 0..3 {
        balance.ready().await.unwrap().call(1).await.unwrap();
    }
    let mut discovery = orders.discover(Book::default().maker());
    assert_eq!(look(&mut discovery).0, [format!("+{A}")]);
    assert!(look(&mut discovery).0.is_empty());
}

#[tokio::test]
async fn attributes_change_in_place() {
    let (mut writer, orders) = registry();
    writer.publish([instance(A)], now());
    let book = Book::default();
    let mut discovery = orders.discover(book.maker());
    let (_, mut services) = look(&mut discovery);
    let service = &mut services[0].1;
    ready(service).await.unwrap();
    let call = service.call(1);
    assert_eq!(service.load(), 0.0);
    call.await.unwrap();
    writer.publish([instance(A).with_weight(4.0).with_cluster("HZ")], now());
    assert!(look(&mut discovery).0.is_empty());
    ready(service).await.unwrap();
    service.call(1).await.unwrap();
    assert_eq!(
        book.counts(A)
            .made
            .load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

#[tokio::test]
async fn a_closed_instance_waits_and_keeps_its_service_and_an_evicted_one_fails() {
    let (mut writer, orders) = registry();
    writer.publish([instance(A), instance(B)], now());
    let book = Book::default();
    let mut discovery = orders.discover(book.maker());
    let (_, mut services) = look(&mut discovery);
    let mut service = services.remove(0).1;
    ready(&mut service).await.unwrap();
    service.call(1).await.unwrap();
    writer.publish([instance(A).with_weight(0.0), instance(B)], now());
    assert!(look(&mut discovery).0.is_empty(), "closed stays in the set");
    assert_eq!(service.load(), f64::INFINITY);
    let mut task = tokio_test_task(&mut service);
    assert!(!task.poll());
    writer.publish([instance(A).with_weight(2.0), instance(B)], now());
    assert!(task.is_woken() && task.poll());
    drop(task);
    assert_eq!(book.living(A), 1, "a closed instance keeps its connections");
    writer.publish([instance(A).with_healthy(false), instance(B)], now());
    let mut task = tokio_test_task(&mut service);
    assert!(!task.poll());
    writer.publish([instance(B)], now());
    assert!(task.is_woken());
    drop(task);
    let error = ready(&mut service).await.unwrap_err();
    assert!(error.is_evicted());
    assert_eq!(
        error.to_string(),
        "instance 10.0.0.1:80 of shop@@orders in namespace dev left the registry"
    );
    assert_eq!(look(&mut discovery).0, [format!("-{A}")]);
    // A call through it, against the contract, goes to a sibling.
    assert_eq!(service.call(1).await.unwrap().to_string(), B);
}

/// Polls a service's readiness and tells whether it was woken.
fn tokio_test_task(service: &mut Guarded<Echo>) -> Watched<'_> {
    Watched {
        service,
        woken: std::sync::Arc::default(),
    }
}

struct Watched<'a> {
    service: &'a mut Guarded<Echo>,
    woken: std::sync::Arc<Flag>,
}

#[derive(Default)]
struct Flag(std::sync::atomic::AtomicBool);

impl futures_util::task::ArcWake for Flag {
    fn wake_by_ref(this: &std::sync::Arc<Self>) {
        this.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Watched<'_> {
    fn poll(&mut self) -> bool {
        let waker = futures_util::task::waker(std::sync::Arc::clone(&self.woken));
        let mut cx = std::task::Context::from_waker(&waker);
        Service::<u32>::poll_ready(self.service, &mut cx).is_ready()
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[tokio::test]
async fn an_empty_set_answers_at_once_until_somebody_comes() {
    let (mut writer, orders) = registry();
    writer.publish([instance(A)], now());
    let mut balance = Balance::new(orders.discover(Book::default().maker()));
    balance.ready().await.unwrap().call(1).await.unwrap();
    for (listed, reason) in [
        (vec![], "the registry lists none"),
        (
            vec![
                instance(A).with_weight(0.0),
                instance(B).with_enabled(false),
            ],
            "2 listed: 1 × its weight is 0, 1 × disabled by an operator; a weight of 0 drains an \
             instance: raise it in the registry's console, or wait for instances that have one",
        ),
    ] {
        writer.publish(listed, now());
        let error = balance.ready().await.unwrap().call(1).await.unwrap_err();
        let error = error.downcast::<CallError>().unwrap();
        assert!(error.is_no_instances());
        assert_eq!(
            error.to_string(),
            format!("no instance of shop@@orders in namespace dev can be called: {reason}")
        );
    }
    writer.publish([instance(C)], now());
    for _ in 0..50 {
        let answer = balance.ready().await.unwrap().call(1).await.unwrap();
        assert_eq!(answer.to_string(), C);
    }
    assert_eq!(balance.len(), 1, "the service that only answers has gone");
}

#[tokio::test]
async fn an_unknown_set_is_waited_for() {
    let (mut writer, orders) = registry();
    let mut balance = Balance::new(orders.discover(Book::default().maker()));
    let waiting = tokio::spawn(async move { balance.ready().await.unwrap().call(1).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    writer.publish([instance(A)], now());
    assert_eq!(waiting.await.unwrap().unwrap().to_string(), A);
}

#[tokio::test]
async fn a_preferred_cluster_is_all_or_nothing_and_falls_back_in_one_look() {
    let (mut writer, orders) = registry();
    let near = || instance(A).with_cluster("HZ");
    let far = || instance(B).with_cluster("SH");
    writer.publish([near(), far()], now());
    let mut discovery = orders
        .discover_with()
        .prefer_cluster("HZ")
        .build(Book::default().maker());
    let (said, mut services) = look(&mut discovery);
    assert_eq!(said, [format!("+{A}")]);
    let mut service = services.remove(0).1;
    writer.publish([near().with_weight(0.0), far()], now());
    assert_eq!(look(&mut discovery).0, [format!("+{B}")]);
    // Chosen before, called now: the fallback serves that call too.
    assert_eq!(service.call(1).await.unwrap().to_string(), B);
    writer.publish([near(), far()], now());
    assert_eq!(look(&mut discovery).0, [format!("-{B}")]);
    assert_eq!(service.call(1).await.unwrap().to_string(), A);
}

#[tokio::test]
async fn an_idle_service_is_dropped_on_eviction() {
    let (mut writer, orders) = registry();
    writer.publish([instance(A), instance(B)], now());
    let book = Book::default();
    let mut discovery = orders.discover(book.maker());
    let (_, mut services) = look(&mut discovery);
    for (_, service) in &mut services {
        ready(service).await.unwrap();
        service.call(1).await.unwrap();
    }
    assert_eq!((book.living(A), book.living(B)), (1, 1));
    writer.publish([instance(B)], now());
    // Nobody looks at the stream and nobody calls.
    let gone = async {
        while book.living(A) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone)
        .await
        .expect("dropped without a call");
    assert_eq!(book.living(B), 1);
}

#[test]
fn without_a_runtime_the_next_call_drops_what_was_evicted() {
    let (mut writer, orders) = registry();
    writer.publish([instance(A), instance(B)], now());
    let book = Book::default();
    let mut discovery = orders.discover(book.maker());
    let (_, mut services) = look(&mut discovery);
    for (_, service) in &mut services {
        assert!(matches!(service.call(1).poll_once(), Poll::Ready(Ok(_))));
    }
    writer.publish([instance(B)], now());
    assert_eq!(book.living(A), 1);
    assert!(services[1].1.call(1).poll_once().is_ready());
    assert_eq!(book.living(A), 0);
    drop((discovery, services));
    assert_eq!(book.living(B), 0, "the last user takes all with them");
}

trait PollOnce: Future {
    fn poll_once(self) -> Poll<Self::Output>
    where
        Self: Sized,
    {
        std::pin::pin!(self).poll(&mut idle_context())
    }
}

impl<F: Future> PollOnce for F {}
