//! Every request to a balancer is told once, by what became of it, and everything is there from the start,
//! 0 included. Read as Prometheus does, through an exporter that nobody here wrote.
#![cfg(feature = "metrics")]

use std::{
    future::Future,
    io,
    pin::pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tower::{Service, ServiceExt, service_fn};
use tower_nacos::{
    Balance, Client, Instance, Subscription,
    balance::{Outliers, Picker},
    directory::{self, Options, Writer},
    endpoint::{HealthCheck, Outcome, Verdict},
    metrics::BUCKETS,
    model::ServiceKey,
};

const SERVICE: &str = r#"namespace="public",group="DEFAULT_GROUP",service="orders""#;

/// Runs it with a recorder of its own, on this thread alone.
fn recorded<F: Future<Output = ()>>(paused: bool, run: impl FnOnce(PrometheusHandle) -> F) {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("tower_nacos_".to_owned()), &BUCKETS)
        .unwrap()
        .build_recorder();
    let handle = recorder.handle();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(paused).build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(run(handle)));
}

/// The value of a series as it stands in a scrape; `None` if it is not there.
fn scraped(handle: &PrometheusHandle, series: &str) -> Option<f64> {
    let rendered = handle.render();
    let mut lines = rendered.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(value.parse().unwrap())
}

fn of_service(handle: &PrometheusHandle, name: &str) -> Option<f64> {
    scraped(handle, &format!("tower_nacos_{name}{{{SERVICE}}}"))
}

/// All outcomes that are not 0, and how many there are altogether.
fn outcomes(handle: &PrometheusHandle) -> (Vec<(String, u64)>, usize) {
    let start = format!("tower_nacos_requests_total{{{SERVICE},outcome=\"");
    let rendered = handle.render();
    let all: Vec<_> = rendered
        .lines()
        .filter_map(|line| {
            let (labels, count) = line.strip_prefix(&start)?.split_once("\"} ")?;
            Some((labels.replace("\",reason=\"", " "), count.parse().unwrap()))
        })
        .collect();
    let series = all.len();
    let mut some: Vec<_> = all.into_iter().filter(|(_, count)| *count > 0).collect();
    some.sort();
    (some, series)
}

fn channel() -> (Writer, Subscription) {
    let key = ServiceKey::new("", "orders".parse().unwrap()).unwrap();
    directory::channel(key, Options::default())
}

fn instances(count: u8) -> Vec<Instance> {
    let instance = |n| Instance::parse(&format!("10.0.0.{n}:80")).unwrap();
    (1..=count).map(instance).collect()
}

#[expect(clippy::disallowed_methods, reason = "a test owns its clock")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What the one instance does with a request.
#[derive(Clone, Copy)]
enum Does {
    Answers,
    AnswersBadly,
    Fails,
    Loses,
    IsAway,
    Hangs,
}

/// Instances that do as they are told; the first is away if that is told.
fn balance(
    orders: &Subscription,
) -> impl Service<Does, Response = u16, Error = tower_nacos::endpoint::CallError> + Clone + use<> {
    Balance::builder(orders)
        .classify(|error: &io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Verdict::unreachable(error),
            io::ErrorKind::ConnectionReset => Verdict::Lost("reset".into()),
            _ => Verdict::Reachable,
        })
        .outliers(
            Outliers::new().consecutive(0),
            |result: Result<&u16, &io::Error>| match result {
                Ok(500..) => Outcome::Failure,
                _ => Outcome::Success,
            },
        )
        .max_in_flight(1)
        .unknown_wait(Duration::from_secs(1))
        .build(|_: &Instance| {
            service_fn(async |does: Does| match does {
                Does::Answers => Ok(200),
                Does::AnswersBadly => Ok(503),
                Does::Fails => Err(io::Error::other("fails")),
                Does::Loses => Err(io::ErrorKind::ConnectionReset.into()),
                Does::IsAway => Err(io::ErrorKind::ConnectionRefused.into()),
                Does::Hangs => std::future::pending().await,
            })
        })
}

#[test]
fn each_request_is_told_once_by_what_became_of_it() {
    recorded(true, |handle| async move {
        let (mut writer, orders) = channel();
        let calls = balance(&orders);
        // Nothing is known, and then nobody is there.
        assert!(
            calls
                .clone()
                .oneshot(Does::Answers)
                .await
                .unwrap_err()
                .is_unknown()
        );
        writer.publish(instances(1), now());
        for does in [
            Does::Answers,
            Does::Answers,
            Does::Answers,
            Does::AnswersBadly,
        ] {
            calls.clone().oneshot(does).await.unwrap();
        }
        for does in [Does::Fails, Does::Loses] {
            calls.clone().oneshot(does).await.unwrap_err();
        }
        calls.clone().oneshot(Does::Answers).await.unwrap();
        {
            let waker = Waker::noop();
            let mut hangs = pin!(calls.clone().oneshot(Does::Hangs));
            assert!(
                hangs
                    .as_mut()
                    .poll(&mut Context::from_waker(waker))
                    .is_pending()
            );
            assert!(
                calls
                    .clone()
                    .oneshot(Does::Answers)
                    .await
                    .unwrap_err()
                    .is_overloaded()
            );
        }
        drop(calls.clone().oneshot(Does::Hangs)); // never polled: nothing has become of it
        calls.clone().oneshot(Does::IsAway).await.unwrap_err();
        assert!(
            calls
                .clone()
                .oneshot(Does::Answers)
                .await
                .unwrap_err()
                .is_all_unreachable()
        );
        writer.publish([], now());
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(
            calls
                .clone()
                .oneshot(Does::Answers)
                .await
                .unwrap_err()
                .is_no_instances()
        );
        drop(calls);
        let (told, series) = outcomes(&handle);
        let told: Vec<_> = told.iter().map(|(outcome, n)| (&**outcome, *n)).collect();
        let wanted = [
            ("aborted none", 1),
            ("failed bad_answer", 1),
            ("failed error", 1),
            ("failed lost", 1),
            ("failed unreachable", 1),
            ("ok none", 4),
            ("refused all_unreachable", 1),
            ("refused no_instances", 1),
            ("refused overloaded", 1),
            ("refused unknown", 1),
        ];
        assert_eq!(told, wanted);
        assert_eq!(series, 17, "all are there from the start");
    });
}

#[test]
fn a_lease_counts_as_what_its_holder_says() {
    recorded(true, |handle| async move {
        let (mut writer, orders) = channel();
        let picker: Picker = Balance::builder(&orders)
            .unknown_wait(Duration::ZERO)
            .picker();
        assert!(picker.try_pick().unwrap_err().is_unknown());
        assert!(picker.pick().await.unwrap_err().is_unknown());
        writer.publish(instances(2), now());
        picker.try_pick().unwrap().succeeded();
        picker
            .pick()
            .await
            .unwrap()
            .failed(Verdict::Lost("it broke".into()));
        drop(picker.pick().await.unwrap());
        drop(picker);
        let (told, _) = outcomes(&handle);
        let told: Vec<_> = told.iter().map(|(outcome, n)| (&**outcome, *n)).collect();
        let wanted = [
            ("aborted none", 1),
            ("failed lost", 1),
            ("ok none", 1),
            ("refused unknown", 2),
        ];
        assert_eq!(told, wanted);
    });
}

#[test]
fn durations_and_waits_fall_into_the_buckets_that_are_documented() {
    recorded(true, |handle| async move {
        let (mut writer, orders) = channel();
        let calls = Balance::builder(&orders)
            .request_durations()
            .build(|_: &Instance| {
                service_fn(async |ms: u64| {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    Ok::<_, io::Error>(())
                })
            });
        // Waits for the first list, 40 ms.
        let mut waits = pin!(calls.clone().oneshot(0));
        assert!(
            waits
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        tokio::time::sleep(Duration::from_millis(40)).await;
        writer.publish(instances(1), now());
        waits.await.unwrap();
        for ms in [3, 3, 30, 20_000] {
            calls.clone().oneshot(ms).await.unwrap();
        }
        drop(calls);
        let bucket = |name: &str, le: &str| {
            scraped(
                &handle,
                &format!("tower_nacos_{name}_bucket{{{SERVICE},le=\"{le}\"}}"),
            )
        };
        let durations: Vec<_> = ["0.001", "0.005", "0.025", "0.05", "10", "+Inf"]
            .map(|le| bucket("request_duration_seconds", le))
            .into_iter()
            .collect();
        assert_eq!(durations, [0.0, 2.0, 2.0, 4.0, 4.0, 5.0].map(Some));
        let sum = of_service(&handle, "request_duration_seconds_sum").unwrap();
        assert!((sum - 20.076).abs() < 0.01, "{sum}");
        assert_eq!(bucket("wait_seconds", "0.025"), Some(0.0));
        assert_eq!(bucket("wait_seconds", "0.05"), Some(1.0));
        assert_eq!(of_service(&handle, "wait_seconds_count"), Some(1.0));
    });
}

/// Nobody is out before one is, and of two balancers each counts.
#[test]
fn a_balancer_whose_instances_are_all_out_says_so() {
    recorded(true, |handle| async move {
        let (mut writer, orders) = channel();
        let (calls, other) = (balance(&orders), balance(&orders));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(of_service(&handle, "balancers"), Some(2.0));
        assert_eq!(
            of_service(&handle, "balancers_all_out"),
            Some(0.0),
            "nobody is none out"
        );
        writer.publish(instances(1), now());
        calls.clone().oneshot(Does::IsAway).await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(of_service(&handle, "balancers_all_out"), Some(1.0));
        assert_eq!(of_service(&handle, "instances_ejected"), Some(1.0));
        drop((calls, other));
        assert_eq!(of_service(&handle, "balancers_all_out"), Some(0.0));
        assert_eq!(of_service(&handle, "balancers"), Some(0.0));
    });
}

/// A check that is wrong everywhere takes out as many as it may, and then nobody.
#[test]
fn a_panic_is_told_once_and_so_is_whom_checks_refuse() {
    recorded(true, |handle| async move {
        let (mut writer, orders) = channel();
        writer.publish(instances(5), now());
        let hour = Duration::from_secs(3_600);
        // Asked at some time within the hour, and then each hour or two.
        let wrong = HealthCheck::custom(async |_: Instance| Err("mistyped"))
            .interval(hour)
            .interval_jitter(1.0);
        let balance = Balance::builder(&orders)
            .health_check(wrong.unhealthy_threshold(1))
            .build(|_: &Instance| service_fn(async |()| Ok::<_, std::convert::Infallible>(())));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(
            of_service(&handle, "panics_total"),
            Some(0.0),
            "from the start"
        );
        assert_eq!(of_service(&handle, "refusals_total"), Some(0.0));
        tokio::time::sleep(hour * 3).await;
        assert_eq!(of_service(&handle, "panics_total"), Some(1.0));
        let counters = balance.counters();
        assert_eq!(counters.panics, 1);
        assert!(counters.refusals > 0);
        let refused = of_service(&handle, "refusals_total");
        assert_eq!(refused, Some(counters.refusals as f64));
    });
}

#[test]
fn a_service_that_never_had_an_instance_is_told_with_0() {
    recorded(false, |handle| async move {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = closed.local_addr().unwrap().to_string();
        drop(closed);
        let client = Client::builder().servers(&nobody).connect_lazy().unwrap();
        let orders = client.subscribe_lazy("orders").unwrap();
        let told = async {
            while of_service(&handle, "subscriptions").is_none() {
                tokio::task::yield_now().await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(20), told).await;
        told.expect("nothing is told without a registry");
        for name in [
            "instances",
            "instances_callable",
            "instances_held",
            "lists_total",
        ] {
            assert_eq!(of_service(&handle, name), Some(0.0), "{name}");
        }
        assert_eq!(of_service(&handle, "subscriptions"), Some(1.0));
        let of_client = |name| {
            scraped(
                &handle,
                &format!("tower_nacos_{name}{{namespace=\"public\"}}"),
            )
        };
        assert_eq!(of_client("clients"), Some(1.0));
        assert_eq!(of_client("connected"), Some(0.0));
        assert_eq!(of_client("connections_lost_total"), Some(0.0));
        drop((orders, client));
    });
}
