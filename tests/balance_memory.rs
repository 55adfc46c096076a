//! A balancer with everything around its policy holds no more after many changes than after some.
//! A file of its own: the counting allocator is the whole process's.
//!
//! `MEMORY_PUSHES=1000000 cargo test --release --test balance_memory` for the full measure; without
//! it 1,000 changes in a debug build.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    future::ready,
    io,
    sync::atomic::{AtomicIsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, advance};
use tower::{Service, service_fn};
use tower_nacos::{
    Balance, Instance,
    balance::{Hints, Outliers, PeakEwma, SlowStart},
    directory,
    endpoint::{Outcome, Verdict},
    model::ServiceKey,
};

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

/// As many instances as a list has.
const INSTANCES: u64 = 12;
/// After so many, one a second, all that is kept for a time (10 minutes) is as much as it gets.
const WARM: u64 = 700;

/// One instance after the other gives way to one that was never there.
fn list(push: u64) -> impl Iterator<Item = Instance> {
    (push..push + INSTANCES).map(|n| {
        let (a, b, c) = (n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff);
        let metadata = [("version", (n % 3).to_string())];
        Instance::parse(&format!("10.{a}.{b}.{c}:8080"))
            .unwrap()
            .with_cluster(["HZ", "SH", "BJ"][(n % 3) as usize])
            .with_metadata(metadata.into_iter().collect())
    })
}

#[tokio::test(start_paused = true)]
async fn nothing_grows_with_the_number_of_changes() {
    let pushes: u64 = std::env::var("MEMORY_PUSHES").map_or(1_000, |text| {
        text.parse().expect("MEMORY_PUSHES is a number")
    });
    let key = ServiceKey::new("", "orders".parse().unwrap()).unwrap();
    let (mut writer, orders) = directory::channel(key, directory::Options::default());
    let mut balance = Balance::builder(&orders)
        .policy(PeakEwma::new())
        .prefer_clusters(["HZ", "SH"])
        .slow_start(SlowStart::new())
        .classify(|error: &io::Error| Verdict::unreachable(error))
        .outliers(
            Outliers::new().consecutive(1),
            |result: Result<&u16, &io::Error>| match result {
                Ok(500) => Outcome::Failure,
                _ => Outcome::Success,
            },
        )
        .hints(Clone::clone as fn(&Hints) -> Hints)
        .build(|instance: &Instance| {
            let last = instance
                .address()
                .to_string()
                .split(['.', ':'])
                .nth(3)
                .map(str::len);
            let odd = instance.address().to_string().len() + last.unwrap_or(0);
            service_fn(move |_: Hints| {
                ready(match odd % 4 {
                    0 => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                    1 => Ok(500),
                    _ => Ok(200),
                })
            })
        });
    let mut before = 0;
    for push in 0..WARM + pushes {
        if push == WARM {
            before = LIVE.load(Relaxed);
        }
        writer.publish(list(push), Instant::now().into_std());
        let asked = [
            Hints::new(),
            Hints::new().prefer(("version", "2")),
            Hints::new().cluster("SH"),
            Hints::new()
                .cluster(format!("c{push}"))
                .key(push.to_le_bytes()),
            Hints::new().prefer(("user", push.to_string())),
            Hints::new().only(("user", push.to_string())),
        ];
        for hints in asked {
            let _ = balance.call(hints).await;
        }
        advance(Duration::from_secs(1)).await;
    }
    let after = LIVE.load(Relaxed);
    let counters = balance.counters();
    println!("memory: changes={pushes} live_before={before} live_after={after} {counters:?}");
    assert_eq!(balance.counts(), [0, 0, 0]);
    assert!(counters.ejections > 0, "{counters:?}");
    assert_eq!(counters.calls_after_evict, 0);
    // Numbers grow by a digit or two, and hash tables differ; nothing else may.
    let allowed = 32_768;
    assert!(
        after - before <= allowed,
        "{before} bytes before and {after} after {pushes} changes"
    );
}
