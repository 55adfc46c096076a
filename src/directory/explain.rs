use std::{fmt, sync::Arc, time::Instant};

use crate::{
    directory::{
        Generation, Mode, RemovalCause, Revision, Standing, Status, shared::Shared, view::View,
    },
    model::{Address, Instance, ServiceDetails, ServiceKey, Source},
};

/// What the directory knows of one address. Displays as a sentence.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscriptionExplanation {
    /// The service.
    pub service: ServiceKey,
    /// The address that was asked for.
    pub address: Address,
    /// The revision that this is read from.
    pub revision: Revision,
    /// How far it can be believed.
    pub status: Status,
    /// The finding.
    pub finding: Finding,
    /// Whether no instance at all may be called.
    nobody: bool,
    /// What probably is the matter while nothing is listed, as [`Subscription::hint`](crate::directory::Subscription::hint).
    pub hint: Option<Arc<str>>,
    /// What an operator set of the service as a whole, as it was when the registry was asked last: not
    /// before an earlier explanation or [`Client::service_details`](crate::Client::service_details).
    /// `None` while that is not known, and for as long as the registry does not say.
    pub details: Option<Arc<ServiceDetails>>,
    /// The newest instant that the directory was told, to which ages relate.
    pub as_of: Option<Instant>,
    /// Of a merged subscription: what each source knows, the better ones first.
    pub sources: Vec<(Source, Self)>,
}

/// The finding of an [`SubscriptionExplanation`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Finding {
    /// It is in the snapshot.
    #[non_exhaustive]
    Listed {
        /// The instance as it is listed.
        instance: Arc<Instance>,
        /// Which presence of the address.
        generation: Generation,
        /// Whether it may be called, and if not, why.
        standing: Standing,
        /// Whether it is the [collapse guard](crate::guide::glossary) that keeps it.
        held: bool,
        /// How far health can be believed.
        mode: Mode,
    },
    /// The newest list names it, and it could not be used.
    #[non_exhaustive]
    Rejected {
        /// What is wrong with it.
        reason: Box<str>,
    },
    /// It was listed in the last 10 minutes and is no more.
    #[non_exhaustive]
    Gone {
        /// Why it left.
        cause: RemovalCause,
        /// When the last list came that had it.
        last_seen: Option<Instant>,
    },
    /// It is not listed, and nothing is remembered of it.
    NotListed,
    /// The registry has not answered yet.
    Unknown,
}

pub(super) fn explain(shared: &Shared, view: &View, address: &Address) -> SubscriptionExplanation {
    let sources = of_sources(shared, address);
    let (status, as_of) = (shared.status(), shared.news_at());
    let state = shared.lock();
    let snapshot = view.snapshot();
    let finding = if let Some(entry) = snapshot.find(address) {
        Finding::Listed {
            instance: Arc::clone(&entry.instance),
            generation: entry.generation,
            standing: entry.standing,
            held: entry.held,
            mode: snapshot.mode,
        }
    } else if let Some(rejected) = {
        let text = address.to_string();
        state.rejected.iter().find(|r| *r.text() == *text)
    } {
        Finding::Rejected {
            reason: rejected.reason().into(),
        }
    } else if let Some(stone) = state.stones.latest(address) {
        Finding::Gone {
            cause: stone.cause,
            last_seen: stone.last_seen,
        }
    } else if let Some(finding) = told(&sources) {
        finding.clone()
    } else if state.answered {
        Finding::NotListed
    } else {
        Finding::Unknown
    };
    let details = state.details.clone();
    drop(state); // hints of sources are put together, and these have locks of their own
    SubscriptionExplanation {
        service: shared.key.clone(),
        address: address.clone(),
        revision: snapshot.revision,
        status,
        finding,
        nobody: snapshot.callable_len() == 0,
        hint: snapshot.hint(),
        details,
        as_of,
        sources,
    }
}

/// What the sources of a merged set know.
fn of_sources(shared: &Shared, address: &Address) -> Vec<(Source, SubscriptionExplanation)> {
    let upstreams = shared.upstreams().iter();
    let explained = upstreams.map(|u| {
        (
            Source::clone(&u.source),
            explain(&u.shared, &u.view, address),
        )
    });
    explained.collect()
}

/// What the sources know of one that none of them lists, if any does: what is wrong with it, or when it
/// was there last.
fn told(sources: &[(Source, SubscriptionExplanation)]) -> Option<&Finding> {
    let findings = || sources.iter().map(|(_, told)| &told.finding);
    let rejected = findings().find(|finding| matches!(finding, Finding::Rejected { .. }));
    let last_seen = |finding: &&Finding| match finding {
        Finding::Gone { last_seen, .. } => *last_seen,
        _ => None,
    };
    let gone = findings().filter(|finding| matches!(finding, Finding::Gone { .. }));
    rejected.or_else(|| gone.max_by_key(last_seen))
}

impl SubscriptionExplanation {
    fn add_hint(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }

    /// Whether the instance may be called, as far as the registry's part goes.
    pub const fn is_callable(&self) -> bool {
        matches!(
            self.finding,
            Finding::Listed {
                standing: Standing::Callable,
                ..
            }
        )
    }
}

#[cfg(feature = "status")]
impl SubscriptionExplanation {
    /// What a snapshot says of one of its entries, read without a lock. Knows of no sources, and nothing of
    /// the service as a whole.
    pub(crate) fn of_entry(
        service: &ServiceKey,
        status: Status,
        snapshot: &crate::directory::Snapshot,
        entry: &crate::directory::Entry,
    ) -> Self {
        Self {
            service: service.clone(),
            address: entry.instance.address().clone(),
            revision: snapshot.revision,
            status,
            finding: Finding::Listed {
                instance: Arc::clone(&entry.instance),
                generation: entry.generation,
                standing: entry.standing,
                held: entry.held,
                mode: snapshot.mode,
            },
            nobody: snapshot.callable_len() == 0,
            hint: None,
            details: None,
            as_of: None,
            sources: Vec::new(),
        }
    }

    /// The finding in words, without the names of service and instance before it.
    pub(crate) fn in_words(&self) -> String {
        struct Words<'a>(&'a SubscriptionExplanation);
        impl fmt::Display for Words<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write_finding(f)
            }
        }
        Words(self).to_string()
    }
}

impl SubscriptionExplanation {
    fn write_finding(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.finding {
            Finding::Listed {
                instance,
                standing,
                held,
                mode,
                ..
            } => {
                write!(f, "{standing}")?;
                if *held {
                    f.write_str(
                        "; not listed since the last reconnect, held by the collapse guard",
                    )?;
                }
                match mode {
                    Mode::Normal => {}
                    Mode::Flagged => f.write_str(
                        "; the server's protection rule is in force, so it calls every instance healthy",
                    )?,
                    Mode::Panic => f.write_str("; no instance is healthy")?,
                }
                match (standing, self.nobody) {
                    (Standing::Unhealthy, true) => f.write_str(
                        ", and `OnAllUnhealthy::FailFast` calls none rather than an unhealthy one",
                    )?,
                    (Standing::Unhealthy, false) => f.write_str(", and others are not")?,
                    _ => {}
                }
                write!(
                    f,
                    "; weight {}, cluster {}",
                    instance.weight(),
                    instance.cluster()
                )?;
                match instance.source() {
                    Some(source) => write!(f, "; from {}", source.beside(&self.service)),
                    None => Ok(()),
                }
            }
            Finding::Rejected { reason } => write!(f, "listed, but cannot be used: {reason}"),
            Finding::Gone { cause, last_seen } => {
                write!(f, "gone: {cause}")?;
                if let (Some(seen), Some(as_of)) = (last_seen, self.as_of) {
                    let ago = as_of.saturating_duration_since(*seen).as_secs_f64();
                    write!(f, "; last listed {ago:.1} s before the latest news")?;
                }
                Ok(())
            }
            Finding::NotListed => f.write_str("not listed, nor was it in the last 10 minutes"),
            Finding::Unknown => write!(f, "{}", self.status),
        }
    }
}

impl fmt::Display for SubscriptionExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: ", self.address, self.service)?;
        self.write_finding(f)?;
        if !matches!(self.finding, Finding::Unknown) {
            write!(f, " (revision {}", self.revision)?;
            if self.status != Status::Fresh {
                write!(f, "; {}", self.status)?;
            }
            f.write_str(")")?;
        }
        for (source, told) in &self.sources {
            write!(f, "; {}: ", source.beside(&self.service))?;
            told.write_finding(f)?;
            if told.status != Status::Fresh && !matches!(told.finding, Finding::Unknown) {
                write!(f, " ({})", told.status)?;
            }
            if let Some(details) = told.details.as_ref().filter(|details| !details.is_unset()) {
                write!(f, "; the service has {details} there")?;
            }
        }
        if let Some(details) = self.details.as_ref().filter(|details| !details.is_unset()) {
            write!(f, "; the service has {details}")?;
        }
        self.add_hint(f)
    }
}
