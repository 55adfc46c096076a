use std::{fmt, str::FromStr};

/// Where a subscription's first set comes from: see [`ClientBuilder::start_from`](super::ClientBuilder::start_from).
///
/// Example: [a client with a cache](crate::client)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartFrom {
    /// The registry alone. What is in the folder of the cache is written, and read by nobody; so a
    /// process that starts while the registry is away knows no instance. The default.
    #[default]
    Registry,
    /// The cache, at once, where it has the service and there is no connection yet, and the registry as
    /// soon as it answers; its first list is judged by what the cache has, whichever comes first.
    CacheThenRegistry,
    /// The cache, and nothing else: no registry is connected to, nothing can be registered, and nothing
    /// is written. For a look at what a process would start with, and for sites that are cut off.
    CacheOnly,
}

/// Why a client that starts from the cache only does nothing else.
pub(super) const OFFLINE: &str = "no registry is asked, since `start_from` is `CacheOnly`";

/// The words for data: files, URLs, variables.
const WORDS: [(&str, StartFrom); 3] = [
    ("registry", StartFrom::Registry),
    ("cache_then_registry", StartFrom::CacheThenRegistry),
    ("cache_only", StartFrom::CacheOnly),
];

impl StartFrom {
    /// Whether files are read.
    pub(super) const fn reads(self) -> bool {
        !matches!(self, Self::Registry)
    }

    /// Whether there is a registry, and what it says is kept.
    pub(super) const fn asks(self) -> bool {
        !matches!(self, Self::CacheOnly)
    }
}

impl fmt::Display for StartFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WORDS.iter().find(|(_, value)| value == self);
        f.write_str(word.map_or("registry", |(word, _)| word))
    }
}

impl FromStr for StartFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value = WORDS.iter().find(|(word, _)| *word == text);
        value.map(|(_, value)| *value).ok_or_else(|| {
            let words = WORDS.map(|(word, _)| word).join(", ");
            format!("{text:?} is none of {words}")
        })
    }
}
