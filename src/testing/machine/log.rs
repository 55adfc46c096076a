use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use super::{ConnId, Frame, ServiceId};

/// How a message came.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Via {
    /// A call of `/Request/request`.
    Unary,
    /// The stream of `/BiRequestStream/requestBiStream`.
    Stream,
}

/// A message that a client sent.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Received {
    /// Its number: rises by one with each message, through all connections.
    pub number: u64,
    /// When it came.
    pub at: Instant,
    /// From whom.
    pub conn: ConnId,
    /// How.
    pub via: Via,
    /// What.
    pub frame: Frame,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) received: VecDeque<Received>,
    pub(super) counts: BTreeMap<(String, ConnId), u64>,
    pub(super) pushed: BTreeMap<ServiceId, (u64, Instant)>,
    pub(super) setups: u64,
    pub(super) detections: u64,
    number: u64,
}

impl Log {
    pub(super) fn received(
        &mut self,
        conn: ConnId,
        via: Via,
        frame: &Frame,
        at: Instant,
        limit: usize,
    ) {
        *self.counts.entry((frame.kind.clone(), conn)).or_default() += 1;
        self.number += 1;
        if self.received.len() >= limit {
            self.received.pop_front();
        }
        if limit > 0 {
            self.received.push_back(Received {
                number: self.number,
                at,
                conn,
                via,
                frame: frame.clone(),
            });
        }
    }

    pub(super) fn pushed(&mut self, service: &ServiceId, copies: u64, at: Instant) {
        let entry = self.pushed.entry(service.clone()).or_insert((0, at));
        *entry = (entry.0 + copies, at);
    }
}
