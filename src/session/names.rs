//! Which services there are, by a filter: told by the server where it can, else read page by page.

use std::{
    collections::BTreeSet,
    mem,
    time::{Duration, Instant},
};

use super::{
    asked::Asked,
    config::Config,
    dialer::around,
    error::OperationError,
    event::{Names, Output, Trouble},
    kind::{Context, Next, Then},
    pages::{PAGE, Pass, Reading},
};
use crate::{
    model::{MOST_SERVICES, ServiceFilter, ServiceName},
    wire::{Answer, FuzzySync, Request, WatchedService},
};

/// The services that a filter takes, which are wanted, or were until a moment ago.
#[derive(Debug)]
pub(super) struct Watch {
    filter: ServiceFilter,
    wanted: bool,
    way: Way,
    /// Whether the server may hold a watch of ours on this connection.
    watched: bool,
    /// What the server has, as far as it has told: on this connection, and before that on others.
    known: BTreeSet<ServiceName>,
    /// Whether the server has yet to say that it told everything.
    syncing: bool,
    /// What it told by itself since it was asked: newer than what the batches say, which are made
    /// when it is asked and come a second later.
    news: BTreeSet<ServiceName>,
    /// Whether it was asked again before it had told everything: which of them a batch belongs to it
    /// does not say, so what it told by itself since the first stays newer until it is asked once more.
    overlap: bool,
    /// How often in a row it did not say so.
    unfinished: u32,
    pass: Pass,
    /// Passes in a row that do not add up.
    uneven: u32,
    /// Not before this; at once if there is none.
    due: Option<Instant>,
    /// When everything was asked for last.
    asked: Option<Instant>,
}

/// How the server is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Told,
    Pages,
    /// It cannot, for this reason.
    Not(&'static str),
}

/// How long a server may take to tell everything. Batches of ten, each acknowledged, and 500 names
/// at most; the first came after 1.1 s and the end 0.6 s later (3.0.3).
const SYNC: Duration = Duration::from_secs(30);

/// How often everything is asked for although changes are told, as Nacos's Java client does: beyond
/// its limits a server leaves changes out and does not say so.
const RESYNC: Duration = Duration::from_secs(180);

/// What cannot be read brings a sync, but not more often than this.
const LEAST: Duration = Duration::from_secs(10);

/// So often a server may begin to tell and not end before it is asked for pages.
const TRIES: u32 = 3;

/// The handler is unknown: no fuzzy watch after all.
const UNKNOWN_TYPE: i32 = 302;
/// As many patterns are watched as the server allows, by all of its clients.
const TOO_MANY_PATTERNS: i32 = 50310;
/// The pattern takes more services than the server allows: it tells of that many only.
const TOO_MANY_MATCHES: i32 = 50311;

const ONE_GROUP: &str = "this server lists the services of one group at a time: name the group \
    in the filter, or use a server with fuzzy watch (Nacos 3.0 and later)";
const OVER_LIMIT: &str = "the server's limit of fuzzy watches is reached, and without one it \
    lists the services of one group at a time: name the group in the filter, or raise \
    nacos.naming.fuzzy.watch.max.pattern.count or .max.pattern.match.service.count on the server";
const UNFINISHED: &str = "the server begins to tell and does not end, and without fuzzy watch it \
    lists the services of one group at a time: name the group in the filter";

impl Watch {
    pub(super) fn new(filter: ServiceFilter, told: bool) -> Self {
        Self {
            way: Way::of(&filter, told),
            filter,
            wanted: true,
            watched: false,
            known: BTreeSet::new(),
            syncing: false,
            news: BTreeSet::new(),
            overlap: false,
            unfinished: 0,
            pass: Pass::default(),
            uneven: 0,
            due: None,
            asked: None,
        }
    }

    /// Somebody wants to know. What is known is what the server need not tell again.
    pub(super) fn want(&mut self) {
        if !mem::replace(&mut self.wanted, true) {
            self.begin();
        }
    }

    /// Nobody does any longer.
    pub(super) fn drop_wish(&mut self) {
        self.wanted = false;
        self.pass = Pass::default();
    }

    fn begin(&mut self) {
        self.syncing = false;
        self.news.clear();
        self.overlap = false;
        self.unfinished = 0;
        self.pass = Pass::default();
        self.uneven = 0;
        self.due = None;
        self.asked = None;
    }

    /// The connection is another, and perhaps one of a server that tells by itself.
    pub(super) fn lost(&mut self, told: bool) {
        self.begin();
        self.watched = false;
        self.way = Way::of(&self.filter, told);
    }

    /// What came of it cannot be read: everything is asked for again, now and then.
    pub(super) fn was_unreadable(&mut self, now: Instant) {
        if self.way == Way::Told {
            let due = self.asked.map_or(now, |at| at + LEAST);
            self.due = Some(self.due.map_or(due, |at| at.min(due)));
        }
    }

    pub(super) fn next(&self, now: Instant) -> Next {
        if self.watched && (!self.wanted || self.way != Way::Told) {
            return Next::Ask(Asked::Watch(false));
        }
        match self.due {
            _ if !self.wanted => Next::Over,
            Some(at) if at > now => Next::Wait(at),
            _ if self.way == Way::Told => Next::Ask(Asked::Watch(true)),
            _ => Next::Ask(Asked::Page),
        }
    }

    pub(super) fn request(
        &mut self,
        asked: Asked,
        config: &Config,
        now: Instant,
    ) -> Result<Request, OperationError> {
        let namespace = config.namespace.clone();
        if let Asked::Watch(watch) = asked {
            let mut received = Vec::new();
            if watch {
                if self.syncing {
                    self.unfinished += 1;
                    self.overlap = true;
                } else {
                    self.news.clear();
                    self.overlap = false;
                }
                if self.unfinished >= TRIES {
                    return Err(OperationError::Unlistable(UNFINISHED));
                }
                self.asked = Some(now);
                self.syncing = true;
                received.extend(self.known.iter().cloned());
            }
            let filter = self.filter.clone();
            return Ok(Request::FuzzyWatch {
                namespace,
                filter,
                received,
                watch,
            });
        }
        let group = match (self.way, self.filter.one_group()) {
            (Way::Not(why), _) => return Err(OperationError::Unlistable(why)),
            (_, Some(group)) => group.clone(),
            (_, None) => return Err(OperationError::Unlistable(ONE_GROUP)),
        };
        Ok(Request::List {
            namespace,
            group,
            page: self.pass.next(),
            page_size: PAGE,
        })
    }

    pub(super) fn answered(
        &mut self,
        asked: Asked,
        verdict: Result<Answer, OperationError>,
        cx: &mut Context<'_>,
    ) -> Then {
        match (asked, verdict) {
            (Asked::Watch(true), Ok(_)) => {
                self.watched = true;
                if self.syncing {
                    self.due = Some(cx.now + SYNC);
                }
                Then::Settled
            }
            (Asked::Watch(true), Err(error)) => {
                self.syncing = false; // it may come all the same, and is taken then
                self.not_watched(error, cx)
            }
            (Asked::Watch(false), verdict) => {
                self.watched = false;
                match verdict {
                    Err(error) if error.is_asked_again() && !cx.closing && !self.wanted => {
                        self.watched = true;
                        Then::Failed(error)
                    }
                    // Whatever comes of one that could not be ended is passed over: pages do not
                    // wait for it.
                    _ => Then::Settled,
                }
            }
            (_, Ok(Answer::List { count, names })) => {
                if self.wanted {
                    self.page(count, &names, cx);
                }
                Then::Settled
            }
            (_, Ok(_)) => {
                let text = "it is of another type than was asked for".to_owned();
                Then::Failed(OperationError::Undecodable(text))
            }
            (_, Err(error)) => {
                self.pass = Pass::default(); // it was cut
                Then::Failed(error)
            }
        }
    }

    /// The server does not take the watch: pages instead, if that is what it says.
    fn not_watched(&mut self, error: OperationError, cx: &mut Context<'_>) -> Then {
        let (trouble, otherwise) = match &error {
            OperationError::Unlistable(_) => (Some(Trouble::Unfinished), UNFINISHED),
            OperationError::Refused(said) => match said.code {
                // It holds the watch, and tells of some.
                TOO_MANY_MATCHES => {
                    self.watched = true;
                    (Some(Trouble::TooManyMatches), OVER_LIMIT)
                }
                TOO_MANY_PATTERNS => (Some(Trouble::TooManyPatterns), OVER_LIMIT),
                UNKNOWN_TYPE => (None, ONE_GROUP),
                _ => return Then::Failed(error),
            },
            _ => {
                self.watched |= !error.is_refusal(); // it may
                return Then::Failed(error);
            }
        };
        self.due = None;
        self.way = Way::of(&self.filter, false);
        if let Way::Not(why) = &mut self.way {
            *why = otherwise;
        } else if let Some(trouble) = trouble {
            self.tell_trouble(trouble, cx);
        }
        Then::Anew
    }

    /// A batch of what the server has.
    pub(super) fn synced(&mut self, sync: FuzzySync, cx: &mut Context<'_>) {
        if self.way != Way::Told {
            return;
        }
        let mut new = Vec::new();
        for WatchedService {
            service, exists, ..
        } in sync.services
        {
            if !self.filter.matches(&service) || self.news.contains(&service) {
                continue;
            }
            if !exists {
                self.known.remove(&service); // told with the rest: it may only have been forgotten
            } else if self.learn(&service) {
                new.push(service);
            }
        }
        if !new.is_empty() {
            self.tell(Names::Some(new), cx);
        }
        if sync.is_finished {
            self.syncing = false;
            if !self.overlap {
                self.news.clear();
            }
            self.unfinished = 0;
            self.due = Some(around(cx.now, RESYNC, cx.rng));
            let names = self.known.clone();
            let certain = true;
            self.tell(Names::All { names, certain }, cx);
        }
    }

    /// A service came or went.
    pub(super) fn changed(&mut self, change: &WatchedService, cx: &mut Context<'_>) {
        let service = &change.service;
        if self.way != Way::Told || !self.filter.matches(service) {
            return;
        }
        if (self.syncing || self.overlap) && self.news.len() < MOST_SERVICES {
            self.news.insert(service.clone());
        }
        if change.exists {
            self.learn(service);
            self.tell(Names::Some(vec![service.clone()]), cx);
        } else {
            self.known.remove(service);
            self.tell(Names::Gone(service.clone()), cx);
        }
    }

    /// The server has this one. True if it is new; also beyond the most that is kept, so that who keeps
    /// the list can tell.
    fn learn(&mut self, service: &ServiceName) -> bool {
        if self.known.len() >= MOST_SERVICES {
            return !self.known.contains(service);
        }
        self.known.insert(service.clone())
    }

    pub(super) fn is_of(&self, namespace: &str, pattern: &str) -> bool {
        self.filter.within(namespace) == pattern
    }

    /// A page of names, and how many there are in all.
    fn page(&mut self, count: u64, names: &[String], cx: &mut Context<'_>) {
        let Some(group) = self.filter.one_group() else {
            return;
        };
        let before = self.pass.len();
        let mut new = self.pass.take(group, &self.filter, names);
        new.retain(|service| !self.known.contains(service));
        if !new.is_empty() {
            self.tell(Names::Some(new), cx);
        }
        let Some(Reading { names, came }) = self.pass.end(names.len(), before, count) else {
            return; // the next page, at once
        };
        let interval = cx.config.names_interval;
        if came == count {
            self.uneven = 0;
            self.due = Some(around(cx.now, interval, cx.rng));
            self.known.clone_from(&names);
            let certain = false;
            self.tell(Names::All { names, certain }, cx);
        } else {
            // Services came and went between two pages, or the server does not count right.
            self.uneven = self.uneven.saturating_add(1);
            let soon = interval / 10 * (1 << (self.uneven - 1).min(4));
            self.due = Some(around(cx.now, soon.min(interval), cx.rng));
            for service in &names {
                self.learn(service);
            }
            let names = came;
            if self.uneven >= TRIES {
                self.tell_trouble(Trouble::Uneven { count, names }, cx);
            }
        }
    }

    fn tell(&self, names: Names, cx: &mut Context<'_>) {
        if let Some(link) = cx.link {
            let filter = self.filter.clone();
            cx.outputs.push_back(Output::Services {
                link,
                filter,
                names,
            });
        }
    }

    fn tell_trouble(&self, trouble: Trouble, cx: &mut Context<'_>) {
        let filter = self.filter.clone();
        cx.outputs
            .push_back(Output::ServicesTrouble { filter, trouble });
    }

    pub(super) fn tell_failure(&self, error: OperationError, retries: bool) -> Output {
        Output::ServicesTrouble {
            filter: self.filter.clone(),
            trouble: Trouble::Failed { error, retries },
        }
    }
}

impl Way {
    fn of(filter: &ServiceFilter, told: bool) -> Self {
        match filter.one_group() {
            _ if told => Self::Told,
            Some(_) => Self::Pages,
            None => Self::Not(ONE_GROUP),
        }
    }
}
