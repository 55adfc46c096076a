//! The spans of calls as a subscriber sees them.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};

use tower_nacos::logs;
use tracing::{
    Id, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Record},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

/// Spans of this thread's calls: those that are open, and those that have closed, in that order.
#[derive(Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    open: Vec<(Id, Shown)>,
    closed: Vec<Shown>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) fields: BTreeMap<&'static str, String>,
    pub(crate) parent: Option<&'static str>,
    /// How often it was entered.
    pub(crate) entered: usize,
}

impl Spans {
    /// Records until the guard is dropped, on this thread.
    pub(crate) fn record() -> (Self, DefaultGuard) {
        let spans = Self::default();
        let subscriber = tracing_subscriber::registry().with(spans.clone());
        (spans, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn open(&self) -> usize {
        self.0.lock().unwrap().open.len()
    }

    pub(crate) fn closed(&self) -> usize {
        self.0.lock().unwrap().closed.len()
    }

    /// The one that has closed since this was asked last; there has to be just one, and none open.
    pub(crate) fn one(&self) -> Shown {
        let mut seen = self.0.lock().unwrap();
        assert_eq!(seen.open.len(), 0, "open: {:?}", seen.open);
        assert_eq!(seen.closed.len(), 1, "{:?}", seen.closed);
        seen.closed.remove(0)
    }
}

impl Shown {
    /// These fields, `-` for one that it does not have.
    pub(crate) fn shows(&self, fields: &str) -> String {
        let value = |name: &str| self.fields.get(name).map_or("-", String::as_str);
        let shown = fields.split(' ').map(value);
        shown.collect::<Vec<_>>().join(" ")
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() != logs::TRACES {
            return;
        }
        let parent = context.span(id).and_then(|span| span.parent());
        let mut shown = Shown {
            parent: parent.map(|parent| parent.name()),
            ..Shown::default()
        };
        attributes.record(&mut shown);
        self.0.lock().unwrap().open.push((id.clone(), shown));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.with(id, |shown| values.record(shown));
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        self.with(id, |shown| shown.entered += 1);
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut seen = self.0.lock().unwrap();
        if let Some(at) = seen.open.iter().position(|(open, _)| *open == id) {
            let (_, shown) = seen.open.remove(at);
            seen.closed.push(shown);
        }
    }
}

impl Spans {
    fn with(&self, id: &Id, what: impl FnOnce(&mut Shown)) {
        let mut seen = self.0.lock().unwrap();
        if let Some((_, shown)) = seen.open.iter_mut().find(|(open, _)| open == id) {
            what(shown);
        }
    }
}

impl Visit for Shown {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}
