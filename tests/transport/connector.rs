//! Connectors of one's own: what holds for dials holds for them.

use std::{
    convert::Infallible,
    future::pending,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tower::BoxError;
use tower_nacos::{
    Instance, grpc, http,
    transport::{Destination, Protocol, Transport},
};

use super::support::*;

/// Nobody is there: what comes of a call is a connector's doing.
pub(super) fn nowhere() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 8080))
}

/// Serves what a connector makes in memory.
fn in_memory(
    log: &Arc<Log>,
) -> impl Fn(Destination) -> std::future::Ready<Result<DuplexStream, Infallible>> + use<> {
    let log = Arc::clone(log);
    move |_| {
        let (ours, theirs) = duplex(64 * 1024);
        spawn(serve(theirs, Arc::clone(&log), u32::MAX));
        std::future::ready(Ok(ours))
    }
}

#[tokio::test]
async fn anything_that_is_read_and_written_carries_http1_and_http2() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let log = Arc::new(Log::default());
        let builder = builder(protocol).connector(in_memory(&log));
        let balance = rotating(&[nowhere()], builder);
        for id in 0..3 {
            assert_eq!(text(&balance, post(id, "x")).await.unwrap(), "x");
        }
        assert_eq!(log.connections.load(Ordering::SeqCst), 1, "{protocol:?}");
        let lines = log.lines.lock().unwrap().clone();
        assert!(
            lines[0].ends_with("192.0.2.7:8080"),
            "the instance's own authority: {lines:?}"
        );
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_found_by_metadata_and_anew_when_that_changes() {
    use tokio::net::{UnixListener, UnixStream};

    let folder = std::env::temp_dir().join(format!("tower-nacos-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut logs = Vec::new();
    let mut paths = Vec::new();
    let mut servers = tokio::task::JoinSet::new();
    for name in ["one", "two"] {
        let path = folder.join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let log = Arc::new(Log::default());
        logs.push(Arc::clone(&log));
        paths.push(path.to_str().unwrap().to_owned());
        servers.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                spawn(serve(socket, Arc::clone(&log), u32::MAX));
            }
        });
    }
    let at = |path: &str| {
        let metadata = [("unix", path)].into_iter().collect();
        Instance::from(nowhere()).with_metadata(metadata)
    };
    let builder = Transport::builder().connector(|to: Destination| async move {
        let path = to.instance().metadata().get("unix").ok_or("no socket")?;
        Ok::<_, BoxError>(UnixStream::connect(path).await?)
    });
    let (mut writer, orders) = registry();
    let balance = over(&orders, builder);
    for path in &paths {
        #[expect(clippy::disallowed_methods, reason = "the writer is told the time")]
        writer.publish([at(path)], std::time::Instant::now());
        for id in 0..2 {
            assert_eq!(text(&balance, post(id, "x")).await.unwrap(), "x");
        }
    }
    let served = logs
        .iter()
        .map(|log| log.connections.load(Ordering::SeqCst));
    assert_eq!(served.collect::<Vec<_>>(), [1, 1]);
    // G3: it leaves, and what is idle closes without a call.
    list(&mut writer, &[]);
    soon("both close", async {
        for log in &logs {
            while log.open.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    })
    .await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn one_that_fails_hangs_or_panics_ejects_and_says_so_and_the_call_moves() {
    let server = Server::start().await;
    let good = server.address;
    for (how, says) in [
        ("fail", "no connection by its connector: the cable is cut"),
        (
            "hang",
            "no connection to 192.0.2.7:8080 by its connector within 100ms",
        ),
        ("panic", "its connector panicked"),
        ("panic at once", "its connector panicked"),
    ] {
        let builder = Transport::builder()
            .dial_timeout(Duration::from_millis(100))
            .connector(move |to: Destination| {
                assert!(to.address().socket_addr() == Some(good) || how != "panic at once");
                async move {
                    if to.address().socket_addr() == Some(good) {
                        return to.connect().await;
                    }
                    match how {
                        "fail" => Err("the cable is cut".into()),
                        "hang" => pending().await,
                        _ => panic!("on purpose"),
                    }
                }
            });
        let error = failure(&alone(nowhere(), builder.clone()), post(1, "x")).await;
        assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
        assert_eq!(error.is_timeout(), how == "hang");
        assert!(error.to_string().contains(says), "{error}");
        let balance = rotating(&[nowhere(), good], builder);
        for id in 0..4 {
            assert_eq!(text(&balance, post(id, "x")).await.unwrap(), "x");
        }
        let explained = balance.explain(&nowhere().into()).to_string();
        assert!(explained.contains("could not be reached"), "{explained}");
    }
}

#[tokio::test]
async fn what_it_cannot_reach_is_probed_by_it_and_comes_back() {
    let server = Server::start().await;
    let address = server.address;
    let down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let broken = Arc::clone(&down);
    let builder = Transport::builder().connector(move |_| {
        let broken = broken.load(Ordering::SeqCst);
        async move {
            match broken {
                true => Err("down".into()),
                false => Ok::<_, BoxError>(TcpStream::connect(address).await?),
            }
        }
    });
    let balance = rotating(&[nowhere()], builder);
    text(&balance, post(0, "x")).await.unwrap_err();
    down.store(false, Ordering::SeqCst);
    soon("it is back", async {
        while text(&balance, post(1, "x")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Counts dials that are going on.
struct Going(Arc<AtomicUsize>, Arc<Notify>);

impl Drop for Going {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        self.1.notify_one();
    }
}

#[tokio::test]
async fn beside_a_silent_one_a_second_begins_and_all_are_dropped_when_the_instance_leaves() {
    let (going, changed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, told) = (Arc::clone(&going), Arc::clone(&changed));
    let builder = Transport::builder()
        .dial_timeout(Duration::MAX)
        .connector(move |_| {
            let going = Going(Arc::clone(&counted), Arc::clone(&told));
            going.0.fetch_add(1, Ordering::SeqCst);
            going.1.notify_one();
            async move {
                let _going = going;
                pending::<Result<TcpStream, BoxError>>().await
            }
        });
    let (mut writer, orders) = registry();
    list(&mut writer, &[nowhere()]);
    let balance = over(&orders, builder);
    let call = spawn(async move { assert!(text(&balance, post(1, "x")).await.is_err()) });
    let until = async |dials: usize| {
        soon("dials", async {
            while going.load(Ordering::SeqCst) != dials {
                changed.notified().await;
            }
        })
        .await;
    };
    until(2).await;
    list(&mut writer, &[]);
    until(0).await;
    soon("the call", call).await.unwrap();
}

#[tokio::test]
async fn connections_leave_from_the_local_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (told, from) = tokio::sync::oneshot::channel();
    spawn(async move {
        let (mut socket, from) = listener.accept().await.unwrap();
        read_request(&mut socket, 1).await;
        socket.write_all(OK).await.unwrap();
        told.send(from).unwrap();
    });
    // All of 127/8 is this machine's on Linux; elsewhere 127.0.0.1 is.
    let local = if cfg!(target_os = "linux") { 9 } else { 1 };
    let local = IpAddr::from([127, 0, 0, local]);
    let transport = alone(at, Transport::builder().local_address(local));
    tower::ServiceExt::oneshot(transport, post(1, "x"))
        .await
        .unwrap();
    assert_eq!(soon("a call", from).await.unwrap().ip(), local);

    let other = Transport::builder().local_address(Ipv6Addr::LOCALHOST.into());
    let error = failure(&alone(at, other), post(1, "x")).await;
    assert!(
        error.to_string().contains("it has no IPv4 address")
            || error.to_string().contains("it has no IPv6 address"),
        "{error}"
    );
    let nobodys = Transport::builder().local_address(IpAddr::from([192, 0, 2, 1]));
    let error = failure(&alone(at, nobodys), post(1, "x")).await;
    assert!(
        error
            .to_string()
            .contains("from the local address 192.0.2.1"),
        "{error}"
    );
}

#[tokio::test]
async fn the_builders_of_clients_take_one_too() {
    let registry = tower_nacos::testing::Registry::start().await.unwrap();
    registry.register("orders", &Instance::from(nowhere()));
    let nacos = tower_nacos::Client::connect(&registry.addr())
        .await
        .unwrap();
    let log = Arc::new(Log::default());
    let http = http::Client::builder(&nacos)
        .connector(in_memory(&log))
        .transport(Transport::builder())
        .build();
    let response = http.post("nacos://orders/v1/items", "x").await.unwrap();
    assert!(response.status().is_success());
    let orders = nacos.subscribe("orders").await.unwrap();
    let channel = grpc::Channel::builder(&orders)
        .connector(in_memory(&log))
        .transport(Transport::builder())
        .build();
    let request = post(1, "x").map(tonic::body::Body::new);
    let response = tower::ServiceExt::oneshot(channel, request).await.unwrap();
    assert!(response.status().is_success());
    let lines = log.lines.lock().unwrap().clone();
    assert!(
        lines[0].starts_with("HTTP/1.1") && lines[1].starts_with("HTTP/2.0"),
        "{lines:?}"
    );
}
