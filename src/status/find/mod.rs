//! Makes of what was seen what is asked for. Reads snapshots and tables that are published.

mod instances;
mod page;
mod part;
mod services;

pub(super) use self::page::{Missing, page};
