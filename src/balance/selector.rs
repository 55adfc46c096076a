use std::{fmt, sync::Arc};

use crate::{balance::stable_hash, model::Instance};

/// Metadata pairs that an instance must have, all of them: `version=gray`, say.
///
/// Make it once and clone it for each request: a clone allocates nothing. Order does not matter;
/// one key with two values matches nothing, since an instance has one value for a key.
///
/// ```
/// use tower_nacos::{Instance, balance::Selector};
///
/// let gray = Selector::new([("version", "gray")]);
/// assert!(!gray.matches(&Instance::parse("10.0.0.3:8080")?));
/// # Ok::<(), tower_nacos::model::InvalidAddress>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Sorted, each once.
    pairs: Arc<[Pair]>,
}

type Pair = (Box<str>, Box<str>);

/// Which instances a call is to go to, as far as tables are made for it: a cluster that comes
/// first, and pairs that all must have.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Of what follows, 0 if that is nothing.
    hash: u64,
    pub(super) cluster: Option<Arc<str>>,
    pub(super) selector: Option<Selector>,
    /// Of these an instance may match none.
    except: Arc<[Selector]>,
}

impl Selector {
    /// Of these pairs.
    pub fn new<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<Box<str>>,
        V: Into<Box<str>>,
    {
        let pairs = pairs.into_iter();
        Self::of(pairs.map(|(k, v)| (k.into(), v.into())).collect())
    }

    fn of(mut pairs: Vec<Pair>) -> Self {
        pairs.sort();
        pairs.dedup();
        Self {
            pairs: pairs.into(),
        }
    }

    /// What has the pairs of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self::of(self.pairs.iter().chain(&*other.pairs).cloned().collect())
    }

    /// Whether the instance has them all.
    pub fn matches(&self, instance: &Instance) -> bool {
        let metadata = instance.metadata();
        let mut pairs = self.pairs.iter();
        pairs.all(|(key, value)| metadata.get(key) == Some(value))
    }

    /// The pairs, sorted.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(k, v)| (&**k, &**v))
    }

    /// Whether there are no pairs, so that every instance matches.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The key that is asked to have two values, if one is.
    pub(super) fn contradiction(&self) -> Option<&str> {
        let mut neighbours = self.pairs.windows(2);
        let twice = neighbours.find(|two| two[0].0 == two[1].0)?;
        Some(&twice[0].0)
    }
}

impl Scope {
    pub(super) fn new(cluster: Option<Arc<str>>, selector: Option<Selector>) -> Self {
        Self::of(cluster, selector, Arc::default())
    }

    /// All that match none of these.
    pub(super) fn outside(except: Arc<[Selector]>) -> Self {
        Self::of(None, None, except)
    }

    fn of(cluster: Option<Arc<str>>, selector: Option<Selector>, except: Arc<[Selector]>) -> Self {
        let selector = selector.filter(|selector| !selector.is_empty());
        if cluster.is_none() && selector.is_none() && except.is_empty() {
            return Self::default();
        }
        let mut bytes = Vec::new();
        let mut part = |text: &str| {
            bytes.extend_from_slice(&text.len().to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        part(cluster.as_deref().unwrap_or_default());
        for (key, value) in selector.iter().flat_map(Selector::pairs) {
            part(key);
            part(value);
        }
        for selector in &*except {
            bytes.push(0);
            for (key, value) in selector.pairs() {
                bytes.extend_from_slice(key.as_bytes());
                bytes.push(0);
                bytes.extend_from_slice(value.as_bytes());
                bytes.push(0);
            }
        }
        Self {
            hash: stable_hash(&bytes).max(1),
            cluster,
            selector,
            except,
        }
    }

    /// The same for equal scopes.
    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether it asks for nothing.
    pub(super) const fn is_everything(&self) -> bool {
        self.hash == 0
    }

    /// Whether an instance lies within it.
    pub(super) fn takes(&self, instance: &Instance) -> bool {
        self.selector.as_ref().is_none_or(|s| s.matches(instance))
            && !self.except.iter().any(|s| s.matches(instance))
    }

    /// Whether it asks for metadata, of whatever kind.
    pub(super) fn selects(&self) -> bool {
        self.selector.is_some() || !self.except.is_empty()
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.cluster == other.cluster
            && self.selector == other.selector
            && self.except == other.except
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> From<(K, V)> for Selector {
    fn from(pair: (K, V)) -> Self {
        Self::new([pair])
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>, const N: usize> From<[(K, V); N]> for Selector {
    fn from(pairs: [(K, V); N]) -> Self {
        Self::new(pairs)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.pairs().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({self})")
    }
}
