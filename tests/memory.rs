//! Nothing grows with the number of pushes. A file of its own: the counting allocator is the whole
//! process's.
//!
//! `MEMORY_PUSHES=1000000 cargo test --release --test memory` for the full measure; without it
//! 2,000 pushes in a debug build.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fmt::Write,
    sync::atomic::{AtomicIsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use tower_nacos::{model::ServiceKey, push_path::PushPath};

struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Relaxed);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size as isize - layout.size() as isize, Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// As many instances as a list of these tests has.
const INSTANCES: u64 = 10;
/// After so many pushes all tombstones and buffers are as large as they get.
const WARM: u64 = 1_000;

/// A list in which one instance after the other gives way to one that was never there.
fn body(push: u64) -> String {
    let mut hosts = String::new();
    for n in push..push + INSTANCES {
        let (a, b, c) = (n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff);
        let comma = if n == push { "" } else { "," };
        write!(
            hosts,
            r#"{comma}{{"ip":"10.{a}.{b}.{c}","port":8080,"weight":1.0,"healthy":true,"enabled":true,"ephemeral":true,"clusterName":"DEFAULT","metadata":{{"version":"{n}"}}}}"#
        )
        .unwrap();
    }
    format!(
        r#"{{"requestId":"{push}","namespace":"public","serviceName":"orders","groupName":"DEFAULT_GROUP","serviceInfo":{{"name":"orders","groupName":"DEFAULT_GROUP","clusters":"","cacheMillis":10000,"hosts":[{hosts}],"lastRefTime":{push},"checksum":"","allIPs":false,"reachProtectionThreshold":false}}}}"#
    )
}

#[test]
fn nothing_grows_with_the_number_of_pushes() {
    let pushes = std::env::var("MEMORY_PUSHES").map_or(2_000, |text| {
        text.parse().expect("MEMORY_PUSHES is a number")
    });
    let key = ServiceKey::new("", "orders".parse().unwrap()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "where virtual time begins")]
    let start = Instant::now();
    let mut path = PushPath::new(key, start);
    let subscription = path.subscription().clone();
    let view = subscription.only_metadata("version", "none");
    let mut changes = subscription.changes();
    let push = |path: &mut PushPath, n: u64| {
        // Ten a second, so that what is kept for a time goes.
        path.set_now(start + Duration::from_millis(100 * n));
        path.push(PushPath::frame(body(n)));
    };
    for n in 0..WARM {
        push(&mut path, n);
    }
    let before = LIVE.load(Relaxed);
    for n in WARM..WARM + pushes {
        push(&mut path, n);
    }
    let after = LIVE.load(Relaxed);
    assert_eq!(subscription.revision().get(), WARM + pushes);
    assert_eq!(subscription.snapshot().callable_len() as u64, INSTANCES);
    assert_eq!(view.snapshot().callable_len(), 0);
    println!("memory: pushes={pushes} live_before={before} live_after={after}");
    // Numbers in addresses and metadata grow by a digit or two; nothing else may.
    let allowed = 4_096;
    assert!(
        after - before <= allowed,
        "{before} bytes before and {after} after {pushes} pushes"
    );

    // A reader that never read gets the difference, not the history.
    let pending = futures_util::FutureExt::now_or_never(changes.next());
    assert!(pending.flatten().is_some());
}
