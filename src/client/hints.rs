//! Why a service has no instances: what the names beside it in the registry suggest.

use std::{collections::HashMap, sync::Arc};

use super::nearest::nearest;
use crate::{
    model::{DEFAULT_GROUP, PUBLIC_NAMESPACE, ServiceKey},
    session::{Command, Outcome, Ticket},
};

/// How many names of a group are looked at, in one read.
const NAMES: u32 = 1_000;

/// Reads of service names that are under way, each for all services that wait for the same group.
#[derive(Debug, Default)]
pub(super) struct Hints {
    reads: HashMap<Ticket, Read>,
}

#[derive(Debug)]
struct Read {
    group: Arc<str>,
    waiting: Vec<Waiting>,
}

/// A service without instances, and the names of its own group once they are known.
#[derive(Debug)]
struct Waiting {
    key: ServiceKey,
    own: Option<Names>,
}

/// Names of a group, and how many there are in all.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) count: u64,
    pub(super) names: Arc<[String]>,
}

/// What came of an answer.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) hints: Vec<(ServiceKey, String)>,
    /// Services that are not in their own group, and for which the default group is to be read.
    pub(super) again: Option<Command>,
}

impl Hints {
    /// The registry lists nothing of `key`: what to ask, unless it is being asked.
    pub(super) fn ask(&mut self, key: &ServiceKey, ticket: Ticket) -> Option<Command> {
        let waiting = Waiting {
            key: key.clone(),
            own: None,
        };
        self.read(key.group().clone(), vec![waiting], ticket)
    }

    /// Whether this ticket is of a read of ours.
    pub(super) fn is_ours(&self, ticket: Ticket) -> bool {
        self.reads.contains_key(&ticket)
    }

    /// Takes the answer of a read; `ticket` is for the next one. Without an answer there is no
    /// hint: nobody asked for one.
    pub(super) fn answered(
        &mut self,
        ticket: Ticket,
        outcome: Option<Outcome>,
        next: Ticket,
    ) -> Found {
        let mut found = Found::default();
        let Some(read) = self.reads.remove(&ticket) else {
            return found;
        };
        let Some(Outcome::Names { count, names }) = outcome else {
            return found;
        };
        let names = Names {
            count,
            names: names.into(),
        };
        let mut elsewhere = Vec::new();
        for waiting in read.waiting {
            let key = waiting.key;
            match waiting.own {
                Some(own) => {
                    let hint = hint(&key, &own, Some(&names));
                    found.hints.push((key, hint));
                }
                None if names.has(&key) || &**key.group() == DEFAULT_GROUP => {
                    let hint = hint(&key, &names, None);
                    found.hints.push((key, hint));
                }
                None => elsewhere.push(Waiting {
                    key,
                    own: Some(names.clone()),
                }),
            }
        }
        if !elsewhere.is_empty() {
            found.again = self.read(DEFAULT_GROUP.into(), elsewhere, next);
        }
        found
    }

    fn read(&mut self, group: Arc<str>, waiting: Vec<Waiting>, ticket: Ticket) -> Option<Command> {
        if let Some(read) = self.reads.values_mut().find(|read| read.group == group) {
            for new in waiting {
                if !read.waiting.iter().any(|known| known.key == new.key) {
                    read.waiting.push(new);
                }
            }
            return None;
        }
        let command = Command::List {
            ticket,
            group: group.clone(),
            page: 1,
            page_size: NAMES,
        };
        self.reads.insert(ticket, Read { group, waiting });
        Some(command)
    }
}

impl Names {
    fn has(&self, key: &ServiceKey) -> bool {
        self.names.iter().any(|name| **name == **key.name())
    }
}

/// What probably is the matter with `key`, whose list is empty: `own` are the names in its group,
/// `default` those of the default group if that is another one. A server lists the services of one
/// group at a time and tells of no other groups.
pub(super) fn hint(key: &ServiceKey, own: &Names, default: Option<&Names>) -> String {
    let (namespace, group, name) = (key.namespace(), key.group(), key.name());
    if own.has(key) {
        return "the registry knows the service, and no instance of it is registered".to_owned();
    }
    if default.is_some_and(|default| default.has(key)) {
        return format!(
            "group {group} has no service {name:?}, but {DEFAULT_GROUP} has: subscribe to \
             \"{DEFAULT_GROUP}@@{name}\""
        );
    }
    if let Some(near) = nearest(name, own.names.iter().map(String::as_str)) {
        return format!("group {group} has no service {name:?}; did you mean {near:?}?");
    }
    let near = default.and_then(|default| nearest(name, default.names.iter().map(String::as_str)));
    if let Some(near) = near {
        return format!(
            "group {group} has no service {name:?}; did you mean \"{DEFAULT_GROUP}@@{near}\"?"
        );
    }
    let other = default.map_or(0, |default| default.count);
    match (own.count, other) {
        (0, 0) if &**namespace != PUBLIC_NAMESPACE => {
            let groups = match default {
                Some(_) => format!("groups {group} and {DEFAULT_GROUP}"),
                None => format!("group {group}"),
            };
            format!(
                "namespace '{namespace}' has no services in {groups}; use its id, not its name, \
                 and check the group"
            )
        }
        (0, 0) => format!(
            "namespace '{namespace}' has no services in group {group}; do the providers register in \
             another namespace (`ClientBuilder::namespace`, by id) or group (\"group@{name}\")?"
        ),
        (0, other) => format!(
            "group {group} has no services; {DEFAULT_GROUP} has {other}, none with a name like \
             {name:?}"
        ),
        (own, _) => format!(
            "none of the {own} services in group {group} has a name like {name:?}; does it register \
             in another group (\"group@{name}\") or namespace?"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, service: &str) -> ServiceKey {
        ServiceKey::new(namespace, service.parse().unwrap()).unwrap()
    }

    fn names(names: &[&str]) -> Names {
        Names {
            count: names.len() as u64,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn outcome(names: &[&str]) -> Outcome {
        Outcome::Names {
            count: names.len() as u64,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn each_situation_has_its_words() {
        let none = names(&[]);
        for (key, own, default, said) in [
            (
                key("dev", "orders"),
                &none,
                None,
                "use its id, not its name",
            ),
            (key("", "orders"), &none, None, "another namespace"),
            (
                key("", "orders"),
                &names(&["users"]),
                None,
                "none of the 1 services",
            ),
            (
                key("", "ordres"),
                &names(&["orders"]),
                None,
                "did you mean \"orders\"?",
            ),
            (
                key("", "orders"),
                &names(&["orders"]),
                None,
                "no instance of it is registered",
            ),
            (
                key("", "shop@@orders"),
                &none,
                Some(&names(&["orders"])),
                "subscribe to \"DEFAULT_GROUP@@orders\"",
            ),
            (
                key("", "shop@@orders"),
                &none,
                Some(&names(&["order"])),
                "did you mean \"DEFAULT_GROUP@@order\"?",
            ),
            (
                key("", "shop@@orders"),
                &none,
                Some(&names(&["users"])),
                "DEFAULT_GROUP has 1",
            ),
            (
                key("dev", "shop@@orders"),
                &none,
                Some(&none),
                "groups shop and DEFAULT_GROUP",
            ),
        ] {
            let hint = hint(&key, own, default);
            assert!(hint.contains(said), "{said}: {hint}");
        }
    }

    #[test]
    fn services_of_one_group_share_a_read() {
        let mut hints = Hints::default();
        assert!(hints.ask(&key("", "a"), Ticket(1)).is_some());
        assert!(hints.ask(&key("", "b"), Ticket(2)).is_none());
        assert!(hints.ask(&key("", "b"), Ticket(3)).is_none());
        let found = hints.answered(Ticket(1), Some(outcome(&[])), Ticket(4));
        assert_eq!(found.hints.len(), 2);
        assert!(found.again.is_none() && hints.reads.is_empty());
    }

    #[test]
    fn the_default_group_is_read_when_the_own_one_lacks_the_name() {
        let mut hints = Hints::default();
        hints.ask(&key("", "shop@@orders"), Ticket(1));
        let found = hints.answered(Ticket(1), Some(outcome(&["users"])), Ticket(2));
        assert!(found.hints.is_empty());
        let Some(Command::List { group, ticket, .. }) = found.again else {
            panic!("nothing asked");
        };
        assert_eq!((&*group, ticket), (DEFAULT_GROUP, Ticket(2)));
        let found = hints.answered(ticket, Some(outcome(&["orders"])), Ticket(3));
        assert!(found.hints[0].1.contains("DEFAULT_GROUP has"));
    }

    #[test]
    fn a_read_that_fails_leaves_no_hint_and_nothing_behind() {
        let mut hints = Hints::default();
        hints.ask(&key("", "a"), Ticket(1));
        let found = hints.answered(Ticket(1), None, Ticket(2));
        assert!(found.hints.is_empty() && hints.reads.is_empty());
        assert!(hints.ask(&key("", "a"), Ticket(3)).is_some());
    }
}
