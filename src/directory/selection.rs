use std::sync::Arc;

use crate::model::Instance;

/// Which instances a view takes: all rules must hold. Two views with equal selections are one.
///
/// Only rules that can be compared, and that run no users' code: the writer evaluates them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// Sorted, each once.
    rules: Arc<[Rule]>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// In one of these clusters; sorted, each once.
    Clusters(Box<[Arc<str>]>),
    /// With this metadata pair.
    Metadata(Arc<str>, Arc<str>),
}

impl Selection {
    pub(super) fn and(&self, rule: Rule) -> Self {
        let mut rules: Vec<Rule> = self.rules.iter().cloned().chain([rule]).collect();
        rules.sort();
        rules.dedup();
        Self {
            rules: rules.into(),
        }
    }

    pub(super) fn takes(&self, instance: &Instance) -> bool {
        self.rules.iter().all(|rule| match rule {
            Rule::Clusters(clusters) => clusters.iter().any(|c| instance.is_in_cluster(c)),
            Rule::Metadata(key, value) => instance.metadata().get(key) == Some(value),
        })
    }
}

impl Rule {
    pub(super) fn clusters(clusters: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut clusters: Vec<_> = clusters.into_iter().collect();
        clusters.sort();
        clusters.dedup();
        Self::Clusters(clusters.into())
    }
}
