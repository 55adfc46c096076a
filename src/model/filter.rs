use std::{fmt, sync::Arc};

use super::service::{InvalidName, ServiceName, pattern};

/// Which services of a namespace: a pattern for the group and one for the name.
///
/// A pattern is a name as it is, `*` for any, `order-*` for those that begin so, `*-api` for those
/// that end so, or `*order*` for those that contain it; nothing else, since that is what servers
/// match by (Nacos 3.1's `FuzzyGroupKeyPattern`). One that breaks this is told by the operation that
/// it is given to, before anything is sent.
///
/// ```
/// use tower_nacos::model::ServiceFilter;
///
/// let filter = ServiceFilter::group("shop").name("order-*");
/// assert!(filter.matches(&"shop@@order-web".parse()?));
/// assert!(!filter.matches(&"order-web".parse()?));
/// # Ok::<(), tower_nacos::model::InvalidName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceFilter {
    group: Arc<str>,
    name: Arc<str>,
}

const ANY: char = '*';

/// A registry that lists more services does not end, or is none: the rest is left out. A million names
/// take 100 MB.
pub(crate) const MOST_SERVICES: usize = 1_000_000;

impl ServiceFilter {
    /// Every service of the namespace, in whatever group. Only servers with fuzzy watch (3.0 and
    /// later) can tell: others list one group at a time.
    pub fn namespace() -> Self {
        Self::group("*")
    }

    /// Every service of a group, or of all groups that the pattern takes.
    pub fn group(pattern: impl Into<Arc<str>>) -> Self {
        Self {
            group: pattern.into(),
            name: "*".into(),
        }
    }

    /// Of these, the services whose name the pattern takes.
    #[must_use]
    pub fn name(mut self, pattern: impl Into<Arc<str>>) -> Self {
        self.name = pattern.into();
        self
    }

    /// Whether it takes this service.
    pub fn matches(&self, service: &ServiceName) -> bool {
        takes(&self.group, service.group()) && takes(&self.name, service.name())
    }

    /// The one group that it is about, unless it takes several.
    pub fn one_group(&self) -> Option<&Arc<str>> {
        (!self.group.contains(ANY)).then_some(&self.group)
    }

    /// What a server matches keys of services by.
    pub(crate) fn within(&self, namespace: &str) -> String {
        format!("{namespace}>>{}>>{}", self.group, self.name)
    }

    /// Itself, if a server can make something of both patterns.
    pub(crate) fn checked(self) -> Result<Self, InvalidName> {
        pattern(&self.group, stem(&self.group), true)?;
        pattern(&self.name, stem(&self.name), false)?;
        Ok(self)
    }
}

/// What stands between the stars.
fn stem(pattern: &str) -> &str {
    let stem = pattern.strip_prefix(ANY).unwrap_or(pattern);
    stem.strip_suffix(ANY).unwrap_or(stem)
}

fn takes(pattern: &str, text: &str) -> bool {
    let (open, rest) = match pattern.strip_prefix(ANY) {
        Some("") => return true,
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    match (open, rest.strip_suffix(ANY)) {
        (true, Some(middle)) => text.contains(middle),
        (true, None) => text.ends_with(rest),
        (false, Some(start)) => text.starts_with(start),
        (false, None) => text == rest,
    }
}

impl From<&str> for ServiceFilter {
    /// Every service of this group.
    fn from(group: &str) -> Self {
        Self::group(group)
    }
}

impl fmt::Display for ServiceFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@@{}", self.group, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(group: &str, name: &str) -> ServiceFilter {
        ServiceFilter::group(group).name(name)
    }

    #[test]
    fn patterns_match_as_servers_do() {
        for (pattern, yes, no) in [
            ("order", "order", "orders"),
            ("*", "anything", ""),
            ("order-*", "order-web", "my-order-web"),
            ("order-*", "order-", "order"),
            ("*-api", "order-api", "order-api2"),
            ("*order*", "my-orders", "my-users"),
            ("**", "anything", ""),
        ] {
            assert!(takes(pattern, yes), "{pattern} {yes}");
            assert!(no.is_empty() || !takes(pattern, no), "{pattern} {no}");
        }
    }

    #[test]
    fn group_and_name_both_have_to_match() {
        let filter = of("shop", "order-*");
        assert!(filter.matches(&"shop@@order-web".parse().unwrap()));
        assert!(!filter.matches(&"shop@@web".parse().unwrap()));
        assert!(!filter.matches(&"shops@@order-web".parse().unwrap()));
        assert_eq!(filter.within("dev"), "dev>>shop>>order-*");
        assert_eq!(filter.one_group().map(|group| &**group), Some("shop"));
        assert_eq!(of("s*", "a").one_group(), None);
    }

    #[test]
    fn a_pattern_that_no_server_understands_is_refused() {
        for good in ["*", "a", "a*", "*a", "*a*", "a/b", "заказ-*"] {
            assert_eq!(of("G", good).checked(), Ok(of("G", good)));
        }
        for bad in ["", "a*b", "a**", "***", "a b", "a>>b", "@@", "@a", "a@@b"] {
            let error = of("G", bad).checked().unwrap_err().to_string();
            assert!(error.contains("pattern"), "{bad}: {error}");
        }
        for bad in ["", "G H", "a*b", "a/b"] {
            assert!(of(bad, "*").checked().is_err(), "{bad}");
        }
    }
}
