//! Everything at once: calls that are dropped, instances that come and go, and what is left.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_nacos::transport::Protocol;

use crate::transport::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_dropped_at_random_leak_no_place_under_max_calls() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = Server::start_with(3).await;
        let options = builder(protocol).max_calls(8).max_connections(2);
        let transport = alone(server.address, options);
        let mut calls = JoinSet::new();
        for at in 0..600u64 {
            let transport = transport.clone();
            calls.spawn(async move {
                let patience = Duration::from_micros(at * 7919 % 9000);
                let body = match at % 3 {
                    0 => "text".into(),
                    1 => stream((0..20).map(|_| Bytes::from_static(&[b'x'; 9000]))),
                    _ => tower_nacos::transport::Body::empty(),
                };
                let call = async {
                    let response = transport.oneshot(post(at, body)).await?;
                    if at % 5 > 0 {
                        let _ = response.into_body().collect().await;
                    }
                    Ok::<_, tower_nacos::transport::Error>(())
                };
                let _ = tokio::time::timeout(patience, call).await;
            });
        }
        soon("the calls", calls.join_all()).await;
        // All places are free again: as many calls as may be at once are answered.
        let mut held = Vec::new();
        for at in 0..6 {
            let called = transport.clone().oneshot(post(at, "held"));
            held.push(soon("a place", called).await.unwrap());
        }
        drop(held);
        let mut calls = JoinSet::new();
        for at in 0..50 {
            let transport = transport.clone();
            calls.spawn(async move {
                let response = transport.oneshot(post(at, "last")).await.unwrap();
                response.into_body().collect().await.unwrap();
            });
        }
        soon("the last calls", calls.join_all()).await;
        drop(transport);
        server.until_open(0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_come_and_go_under_load_cost_no_call_and_none_is_processed_twice() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let servers = [
            Server::start().await,
            Server::start().await,
            Server::start().await,
        ];
        let addresses = servers.each_ref().map(|server| server.address);
        let (mut writer, orders) = registry();
        list(&mut writer, &addresses);
        let balance = over(&orders, builder(protocol));
        let done = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            let (balance, done, sent) = (balance.clone(), Arc::clone(&done), Arc::clone(&sent));
            calls.spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let at = sent.fetch_add(1, Ordering::Relaxed);
                    let pieces = (0..at % 4).map(|_| Bytes::from_static(b"piece"));
                    let said = text(&balance, post(at, stream(pieces.collect::<Vec<_>>()))).await;
                    assert_eq!(said.unwrap().len(), 5 * (at % 4));
                }
            });
        }
        for round in 0..300usize {
            let out = round % 4; // the fourth time nobody is
            let listed: Vec<_> = (0..3)
                .filter(|at| *at != out)
                .map(|at| addresses[at])
                .collect();
            list(&mut writer, &listed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        done.store(true, Ordering::Relaxed);
        soon("the calls", calls.join_all()).await;
        let tally = tally(&servers);
        assert_eq!(tally.len(), sent.load(Ordering::Relaxed));
        assert!(tally.values().all(|times| *times == 1), "{tally:?}");
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
}
