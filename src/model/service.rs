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

/// Between group and name, as Nacos writes it.
const SEPARATOR: &str = "@@";
/// The same as people write it, in addresses too.
const SHORT_SEPARATOR: char = '@';

/// The group of a name that was read from a text without one: equal to [`DEFAULT_GROUP`], but not
/// the same allocation, so that a client with a default group of its own can tell.
static UNNAMED_GROUP: LazyLock<Arc<str>> = LazyLock::new(|| DEFAULT_GROUP.into());

/// A service within a namespace: its group and its name.
///
/// Reads `orders` (a name in [`DEFAULT_GROUP`]), `billing@orders` (in the group `billing`) and
/// `billing@@orders`, which is how Nacos's own tools write it and how it shows itself. A name that holds
/// an `@` needs its group and the `@@` before it (`billing@@a@b`), or [`new`](Self::new).
///
/// What no server takes is refused: a name has 1 to 512 characters without white
/// space, neither starts with `@` nor contains `@@`; a group has 1 to 128 letters, digits and
/// `-_.:`. Letters are those of any language; a character beyond U+FFFF counts as two, as in Java.
///
/// Servers from 2.3 on check more unless told not to (`nacos.core.param.check.enabled`): they refuse
/// (400) a name with a Chinese character (U+4E00 to U+9FA5) and a group with other than ASCII
/// letters. Older ones take both, so that is left to the server.
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

    /// The same in a group that was checked before.
    pub(crate) fn in_group(group: &Arc<str>, name: &str) -> Result<Self, InvalidName> {
        check_name(name)?;
        Ok(Self {
            group: group.clone(),
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
        match grouped(text) {
            Some((_, name)) if !text.contains(SEPARATOR) && name.contains(SHORT_SEPARATOR) => {
                Err(InvalidName {
                    what: "service name",
                    text: cut(text),
                    rule: "it has two '@' apart from each other; a name that holds one needs '@@' after its group, as in \"billing@@a@b\"",
                })
            }
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

/// Group and name of a text that has both.
pub(crate) fn grouped(text: &str) -> Option<(&str, &str)> {
    let grouped = text.split_once(SEPARATOR);
    grouped.or_else(|| text.split_once(SHORT_SEPARATOR))
}

fn check_namespace(text: &str) -> Result<(), InvalidName> {
    let fits = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    fits.then_some(()).ok_or_else(|| InvalidName {
        what: "namespace id",
        text: cut(text),
        rule: "it takes 1 to 64 letters, digits, '-' and '_'; give the namespace's id, not its display name",
    })
}

fn check_group(text: &str) -> Result<(), InvalidName> {
    let fits = is_long(text, 128)
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'));
    fits.then_some(()).ok_or_else(|| InvalidName {
        what: "group",
        text: cut(text),
        rule: "it takes 1 to 128 letters, digits, '-', '_', '.' and ':'",
    })
}

/// Checks a pattern whose part between the stars is `stem`.
pub(super) fn pattern(text: &str, stem: &str, of_group: bool) -> Result<(), InvalidName> {
    // `**` has nothing between the stars, as `*` has.
    let any = stem.is_empty() && matches!(text, "*" | "**");
    let fits = any
        || (if of_group {
            check_group(stem)
        } else {
            check_name(stem)
        })
        .is_ok();
    let told_apart = !stem.contains('*') && !stem.contains(">>");
    (fits && told_apart).then_some(()).ok_or_else(|| InvalidName {
        what: if of_group { "group pattern" } else { "service pattern" },
        text: cut(text),
        rule: "it is a name, '*', or a part of a name with a '*' before it, behind it or both, without '>>'",
    })
}

fn check_name(text: &str) -> Result<(), InvalidName> {
    let fits = is_long(text, 512)
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && !text.starts_with('@')
        && !text.contains(SEPARATOR);
    fits.then_some(()).ok_or_else(|| InvalidName {
        what: "service name",
        text: cut(text),
        rule: "it takes 1 to 512 characters without white space, does not start with '@' and has no '@@' but the one after its group, as in \"billing@orders\" or \"billing@@orders\"",
    })
}

/// From 1 to `most` characters, counted as the servers do, which are written in Java.
fn is_long(text: &str, most: usize) -> bool {
    !text.is_empty() && (text.len() <= most || text.encode_utf16().take(most + 1).count() <= most)
}

/// What is shown of a name that breaks a rule, which may be its length.
fn cut(text: &str) -> Box<str> {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
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
    fn a_group_stands_before_one_at_or_two() {
        for (text, group, name) in [
            ("billing@orders", "billing", "orders"),
            ("billing@@orders", "billing", "orders"),
            ("billing@@a@b", "billing", "a@b"),
            ("DEFAULT_GROUP@orders", "DEFAULT_GROUP", "orders"),
        ] {
            let read = text.parse::<ServiceName>().unwrap();
            assert_eq!((&**read.group(), &**read.name()), (group, name));
            assert_eq!(read.to_string().parse(), Ok(read));
        }
        let two = "x@a@b".parse::<ServiceName>().unwrap_err().to_string();
        assert!(two.contains("billing@@a@b"), "{two}");
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
    fn names_are_written_in_any_language() {
        for text in [
            "fld-café",
            "fld-сервис",
            "订单",
            "группа@@注文",
            "g@@a@b",
            "a/b?c",
            "😀",
        ] {
            let name = text.parse::<ServiceName>().unwrap();
            assert!(name.to_string().ends_with(text), "{name}");
        }
    }

    #[test]
    fn a_name_is_as_long_as_java_finds_it() {
        for (letter, most) in [("a", 512), ("é", 512), ("訳", 512), ("😀", 256)] {
            assert!(letter.repeat(most).parse::<ServiceName>().is_ok());
            let error = letter.repeat(most + 1).parse::<ServiceName>().unwrap_err();
            let shown = error.to_string();
            assert!(
                shown.chars().count() < 300 && shown.contains("…\""),
                "{shown}"
            );
        }
        assert!(ServiceName::new(&"ж".repeat(128), "a").is_ok());
        assert!(ServiceName::new(&"ж".repeat(129), "a").is_err());
        assert!("x".repeat(10_000_000).parse::<ServiceName>().is_err());
    }

    #[test]
    fn the_empty_namespace_is_public() {
        let key = ServiceKey::new("", "g@@s".parse().unwrap()).unwrap();
        assert_eq!(&**key.namespace(), "public");
    }

    #[test]
    fn a_bad_name_says_which_rule_it_breaks() {
        for text in [
            "",
            "@a",
            "g@@",
            "g@",
            "@g@a",
            "g@a@b",
            "g@@a@@b",
            "a b",
            "a\tb",
            "a\u{3000}b",
            "a\0",
            "g/h@@a",
            "g h@@a",
            "@@a",
        ] {
            let error = text.parse::<ServiceName>().unwrap_err().to_string();
            assert!(error.starts_with("invalid "), "{error}");
        }
        let error = ServiceKey::new("dev space", "a".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("not its display name"), "{error}");
    }
}
