//! A client under test, and what must hold of it after every step.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tower_nacos::{
    directory::{Entry, Origin, Snapshot, Status, Subscription},
    model::{Address, Instance, ServiceKey},
    simulation::{Call, Note, SimClient, SimLink},
};

use crate::{
    disk::Disk,
    gates::Gates,
    lists::Listed,
    network::{MS, SEC, Wire},
};

/// What came to a client in this step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Came {
    Stream(SimLink),
    Answer(SimLink, Call),
    /// A list that waited for a file.
    Late(SimLink),
    /// What a file had.
    File,
    Other,
}

pub(crate) struct Client {
    pub(crate) unit: SimClient,
    pub(crate) wires: BTreeMap<SimLink, Wire>,
    pub(crate) subs: BTreeMap<usize, Watched>,
    /// The lists of services that it keeps, by filter.
    pub(crate) lists: BTreeMap<usize, Listed>,
    pub(crate) disk: Disk,
    /// What it wants published, by service.
    pub(crate) publishes: BTreeMap<usize, Vec<Instance>>,
    /// What of that a server confirmed last: it stands if what is asked for instead is refused.
    pub(crate) confirmed: BTreeMap<usize, Vec<Instance>>,
    /// Whether a server refused something for good: the next connection asks again.
    pub(crate) refused: bool,
    /// The connection in use.
    current: Option<SimLink>,
    /// Operations that nobody has answered, and since when.
    pub(crate) tickets: BTreeMap<u64, (Instant, Ticket)>,
    pub(crate) connected: bool,
    pub(crate) closed: bool,
    pub(crate) offline_since: Instant,
    /// When each call was sent.
    pub(crate) sent: BTreeMap<Call, Instant>,
    pub(crate) persistent: Persistent,
    pub(crate) lag: Duration,
    /// When it was slow last.
    pub(crate) slow_until: Instant,
    /// Partitioned from each server until then.
    pub(crate) blocked: BTreeMap<usize, Instant>,
    /// When something last happened to its connections or their speed.
    pub(crate) disturbed: Instant,
    /// The newest connection that a list came on.
    last_list: Option<SimLink>,
    second: u64,
    steps: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Ticket {
    Register(usize, Vec<Instance>),
    Deregister,
    Query,
    Persist(bool),
}

/// A client's persistent instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Persistent {
    /// Whether its server has it, if anybody knows.
    pub(crate) known: Option<bool>,
    pub(crate) pending: bool,
    /// What is pending may be answered by a server that is no more.
    spoiled: bool,
    /// When it was last dealt with.
    pub(crate) last: Instant,
}

impl Persistent {
    /// Another server is there, which knows nothing of it.
    pub(crate) const fn replaced(&mut self) {
        self.known = None;
        self.spoiled = self.pending;
    }
}

/// A subscription and what was seen of it.
pub(crate) struct Watched {
    pub(crate) key: ServiceKey,
    pub(crate) sub: Subscription,
    gates: Gates,
    last: Arc<Snapshot>,
    /// What pushes removed, and when.
    removed: BTreeMap<Address, Instant>,
    /// The last push of this service, on this connection.
    pushed: Option<(SimLink, Instant)>,
    /// What is held, and since when.
    held: BTreeMap<Address, Instant>,
    /// When a list last came.
    heard: Option<Instant>,
    /// What the last answer listed, and on which connection, if no push came since. A push that was
    /// sent before that answer may still be under way, and pushes count in the order of their
    /// arrival.
    answered: Option<(SimLink, BTreeSet<Address>)>,
    /// The connection that the last list came on, when its first came, and who was listed on it.
    heard_on: Option<(SimLink, Instant)>,
    listed: BTreeSet<Address>,
    /// Who is callable by what its file has.
    found: Vec<Address>,
}

impl Came {
    /// A list that came in this step on `link`, or before it.
    const fn by(self, link: SimLink) -> Self {
        match self {
            Self::Stream(_) | Self::Answer(..) => self,
            _ => Self::Late(link),
        }
    }
}

impl Watched {
    pub(crate) fn found(&mut self, callable: Vec<Address>) {
        self.found = callable;
    }

    pub(crate) fn new(key: ServiceKey, sub: Subscription) -> Self {
        Self {
            key,
            last: sub.snapshot(),
            gates: Gates::new(&sub),
            sub,
            removed: BTreeMap::new(),
            pushed: None,
            held: BTreeMap::new(),
            heard: None,
            answered: None,
            heard_on: None,
            listed: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    /// The set in a line, what is held in brackets and what may not be called struck.
    pub(crate) fn tell(&self) -> String {
        let tell = |entry: &Entry| {
            let address = entry.instance().address();
            match (entry.is_held(), entry.standing().is_callable()) {
                (true, _) => format!("[{address}]"),
                (false, true) => address.to_string(),
                (false, false) => format!("-{address}-"),
            }
        };
        let snapshot = self.sub.snapshot();
        let told: Vec<String> = snapshot.entries().iter().map(tell).collect();
        format!("revision {}: {}", snapshot.revision(), told.join(" "))
    }

    /// What would be written to disk: the set, unless somebody in it is held.
    pub(crate) fn kept(&self) -> Option<Vec<Instance>> {
        let snapshot = self.sub.snapshot();
        let certain = snapshot.is_known() && !snapshot.entries().iter().any(Entry::is_held);
        let all = snapshot.entries().iter();
        let all = all.map(|entry| Instance::clone(entry.instance()));
        certain.then(|| all.collect())
    }

    pub(crate) fn callable(&self) -> Vec<Address> {
        let snapshot = self.sub.snapshot();
        let callable = snapshot.callable();
        callable.map(|e| e.instance().address().clone()).collect()
    }
}

/// The most a client may do in a second of virtual time.
const STEPS_A_SECOND: u32 = 600;
/// Nobody waits longer than this for nothing: a safety read, with its 20 %.
const LONGEST_WAIT: Duration = Duration::from_secs(73);
/// How long what is held stays without the list growing, and in any case.
const HOLD: Duration = Duration::from_secs(60);
const HOLD_LIMIT: Duration = Duration::from_secs(180);
/// Whoever is missing from the first list of a connection is held for so long at least.
const BRIEF_HOLD: Duration = Duration::from_secs(3);
/// How long a list may wait for a file.
const WAITED: Duration = Duration::from_millis(500);
const LAG: Duration = Duration::from_secs(3);
const READ_GUARD: Duration = Duration::from_secs(1);

impl Client {
    pub(crate) fn new(unit: SimClient, lag: Duration, disk: Disk, now: Instant) -> Self {
        Self {
            unit,
            wires: BTreeMap::new(),
            subs: BTreeMap::new(),
            lists: BTreeMap::new(),
            disk,
            publishes: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            refused: false,
            current: None,
            tickets: BTreeMap::new(),
            connected: false,
            closed: false,
            offline_since: now,
            sent: BTreeMap::new(),
            persistent: Persistent {
                known: None,
                pending: false,
                spoiled: false,
                last: now,
            },
            lag,
            slow_until: now,
            blocked: BTreeMap::new(),
            disturbed: now,
            last_list: None,
            second: 0,
            steps: 0,
        }
    }

    pub(crate) fn open_links(&self) -> impl Iterator<Item = (&SimLink, &Wire)> {
        self.wires.iter().filter(|(_, wire)| wire.is_open())
    }

    /// Takes in what the client noted, and checks what must hold. `serving` says which addresses
    /// of a service are alive, callable and were so for a while; `surely`, whether the server in use
    /// has listed an address for so long that this client knows.
    pub(crate) fn check(
        &mut self,
        came: Came,
        notes: &[Note],
        now: Instant,
        elapsed: Duration,
        serving: impl Fn(usize) -> BTreeSet<Address>,
        surely: impl Fn(usize, &Address) -> bool,
    ) -> Result<(), String> {
        self.no_spin(elapsed)?;
        self.one_transport_but_in_a_reset()?;
        for note in notes {
            match note {
                Note::Listed { key, origin, link } => {
                    self.listed(came.by(*link), key, *origin, now)?;
                }
                Note::Restored { .. } => {}
                Note::Done { ticket, result } => self.done(*ticket, result.is_ok(), now)?,
                Note::Connected(_) => {
                    self.connected = true;
                    self.current = self.open_links().last().map(|(link, _)| *link);
                }
                Note::Connecting(_) => {
                    self.current = None;
                    if std::mem::take(&mut self.connected) {
                        self.offline_since = now;
                    }
                }
                Note::Closed => {
                    self.connected = false;
                    self.closed = true;
                }
                Note::Failed { retries, .. } | Note::ServicesFailed { retries, .. } => {
                    self.refused |= !retries;
                }
            }
        }
        ensure(self.unit.subscribed() == self.subs.len(), || {
            format!("{} copies are open", self.unit.subscribed())
        })?;
        self.waits_are_bounded(now)?;
        for (service, watched) in &mut self.subs {
            let listed: Vec<(Origin, SimLink)> = notes
                .iter()
                .filter_map(|note| match note {
                    Note::Listed { key, origin, link } if *key == watched.key => {
                        Some((*origin, *link))
                    }
                    _ => None,
                })
                .collect();
            let restored =
                |note: &Note| matches!(note, Note::Restored { key } if *key == watched.key);
            let came = match listed.first() {
                Some((_, link)) => came.by(*link),
                None if notes.iter().any(restored) => Came::File,
                None => came,
            };
            watched.check(
                came,
                &listed,
                now,
                || serving(*service),
                |address| surely(*service, address),
            )?;
            let claims = matches!(watched.sub.status(), Status::Fresh | Status::Held { .. });
            let heard_on = watched.heard_on.map(|(link, _)| link);
            self.disk.note(watched, now);
            ensure(
                !claims || heard_on.is_some() && heard_on == self.current,
                || {
                    format!(
                        "{} is {} by what came on {heard_on:?}, and {:?} is in use",
                        watched.key,
                        watched.sub.status(),
                        self.current
                    )
                },
            )?;
        }
        Ok(())
    }

    fn no_spin(&mut self, elapsed: Duration) -> Result<(), String> {
        if self.second != elapsed.as_secs() {
            self.second = elapsed.as_secs();
            self.steps = 0;
        }
        self.steps += 1;
        ensure(self.steps <= STEPS_A_SECOND, || {
            format!("it spins: {} steps in a second", self.steps)
        })
    }

    fn waits_are_bounded(&self, now: Instant) -> Result<(), String> {
        match self.unit.poll_timeout() {
            None => ensure(self.closed, || "it waits for nothing".to_owned()),
            Some(at) => ensure(at <= now + LONGEST_WAIT, || {
                format!("it sleeps for {:?}", at - now)
            }),
        }
    }

    fn one_transport_but_in_a_reset(&self) -> Result<(), String> {
        let open: Vec<_> = self.open_links().collect();
        match open[..] {
            [] | [_] => Ok(()),
            [(_, old), _] if old.reset => Ok(()),
            _ => Err(format!("{} transports: {open:?}", open.len())),
        }
    }

    fn listed(
        &mut self,
        came: Came,
        key: &ServiceKey,
        origin: Origin,
        now: Instant,
    ) -> Result<(), String> {
        let (Came::Stream(link) | Came::Answer(link, _) | Came::Late(link)) = came else {
            return Err(format!("a list of {key} came from nowhere"));
        };
        ensure(self.last_list.is_none_or(|last| last <= link), || {
            format!("a list of {key} came on a former connection")
        })?;
        if self.last_list != Some(link) {
            self.last_list = Some(link);
            for watched in self.subs.values_mut() {
                watched.pushed = None;
            }
        }
        let Some(watched) = self.subs.values_mut().find(|w| w.key == *key) else {
            return Ok(());
        };
        match came {
            Came::Stream(link) => watched.pushed = Some((link, now)),
            Came::Answer(link, call) if origin == Origin::Read => {
                let sent = self.sent.get(&call).copied().unwrap_or(now);
                if let Some((on, pushed)) = watched.pushed
                    && on == link
                    && pushed + READ_GUARD >= sent
                {
                    return Err(format!(
                        "a read of {key}, sent {:?} before now, was believed although a push came {:?} before now",
                        now - sent,
                        now - pushed
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a later registration has no answer yet: what was superseded may have named the same.
    fn is_registering(&self, service: usize) -> bool {
        let mut pending = self.tickets.values();
        pending.any(|(_, what)| matches!(what, Ticket::Register(of, _) if *of == service))
    }

    fn done(&mut self, ticket: u64, ok: bool, now: Instant) -> Result<(), String> {
        let Some((_, what)) = self.tickets.remove(&ticket) else {
            return Err(format!("ticket {ticket} was done twice"));
        };
        if let Ticket::Persist(on) = what {
            let known = ok && !self.persistent.spoiled;
            self.persistent = Persistent {
                known: known.then_some(on),
                pending: false,
                spoiled: false,
                last: now,
            };
        }
        if let Ticket::Register(service, instances) = what
            && self.publishes.contains_key(&service)
        {
            if ok {
                self.confirmed.insert(service, instances);
            } else if self.publishes[&service] == instances && !self.is_registering(service) {
                match self.confirmed.get(&service) {
                    Some(before) => self.publishes.insert(service, before.clone()),
                    None => self.publishes.remove(&service),
                };
            }
        }
        Ok(())
    }
}

impl Watched {
    fn check(
        &mut self,
        came: Came,
        listed: &[(Origin, SimLink)],
        now: Instant,
        serving: impl Fn() -> BTreeSet<Address>,
        surely: impl Fn(&Address) -> bool,
    ) -> Result<(), String> {
        let origin = listed.first().map(|(origin, _)| *origin);
        if origin.is_some() {
            self.heard = Some(now);
        }
        self.nobody_in_the_file_is_evicted_by_a_first_list(listed)?;
        if let (Came::Stream(link) | Came::Answer(link, _) | Came::Late(link), Some(_)) =
            (came, origin)
            && self.heard_on.is_none_or(|(on, _)| on != link)
        {
            // A hold counts from when the list came, which may have waited for a file since.
            let late = matches!(came, Came::Late(_)).then(|| now.checked_sub(WAITED));
            self.heard_on = Some((link, late.flatten().unwrap_or(now)));
            self.listed.clear();
        }
        let next = self.sub.snapshot();
        if matches!(self.sub.status(), Status::Held { .. }) {
            ensure(
                self.heard.is_none_or(|heard| now <= heard + HOLD + MS),
                || "something is held a minute after the last list".to_owned(),
            )?;
            for (address, since) in &self.held {
                ensure(now <= *since + HOLD_LIMIT + MS, || {
                    format!("{address} is held since {:?}", now - *since)
                })?;
            }
        }
        let answered = match (came, origin) {
            (Came::Stream(link), Some(_)) => self.answered.take().filter(|(on, _)| *on == link),
            _ => None,
        };
        if let (Came::Answer(link, _), Some(_)) = (came, origin) {
            let listed = next.entries().iter().filter(|entry| !entry.is_held());
            let listed = listed.map(|entry| entry.instance().address().clone());
            self.answered = Some((link, listed.collect()));
        }
        let listed = next.entries().iter().filter(|entry| !entry.is_held());
        self.listed
            .extend(listed.map(|entry| entry.instance().address().clone()));
        if Arc::ptr_eq(&next, &self.last) {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.last, Arc::clone(&next));
        self.nobody_is_evicted_by_a_restart(&before, &next, now)?;
        self.gates.check(&next)?;
        for entry in before.callable() {
            let address = entry.instance().address();
            ensure(next.find(address).is_some() || !surely(address), || {
                format!(
                    "{address} is evicted ({came:?}, {origin:?}) although the server has told of it"
                )
            })?;
        }
        ensure(next.revision() > before.revision(), || {
            format!("revision {} after {}", next.revision(), before.revision())
        })?;
        for gone in before.entries() {
            let address = gone.instance().address();
            if next.find(address).is_none() && matches!(came, Came::Stream(_)) {
                self.removed.insert(address.clone(), now);
            }
        }
        for entry in next.callable() {
            let address = entry.instance().address();
            if before.find(address).is_some() {
                continue;
            }
            let removed = self.removed.remove(address);
            if let (Some(at), Came::Answer(..), Some(Origin::FirstAnswer)) = (removed, came, origin)
            {
                ensure(now >= at + LAG, || {
                    format!(
                        "{address}, removed by a push {:?} ago, was brought back by a first answer",
                        now - at
                    )
                })?;
            }
            ensure(came != Came::Other, || {
                format!("{address} came from nowhere")
            })?;
        }
        if next.callable_len() == 0 && before.callable_len() > 0 {
            let serving = serving();
            let lost = before
                .callable()
                .map(|entry| entry.instance().address())
                .find(|address| {
                    let answered = answered.as_ref();
                    let older = answered.is_some_and(|(_, listed)| listed.contains(*address));
                    serving.contains(*address) && !older
                });
            if let Some(lost) = lost {
                return Err(format!(
                    "nothing is callable although {lost} serves ({came:?}, {origin:?})"
                ));
            }
        }
        let mut held = BTreeMap::new();
        for entry in next.entries().iter().filter(|entry| entry.is_held()) {
            let address = entry.instance().address();
            let since = self.held.get(address).copied().unwrap_or(now);
            held.insert(address.clone(), since);
        }
        self.held = held;
        Ok(())
    }

    /// Whom the file has, and who is missing from the list that comes first, stays for a moment.
    fn nobody_in_the_file_is_evicted_by_a_first_list(
        &mut self,
        listed: &[(Origin, SimLink)],
    ) -> Result<(), String> {
        // Of several that waited the last one counts, and who left between them has.
        if self.heard_on.is_some() || listed.is_empty() {
            return Ok(());
        }
        let found = std::mem::take(&mut self.found);
        let next = self.sub.snapshot();
        let gone = found.iter().find(|address| next.find(address).is_none());
        ensure(listed.len() > 1 || gone.is_none(), || {
            format!(
                "{gone:?} is in the file, and evicted by the first list: {}",
                self.tell()
            )
        })
    }

    /// Who was callable before this connection and is not listed on it yet stays for a moment.
    fn nobody_is_evicted_by_a_restart(
        &self,
        before: &Snapshot,
        next: &Snapshot,
        now: Instant,
    ) -> Result<(), String> {
        let Some((link, first)) = self.heard_on.filter(|(_, at)| now < *at + BRIEF_HOLD) else {
            return Ok(());
        };
        for entry in before.callable() {
            let address = entry.instance().address();
            let spent = self.held.get(address);
            let spent = spent.is_some_and(|since| now + MS >= *since + HOLD_LIMIT);
            let evicted = next.find(address).is_none() && !self.listed.contains(address);
            ensure(spent || !evicted, || {
                format!(
                    "{address} is evicted {:?} after the first list of {link:?}, which never listed it",
                    now - first
                )
            })?;
        }
        Ok(())
    }
}

pub(crate) fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

/// A connection must stand this long after the last fault. A half-dead one is found within 18 s,
/// an attempt that was under way takes up to 11 s, one to a lost server 4 s.
pub(crate) const RECONNECTED: Duration = SEC.saturating_mul(45);

/// A client that is not connected is within this time of every server that is not lost being
/// there: an attempt that began before hangs for 11 s at most.
pub(crate) const FOUND: Duration = SEC.saturating_mul(18);
