//! What a shop answers while nobody tells prices: the last price that it heard, marked as old, and an
//! error that says why for what it never asked. And a service that comes back is asked again at once.
//!
//! `cargo run --example fallback`

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

use tower::{BoxError, ServiceExt, service_fn};
use tower_nacos::{Balance, Instance, ServiceKey, directory, endpoint::CallError};

/// What an article costs, and whether somebody said so just now.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Price {
    cents: u32,
    fresh: bool,
}

type Article = u32;
type Cache = Arc<Mutex<HashMap<Article, Price>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // In the place of a registry: `client.subscribe("prices").await?` is the real one.
    let key = ServiceKey::new("public", "prices".parse()?)?;
    let (mut writer, prices) = directory::channel(key, directory::Options::default());
    #[expect(clippy::disallowed_methods, reason = "the program's own clock")]
    let now = std::time::Instant::now;

    // Bounded in earnest, by a crate such as moka; a map will do to show it.
    let cache = Cache::default();
    let (heard, known) = (Arc::clone(&cache), Arc::clone(&cache));
    let balance = Balance::builder(&prices)
        .build(move |_: &Instance| {
            let cache = Arc::clone(&heard);
            service_fn(move |article: Article| {
                let cache = Arc::clone(&cache);
                async move {
                    let price = Price {
                        cents: 100 * article,
                        fresh: true,
                    };
                    let old = Price {
                        fresh: false,
                        ..price
                    };
                    let mut cache = cache.lock().map_err(|_| io::Error::other("poisoned"))?;
                    cache.insert(article, old);
                    Ok::<_, io::Error>(price)
                }
            })
        })
        .on_no_instance(move |article: Article, error: CallError| {
            let old = known
                .lock()
                .ok()
                .and_then(|cache| cache.get(&article).copied());
            async move { old.ok_or(error) }
        });

    writer.publish([Instance::parse("10.0.0.1:80")?], now());
    let price = balance.clone().oneshot(7).await?;
    println!("somebody tells prices: {price:?}");
    assert!(price.fresh);

    writer.publish([], now());
    let price = balance.clone().oneshot(7).await?;
    let error = balance.clone().oneshot(8).await.unwrap_err();
    println!("nobody does: {price:?}, and of another article: {error}");
    assert!(!price.fresh && price.cents == 700 && error.is_no_instances());

    writer.publish([Instance::parse("10.0.0.2:80")?], now());
    let price = balance.clone().oneshot(8).await?;
    println!("somebody does again: {price:?}");
    assert!(price.fresh);
    println!("fallback: ok");
    Ok(())
}
