//! What a file holds: a line that says what it is, and the set in JSON.
//!
//! ```text
//! tower-nacos-cache 1 <checksum of the rest, 32 hex digits> <length of the rest>
//! {"namespace":"public","group":"DEFAULT_GROUP","name":"orders","heard":1764400000000, …}
//! ```

use std::{
    borrow::Cow,
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::checksum::checksum;
use crate::{
    directory::{Mode, Snapshot},
    model::{Address, Instance, Listing, ServiceKey},
};

const MAGIC: &str = "tower-nacos-cache";
/// Rises when an older reader would misread what is written. Fields may be added without.
const VERSION: u32 = 1;

/// What was kept of a service.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) listing: Listing,
    /// When it was last known to be what the registry says.
    pub(super) heard: SystemTime,
}

/// Why a file is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it is no file of this cache")]
    Foreign,
    #[error("it is damaged: {0}")]
    Torn(&'static str),
    #[error(
        "it was written by a newer version of this crate (format {0}, this one reads {VERSION})"
    )]
    Newer(u32),
    #[error("it is of another service")]
    OtherService,
    #[error("it is whole and cannot be read: {0}")]
    Unreadable(Box<str>),
}

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    group: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    /// Milliseconds of the wall clock since 1970.
    heard: u64,
    /// Whether the server's protection rule made health meaningless.
    protected: bool,
    #[serde(borrow)]
    instances: Vec<Kept<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    address: String,
    #[serde(borrow)]
    cluster: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    also_in: Vec<String>,
    weight: f64,
    healthy: bool,
    enabled: bool,
    ephemeral: bool,
    #[serde(borrow)]
    metadata: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// The bytes of the file of `key`. Who said that he goes offline is left out: he is gone by the time
/// that somebody reads it.
pub(super) fn encode(key: &ServiceKey, set: &Snapshot, heard: SystemTime) -> Vec<u8> {
    let entries = set.entries().iter().filter(|entry| !entry.leaving);
    let body = Body {
        namespace: (&**key.namespace()).into(),
        group: (&**key.group()).into(),
        name: (&**key.name()).into(),
        heard: since_epoch(heard),
        protected: set.mode() == Mode::Flagged,
        instances: entries.map(|entry| keep(entry.instance())).collect(),
    };
    // Texts, numbers and flags always can be written.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let mut bytes = format!(
        "{MAGIC} {VERSION} {:032x} {}\n",
        checksum([&*body]),
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

/// What `bytes`, found in the file of `key`, say.
pub(super) fn decode(key: &ServiceKey, bytes: &[u8]) -> Result<Record, Unusable> {
    if bytes.is_empty() {
        return Err(Unusable::Torn("it is empty"));
    }
    let end = bytes.iter().take(128).position(|byte| *byte == b'\n');
    let line = end.and_then(|end| std::str::from_utf8(&bytes[..end]).ok());
    let (Some(end), Some(line)) = (end, line) else {
        let begun = bytes.starts_with(MAGIC.as_bytes()) || MAGIC.as_bytes().starts_with(bytes);
        return Err(if begun {
            Unusable::Torn("its first line has no end")
        } else {
            Unusable::Foreign
        });
    };
    let mut words = line.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(Unusable::Foreign);
    }
    let version: Option<u32> = words.next().and_then(|word| word.parse().ok());
    match version.ok_or(Unusable::Torn("it names no version"))? {
        VERSION => {}
        other => return Err(Unusable::Newer(other)),
    }
    let body = &bytes[end + 1..];
    let sum = words.next().filter(|word| word.len() == 32);
    let sum = sum.and_then(|word| u128::from_str_radix(word, 16).ok());
    let length: Option<usize> = words.next().and_then(|word| word.parse().ok());
    if length != Some(body.len()) || words.next().is_some() {
        return Err(Unusable::Torn("it is not as long as it says"));
    }
    if sum != Some(checksum([body])) {
        return Err(Unusable::Torn("its checksum is another"));
    }
    let unreadable = |why: String| Unusable::Unreadable(why.into());
    let body: Body<'_> = serde_json::from_slice(body).map_err(|e| unreadable(e.to_string()))?;
    let named = [&body.namespace, &body.group, &body.name];
    let wanted = [key.namespace(), key.group(), key.name()];
    if named
        .iter()
        .zip(wanted)
        .any(|(is, wanted)| **is != **wanted)
    {
        return Err(Unusable::OtherService);
    }
    let instances = body.instances.into_iter().map(restore);
    let instances = instances
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    let heard = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(body.heard));
    Ok(Record {
        listing: Listing::new(instances).with_protected(body.protected),
        heard: heard.ok_or_else(|| unreadable("its time is out of range".to_owned()))?,
    })
}

fn keep(instance: &Instance) -> Kept<'_> {
    let pairs = instance.metadata().iter();
    Kept {
        address: instance.address().to_string(),
        cluster: (&**instance.cluster()).into(),
        also_in: instance.also_in().map(|name| name.to_string()).collect(),
        weight: instance.weight().get(),
        healthy: instance.is_healthy(),
        enabled: instance.is_enabled(),
        ephemeral: instance.is_ephemeral(),
        metadata: pairs.map(|(k, v)| (k.into(), v.into())).collect(),
    }
}

fn restore(kept: Kept<'_>) -> Result<Instance, String> {
    let address: Address = kept.address.parse().map_err(|e| format!("{e}"))?;
    let pairs = kept.metadata.into_iter();
    Ok(Instance::new(address)
        .with_cluster(&*kept.cluster)
        .with_also_in(kept.also_in.into_iter().map(Into::into).collect())
        .with_weight(kept.weight)
        .with_healthy(kept.healthy)
        .with_enabled(kept.enabled)
        .with_ephemeral(kept.ephemeral)
        .with_metadata(
            pairs
                .map(|(k, v)| (k.into_owned(), v.into_owned()))
                .collect(),
        ))
}

fn since_epoch(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}
