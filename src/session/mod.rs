//! The protocol machine between the typed messages and whoever drives it: connecting, choosing
//! servers, subscribing, publishing, and doing all of it again after a loss.
//!
//! Sans-io: [`Session`] takes what happened and a time, and says what to do. It draws from a
//! seeded generator, so the same history gives the same behaviour. Every wait in it has an end.
//!
//! | file | idea |
//! |---|---|
//! | `machine` | the contract, and what holds the parts together |
//! | `connect` | from no connection to a registered one |
//! | `dialer` | which server next, and when |
//! | `servers` | servers that are told while the session lives |
//! | `link` | an attempt, and a connection with its signs of life |
//! | `calls`, `answers` | unary calls under way, what an answer says of the connection |
//! | `stream` | what servers send by themselves |
//! | `asked`, `kind` | which item and what is asked for it; what a kind answers: what next, what an answer means |
//! | `item`, `items` | the life of every item, written once: one table, one queue |
//! | `wishes` | what is wanted of servers, and no longer wanted |
//! | `subscriptions`, `publications`, `reads` | the kinds: wanted against confirmed |
//! | `pages` | one reading of names, page by page |
//! | `names` | the kind that tells which services there are: as the server tells it, or by pages |
//! | `lists` | which of the lists that come are passed on |
//! | `own` | addresses of this machine, found as they are registered |
//! | `pace` | how quickly the server answers and tells |
//! | `close` | the end that the user asked for |
//! | `effort` | how one item stands with the connection, and its retries |
//! | `late` | unanswered requests that may be carried out after what was asked next |
//! | `timers` | everything that is waited for |

mod answers;
mod asked;
mod calls;
mod close;
mod config;
mod connect;
mod dialer;
mod effort;
mod error;
mod event;
mod item;
mod items;
mod kind;
mod late;
mod link;
mod lists;
mod machine;
mod names;
mod own;
mod pace;
mod pages;
mod publications;
mod reads;
mod remains;
mod servers;
mod stream;
mod subscriptions;
mod timers;
mod wishes;

pub(crate) use self::{
    config::{Config, Server},
    error::{CallFailure, DialError, OperationError},
    event::{
        CallId, Command, LinkId, Names, Operation, Outcome, Output, Placed, SessionCounters,
        SessionState, Ticket, Trouble,
    },
    machine::Session,
    pages::is_over,
    timers::Timers,
};

#[cfg(feature = "status")]
pub(crate) use self::pace::{Lately, Pace};

#[cfg(test)]
mod tests;
