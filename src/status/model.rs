//! What is shown, as plain values: the HTML is made of them, and the JSON is them. Texts are clean already.

use serde::Serialize;

/// All of an answer.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    pub(super) at: String,
    /// Rises with each change that is told.
    pub(super) version: u64,
    pub(super) registries: Vec<Registry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) services: Option<List<Service>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<Detail>,
    /// The newest first.
    pub(super) timeline: Vec<Event>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Registry {
    /// Counts from 1.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) servers: Vec<String>,
    pub(super) state: &'static str,
    /// In words.
    pub(super) says: String,
    pub(super) server: Option<String>,
    pub(super) since: String,
    /// Whether it was so before it was looked at.
    pub(super) since_at_least: bool,
    pub(super) for_ms: u64,
    pub(super) last_error: Option<Told>,
    /// Of the last request; `None` without a connection.
    pub(super) latency_ms: Option<f64>,
    pub(super) latency_smoothed_ms: Option<f64>,
    /// Of the last push; `None` before one, and where the server's clock tells nothing.
    pub(super) push_delay_ms: Option<f64>,
    pub(super) push_delay_smoothed_ms: Option<f64>,
    /// By how much it may be wrong.
    pub(super) push_delay_error_ms: Option<f64>,
    pub(super) services: usize,
}

/// Something that was said, and when it was heard.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Told {
    pub(super) text: String,
    pub(super) at: String,
}

/// A part of a list.
#[derive(Debug, Serialize)]
pub(super) struct List<T> {
    pub(super) total: usize,
    /// How many the filter lets through.
    pub(super) matching: usize,
    pub(super) filter: String,
    pub(super) page: usize,
    pub(super) pages: usize,
    pub(super) limit: usize,
    pub(super) items: Vec<T>,
}

#[derive(Debug, Serialize)]
pub(super) struct Service {
    /// The registry's number; 0 for one that no registry here knows.
    pub(super) registry: usize,
    pub(super) namespace: String,
    pub(super) group: String,
    pub(super) name: String,
    pub(super) status: &'static str,
    /// In words.
    pub(super) says: String,
    /// How long ago the newest list came.
    pub(super) age_ms: Option<u64>,
    pub(super) origin: Option<&'static str>,
    pub(super) revision: u64,
    pub(super) applied_revision: u64,
    pub(super) hint: Option<String>,
    pub(super) listed: usize,
    pub(super) callable: usize,
    /// How many instances are how, all of them.
    pub(super) states: Vec<Count>,
    pub(super) consumers: Vec<Consumer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Count {
    pub(super) state: State,
    pub(super) instances: usize,
}

/// How an instance is: whether it gets calls, and if not, what is the first reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    Callable,
    Held,
    Suspect,
    Ejected,
    Refused,
    Unusable,
    GoingOffline,
    Disabled,
    WeightZero,
    OutsideSelection,
    Unhealthy,
    HealthUnknown,
}

/// Who picks from a service's instances.
#[derive(Debug, Serialize)]
pub(super) struct Consumer {
    pub(super) name: String,
    pub(super) out: usize,
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) in_flight: u64,
    pub(super) moved: u64,
    pub(super) retries: u64,
    pub(super) ejections: u64,
    pub(super) restorations: u64,
}

/// One service.
#[derive(Debug, Serialize)]
pub(super) struct Detail {
    #[serde(flatten)]
    pub(super) service: Service,
    pub(super) instances: List<Instance>,
}

#[derive(Debug, Serialize)]
pub(super) struct Instance {
    pub(super) address: String,
    pub(super) state: State,
    /// What the registry has to do with it, in words.
    pub(super) registry_says: String,
    pub(super) cluster: String,
    pub(super) weight: f64,
    pub(super) healthy: bool,
    pub(super) enabled: bool,
    pub(super) ephemeral: bool,
    pub(super) held: bool,
    pub(super) generation: u64,
    pub(super) source: Option<String>,
    pub(super) metadata: Vec<Pair>,
    pub(super) metadata_note: Option<String>,
    pub(super) consumers: Vec<Picked>,
}

/// A pair of metadata.
#[derive(Debug, Serialize)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) hidden: bool,
    pub(super) cut: bool,
    /// How long the value is.
    pub(super) bytes: usize,
}

/// How one consumer sees an instance.
#[derive(Debug, Serialize)]
pub(super) struct Picked {
    pub(super) consumer: String,
    pub(super) picked: bool,
    pub(super) verdict: &'static str,
    /// In words.
    pub(super) why: String,
    /// From 0 to 1.
    pub(super) share_wanted: f64,
    /// Of the calls so far that went to instances that are callable now.
    pub(super) share_had: Option<f64>,
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) in_flight: u64,
    pub(super) waiting: u64,
    pub(super) latency_ms: Option<f64>,
    pub(super) next_probe_ms: Option<u64>,
    pub(super) on_probation: bool,
    pub(super) warmth: Option<f64>,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Event {
    pub(super) number: u64,
    pub(super) at: String,
    pub(super) kind: Kind,
    /// The registry's number, or 0.
    pub(super) registry: usize,
    pub(super) service: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) consumer: Option<String>,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Connected,
    Disconnected,
    Subscribed,
    Unsubscribed,
    Pushed,
    Evicted,
    Held,
    Ejected,
    Restored,
    Moved,
}

impl State {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Callable => "callable",
            Self::Held => "held",
            Self::Suspect => "suspect",
            Self::Ejected => "ejected",
            Self::Refused => "refused by its check",
            Self::Unusable => "unusable",
            Self::GoingOffline => "going offline",
            Self::Disabled => "disabled",
            Self::WeightZero => "weight 0",
            Self::OutsideSelection => "outside selection",
            Self::Unhealthy => "unhealthy",
            Self::HealthUnknown => "health unknown",
        }
    }

    /// How it is coloured: well, to be watched, bad, or of no matter.
    pub(super) const fn mood(self) -> &'static str {
        match self {
            Self::Callable => "good",
            Self::Held | Self::Suspect | Self::GoingOffline => "fair",
            Self::Ejected | Self::Refused | Self::Unusable | Self::Unhealthy => "bad",
            _ => "idle",
        }
    }
}

impl Kind {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Subscribed => "subscribed",
            Self::Unsubscribed => "unsubscribed",
            Self::Pushed => "pushed",
            Self::Evicted => "evicted",
            Self::Held => "held",
            Self::Ejected => "ejected",
            Self::Restored => "restored",
            Self::Moved => "moved",
        }
    }

    pub(super) const fn mood(self) -> &'static str {
        match self {
            Self::Connected | Self::Restored => "good",
            Self::Evicted | Self::Held | Self::Moved => "fair",
            Self::Disconnected | Self::Ejected => "bad",
            _ => "idle",
        }
    }
}
