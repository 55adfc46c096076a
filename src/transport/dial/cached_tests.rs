use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::time::{advance, sleep};

use super::*;

/// What the resolver says, question by question: after how long, and what.
#[derive(Clone, Default)]
struct Script(Arc<Stage>);

#[derive(Default)]
struct Stage {
    lines: Mutex<VecDeque<(Duration, Says)>>,
    asked: AtomicUsize,
    under_way: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Says {
    At(u8),
    Nothing,
    NoSuchName,
    Broken,
    Panics,
}

struct Under<'a>(&'a AtomicUsize);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Script {
    fn says(&self, after: Duration, what: Says) {
        self.0.lines.lock().unwrap().push_back((after, what));
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }
}

impl Resolve for Script {
    fn resolve(&self, _: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let stage = Arc::clone(&self.0);
        Box::pin(async move {
            stage.asked.fetch_add(1, Ordering::SeqCst);
            stage.under_way.fetch_add(1, Ordering::SeqCst);
            let _under = Under(&stage.under_way);
            let line = stage.lines.lock().unwrap().pop_front();
            let (after, what) = line.expect("one question too many");
            sleep(after).await;
            match what {
                Says::At(last) => Ok(vec![at(last, port)]),
                Says::Nothing => Ok(Vec::new()),
                Says::NoSuchName => Err(io::ErrorKind::NotFound.into()),
                Says::Broken => Err(io::Error::other("DNS is away")),
                Says::Panics => panic!("on purpose"),
            }
        })
    }
}

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], port))
}

fn cached() -> (Script, CachedResolver<Script>) {
    let script = Script::default();
    let cached = CachedResolver::new(script.clone())
        .ttl(secs(30))
        .stale_if_error(secs(60));
    (script, cached)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

async fn ask(cached: &CachedResolver<Script>) -> Result<Vec<SocketAddr>, String> {
    let asked = cached.resolve("orders-0", 80).await;
    asked.map_err(|error| error.to_string())
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_good_for_its_time_and_each_port_is_its_own() {
    let (script, cached) = cached();
    for last in [1, 2, 3] {
        script.says(secs(0), Says::At(last));
    }
    for _ in 0..3 {
        assert_eq!(ask(&cached).await.unwrap(), [at(1, 80)]);
        advance(Duration::from_millis(9_999)).await;
    }
    assert_eq!(script.asked(), 1);
    advance(Duration::from_millis(3)).await;
    assert_eq!(ask(&cached.clone()).await.unwrap(), [at(2, 80)]);
    let other = cached.resolve("orders-0", 81).await.unwrap();
    assert_eq!(other, [at(3, 81)]);
}

#[tokio::test(start_paused = true)]
async fn whoever_dials_at_the_same_time_shares_a_question_and_who_goes_leaves_it() {
    let (script, cached) = cached();
    script.says(secs(2), Says::At(1));
    let first = timeout(secs(1), ask(&cached));
    let (first, second) = tokio::join!(first, ask(&cached));
    assert!(first.is_err());
    assert_eq!((second.unwrap(), script.asked()), (vec![at(1, 80)], 1));

    advance(secs(100)).await;
    script.says(secs(1_000_000), Says::At(1));
    assert!(timeout(secs(1), ask(&cached)).await.is_err());
    assert_eq!(
        script.0.under_way.load(Ordering::SeqCst),
        0,
        "nobody waits: nothing runs"
    );
    script.says(secs(0), Says::At(2));
    assert_eq!(ask(&cached).await.unwrap(), [at(2, 80)]);
}

#[tokio::test(start_paused = true)]
async fn without_a_new_answer_the_former_serves_on_for_a_while() {
    for bad in [Says::Broken, Says::Nothing, Says::Panics] {
        let (script, cached) = cached();
        script.says(secs(0), Says::At(1));
        ask(&cached).await.unwrap();
        advance(secs(31)).await;
        script.says(secs(0), bad);
        for _ in 0..5 {
            assert_eq!(ask(&cached).await.unwrap(), [at(1, 80)]);
        }
        assert_eq!(script.asked(), 2, "not at each dial");
        advance(secs(5)).await;
        script.says(secs(0), bad);
        assert_eq!(ask(&cached).await.unwrap(), [at(1, 80)]);
        assert_eq!(script.asked(), 3);
        advance(secs(55)).await; // 91 s
        script.says(secs(0), bad);
        ask(&cached).await.unwrap_err();
        script.says(secs(0), Says::At(2));
        assert_eq!(ask(&cached).await.unwrap(), [at(2, 80)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_waited_for_a_second_where_there_is_a_former_one() {
    let (script, cached) = cached();
    script.says(secs(2), Says::At(1));
    ask(&cached).await.unwrap();
    advance(secs(31)).await;
    script.says(secs(600), Says::At(2));
    let begun = endpoint::now();
    assert_eq!(ask(&cached).await.unwrap(), [at(1, 80)]);
    assert_eq!(begun.elapsed().as_secs(), 1);
    assert_eq!(ask(&cached).await.unwrap(), [at(1, 80)]);
    assert_eq!(begun.elapsed().as_secs(), 1, "who comes next does not wait");
}

#[tokio::test(start_paused = true)]
async fn that_there_is_no_such_name_is_believed_and_not_remembered() {
    let (script, cached) = cached();
    script.says(secs(0), Says::At(1));
    ask(&cached).await.unwrap();
    advance(secs(31)).await;
    for says in [Says::NoSuchName, Says::NoSuchName, Says::Broken] {
        script.says(secs(0), says);
        ask(&cached).await.expect_err("what was known is forgotten");
    }
    script.says(secs(0), Says::At(2));
    assert_eq!(ask(&cached).await.unwrap(), [at(2, 80)]);
}

#[tokio::test(start_paused = true)]
async fn extremes_of_time_are_taken() {
    for (ttl, stale, asked) in [
        (Duration::MAX, Duration::MAX, 1),
        (Duration::ZERO, Duration::ZERO, 3),
        (Duration::ZERO, Duration::MAX, 3),
    ] {
        let (script, cached) = cached();
        let cached = cached.ttl(ttl).stale_if_error(stale);
        for _ in 0..asked {
            script.says(secs(0), Says::At(1));
        }
        for _ in 0..3 {
            assert_eq!(ask(&cached).await.unwrap(), [at(1, 80)]);
            advance(secs(1)).await;
        }
        assert_eq!(script.asked(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_names_are_known_and_no_more() {
    let (script, cached) = cached();
    for _ in 0..MOST + 3 {
        script.says(secs(0), Says::At(1));
    }
    for at in 0..=MOST {
        cached.resolve(&format!("orders-{at}"), 80).await.unwrap();
        if at == 0 {
            advance(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(lock(&cached.names).len(), MOST);
    let before = script.asked();
    cached.resolve("orders-1", 80).await.unwrap();
    assert_eq!(script.asked(), before);
    cached.resolve("orders-0", 80).await.unwrap();
    assert_eq!(
        script.asked(),
        before + 1,
        "the one asked for longest ago was forgotten"
    );
}
