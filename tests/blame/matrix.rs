//! Each fault over HTTP/1 and HTTP/2, with one instance and three, 1, 5 and 50 of a hundred bad.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Method};
use tower_nacos::transport::Protocol::{self, Http1, Http2};

use super::{
    caller::Ask,
    cell::{Cell, Load, Promise, judge},
    frames::NulServer,
    provider::Provider,
};

#[derive(Clone, Copy)]
struct Fault {
    name: &'static str,
    bad: fn(usize) -> Ask,
    /// Over HTTP/2 it ends the connection, and not only the stream.
    ends_http2: bool,
}

/// Both kinds of method: a safe one is sent once more, and does its harm twice.
fn either(number: usize, path: &'static str) -> Ask {
    Ask::new(
        if number.is_multiple_of(2) {
            Method::GET
        } else {
            Method::POST
        },
        path,
    )
}

fn upload(bytes: &'static [u8]) -> Ask {
    let body = Bytes::from_static(bytes);
    Ask {
        body,
        ..Ask::new(Method::POST, "/early")
    }
}

static ZEROS: [u8; 50_000_000] = [0; 50_000_000];

const FAULTS: [Fault; 11] = [
    Fault {
        name: "panic",
        bad: |n| either(n, "/panic"),
        ends_http2: false,
    },
    Fault {
        name: "close",
        bad: |n| either(n, "/close"),
        ends_http2: true,
    },
    Fault {
        name: "reset",
        bad: |n| either(n, "/reset"),
        ends_http2: true,
    },
    Fault {
        name: "malformed head",
        bad: |n| either(n, "/malformed"),
        ends_http2: true,
    },
    Fault {
        name: "large response head",
        bad: |n| either(n, "/large_head"),
        ends_http2: true,
    },
    Fault {
        name: "large request head",
        bad: large_request_head,
        ends_http2: true,
    },
    Fault {
        name: "early 413 on 5 MB",
        bad: |_| upload(&ZEROS[..5_000_000]),
        ends_http2: false,
    },
    Fault {
        name: "early 413 on 50 MB",
        bad: |_| upload(&ZEROS),
        ends_http2: false,
    },
    Fault {
        name: "body cut short",
        bad: |n| either(n, "/cut"),
        ends_http2: false,
    },
    Fault {
        name: "chunk error",
        bad: |n| either(n, "/chunk"),
        ends_http2: true,
    },
    Fault {
        name: "close after 1 ms",
        bad: |n| either(n, "/late"),
        ends_http2: true,
    },
];

/// A megabyte: a server of hyper's answers 431 over HTTP/1, and ends an HTTP/2 connection.
fn large_request_head(number: usize) -> Ask {
    let header = Some(HeaderValue::try_from("x".repeat(1 << 20)).unwrap());
    Ask {
        header,
        ..either(number, "/good")
    }
}

async fn cell(fault: Fault, protocol: Protocol, n: usize, share: usize, at_once: usize) -> Cell {
    let mut providers = Vec::new();
    for _ in 0..n {
        providers.push(Provider::start().await);
    }
    let addresses: Vec<_> = providers.iter().map(|provider| provider.address).collect();
    let calls = if share == 50 { 100 } else { 200 };
    let all_safe = fault.name == "close after 1 ms";
    let load = Load {
        bad: fault.bad,
        calls,
        share,
        at_once,
        all_safe,
    };
    let shared = protocol == Http2 && fault.ends_http2 && at_once > 1;
    let promise = if shared {
        Promise::Shared
    } else {
        Promise::Innocent
    };
    let name = format!(
        "{protocol:?} {}: {n} instances, {share} %, {at_once} at once:",
        fault.name
    );
    load.cell(name, promise, &addresses, protocol).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_costs_only_itself() {
    let mut cells = Vec::new();
    for fault in FAULTS {
        for n in [1, 3] {
            for share in [1, 5, 50] {
                cells.push((fault, Http1, n, share, 10));
                cells.push((fault, Http2, n, share, 10));
                if fault.ends_http2 {
                    cells.push((fault, Http2, n, share, 1));
                }
            }
        }
    }
    let cells = stream::iter(cells)
        .map(|(fault, protocol, n, share, at_once)| cell(fault, protocol, n, share, at_once))
        .buffer_unordered(6);
    judge(cells.collect().await);
}

#[tokio::test]
async fn a_nul_in_a_head_over_http2_costs_only_its_connection() {
    let mut cells = Vec::new();
    for n in [1, 3] {
        let mut servers = Vec::new();
        for _ in 0..n {
            servers.push(NulServer::start().await);
        }
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        for share in [1, 5, 50] {
            let bad = |_| Ask {
                body: Bytes::from_static(b"x"),
                ..Ask::new(Method::POST, "/")
            };
            let load = Load {
                bad,
                calls: 200,
                share,
                at_once: 10,
                all_safe: true,
            };
            let name = format!("NUL: {n} instances, {share} %:");
            // h2 takes it for an error of the connection, at both.
            cells.push(load.cell(name, Promise::Shared, &addresses, Http2).await);
        }
    }
    judge(cells);
}
