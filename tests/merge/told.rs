//! What a merged set tells the `metrics` facade: nothing that its sources have told.
#![cfg(feature = "metrics")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tower_nacos::{Subscription, directory::channel, model::ServiceKey};

use crate::discover_support::{instance, now};

/// The sums of all gauges, by name.
#[derive(Clone, Default)]
struct Gauges(Arc<Mutex<BTreeMap<String, f64>>>);

struct One(Gauges, String);

impl Gauges {
    fn get(&self, name: &str) -> f64 {
        self.0.lock().unwrap().get(name).copied().unwrap_or(0.0)
    }
}

impl GaugeFn for One {
    fn increment(&self, value: f64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }

    fn decrement(&self, value: f64) {
        self.increment(-value);
    }

    fn set(&self, _: f64) {
        panic!("two would overwrite each other");
    }
}

impl Recorder for Gauges {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(One(self.clone(), key.name().to_owned())))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn what_sources_have_told_is_not_told_again() {
    let gauges = Gauges::default();
    let listed = || gauges.get("tower_nacos_instances");
    metrics::with_local_recorder(&gauges, || {
        let key = ServiceKey::new("", "orders".parse().unwrap()).unwrap();
        let (mut near, a) = channel(key.clone(), Default::default());
        let (mut far, b) = channel(key, Default::default());
        near.publish([instance("10.0.0.1:80")], now());
        let both = Subscription::merge([(&a, 0), (&b, 1)]);
        far.publish([instance("10.0.0.1:80"), instance("10.0.0.2:80")], now());
        assert_eq!(both.snapshot().entries().len(), 2);
        assert_eq!(listed(), 3.0, "as many as the registries list");
        drop(both);
        assert_eq!(listed(), 3.0);
        drop((near, a, far, b));
        assert_eq!(listed(), 0.0);
    });
}
