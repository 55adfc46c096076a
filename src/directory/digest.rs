//! Lines of the log for many changes at once.

use std::fmt;

use crate::{
    directory::{Change, ChangeKind},
    model::Address,
};

/// More changes of one kind in one list are one line.
const ONE_BY_ONE: usize = 5;
/// So many of them are named.
const NAMED: usize = 3;

/// Some instances by name, and how many more there are.
pub(super) struct Named<'a> {
    shown: Vec<&'a Address>,
    more: usize,
}

/// What one line tells.
pub(super) enum Told<'a> {
    One(&'a Change),
    /// Never empty, and of one kind.
    Many(&'a Change, usize, Named<'a>),
}

impl<'a> Named<'a> {
    pub(super) fn of(addresses: impl IntoIterator<Item = &'a Address>) -> Self {
        let mut all = addresses.into_iter();
        Self {
            shown: all.by_ref().take(NAMED).collect(),
            more: all.count(),
        }
    }
}

/// The lines for the changes of one revision, in their order: a few of a kind one by one.
pub(super) fn lines(changes: &[Change]) -> Vec<Told<'_>> {
    let mut kinds: Vec<(ChangeKind, bool, Vec<&Change>)> = Vec::new();
    for change in changes {
        // An update that is the guard's is told apart.
        let held = change.held && change.kind == ChangeKind::Updated;
        let same = kinds
            .iter_mut()
            .find(|(kind, was_held, _)| (*kind, *was_held) == (change.kind, held));
        match same {
            Some((_, _, all)) => all.push(change),
            None => kinds.push((change.kind, held, vec![change])),
        }
    }
    let mut told = Vec::new();
    for (_, _, all) in kinds {
        if all.len() <= ONE_BY_ONE {
            told.extend(all.into_iter().map(Told::One));
        } else {
            let named = Named::of(all.iter().map(|change| change.instance.address()));
            told.push(Told::Many(all[0], all.len(), named));
        }
    }
    told
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.shown.iter().enumerate() {
            write!(f, "{}{address}", if at == 0 { "" } else { ", " })?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
