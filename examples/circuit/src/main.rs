//! A circuit breaker that somebody else keeps (`tower-resilience-circuitbreaker`) around a balancer, and one cache for
//! both that may go wrong: the service fails as a whole, or there is nobody to call.
//!
//! The balancer leaves out single instances that fail, and never more than half of them: when all fail, that
//! is for the breaker, which then asks nobody. So it stands around the balancer, not around each instance.
//!
//! `cargo run --manifest-path examples/circuit/Cargo.toml`

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tower::{BoxError, ServiceExt, service_fn};
use tower_nacos::{Balance, Instance, ServiceKey, directory, endpoint::CallError};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, CircuitState};

/// So many failures in a row open it, and after that it lets one call try.
const FAILURES: usize = 5;
/// Seconds in earnest.
const OPEN_FOR: Duration = Duration::from_millis(50);

type Article = u32;
/// An answer, and whether somebody gave it just now.
type Price = (u32, bool);

/// The prices that were heard; bounded in earnest, by a crate such as moka.
#[derive(Clone, Default)]
struct Cache(Arc<Mutex<HashMap<Article, u32>>>);

impl Cache {
    fn hear(&self, article: Article, cents: u32) {
        if let Ok(mut prices) = self.0.lock() {
            prices.insert(article, cents);
        }
    }

    fn price(&self, article: Article) -> Option<Price> {
        let prices = self.0.lock().ok()?;
        prices.get(&article).map(|cents| (*cents, false))
    }
}

/// What all instances stand on, and how often they were asked.
#[derive(Default)]
struct Database {
    down: AtomicBool,
    asked: AtomicUsize,
}

impl Database {
    fn price(&self, article: Article) -> io::Result<u32> {
        self.asked.fetch_add(1, Relaxed);
        match self.down.load(Relaxed) {
            true => Err(io::Error::other("the database is down")),
            false => Ok(100 * article),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // In the place of a registry: `client.subscribe("prices").await?` is the real one.
    let key = ServiceKey::new("public", "prices".parse()?)?;
    let (mut writer, prices) = directory::channel(key, directory::Options::default());
    #[expect(clippy::disallowed_methods, reason = "the program's own clock")]
    let now = std::time::Instant::now;
    let (database, cache) = (Arc::new(Database::default()), Cache::default());

    let (shared, heard, nobody) = (Arc::clone(&database), cache.clone(), cache.clone());
    let balance = Balance::builder(&prices)
        .build(move |_: &Instance| {
            let (database, cache) = (Arc::clone(&shared), heard.clone());
            service_fn(move |article: Article| {
                let answer = database.price(article).map(|cents| (cents, true));
                if let Ok((cents, _)) = answer {
                    cache.hear(article, cents);
                }
                async move { answer }
            })
        })
        // Nobody to call: an answer for the breaker, too, since nobody failed.
        .on_no_instance(move |article, error: CallError| {
            let known = nobody.price(article);
            async move { known.ok_or(error) }
        });

    // Over HTTP an answer of 500 and more is a failure as well: `failure_classifier` says so.
    let breaker = CircuitBreakerLayer::builder()
        .name("prices")
        .consecutive_failures(FAILURES)
        .permitted_calls_in_half_open(1)
        .wait_duration_in_open(OPEN_FOR)
        .build()?;
    let service = breaker.layer_fn(balance);
    let ask = async |article| match service.clone().oneshot(article).await {
        Err(error) if error.is_circuit_open() => cache.price(article).ok_or_else(|| error.into()),
        answered => answered.map_err(BoxError::from),
    };

    let both = ["10.0.0.1:80", "10.0.0.2:80"].map(Instance::parse);
    writer.publish(both.into_iter().flatten(), now());
    assert_eq!(ask(7).await?, (700, true));
    println!("all is well: {:?}", service.state_sync());

    database.down.store(true, Relaxed);
    for _ in 0..FAILURES {
        let error = ask(7).await.unwrap_err();
        assert!(
            error.to_string().contains("the database is down"),
            "{error}"
        );
    }
    assert_eq!(service.state_sync(), CircuitState::Open);
    let asked = database.asked();
    for _ in 0..100 {
        assert_eq!(ask(7).await?, (700, false));
    }
    let error = ask(8).await.unwrap_err();
    assert_eq!(database.asked(), asked, "nobody is asked");
    println!(
        "all instances fail: {:?}, the price is an old one, and of another article: {error}",
        service.state_sync()
    );

    database.down.store(false, Relaxed);
    tokio::time::sleep(OPEN_FOR).await;
    assert_eq!(ask(8).await?, (800, true));
    assert_eq!(service.state_sync(), CircuitState::Closed);
    println!("one call tried, and went well: {:?}", service.state_sync());

    writer.publish([], now());
    for _ in 0..2 * FAILURES {
        assert_eq!(ask(8).await?, (800, false));
    }
    assert_eq!(service.state_sync(), CircuitState::Closed);
    println!(
        "there is nobody to call: {:?}, the price is an old one",
        service.state_sync()
    );
    println!("circuit: ok");
    Ok(())
}
