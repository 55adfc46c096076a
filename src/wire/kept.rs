//! What the hosts of a service's last list were, and which instances they made.
//!
//! Of a list that comes most hosts say what they said last time. Those are found by a digest of their bytes and
//! give the same instance again, without being decoded: a push costs what it changes. What is equal to
//! a whole object that was read once is that object, so nobody need look where it ends or
//! whether it is valid; everything else is read by serde, by the same code as in a list that comes
//! for the first time.
//!
//! The price is memory: 32 bytes a host, besides what a vector has to spare. An equal instance that the directory has of
//! another list (from disk, or from before one that could not be read host by host) stays there beside the one here, until
//! it changes.

use std::{ops::Range, sync::Arc};

use serde_json::value::RawValue;

use super::{
    common::Common,
    equal::Digest,
    json::{after, blank, object_end, value, value_of},
    service_info::{RawHost, ServiceInfo},
    short::Short,
};
use crate::model::{Instance, Listing, Rejected};

/// The hosts of one service's last list. Of a long one each, of a short one, of which a process may have thousands,
/// only what tells whether it is the same.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    hosts: Option<Box<Hosts>>,
    short: Option<Box<Short>>,
}

#[derive(Debug, Default)]
struct Hosts {
    seen: Vec<Seen>,
    common: Common,
}

/// A host that was used.
#[derive(Debug)]
struct Seen {
    text: Digest,
    instance: Arc<Instance>,
}

/// A list that was read host by host.
#[derive(Debug)]
pub(super) struct Read {
    /// Where in the message it begins.
    at: usize,
    instances: Vec<Arc<Instance>>,
    rejected: Vec<Rejected>,
}

/// On the way through a list.
struct Reader<'a> {
    json: &'a [u8],
    /// Of the last list, without those that were found in this one.
    before: Vec<Option<Seen>>,
    /// Where the next host is expected among those.
    next: usize,
    /// Those by their digests, in order: made when somebody is not where it is expected.
    places: Option<Vec<(u64, u32)>>,
    /// Whether the last one that was not where it was expected was elsewhere.
    moved: bool,
    now: Vec<Seen>,
    /// The bytes that were digested last, which may be asked for again.
    digested: Option<(Range<usize>, Digest)>,
    /// How many bytes may still be digested of hosts of which it is not known where they end.
    guesses: usize,
    /// How many hosts serde read.
    read: usize,
    /// Once these are many: from where on the message is known to be UTF-8, and that.
    text: Option<(usize, &'a str)>,
    common: &'a mut Common,
    instances: Vec<Arc<Instance>>,
    rejected: Vec<Rejected>,
}

/// A message shorter than this is decoded as a whole, unless it is the same: to keep the bytes of small lists, of
/// which a process may have thousands, costs more than it saves. About 40 hosts.
pub(super) const WORTH: usize = 16 * 1024;
/// So many from the expected one on are tried before a host is decoded, or searched for: that so many
/// were removed in one place is cheap to find out.
const AHEAD: usize = 4;
/// Guesses digest so many times the message's bytes at most, lest small hosts be asked for ever whether they are the large
/// ones that stood there. A list in its order needs 1, one of which all changed about 2.
const GUESSES: usize = 3;
/// So many that have to be decoded let expect that most have: what is left is asked at once whether it is UTF-8.
const MANY: usize = 16;
/// So many hosts of one place are compared. More have equal bytes, or somebody's luck.
const SAME: usize = 4;

impl Kept {
    /// These came, by whatever way: what is kept is of no other list.
    pub(crate) fn listed(&mut self, instances: &[Arc<Instance>]) {
        self.hosts.take_if(|hosts| {
            let ours = hosts.seen.first().zip(instances.first());
            let is_it = ours.is_some_and(|(ours, first)| Arc::ptr_eq(&ours.instance, first));
            hosts.seen.len() != instances.len() || !is_it
        });
        if let Some(short) = self.short.take() {
            self.short = short.after(instances).map(Box::new);
        }
    }

    /// Reads the hosts whose array opens at `at` if they are word for word those of the last short list.
    pub(super) fn read_same(&self, json: &[u8], at: usize) -> Option<(Vec<u8>, Read)> {
        let (instances, end) = self.short.as_ref()?.read(json, at)?;
        Some(Read::new(json, at..end, instances, Vec::new()))
    }

    /// A short list was read as a whole: what its array says, which opens at `at` if it is anywhere.
    pub(super) fn note(&mut self, json: &[u8], at: Option<usize>, listing: &Listing) {
        self.hosts = None;
        let before = self.short.take();
        let short = at.and_then(|at| Short::of(json, at, listing, before.as_deref()));
        self.short = short.map(Box::new);
    }

    /// Reads the hosts whose array opens at `at`, and returns what is left of the message: it has an empty
    /// list in the same place. `None` if one of them cannot be read: nothing is known
    /// of the list then, and nothing is kept.
    pub(super) fn read(&mut self, json: &[u8], at: usize) -> Option<(Vec<u8>, Read)> {
        self.short = None;
        let hosts = self.hosts.get_or_insert_default();
        let before = std::mem::take(&mut hosts.seen);
        hosts.common.forget();
        let mut reader = Reader {
            json,
            next: 0,
            places: None,
            moved: false,
            digested: None,
            guesses: GUESSES * json.len(),
            read: 0,
            text: None,
            now: Vec::with_capacity(before.len() + AHEAD),
            instances: Vec::with_capacity(before.len() + AHEAD),
            before: before.into_iter().map(Some).collect(),
            common: &mut hosts.common,
            rejected: Vec::new(),
        };
        let end = reader.array(at)?;
        let Reader {
            now,
            instances,
            rejected,
            ..
        } = reader;
        hosts.seen = now;
        if hosts.seen.capacity() > 2 * hosts.seen.len() + AHEAD {
            hosts.seen.shrink_to_fit();
        }
        Some(Read::new(json, at..end, instances, rejected))
    }
}

/// What stands in the place of the hosts.
const EMPTY: &[u8] = b"[]";

impl Read {
    /// With what is left of the message without the `hosts`.
    fn new(
        json: &[u8],
        hosts: Range<usize>,
        instances: Vec<Arc<Instance>>,
        rejected: Vec<Rejected>,
    ) -> (Vec<u8>, Self) {
        let rest = [&json[..hosts.start], EMPTY, &json[hosts.end..]].concat();
        let read = Self {
            at: hosts.start,
            instances,
            rejected,
        };
        (rest, read)
    }

    /// The list, if `info`, which serde read from `rest`, has its hosts in the very place from which they
    /// were taken.
    pub(super) fn into_listing(
        self,
        rest: &[u8],
        info: &ServiceInfo<'_, &RawValue>,
    ) -> Option<Listing> {
        let hosts = info.hosts()?.get();
        let place = rest.get(self.at..)?.as_ptr();
        let is_it = std::ptr::eq(hosts.as_ptr(), place) && hosts.as_bytes() == EMPTY;
        is_it.then(|| info.listing(self.instances, self.rejected))
    }
}

impl Reader<'_> {
    /// Returns where the array ends.
    fn array(&mut self, at: usize) -> Option<usize> {
        let mut at = after(self.json, at, b'[')?;
        if let Some(end) = after(self.json, at, b']') {
            return Some(end);
        }
        loop {
            at = self.host(blank(self.json, at))?;
            match after(self.json, at, b',') {
                Some(next) => at = next,
                None => return after(self.json, at, b']'),
            }
        }
    }

    /// Returns where the host ends.
    fn host(&mut self, at: usize) -> Option<usize> {
        for place in self.next..self.next.saturating_add(AHEAD) {
            if let Some(end) = self.is_at(place, at) {
                self.found(place);
                return Some(end);
            }
        }
        let json = self.json;
        let rest = &json[at..];
        if self.moved
            && let Some(end) = object_end(json, at)
            && let Some(place) = self.place_of(at..end)
        {
            self.found(place);
            return Some(end);
        }
        self.read += 1;
        if self.read == MANY {
            let text = std::str::from_utf8(rest).ok();
            self.text = text.map(|text| (at, text));
        }
        let (host, end) = match self.text {
            Some((from, text)) => {
                let (host, end) = value_of::<RawHost<'_>>(text, at - from)?;
                (host, from + end)
            }
            None => value(json, at)?,
        };
        match host.into_instance(self.common) {
            Ok(instance) => self.decoded(instance, at..end),
            // Not kept: it is read, and refused, anew each time.
            Err(no) => self.rejected.push(no),
        }
        Some(end)
    }

    /// Where the host at `at` ends, if it is the one that stood there last time.
    fn is_at(&mut self, place: usize, at: usize) -> Option<usize> {
        let text = self.before.get(place)?.as_ref()?.text;
        let end = at.checked_add(text.len())?;
        // A digest costs more than this.
        if self.json.get(end - 1) != Some(&b'}') {
            return None;
        }
        let known = self
            .digested
            .as_ref()
            .is_some_and(|(of, _)| *of == (at..end));
        if !known {
            self.guesses = self.guesses.checked_sub(text.len())?;
        }
        (self.digest(at..end) == text).then_some(end)
    }

    fn digest(&mut self, of: Range<usize>) -> Digest {
        match &self.digested {
            Some((was, digest)) if *was == of => *digest,
            _ => {
                let digest = Digest::of(&self.json[of.clone()]);
                self.digested = Some((of, digest));
                digest
            }
        }
    }

    /// A host that is not where it is expected.
    fn decoded(&mut self, instance: Instance, at: Range<usize>) {
        let expected = self.before.get(self.next).and_then(Option::as_ref);
        let expected = expected.filter(|seen| seen.instance.address() == instance.address());
        let instance = match expected {
            Some(seen) if *seen.instance == instance => Arc::clone(&seen.instance),
            _ => Arc::new(instance),
        };
        if expected.is_some() {
            self.before[self.next] = None;
            self.next += 1;
            self.moved = false;
        } else if !self.moved
            && let Some(place) = self.place_of(at.clone())
        {
            self.moved = true;
            return self.found(place);
        } else {
            self.moved = false;
        }
        self.instances.push(Arc::clone(&instance));
        let text = self.digest(at);
        self.now.push(Seen { text, instance });
    }

    fn found(&mut self, place: usize) {
        if let Some(seen) = self.before[place].take() {
            self.instances.push(Arc::clone(&seen.instance));
            self.now.push(seen);
            self.next = place + 1;
        }
    }

    /// Where the host of exactly these bytes stood.
    fn place_of(&mut self, text: Range<usize>) -> Option<usize> {
        if self.before.is_empty() {
            return None; // a first list
        }
        let text = self.digest(text);
        let before = &self.before;
        let places = self.places.get_or_insert_with(|| places(before));
        let from = places.partition_point(|(other, _)| *other < text.place());
        let equal = places[from..].iter().take(SAME);
        let equal = equal.take_while(|(other, _)| *other == text.place());
        equal.map(|(_, place)| *place as usize).find(|place| {
            before[*place]
                .as_ref()
                .is_some_and(|seen| seen.text == text)
        })
    }
}

fn places(before: &[Option<Seen>]) -> Vec<(u64, u32)> {
    let seen = before.iter().zip(0..);
    let seen = seen.filter_map(|(seen, place)| Some((seen.as_ref()?.text.place(), place)));
    let mut places: Vec<_> = seen.collect();
    places.sort_unstable();
    places
}
