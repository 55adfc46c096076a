use std::{fmt, time::Instant};

/// How far a subscription's list can be believed right now. Calls go on in each of these but
/// [`Unknown`](Self::Unknown); only what they know differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// The registry has not answered yet.
    Unknown,
    /// The connection stands and the set is the last list that came on it.
    Fresh,
    /// The connection is lost (or new and not answered yet); the last set serves. So does one from
    /// disk, until the registry answers for the first time.
    Stale {
        /// When it was lost, or when the new one took over from one that stood; of a set from disk,
        /// when it was last known to be what the registry says (now, where a clock knows no time
        /// before the machine's start).
        since: Instant,
    },
    /// The connection stands; so many instances are missing from its first list and kept all the same for a while,
    /// since a registry that just started does not know everybody yet (the *collapse guard*, see
    /// [`Options`](crate::directory::Options)).
    Held {
        /// How many.
        instances: usize,
    },
    /// The last list could not be read; the one before it serves.
    Undecodable,
    /// The subscription has ended; the last set serves.
    Closed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the registry has not answered yet"),
            Self::Fresh => f.write_str("fresh"),
            Self::Stale { .. } => {
                f.write_str("the connection to the registry is lost, or has not brought a list yet")
            }
            Self::Held { instances } => {
                write!(f, "{instances} instances are held by the collapse guard")
            }
            Self::Undecodable => f.write_str("the registry's last list could not be read"),
            Self::Closed => f.write_str("the subscription has ended"),
        }
    }
}
