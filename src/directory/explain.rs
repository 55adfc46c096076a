use std::{fmt, sync::Arc, time::Instant};

use crate::{
    directory::{Cause, Generation, Mode, Revision, Standing, Status, handle::Handle},
    model::{Address, Instance, ServiceDetails, ServiceKey},
};

/// What the directory knows of one address. Displays as a sentence.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
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
}

/// The finding of an [`Explanation`].
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
        /// Whether it is the collapse guard that keeps it.
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
        cause: Cause,
        /// When the last list came that had it.
        last_seen: Option<Instant>,
    },
    /// It is not listed, and nothing is remembered of it.
    NotListed,
    /// The registry has not answered yet.
    Unknown,
}

pub(super) fn explain(handle: &Handle, address: &Address) -> Explanation {
    let state = handle.shared.lock();
    let snapshot = handle.snapshot();
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
    } else if state.answered {
        Finding::NotListed
    } else {
        Finding::Unknown
    };
    Explanation {
        service: handle.key().clone(),
        address: address.clone(),
        revision: snapshot.revision,
        status: state.status(),
        finding,
        nobody: snapshot.callable_len() == 0,
        hint: state.hint.get(),
        details: state.details.clone(),
        as_of: state.news_at,
    }
}

impl Explanation {
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

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address, service, ..
        } = self;
        match &self.finding {
            Finding::Listed {
                instance,
                standing,
                held,
                mode,
                ..
            } => {
                write!(f, "{address} of {service}: {standing}")?;
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
            }
            Finding::Rejected { reason } => {
                write!(
                    f,
                    "{address} of {service}: listed, but cannot be used: {reason}"
                )?;
            }
            Finding::Gone { cause, last_seen } => {
                write!(f, "{address} of {service}: gone: {cause}")?;
                if let (Some(seen), Some(as_of)) = (last_seen, self.as_of) {
                    let ago = as_of.saturating_duration_since(*seen).as_secs_f64();
                    write!(f, "; last listed {ago:.1} s before the latest news")?;
                }
            }
            Finding::NotListed => write!(
                f,
                "{address} of {service}: not listed, nor was it in the last 10 minutes"
            )?,
            Finding::Unknown => {
                write!(f, "{address} of {service}: {}", self.status)?;
                return self.add_hint(f);
            }
        }
        write!(f, " (revision {}", self.revision)?;
        if self.status != Status::Fresh {
            write!(f, "; {}", self.status)?;
        }
        f.write_str(")")?;
        if let Some(details) = self.details.as_ref().filter(|details| !details.is_unset()) {
            write!(f, "; the service has {details}")?;
        }
        self.add_hint(f)
    }
}
