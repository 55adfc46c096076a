//! One reading of the names of a group's services, page by page.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use crate::model::{MOST_SERVICES, ServiceFilter, ServiceName};

/// How many names a page has: what servers were seen to give at once, in 60 kB or so.
pub(super) const PAGE: u32 = 1_000;

/// Whether a page of `names` was the last, of `size` at most each: `before` it so many had come, `came` with
/// it, and the server counts `count` in all. A server that has nothing new to say has said everything,
/// whatever it counts; and one that goes on without end is none.
pub(crate) const fn is_over(
    names: usize,
    size: u32,
    before: usize,
    came: usize,
    count: u64,
) -> bool {
    names < size as usize || came as u64 >= count || came == before || came >= MOST_SERVICES
}

/// Pages that are being read.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// How many were read.
    pages: u32,
    /// Names as they came, to tell whether all did.
    raw: HashSet<String>,
    names: BTreeSet<ServiceName>,
}

/// A reading that is over.
#[derive(Debug)]
pub(super) struct Reading {
    /// What the filter takes of what was read.
    pub(super) names: BTreeSet<ServiceName>,
    /// How many names came in all.
    pub(super) came: u64,
}

impl Pass {
    /// The page to be asked for.
    pub(super) const fn next(&self) -> u32 {
        self.pages + 1
    }

    /// Takes a page in, and returns what of it the filter takes. Names that are none are left out:
    /// nobody could subscribe to such a service.
    pub(super) fn take(
        &mut self,
        group: &Arc<str>,
        filter: &ServiceFilter,
        page: &[String],
    ) -> Vec<ServiceName> {
        self.pages += 1;
        let mut taken = Vec::new();
        for raw in page {
            if !self.raw.insert(raw.clone()) {
                continue;
            }
            // Servers of old put the group before it.
            let own = raw.strip_prefix(&**group);
            let name = own.and_then(|rest| rest.strip_prefix("@@")).unwrap_or(raw);
            if let Ok(service) = ServiceName::in_group(group, name)
                && filter.matches(&service)
            {
                self.names.insert(service.clone());
                taken.push(service);
            }
        }
        taken
    }

    /// The whole reading, if the page of `names` was its last: `before` it so many had come, and the
    /// server counts `count` in all.
    pub(super) fn end(&mut self, names: usize, before: usize, count: u64) -> Option<Reading> {
        let came = self.len();
        if !is_over(names, PAGE, before, came, count) {
            return None;
        }
        let pass = std::mem::take(self);
        Some(Reading {
            names: pass.names,
            came: came as u64,
        })
    }

    /// How many names came so far.
    pub(super) fn len(&self) -> usize {
        self.raw.len()
    }
}
