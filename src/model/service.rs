use std::{
    convert::Infallible,
    fmt,
    str::FromStr,
    sync::{Arc, LazyLock},
};

/// The namespace of services that name none.
pub const PUBLIC_NAMESPACE: &str = "public";
/// The group of services that name none.
pub const DEFAULT_GROUP: &str = "DEFAULT_GROUP";

const SEPARATOR: &str = "@@";

/// The group of a name that was read from a text without one: equal to [`DEFAULT_GROUP`], but not
/// the same allocation, so that a client with a default group of its own can tell.
static UNNAMED_GROUP: LazyLock<Arc<str>> = LazyLock::new(|| DEFAULT_GROUP.into());

/// A service within a namespace: its group and its name.
///
/// Reads and shows itself as `group@@name`; a text without `@@` is a name in
/// [`DEFAULT_GROUP`]. The limits are those of a Nacos server's parameter check (2.3 and later):
/// a name of 1 to 512 visible ASCII characters that neither starts with `@` nor contains `@@`, a
/// group of 1 to 128 letters, digits and `-_.:`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    group: Arc<str>,
    name: Arc<str>,
}

/// A service in the whole registry: namespace, group and name.
///
/// Two services that differ in any of the three share nothing. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    namespace: Arc<str>,
    service: ServiceName,
}

/// What is wrong with the name of a service, group or namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {text:?}: {rule}")]
pub struct InvalidName {
    what: &'static str,
    text: Box<str>,
    rule: &'static str,
}

impl ServiceName {
    /// A service from its group and its name.
    pub fn new(group: &str, name: &str) -> Result<Self, InvalidName> {
        check_group(group)?;
        check_name(name)?;
        Ok(Self {
            group: group.into(),
            name: name.into(),
        })
    }

    /// The group, `DEFAULT_GROUP` unless another was given.
    pub const fn group(&self) -> &Arc<str> {
        &self.group
    }

    /// The name within the group.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The group, unless this was read from a text that named none.
    pub(crate) fn named_group(&self) -> Option<&Arc<str>> {
        (!Arc::ptr_eq(&self.group, &UNNAMED_GROUP)).then_some(&self.group)
    }

    /// The same in `group`, a checked one, if it was read from a text that named no group.
    pub(crate) fn or_in(mut self, group: &Arc<str>) -> Self {
        if Arc::ptr_eq(&self.group, &UNNAMED_GROUP) {
            self.group = group.clone();
        }
        self
    }
}

impl InvalidName {
    /// Whether it is the name of a group.
    pub(crate) fn is_group(&self) -> bool {
        self.what == "group"
    }
}

impl ServiceKey {
    /// A service within `namespace`. An empty namespace means [`PUBLIC_NAMESPACE`]: to a Nacos
    /// server the two are different namespaces, and nothing useful ever lies in the empty one.
    pub fn new(namespace: &str, service: ServiceName) -> Result<Self, InvalidName> {
        let namespace = if namespace.is_empty() {
            PUBLIC_NAMESPACE
        } else {
            namespace
        };
        check_namespace(namespace)?;
        Ok(Self {
            namespace: namespace.into(),
            service,
        })
    }

    /// The same, from a namespace that was checked before.
    pub(crate) const fn in_checked(namespace: Arc<str>, service: ServiceName) -> Self {
        Self { namespace, service }
    }

    /// The namespace's id (not its display name).
    pub const fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// The group.
    pub const fn group(&self) -> &Arc<str> {
        &self.service.group
    }

    /// The name within the group.
    pub const fn name(&self) -> &Arc<str> {
        &self.service.name
    }

    /// Group and name.
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }
}

/// Checks a group's name and returns it in shared form.
pub(crate) fn group(text: &str) -> Result<Arc<str>, InvalidName> {
    check_group(text).map(|()| text.into())
}

/// Checks a namespace id and returns it in shared form; empty means `public`.
pub(crate) fn namespace(text: &str) -> Result<Arc<str>, InvalidName> {
    let text = if text.is_empty() {
        PUBLIC_NAMESPACE
    } else {
        text
    };
    check_namespace(text).map(|()| text.into())
}

impl FromStr for ServiceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(SEPARATOR) {
            Some((group, name)) => Self::new(group, name),
            None => {
                check_name(text)?;
                Ok(Self {
                    group: UNNAMED_GROUP.clone(),
                    name: text.into(),
                })
            }
        }
    }
}

impl TryFrom<&str> for ServiceName {
    type Error = InvalidName;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for ServiceName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<&String> for ServiceName {
    type Error = InvalidName;

    fn try_from(text: &String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<&Self> for ServiceName {
    fn from(name: &Self) -> Self {
        name.clone()
    }
}

impl From<Infallible> for InvalidName {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{SEPARATOR}{}", self.group, self.name)
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in namespace {}", self.service, self.namespace)
    }
}

fn check_namespace(text: &str) -> Result<(), InvalidName> {
    let fits = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    fits.then_some(()).ok_or_else(|| InvalidName {
        what: "namespace id",
        text: text.into(),
        rule: "it takes 1 to 64 letters, digits, '-' and '_'; give the namespace's id, not its display name",
    })
}

fn check_group(text: &str) -> Result<(), InvalidName> {
    let fits = (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'));
    fits.then_some(()).ok_or_else(|| InvalidName {
        what: "group",
        text: text.into(),
        rule: "it takes 1 to 128 letters, digits, '-', '_', '.' and ':'",
    })
}

fn check_name(text: &str) -> Result<(), InvalidName> {
    let fits = (1..=512).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic())
        && !text.starts_with('@')
        && !text.contains(SEPARATOR);
    fits.then_some(()).ok_or_else(|| InvalidName {
        what: "service name",
        text: text.into(),
        rule: "it takes 1 to 512 visible ASCII characters, does not start with '@' and has no '@@' but the one after its group",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_a_group_lies_in_the_default_group() {
        let name: ServiceName = "orders".parse().unwrap();
        assert_eq!(name.to_string(), "DEFAULT_GROUP@@orders");
        assert_eq!("DEFAULT_GROUP@@orders".parse(), Ok(name));
    }

    #[test]
    fn only_a_text_without_a_group_takes_another_default() {
        let mine = Arc::from("G");
        let read = |text: &str| text.parse::<ServiceName>().unwrap();
        assert_eq!(read("orders").or_in(&mine).to_string(), "G@@orders");
        for named in ["DEFAULT_GROUP@@orders", "H@@orders"] {
            assert_eq!(read(named).or_in(&mine), read(named));
        }
    }

    #[test]
    fn the_empty_namespace_is_public() {
        let key = ServiceKey::new("", "g@@s".parse().unwrap()).unwrap();
        assert_eq!(&**key.namespace(), "public");
    }

    #[test]
    fn a_bad_name_says_which_rule_it_breaks() {
        for text in ["", "@a", "g@@", "g@@a@@b", "a b", "订单", "g/h@@a", "@@a"] {
            let error = text.parse::<ServiceName>().unwrap_err().to_string();
            assert!(error.starts_with("invalid "), "{error}");
        }
        let error = ServiceKey::new("dev space", "a".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("not its display name"), "{error}");
    }
}
