//! What one call does: where it goes, what it waits for, what it leaves behind.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use discover_support::{idle_context, instance, now, registry};
use tower::{Service, ServiceExt, balance::p2c::Balance, load::CompleteOnResponse};
use tower_nacos::{
    directory::{Subscription, Writer},
    endpoint::{Bare, CallError, Recover, Recovered, Verdict},
    model::{Address, Instance},
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";

/// How the services of each instance behave, changed as a test goes on.
#[derive(Clone, Default)]
struct Stage(Arc<Mutex<Scene>>);

#[derive(Default)]
struct Scene {
    ready: HashMap<Address, Readiness>,
    answers: HashMap<Address, Answer>,
    calls: Vec<Address>,
    wakers: Vec<Waker>,
}

#[derive(Clone, Copy, PartialEq)]
enum Readiness {
    Later,
    Broken,
}

#[derive(Clone, Copy)]
enum Answer {
    Hang,
    Refuse,
    Full,
    Unsent,
    Unreachable,
    Wrong,
}

/// What a service fails with; may hold the request.
#[derive(Debug)]
struct Failed {
    request: Option<u32>,
    how: &'static str,
}

#[derive(Clone)]
struct Actor {
    address: Address,
    stage: Stage,
}

struct Play {
    actor: Actor,
    request: u32,
}

#[derive(Clone, Copy)]
struct GiveBack;

type Engine = Bare<Actor, GiveBack, CompleteOnResponse, fn(&Failed) -> Verdict>;

impl Stage {
    fn ready(&self, address: &str, readiness: Option<Readiness>) {
        let mut scene = self.0.lock().unwrap();
        match readiness {
            Some(readiness) => scene.ready.insert(address.parse().unwrap(), readiness),
            None => scene.ready.remove(&address.parse().unwrap()),
        };
        self.wake(scene);
    }

    fn answer(&self, address: &str, answer: Option<Answer>) {
        let mut scene = self.0.lock().unwrap();
        match answer {
            Some(answer) => scene.answers.insert(address.parse().unwrap(), answer),
            None => scene.answers.remove(&address.parse().unwrap()),
        };
        self.wake(scene);
    }

    fn wake(&self, mut scene: std::sync::MutexGuard<'_, Scene>) {
        let wakers = std::mem::take(&mut scene.wakers);
        drop(scene);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn calls(&self) -> Vec<String> {
        let scene = self.0.lock().unwrap();
        scene.calls.iter().map(ToString::to_string).collect()
    }

    fn maker(&self) -> impl Fn(&Instance) -> Actor + Send + Sync + 'static {
        let stage = self.clone();
        move |instance: &Instance| Actor {
            address: instance.address().clone(),
            stage: stage.clone(),
        }
    }

    fn engine(&self, orders: &Subscription) -> Engine {
        orders
            .discover_with()
            .recover(GiveBack)
            .classify(judge as fn(&Failed) -> Verdict)
            .bare(self.maker())
    }
}

fn judge(error: &Failed) -> Verdict {
    if error.how == "unreachable" {
        Verdict::unreachable(error)
    } else {
        Verdict::Reachable
    }
}

impl Service<u32> for Actor {
    type Response = Address;
    type Error = Failed;
    type Future = Play;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let mut scene = self.stage.0.lock().unwrap();
        match scene.ready.get(&self.address).copied() {
            None => Poll::Ready(Ok(())),
            Some(Readiness::Later) => {
                scene.wakers.push(cx.waker().clone());
                Poll::Pending
            }
            Some(Readiness::Broken) => Poll::Ready(Err(Failed {
                request: None,
                how: "broken",
            })),
        }
    }

    fn call(&mut self, request: u32) -> Play {
        let mut scene = self.stage.0.lock().unwrap();
        scene.calls.push(self.address.clone());
        drop(scene);
        Play {
            actor: self.clone(),
            request,
        }
    }
}

impl Future for Play {
    type Output = Result<Address, Failed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let address = self.actor.address.clone();
        let mut scene = self.actor.stage.0.lock().unwrap();
        let (request, how) = match scene.answers.get(&address).copied() {
            None => return Poll::Ready(Ok(address)),
            Some(Answer::Hang) => {
                scene.wakers.push(cx.waker().clone());
                return Poll::Pending;
            }
            Some(Answer::Refuse) => (Some(self.request), "refused"),
            Some(Answer::Full) => (Some(self.request), "full"),
            Some(Answer::Unsent) => (Some(self.request), "unsent"),
            Some(Answer::Unreachable) => (Some(self.request), "unreachable"),
            Some(Answer::Wrong) => (None, "wrong"),
        };
        Poll::Ready(Err(Failed { request, how }))
    }
}

impl Recover<u32, Failed> for GiveBack {
    fn recover(&self, error: &mut Failed) -> Option<Recovered<u32>> {
        let request = error.request.take()?;
        Some(match error.how {
            "refused" => Recovered::Refused(request),
            "full" => Recovered::Full(request),
            _ => Recovered::Unsent(request),
        })
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.how)
    }
}

impl std::error::Error for Failed {}

fn addresses(n: usize) -> Vec<String> {
    (1..=n).map(|i| format!("10.0.0.{i}:80")).collect()
}

fn list(writer: &mut Writer, addresses: &[impl AsRef<str>]) {
    writer.publish(addresses.iter().map(|a| instance(a.as_ref())), now());
}

/// The answer of a call that has no more to wait for.
async fn finished(call: tokio::task::JoinHandle<Result<Address, CallError>>) -> Address {
    let end = tokio::time::timeout(Duration::from_secs(20), call).await;
    end.expect("woken").unwrap().unwrap()
}

fn distinct(calls: &[String]) -> usize {
    let mut calls = calls.to_vec();
    calls.sort();
    calls.dedup();
    calls.len()
}

#[tokio::test]
async fn an_unsent_request_tries_each_instance_once_and_no_more_than_ten() {
    for (instances, tries) in [(3, 3), (10, 10), (14, 10)] {
        let (mut writer, orders) = registry();
        let stage = Stage::default();
        list(&mut writer, &addresses(instances));
        for address in addresses(instances) {
            stage.answer(&address, Some(Answer::Unsent));
        }
        let engine = stage.engine(&orders);
        let error = engine.call(1).await.unwrap_err();
        assert!(error.is_inner(), "{error}");
        assert_eq!(error.inner::<Failed>().unwrap().how, "unsent");
        let calls = stage.calls();
        assert_eq!((calls.len(), distinct(&calls)), (tries, tries));
        assert_eq!(engine.counts(), [0; 3]);
    }
}

#[tokio::test]
async fn a_refused_request_moves_three_times() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &addresses(8));
    for address in addresses(8) {
        stage.answer(&address, Some(Answer::Refuse));
    }
    let engine = stage.engine(&orders);
    engine.call(1).await.unwrap_err();
    let calls = stage.calls();
    assert_eq!((calls.len(), distinct(&calls)), (4, 4));
}

/// It is asked again and again, and meanwhile others work on the same thread.
#[test]
fn a_call_that_is_told_full_each_time_at_once_holds_up_nobody() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut writer, orders) = registry();
            let stage = Stage::default();
            list(&mut writer, &[A]);
            stage.answer(A, Some(Answer::Full));
            let engine = stage.engine(&orders);
            let call = tokio::spawn({
                let engine = engine.clone();
                async move { engine.call(1).await }
            });
            while stage.calls().len() < 1_000 {
                tokio::task::yield_now().await;
            }
            stage.answer(A, None);
            assert_eq!(finished(call).await, A.parse().unwrap());
            assert_eq!(engine.counts(), [0; 3]);
        });
        tell.send(()).unwrap();
    });
    let hang = Duration::from_secs(60);
    told.recv_timeout(hang).expect("the thread stands still");
}

#[tokio::test]
async fn an_error_that_gives_nothing_back_is_the_answer() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &addresses(3));
    for address in addresses(3) {
        stage.answer(&address, Some(Answer::Wrong));
    }
    let error = stage.engine(&orders).call(1).await.unwrap_err();
    assert_eq!(stage.calls().len(), 1);
    let instance = error.instance().unwrap();
    assert_eq!(
        error.to_string(),
        format!("the call to instance {instance} of shop@@orders in namespace dev failed: wrong")
    );
    // It is said, so no source says it again; programs have it all the same.
    assert!(std::error::Error::source(&error).is_none());
    assert_eq!(error.cause().unwrap().to_string(), "wrong");
}

#[tokio::test]
async fn a_call_dropped_at_any_wait_leaves_the_counts_as_they_were() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    let engine = stage.engine(&orders);
    // Waiting for the first answer of the registry.
    {
        let mut call = pin!(engine.call(1));
        assert!(call.as_mut().poll(&mut idle_context()).is_pending());
    }
    list(&mut writer, &[A]);
    // Waiting for the service to become ready: counted as waiting, admitted nowhere.
    stage.ready(A, Some(Readiness::Later));
    {
        let mut call = pin!(engine.call(1));
        assert!(call.as_mut().poll(&mut idle_context()).is_pending());
        assert_eq!(engine.counts(), [0, 0, 1]);
    }
    assert_eq!(engine.counts(), [0; 3]);
    // Waiting for the answer.
    stage.ready(A, None);
    stage.answer(A, Some(Answer::Hang));
    {
        let mut call = pin!(engine.call(1));
        assert!(call.as_mut().poll(&mut idle_context()).is_pending());
        assert_eq!(engine.counts(), [1, 0, 0]);
    }
    assert_eq!(engine.counts(), [0; 3]);
    // Never polled at all.
    drop(engine.call(1));
    assert_eq!(engine.counts(), [0; 3]);
    assert_eq!(stage.calls().len(), 1);
}

#[tokio::test]
async fn who_waits_for_readiness_goes_elsewhere_when_the_instance_leaves() {
    for closing in [true, false] {
        let (mut writer, orders) = registry();
        let stage = Stage::default();
        list(&mut writer, &[A]);
        stage.ready(A, Some(Readiness::Later));
        let engine = stage.engine(&orders);
        let call = tokio::spawn(engine.call(1));
        tokio::task::yield_now().await;
        assert_eq!(engine.counts(), [0, 0, 1]);
        if closing {
            writer.publish([instance(A).with_weight(0.0), instance(B)], now());
        } else {
            list(&mut writer, &[B]);
        }
        assert_eq!(finished(call).await.to_string(), B);
        assert_eq!(stage.calls(), [B]);
        assert_eq!(engine.counts(), [0; 3]);
    }
}

#[tokio::test]
async fn a_call_in_flight_on_an_evicted_instance_is_not_cut() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &[A]);
    stage.answer(A, Some(Answer::Hang));
    let engine = stage.engine(&orders);
    let call = tokio::spawn(engine.call(1));
    tokio::task::yield_now().await;
    let revision = writer.publish([instance(B)], now());
    assert_eq!(
        orders.applied_revision(),
        revision,
        "in flight is not entering"
    );
    tokio::task::yield_now().await;
    assert!(!call.is_finished());
    stage.answer(A, None);
    assert_eq!(finished(call).await.to_string(), A);
    for _ in 0..10 {
        assert_eq!(engine.call(1).await.unwrap().to_string(), B);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_instance_gets_no_call_until_a_probe_succeeds() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &[A, B]);
    stage.answer(A, Some(Answer::Unreachable));
    let engine = stage.engine(&orders);
    let calls_to_a = || stage.calls().iter().filter(|a| *a == A).count();
    // No call fails: what A could not take goes to B.
    let run = async |calls: usize| {
        for _ in 0..calls {
            assert_eq!(engine.call(1).await.unwrap().to_string(), B);
        }
    };
    run(20).await;
    assert_eq!(calls_to_a(), 1);
    // Rests of 1, 2, 4, 8, 16, 30, 30 s, each followed by one probe.
    let mut probes = 1;
    for rest in [1, 2, 4, 8, 16, 30, 30] {
        tokio::time::sleep(Duration::from_secs(rest) - Duration::from_millis(20)).await;
        run(5).await;
        assert_eq!(calls_to_a(), probes, "before the end of {rest} s");
        tokio::time::sleep(Duration::from_millis(40)).await;
        probes += 1;
        run(5).await;
        assert_eq!(calls_to_a(), probes, "after {rest} s");
    }
    stage.answer(A, None);
    tokio::time::sleep(Duration::from_secs(31)).await;
    let before = calls_to_a();
    for _ in 0..20 {
        engine.call(1).await.unwrap();
    }
    assert!(calls_to_a() > before + 5, "back among the others");
    // Success voids what was counted: the next rest is 1 s again.
    stage.answer(A, Some(Answer::Unreachable));
    run(10).await;
    let failed = calls_to_a();
    tokio::time::sleep(Duration::from_millis(1020)).await;
    run(10).await;
    assert_eq!(calls_to_a(), failed + 1);
}

#[tokio::test(start_paused = true)]
async fn while_none_can_be_reached_calls_fail_at_once_and_dial_each_four_times_a_second_at_most() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    let all = addresses(5);
    list(&mut writer, &all);
    for address in &all {
        stage.answer(address, Some(Answer::Unreachable));
    }
    let engine = stage.engine(&orders);
    engine.call(1).await.unwrap_err();
    assert_eq!(distinct(&stage.calls()), 5);
    let error = engine.call(1).await.unwrap_err();
    assert!(error.is_all_unreachable(), "{error}");
    let text = error.to_string();
    let start = "no instance of shop@@orders in namespace dev can be reached: instance 10.0.0.";
    assert!(
        text.starts_with(start) && text.ends_with(":80: unreachable"),
        "{text}"
    );
    assert_eq!(stage.calls().len(), 5);
    // Called all the time: four a second for each, not more, and some.
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        engine.call(1).await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let dialled = stage.calls().len() - 5;
    assert!((5 * 20..=5 * 40).contains(&dialled), "{dialled}");
    // One that comes back is found by the first who asks after 250 ms.
    stage.answer(&all[3], None);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(engine.call(1).await.unwrap().to_string(), all[3]);
    // And ends the rest of all of them.
    for address in &all {
        stage.answer(address, None);
    }
    tokio::time::sleep(Duration::from_millis(250)).await;
    let before = stage.calls().len();
    for _ in 0..100 {
        tokio::task::yield_now().await;
        engine.call(1).await.unwrap();
    }
    assert!(distinct(&stage.calls()[before..]) >= 1);
    assert_eq!(engine.counts(), [0; 3]);
}

#[tokio::test(start_paused = true)]
async fn under_stock_balance_connect_errors_eject_too() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &[A, B]);
    stage.answer(A, Some(Answer::Unreachable));
    let discovery = orders
        .discover_with()
        .recover(GiveBack)
        .classify(judge)
        .build(stage.maker());
    let mut balance = Balance::new(discovery);
    for _ in 0..50 {
        let answer = balance.ready().await.unwrap().call(1).await.unwrap();
        assert_eq!(answer.to_string(), B);
    }
    let to_a = stage.calls().iter().filter(|a| *a == A).count();
    assert!(to_a <= 1, "{to_a}");
    // None left: at once, not after the 300 s that this runtime's clock would jump.
    stage.answer(B, Some(Answer::Unreachable));
    let begun = tokio::time::Instant::now();
    let mut unreachable = 0;
    for _ in 0..10 {
        let error = balance.ready().await.unwrap().call(1).await.unwrap_err();
        let error = error.downcast::<CallError>().unwrap();
        unreachable += usize::from(error.is_all_unreachable());
    }
    assert!(unreachable >= 7 && begun.elapsed() < Duration::from_millis(100));
    // And back, without anybody's help.
    stage.answer(A, None);
    stage.answer(B, None);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut served = 0;
    for _ in 0..40 {
        tokio::task::yield_now().await;
        served += usize::from(balance.ready().await.unwrap().call(1).await.is_ok());
    }
    assert_eq!(served, 40);
}

#[tokio::test(start_paused = true)]
async fn a_broken_service_is_made_again_and_its_call_goes_elsewhere() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &[A, B]);
    stage.ready(A, Some(Readiness::Broken));
    let engine = stage.engine(&orders);
    for _ in 0..10 {
        assert_eq!(engine.call(1).await.unwrap().to_string(), B);
    }
    stage.ready(A, None);
    tokio::time::sleep(Duration::from_millis(1020)).await;
    for _ in 0..4 {
        engine.call(1).await.unwrap();
    }
    assert!(stage.calls().contains(&A.to_owned()));
    assert_eq!(engine.counts(), [0; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_lets_another_follow() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &[A]);
    stage.answer(A, Some(Answer::Unreachable));
    let engine = stage.engine(&orders);
    engine.call(1).await.unwrap_err();
    stage.answer(A, Some(Answer::Hang));
    tokio::time::sleep(Duration::from_millis(1020)).await;
    {
        let mut probe = pin!(engine.call(1));
        assert!(probe.as_mut().poll(&mut idle_context()).is_pending());
        // One at a time: who comes next waits for what it finds.
        let mut next = pin!(engine.call(1));
        assert!(next.as_mut().poll(&mut idle_context()).is_pending());
        assert_eq!(stage.calls().len(), 2);
    }
    assert_eq!(engine.counts(), [0; 3]);
    stage.answer(A, None);
    tokio::time::sleep(Duration::from_millis(2020)).await;
    engine.call(1).await.unwrap();
}

#[tokio::test]
async fn a_maker_that_panics_costs_that_instance_only() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &[A, B]);
    let make = stage.maker();
    let engine = orders.discover_with().bare(move |instance: &Instance| {
        assert!(
            instance.metadata().get("good").is_some() || instance.address().port() != 80,
            "no certificate"
        );
        make(instance)
    });
    let error = engine.call(1).await.unwrap_err();
    assert!(error.is_unusable(), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("instance 10.0.0.") && text.ends_with(
            ":80 of shop@@orders in namespace dev cannot be used: making its service panicked: no certificate"
        ),
        "{text}"
    );
    writer.publish([instance(A), instance(B), instance("10.0.0.3:81")], now());
    for _ in 0..5 {
        assert_eq!(engine.call(1).await.unwrap().to_string(), "10.0.0.3:81");
    }
    // Its attributes change: it is tried again.
    let good = [("good", "yes")].into_iter().collect();
    writer.publish([instance(A).with_metadata(good)], now());
    assert_eq!(engine.call(1).await.unwrap().to_string(), A);
    assert_eq!(engine.counts(), [0; 3]);
}

#[test]
fn while_a_maker_blocks_others_wait_without_blocking() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &[A]);
    let make = stage.maker();
    let (entered, is_entered) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let engine = orders.discover_with().bare(move |instance: &Instance| {
        if instance.address().to_string() == A {
            entered.send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        }
        make(instance)
    });
    std::thread::scope(|scope| {
        let first = scope.spawn(|| futures_executor_block_on(engine.call(1)));
        is_entered.recv().unwrap();
        {
            // Given up while it waits for the maker.
            let mut second = pin!(engine.call(2));
            assert!(second.as_mut().poll(&mut idle_context()).is_pending());
            assert_eq!(engine.counts(), [0, 0, 1]);
        }
        assert_eq!(engine.counts(), [0; 3]);
        let third = scope.spawn(|| futures_executor_block_on(engine.call(3)));
        // The registry goes on meanwhile, and so do calls to others.
        writer.publish([instance(A), instance(B)], now());
        let mut elsewhere = 0;
        for _ in 0..8 {
            let mut call = pin!(engine.call(4));
            elsewhere += usize::from(call.as_mut().poll(&mut idle_context()).is_ready());
        }
        assert!(elsewhere > 0);
        release.send(()).unwrap();
        assert_eq!(first.join().unwrap().unwrap().to_string(), A);
        third.join().unwrap().unwrap();
    });
    assert_eq!(engine.counts(), [0; 3]);
}

#[test]
fn a_service_made_for_an_instance_that_left_meanwhile_is_not_called() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &[A]);
    let make = stage.maker();
    let writer = Mutex::new(writer);
    let writer = Arc::new(writer);
    let engine = {
        let writer = Arc::clone(&writer);
        orders.discover_with().bare(move |made: &Instance| {
            writer.lock().unwrap().publish([instance(B)], now());
            make(made)
        })
    };
    assert_eq!(
        futures_executor_block_on(engine.call(1))
            .unwrap()
            .to_string(),
        B
    );
    assert_eq!(stage.calls(), [B]);
}

fn futures_executor_block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}
