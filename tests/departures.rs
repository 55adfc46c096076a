//! What becomes of calls in flight on an instance that leaves, and of what was learnt about one
//! that comes back. In virtual time.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    collections::HashMap,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use discover_support::{idle_context, instance, now, registry};
use futures_core::Stream;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tower::{Service, ServiceExt, discover::Change, load::completion::TrackCompletion};
use tower_nacos::{
    Balance, Instance as NacosInstance,
    balance::{Alias, Candidate, Loads, PickContext, Policy, Random, Timing},
    directory::{Options, Writer, channel},
    endpoint::InFlight,
    model::ServiceKey,
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const CUT: Duration = Duration::from_secs(30);

/// Answers when it is told to; counts the answers that are still awaited.
#[derive(Clone, Default)]
struct Slow {
    told: Arc<Notify>,
    awaited: Arc<AtomicUsize>,
}

struct Awaited(Arc<AtomicUsize>);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Service<u32> for Slow {
    type Response = u32;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<u32>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        self.awaited.fetch_add(1, SeqCst);
        let (told, awaited) = (Arc::clone(&self.told), Awaited(Arc::clone(&self.awaited)));
        Box::pin(async move {
            let _awaited = awaited;
            told.notified().await;
            Ok(request)
        })
    }
}

fn list(writer: &mut Writer, instances: impl IntoIterator<Item = NacosInstance>) {
    writer.publish(instances, now());
}

#[tokio::test(start_paused = true)]
async fn a_call_on_an_evicted_instance_is_cut_when_its_time_is_up() {
    let (mut writer, orders) = registry();
    list(&mut writer, [instance(A)]);
    let slow = Slow::default();
    let inner = slow.clone();
    let balance = Balance::builder(&orders)
        .abort_in_flight_after(CUT)
        .build(move |_: &NacosInstance| inner.clone());
    let call = tokio::spawn(balance.clone().oneshot(1));
    sleep(Duration::from_secs(100)).await; // not before the eviction
    assert_eq!(slow.awaited.load(SeqCst), 1);
    let left = Instant::now();
    list(&mut writer, [instance(B)]);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(left.elapsed(), CUT);
    assert!(error.is_aborted() && !error.is_inner(), "{error}");
    assert_eq!(error.instance().unwrap().to_string(), A);
    for part in ["cut 30s after", "abort_in_flight_after", A] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(slow.awaited.load(SeqCst), 0, "its future is dropped");
    assert_eq!(balance.counts(), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_in_time_or_whose_instance_stays_is_not() {
    let (mut writer, orders) = registry();
    list(&mut writer, [instance(A)]);
    let slow = Slow::default();
    let inner = slow.clone();
    let balance = Balance::builder(&orders)
        .abort_in_flight_after(CUT)
        .build(move |_: &NacosInstance| inner.clone());
    // Listed, and closed: it is drained.
    let call = tokio::spawn(balance.clone().oneshot(1));
    tokio::task::yield_now().await;
    list(&mut writer, [instance(A).with_weight(0.0)]);
    sleep(CUT * 2).await;
    slow.told.notify_waiters();
    assert_eq!(call.await.unwrap().unwrap(), 1);
    // Evicted, and in time.
    list(&mut writer, [instance(A)]);
    let call = tokio::spawn(balance.clone().oneshot(2));
    tokio::task::yield_now().await;
    list(&mut writer, []);
    sleep(CUT - Duration::from_millis(1)).await;
    slow.told.notify_waiters();
    assert_eq!(call.await.unwrap().unwrap(), 2);
    // Given up by its caller, before and after the eviction.
    list(&mut writer, [instance(A)]);
    for leaves in [false, true] {
        let mut call = pin!(timeout(Duration::from_secs(1), balance.clone().oneshot(3)));
        assert!(call.as_mut().poll(&mut idle_context()).is_pending());
        if leaves {
            list(&mut writer, []);
        }
        assert!(call.await.is_err());
    }
    assert_eq!(balance.counts(), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn by_default_no_call_is_cut() {
    let (mut writer, orders) = registry();
    list(&mut writer, [instance(A)]);
    let slow = Slow::default();
    let inner = slow.clone();
    let balance = Balance::builder(&orders).build(move |_: &NacosInstance| inner.clone());
    let call = tokio::spawn(balance.oneshot(1));
    tokio::task::yield_now().await;
    list(&mut writer, []);
    sleep(Duration::from_secs(3_600)).await;
    slow.told.notify_waiters();
    assert_eq!(call.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn under_a_stock_balancer_it_is_cut_too() {
    let (mut writer, orders) = registry();
    list(&mut writer, [instance(A)]);
    let slow = Slow::default();
    let mut discovery = pin!(
        orders
            .discover_with()
            .abort_in_flight_after(CUT)
            .build(move |_: &NacosInstance| slow.clone())
    );
    let first = std::future::poll_fn(|cx| discovery.as_mut().poll_next(cx)).await;
    let Some(Ok(Change::Insert(_, mut guarded))) = first else {
        panic!("an instance first");
    };
    let call = tokio::spawn(guarded.ready().await.unwrap().call(1));
    tokio::task::yield_now().await;
    let left = Instant::now();
    list(&mut writer, []);
    assert!(call.await.unwrap().unwrap_err().is_aborted());
    assert_eq!(left.elapsed(), CUT);
}

/// Counts a call until its body has ended, and cuts the body.
#[derive(Clone, Copy)]
struct UntilBody;

struct Body(InFlight);

impl<V> TrackCompletion<InFlight, V> for UntilBody {
    type Output = Body;

    fn track_completion(&self, handle: InFlight, _: V) -> Body {
        Body(handle)
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_can_be_cut_by_whoever_counts_it() {
    let (mut writer, orders) = registry();
    list(&mut writer, [instance(A)]);
    let answer = |request: u32| std::future::ready(Ok::<_, io::Error>(request));
    let builder = Balance::builder(&orders).completion(UntilBody);
    let maker = move |_: &NacosInstance| tower::service_fn(answer);
    let patient = builder.clone().build(maker);
    let balance = builder.abort_in_flight_after(CUT).build(maker);
    let mut endless = patient.clone().oneshot(1).await.unwrap();
    let mut body = balance.clone().oneshot(1).await.unwrap();
    assert_eq!(balance.counts(), [1, 0, 0]);
    let left = Instant::now();
    let cut = tokio::spawn(async move {
        std::future::poll_fn(|cx| body.0.poll_abort(cx)).await;
    });
    tokio::task::yield_now().await;
    list(&mut writer, []);
    cut.await.unwrap();
    assert_eq!(left.elapsed(), CUT);
    assert_eq!(balance.counts(), [0, 0, 0]);
    let never = std::future::poll_fn(|cx| endless.0.poll_abort(cx));
    assert!(timeout(CUT * 100, never).await.is_err());
}

/// Picks the first, and notes what is expected of whom.
struct Notes(Arc<Mutex<HashMap<String, f64>>>);

impl Policy for Notes {
    type Table = (Alias, Vec<String>);

    fn build(&self, candidates: &[Candidate]) -> Self::Table {
        let names = candidates
            .iter()
            .map(|c| c.instance().address().to_string());
        (Alias::new(candidates), names.collect())
    }

    fn pick(
        &self,
        (_, names): &Self::Table,
        loads: &dyn Loads,
        _: &mut Random,
        _: &PickContext,
    ) -> Option<usize> {
        let mut notes = self.0.lock().unwrap();
        for (at, name) in names.iter().enumerate() {
            notes.insert(name.clone(), loads.latency(at));
        }
        Some(0)
    }

    fn timing(&self) -> Option<Timing> {
        Some(Timing::default())
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_back_within_ten_seconds_with_the_same_metadata_is_as_slow_as_before() {
    let key = ServiceKey::new("dev", "shop@@orders".parse().unwrap()).unwrap();
    let (mut writer, orders) = channel(key, Options::default());
    let notes = Arc::new(Mutex::new(HashMap::new()));
    let balance = Balance::builder(&orders)
        .policy(Notes(Arc::clone(&notes)))
        .build(|_: &NacosInstance| {
            tower::service_fn(|slow: bool| async move {
                if slow {
                    sleep(Duration::from_secs(4)).await;
                }
                Ok::<_, io::Error>(())
            })
        });
    let of = |version: &str| {
        let metadata = [("zone", "hz"), ("note", version)].into_iter().collect();
        instance(A).with_metadata(metadata)
    };
    let expected = async || {
        balance.clone().oneshot(false).await.unwrap();
        notes.lock().unwrap()[A]
    };
    for (gone, note, remembered) in [
        (Duration::from_secs(9), "1", true),
        (Duration::from_secs(11), "1", false),
        (Duration::from_secs(9), "2", false),
    ] {
        list(&mut writer, [of("1")]);
        balance.clone().oneshot(true).await.unwrap();
        assert!(expected().await > 3.0);
        list(&mut writer, [instance(B)]);
        // Quick answers elsewhere, so that who is not known is taken for quick.
        for _ in 0..200 {
            balance.clone().oneshot(false).await.unwrap();
            sleep(gone / 200).await;
        }
        list(&mut writer, [of(note)]);
        let latency = expected().await;
        if remembered {
            // Faded by what passed: e^-0.9 of the 4 s.
            assert!((1.4..2.0).contains(&latency), "{latency}");
        } else {
            assert!(latency < 0.1, "{latency}");
        }
        list(&mut writer, []);
        sleep(Duration::from_secs(60)).await;
    }
}
