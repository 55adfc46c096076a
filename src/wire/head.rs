//! What stands before the hosts in a message that carries a list.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::{
    body::Text,
    json::{after, blank, value},
    service_info::service_of,
};
use crate::model::ServiceName;

/// Whose list it is, and where that begins.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) service: ServiceName,
    /// Where the bracket stands that opens the array.
    pub(super) hosts: usize,
}

/// Goes through the first keys of `json` only. `None` for whatever no server is known to write: a key
/// that is escaped, a name behind the hosts, no array.
///
/// It need not be believed: who goes on from here has serde read the message, and compares.
pub(super) fn head(json: &[u8]) -> Option<Head> {
    let mut at = after(json, 0, b'{')?;
    loop {
        let (key, from) = key(json, at)?;
        if key == b"serviceInfo" {
            at = after(json, from, b'{')?;
            break;
        }
        at = after(json, skip(json, from)?, b',')?;
    }
    let (mut name, mut group) = (None, None);
    loop {
        let (key, from) = key(json, at)?;
        let end = match key {
            b"hosts" => {
                let hosts = after(json, from, b'[')? - 1;
                let name: Cow<'_, str> = name?;
                if group.is_none() && !name.contains("@@") {
                    return None; // it may come
                }
                let service = service_of(&name, group.as_deref()).ok()?;
                return Some(Head { service, hosts });
            }
            b"name" => {
                let (text, end) = value::<Text<'_>>(json, from)?;
                name = Some(text.0);
                end
            }
            b"groupName" => {
                let (text, end) = value::<Text<'_>>(json, from)?;
                group = Some(text.0);
                end
            }
            _ => skip(json, from)?,
        };
        at = after(json, end, b',')?;
    }
}

/// The key at `at`, as it is written, and where its value begins.
fn key(json: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let from = after(json, at, b'"')?;
    let len = json.get(from..)?.iter().position(|byte| *byte == b'"')?;
    let key = &json[from..from + len];
    if key.contains(&b'\\') {
        return None;
    }
    let value = after(json, from + len + 1, b':')?;
    Some((key, blank(json, value)))
}

fn skip(json: &[u8], at: usize) -> Option<usize> {
    value::<IgnoredAny>(json, at).map(|(_, end)| end)
}
