//! What the failures of many come to, and what evictions and dropped futures leave behind.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};
use tower_nacos::{
    Address, Balance, Instance, Subscription,
    balance::WeightedRoundRobin,
    http::BuildHttp,
    transport::{Protocol, Resolve, Transport, TransportBuilder},
};

use super::support::*;

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// Names that are instances; those that are cut off fail, or never answer.
#[derive(Clone, Default)]
struct Network(Arc<State>);

#[derive(Default)]
struct State {
    addresses: Mutex<Vec<SocketAddr>>,
    cut: Mutex<BTreeSet<usize>>,
    /// Dials to what is cut off hang from here on.
    silent: AtomicBool,
    dials: AtomicUsize,
}

impl Network {
    fn instances(&self) -> Vec<Instance> {
        let count = self.0.addresses.lock().unwrap().len();
        let instance = |at| Instance::parse(&format!("orders-{at}:80")).unwrap();
        (0..count).map(instance).collect()
    }

    fn address(at: usize) -> Address {
        format!("orders-{at}:80").parse().unwrap()
    }

    fn cut(&self, which: impl IntoIterator<Item = usize>) {
        *self.0.cut.lock().unwrap() = which.into_iter().collect();
    }

    fn over(&self, builder: TransportBuilder) -> Rotating {
        // A dial that hangs, hangs for good: a call that waited for one would never end.
        let builder = builder
            .resolver(self.clone())
            .dial_timeout(Duration::from_secs(3600));
        over(&Subscription::fixed(self.instances()), builder)
    }
}

impl Resolve for Network {
    fn resolve(&self, name: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let at: usize = name.strip_prefix("orders-").unwrap().parse().unwrap();
        self.0.dials.fetch_add(1, Ordering::SeqCst);
        let cut = self.0.cut.lock().unwrap().contains(&at);
        let silent = self.0.silent.load(Ordering::SeqCst);
        let address = self.0.addresses.lock().unwrap()[at];
        Box::pin(async move {
            match (cut, silent) {
                (false, _) => Ok(vec![address]),
                (true, false) => Err(io::ErrorKind::NetworkUnreachable.into()),
                (true, true) => std::future::pending().await,
            }
        })
    }
}

async fn servers(count: usize) -> (Vec<Server>, Network) {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::start().await);
    }
    let network = Network::default();
    *network.0.addresses.lock().unwrap() = servers.iter().map(|s| s.address).collect();
    (servers, network)
}

#[tokio::test]
async fn seven_of_ten_dead_at_once_fail_no_call_that_was_not_written() {
    for protocol in BOTH {
        let mut servers: Vec<Option<Server>> = Vec::new();
        for _ in 0..10 {
            servers.push(Some(Server::start().await));
        }
        let addresses: Vec<_> = servers.iter().flatten().map(|s| s.address).collect();
        let balance = rotating(&addresses, builder(protocol));
        for id in 0..40 {
            text(&balance, post(id, "x")).await.unwrap();
        }
        let mut logs = Vec::new();
        for dead in &mut servers[..7] {
            logs.extend(dead.take().map(|server| Arc::clone(&server.log)));
        }
        // Connections and listeners are gone when the tasks are.
        for log in &logs {
            while log.open.load(Ordering::SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
        }
        for id in 100..200 {
            let body = stream([Bytes::from_static(b"one,"), Bytes::from_static(b"two")]);
            assert_eq!(text(&balance, post(id, body)).await.unwrap(), "one,two");
        }
        let seen = tally(servers.iter().flatten());
        let after = seen
            .iter()
            .filter(|(id, _)| id.parse::<u32>().unwrap() >= 100);
        assert_eq!(after.clone().count(), 100, "{protocol:?}");
        assert!(after.clone().all(|(_, times)| *times == 1));
        // Each dead instance was found out by one call, which moved.
        assert_eq!(balance.counters().moved, 7, "{protocol:?}");
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
}

#[tokio::test]
async fn three_of_six_silent_and_listed_are_waited_for_by_no_call_once_they_failed() {
    for protocol in BOTH {
        let (servers, network) = servers(6).await;
        network.cut(0..3);
        let balance = network.over(builder(protocol));
        // Each of them fails a first time ...
        for id in 0..12 {
            text(&balance, post(id, "x")).await.unwrap();
        }
        for at in 0..3 {
            let says = balance.explain(&Network::address(at)).to_string();
            assert!(says.contains("could not be reached"), "{says}");
        }
        // ... and from here on a dial to them hangs for good.
        network.0.silent.store(true, Ordering::SeqCst);
        let before = network.0.dials.load(Ordering::SeqCst);
        while network.0.dials.load(Ordering::SeqCst) == before {
            text(&balance, post(12, "x")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for id in 100..400 {
            text(&balance, post(id, "x")).await.unwrap();
        }
        assert!(servers[..3].iter().all(|s| s.ids().is_empty()));
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
}

#[tokio::test]
async fn after_the_caller_s_own_network_was_gone_all_instances_serve_again() {
    for protocol in BOTH {
        let (servers, network) = servers(6).await;
        network.cut(0..6);
        let balance = network.over(builder(protocol));
        let error = text(&balance, post(0, "x")).await.unwrap_err();
        assert!(inner(&error).is_connect(), "each was tried: {error:?}");
        let before = network.0.dials.load(Ordering::SeqCst);
        for id in 1..100 {
            let error = text(&balance, post(id, "x")).await.unwrap_err();
            assert!(error.is_all_unreachable(), "{error:?}");
            assert!(error.to_string().contains("does not resolve"), "{error}");
        }
        let dialled = network.0.dials.load(Ordering::SeqCst) - before;
        assert!(
            dialled <= 2,
            "no call dials, and one probe a second does: {dialled}"
        );
        network.cut([]);
        let back = network.0.dials.load(Ordering::SeqCst);
        let serving = || servers.iter().filter(|s| !s.ids().is_empty()).count();
        soon("full service", async {
            let mut id = 100;
            while serving() < 6 {
                let _ = text(&balance, post(id, "x")).await;
                id += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        // The first probe that succeeds ends the rests of all: a probe each, and a connection.
        let dialled = network.0.dials.load(Ordering::SeqCst) - back;
        assert!(dialled <= 12, "{dialled}");
        assert!(text(&balance, post(999, "x")).await.is_ok());
    }
}

#[tokio::test]
async fn an_idle_connection_closes_when_its_instance_is_evicted() {
    for protocol in BOTH {
        let (a, b) = (Server::start().await, Server::start().await);
        let (mut writer, orders) = registry();
        list(&mut writer, &[a.address, b.address]);
        let balance = over(&orders, builder(protocol));
        for id in 0..4 {
            text(&balance, post(id, "x")).await.unwrap();
        }
        assert_eq!(a.log.open.load(Ordering::SeqCst), 1);
        list(&mut writer, &[b.address]);
        a.until_open(0).await; // no call passes meanwhile
        assert_eq!(b.log.open.load(Ordering::SeqCst), 1);
        drop(balance);
        b.until_open(0).await;
    }
}

#[tokio::test]
async fn of_an_evicted_instance_idle_connections_close_at_once_and_busy_ones_finish() {
    let server = Server::start().await;
    let (mut writer, orders) = registry();
    list(&mut writer, &[server.address]);
    let builder = builder(Protocol::Http1).idle_timeout(Duration::from_secs(3600));
    let balance = over(&orders, builder);
    let mut response = call(&balance, get("/stream")).await.unwrap();
    text(&balance, post(1, "x")).await.unwrap();
    assert_eq!(server.log.open.load(Ordering::SeqCst), 2);
    list(&mut writer, &[]);
    server.until_open(1).await;
    server.stream(Some("one"));
    let frame = soon("a frame", response.body_mut().frame()).await;
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "one");
    server.stream(None);
    assert!(soon("the end", response.body_mut().frame()).await.is_none());
    server.until_open(0).await;
}

#[tokio::test]
async fn a_streaming_response_finishes_on_an_evicted_instance() {
    for protocol in BOTH {
        let (a, b) = (Server::start().await, Server::start().await);
        let (mut writer, orders) = registry();
        list(&mut writer, &[a.address]);
        let balance = over(&orders, builder(protocol));
        let mut response = call(&balance, get("/stream")).await.unwrap();
        list(&mut writer, &[b.address]);
        for id in 0..4 {
            text(&balance, post(id, "x")).await.unwrap();
        }
        for piece in ["one", "two", "three"] {
            a.stream(Some(piece));
            let frame = soon("a frame", response.body_mut().frame()).await;
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), piece);
        }
        a.stream(None);
        assert!(soon("the end", response.body_mut().frame()).await.is_none());
        a.until_open(0).await;
        assert_eq!(
            a.log.connections.load(Ordering::SeqCst),
            1,
            "never dialled again"
        );
    }
}

#[tokio::test]
async fn futures_dropped_at_every_await_leave_no_connection_and_no_count() {
    for protocol in BOTH {
        let server = Server::start().await;
        let balance = rotating(&[server.address], builder(protocol));
        for path in ["/v1", "/stream"] {
            // Dropped after as many polls as there are, until one is answered.
            for polls in 0.. {
                let body = stream([Bytes::from_static(b"one,"), Bytes::from_static(b"two")]);
                let request = http::Request::post(path).body(body).unwrap();
                let answered = {
                    let mut future = pin!(balance.clone().oneshot(request));
                    let mut answered = false;
                    for _ in 0..polls {
                        let mut cx = Context::from_waker(Waker::noop());
                        if let Poll::Ready(response) = future.as_mut().poll(&mut cx) {
                            drop(response.unwrap());
                            answered = true;
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                    answered
                };
                assert_eq!(balance.counts(), [0, 0, 0], "{protocol:?} {path} {polls}");
                if answered {
                    break;
                }
                assert!(polls < 10_000);
            }
        }
        // What is left is what one call needs.
        assert_eq!(text(&balance, post(1, "x")).await.unwrap(), "x");
        server.until_open(1).await;
        drop(balance);
        server.until_open(0).await;
    }
}

#[tokio::test]
async fn never_more_streams_than_the_peer_takes_and_more_connections_instead() {
    let server = Server::start_with(2).await;
    let balance = rotating(
        &[server.address],
        builder(Protocol::Http2).max_connections(3),
    );
    let mut calls = tokio::task::JoinSet::new();
    for id in 0..100 {
        let balance = balance.clone();
        calls.spawn(async move { text(&balance, post(id, "x")).await });
    }
    while let Some(ended) = soon("all calls", calls.join_next()).await {
        ended.unwrap().unwrap();
    }
    assert!(server.log.most_at_once.load(Ordering::SeqCst) <= 2);
    assert_eq!(server.log.connections.load(Ordering::SeqCst), 3);
    // All places are taken: a call waits on our side, and gets the first that is free.
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(call(&balance, get("/stream")).await.unwrap());
    }
    let lines = || server.log.lines.lock().unwrap().len();
    let asked = lines();
    let mut waiting = pin!(balance.clone().oneshot(get("/v1")));
    for _ in 0..50 {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(lines(), asked, "it was handed to nobody");
    drop(held.pop());
    soon("a place", waiting).await.unwrap();
    assert_eq!(server.log.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_retired_transport_gives_requests_back_and_dials_no_more() {
    for protocol in BOTH {
        let (_servers, network) = servers(1).await;
        network.cut([0]);
        network.0.silent.store(true, Ordering::SeqCst);
        let builder = builder(protocol)
            .resolver(network.clone())
            .dial_timeout(Duration::from_secs(3600));
        use tower_nacos::endpoint::MakeEndpoint;
        let mut transport = builder.build().make(&network.instances()[0]);
        let mut dialling = pin!(transport.call(post(1, "x")));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(dialling.as_mut().poll(&mut cx).is_pending());
        drop(transport);
        let mut error = soon("its end", dialling).await.unwrap_err();
        assert!(
            error.is_unprocessed() && error.take_request().is_some(),
            "{error:?}"
        );
        assert!(network.0.dials.load(Ordering::SeqCst) <= 1);
    }
}

#[tokio::test]
async fn idle_http1_connections_close_before_the_peer_would() {
    let server = Server::start().await;
    let idle = Duration::from_millis(50);
    let balance = rotating(
        &[server.address],
        builder(Protocol::Http1).idle_timeout(idle),
    );
    text(&balance, post(1, "x")).await.unwrap();
    server.until_open(0).await;
    text(&balance, post(2, "x")).await.unwrap();
    assert_eq!(server.log.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn warm_connections_are_there_before_the_first_call_and_go_with_their_instance() {
    for protocol in BOTH {
        let (a, b) = (Server::start().await, Server::start().await);
        let (mut writer, orders) = registry();
        list(&mut writer, &[a.address]);
        let idle = Duration::from_secs(3600);
        let balance = over(&orders, builder(protocol).warm(true).idle_timeout(idle));
        a.until_connected(1).await;
        list(&mut writer, &[a.address, b.address]);
        b.until_connected(1).await;
        for id in 0..4 {
            text(&balance, post(id, "x")).await.unwrap();
        }
        assert_eq!(a.log.connections.load(Ordering::SeqCst), 1, "{protocol:?}");
        list(&mut writer, &[b.address]);
        a.until_open(0).await;
    }
}

#[tokio::test]
async fn a_response_on_an_evicted_instance_is_cut_only_if_asked_for() {
    for protocol in BOTH {
        let server = Server::start().await;
        let (mut writer, orders) = registry();
        list(&mut writer, &[server.address]);
        let balance = Balance::builder(&orders)
            .policy(WeightedRoundRobin::new())
            .abort_in_flight_after(Duration::from_millis(50))
            .build_http(builder(protocol).build());
        let mut response = call(&balance, get("/stream")).await.unwrap();
        list(&mut writer, &[]);
        let cut = soon("its end", response.body_mut().frame()).await;
        let error = cut.unwrap().unwrap_err();
        assert!(
            error.is_lost() && error.to_string().contains("abort_in_flight_after"),
            "{error}"
        );
        server.until_open(0).await;
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
}

#[tokio::test]
async fn metadata_that_changes_how_an_instance_is_called_replaces_its_connections() {
    let server = Server::start().await;
    let (mut writer, orders) = registry();
    let mut publish = |protocol: &str, other: &str| {
        let metadata = [("protocol", protocol), ("zone", other)]
            .into_iter()
            .collect();
        let instance = Instance::from(server.address).with_metadata(metadata);
        #[expect(clippy::disallowed_methods, reason = "the writer is told the time")]
        writer.publish([instance], std::time::Instant::now());
    };
    publish("http", "a");
    let idle = Duration::from_secs(3600);
    let balance = over(&orders, Transport::builder().idle_timeout(idle));
    text(&balance, post(1, "x")).await.unwrap();
    publish("http", "b");
    text(&balance, post(2, "x")).await.unwrap();
    let line = || server.log.lines.lock().unwrap().last().unwrap().clone();
    assert!(line().starts_with("HTTP/1.1"));
    assert_eq!(server.log.connections.load(Ordering::SeqCst), 1);
    publish("grpc", "b");
    server.until_open(0).await; // without a call
    text(&balance, post(3, "x")).await.unwrap();
    assert!(line().starts_with("HTTP/2.0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_killed_under_load_lose_only_what_a_connection_had_taken() {
    for protocol in BOTH {
        let mut servers = Vec::new();
        // On Linux an address of its own, so that no other test takes a port while it is free.
        let host = if cfg!(target_os = "linux") {
            "127.0.0.77:0"
        } else {
            "127.0.0.1:0"
        };
        for _ in 0..3 {
            let listener = tokio::net::TcpListener::bind(host).await.unwrap();
            servers.push(Server::on(listener, u32::MAX));
        }
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        let balance = rotating(&addresses, builder(protocol));
        let killing = Arc::new(AtomicBool::new(true));
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..8 {
            let (balance, killing) = (balance.clone(), Arc::clone(&killing));
            callers.spawn(async move {
                let (mut answered, mut lost) = (Vec::new(), Vec::new());
                for at in 0.. {
                    if !killing.load(Ordering::SeqCst) {
                        break;
                    }
                    let id = format!("{caller}-{at}");
                    let body = stream([Bytes::from_static(b"one,"), Bytes::from_static(b"two")]);
                    // A body that breaks off was answered as far as this is concerned.
                    match call(&balance, post(&id, body)).await {
                        Ok(response) => {
                            let _ = response.into_body().collect().await;
                            answered.push(id);
                        }
                        Err(error) => {
                            let error = inner(&error);
                            assert!(error.is_lost() && !error.is_unprocessed(), "{error:?}");
                            lost.push(id);
                        }
                    }
                }
                (answered, lost)
            });
        }
        let mut logs = Vec::new();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let dead = servers.remove(0);
            let (address, log) = (dead.address, Arc::clone(&dead.log));
            drop(dead);
            logs.push(Arc::clone(&log));
            tokio::time::sleep(Duration::from_millis(30)).await;
            let listener = loop {
                // Its tasks may not have gone yet.
                match tokio::net::TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            let back = Server::on(listener, u32::MAX);
            // Not before it serves again, so that there is one to go to.
            // Five calls that were lost on one connection are five in a row, and eject for 30 s.
            let probed = async {
                while back.ids().is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let in_time = tokio::time::timeout(Duration::from_secs(90), probed).await;
            assert!(in_time.is_ok(), "hangs: a probe");
            servers.push(back);
        }
        killing.store(false, Ordering::SeqCst);
        let (mut answered, mut lost) = (0, 0);
        let mut seen = std::collections::BTreeMap::<String, usize>::new();
        let mut ended = Vec::new();
        while let Some(caller) = soon("the callers", callers.join_next()).await {
            ended.push(caller.unwrap());
        }
        logs.extend(servers.iter().map(|server| Arc::clone(&server.log)));
        for log in &logs {
            for id in log.ids.lock().unwrap().iter() {
                *seen.entry(id.clone()).or_default() += 1;
            }
        }
        for (ids, gone) in ended {
            answered += ids.len();
            lost += gone.len();
            for id in ids {
                assert_eq!(seen.get(&id), Some(&1), "{protocol:?}: {id} was answered");
            }
            for id in gone {
                let times = seen.get(&id).copied().unwrap_or_default();
                assert!(
                    times <= 1,
                    "{protocol:?}: {id} was lost and seen {times} times"
                );
            }
        }
        assert!(
            answered > 50 && lost < answered,
            "{answered} answered, {lost} lost"
        );
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
}
