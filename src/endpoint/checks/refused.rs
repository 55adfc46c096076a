use std::{collections::HashMap, sync::Arc};

use crate::directory::Generation;

/// Whom the checks refuse, and whether that is obeyed.
#[derive(Default)]
pub(crate) struct Refusals {
    /// By what they found.
    pub(crate) reasons: HashMap<Generation, Arc<str>>,
    /// Whether too many are out for that.
    pub(crate) lifted: bool,
    /// Whether somebody is kept out by that.
    pub(crate) in_force: bool,
}

impl Refusals {
    /// Whether they refuse that one.
    pub(crate) fn refuse(&self, generation: Generation) -> bool {
        !self.reasons.is_empty() && self.reasons.contains_key(&generation)
    }
}
