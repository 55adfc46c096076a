//! The same with providers that are not hyper: Go, Node, uvicorn and nginx, if they are there.

use http::{HeaderValue, Method};
use tower_nacos::transport::Protocol::{self, Http1, Http2};

use super::{
    caller::Ask,
    cell::{Load, Promise, judge},
};
use crate::peer_processes::Make;

/// A path, and whether a bad request there ends the connection over HTTP/2.
type Fault = (&'static str, fn(usize) -> Ask, bool);

fn at(number: usize, path: &'static str) -> Ask {
    Ask::new(
        if number.is_multiple_of(2) {
            Method::GET
        } else {
            Method::POST
        },
        path,
    )
}

const PANIC: Fault = ("panic", |n| at(n, "/panic"), false);
const CLOSE: Fault = ("close", |n| at(n, "/close"), true);
const RESET: Fault = ("reset", |n| at(n, "/reset"), true);
const CUT: Fault = ("cut", |n| at(n, "/cut"), true);
/// 100 KB: more than nginx takes, and it ends an HTTP/2 connection for that.
const LARGE_HEAD: Fault = ("large head", large_head, true);

fn large_head(number: usize) -> Ask {
    let header = Some(HeaderValue::try_from("x".repeat(100_000)).unwrap());
    Ask {
        header,
        ..at(number, "/good")
    }
}

async fn run(make: Make, protocol: Protocol, faults: &[Fault]) {
    let mut cells = Vec::new();
    for n in [1, 3] {
        let Some(peer) = make.start(n, 75).await else {
            return;
        };
        for &(fault, bad, ends_http2) in faults {
            for (share, calls) in [(5, 200), (50, 100)] {
                let ends = protocol == Http2 && ends_http2;
                let all_at_once: &[usize] = if ends { &[1, 10] } else { &[10] };
                for &at_once in all_at_once {
                    let load = Load {
                        bad,
                        calls,
                        share,
                        at_once,
                        all_safe: false,
                    };
                    let shared = ends && at_once > 1;
                    let promise = if shared {
                        Promise::Shared
                    } else {
                        Promise::Innocent
                    };
                    let name = format!(
                        "{make:?} {protocol:?} {fault}: {n} instances, {share} %, {at_once} at once:"
                    );
                    cells.push(load.cell(name, promise, &peer.addresses, protocol).await);
                }
            }
        }
    }
    judge(cells);
}

#[tokio::test]
async fn go_over_http1() {
    run(Make::Go, Http1, &[PANIC, CLOSE, RESET, CUT]).await;
}

#[tokio::test]
async fn go_over_http2() {
    run(Make::Go, Http2, &[PANIC, CLOSE, RESET, CUT]).await;
}

#[tokio::test]
async fn node_over_http1() {
    run(Make::Node, Http1, &[PANIC, CLOSE, RESET, CUT]).await;
}

#[tokio::test]
async fn node_over_http2() {
    run(Make::NodeHttp2, Http2, &[PANIC, CLOSE]).await;
}

#[tokio::test]
async fn uvicorn() {
    run(Make::Uvicorn, Http1, &[PANIC, CUT]).await;
}

#[tokio::test]
async fn nginx_over_http1() {
    run(Make::Nginx, Http1, &[PANIC, CLOSE, LARGE_HEAD]).await;
}

#[tokio::test]
async fn nginx_over_http2() {
    run(Make::NginxHttp2, Http2, &[PANIC, CLOSE, LARGE_HEAD]).await;
}
