//! Which services there are, kept in step: the copy of a list of names, as the files beside this are
//! copies of lists of instances.
//!
//! | file | idea |
//! |---|---|
//! | `presence` | what of what came is believed, and when: a machine of values and time |
//! | `names` | what readers see: a sorted list that never changes |
//! | `shared` | where the newest one is published |
//! | `list`, `changes` | handles for readers, and the stream of differences |
//! | `writer` | the one who writes it, and tells the log |

mod changes;
mod list;
mod names;
mod presence;
mod shared;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use self::writer::{ListWriter, service_list};
pub use self::{
    changes::{ServiceChange, ServiceChanges},
    list::ServiceList,
    names::ServiceNames,
};
