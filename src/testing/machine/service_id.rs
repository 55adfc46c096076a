use std::fmt;

use crate::model::{self, DEFAULT_GROUP, PUBLIC_NAMESPACE, ServiceKey, ServiceName};

/// A service as a server knows it: three strings that nobody has checked.
///
/// Unlike [`ServiceKey`] it can name what a client must never ask for, the empty namespace say,
/// which to a Nacos server is another one than `public`. Reads from `"orders"`,
/// `"group@orders"`, `"group@@orders"`, a [`ServiceName`] (all in namespace `public`) or a [`ServiceKey`].
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId {
    pub(super) namespace: String,
    pub(super) group: String,
    pub(super) name: String,
}

impl ServiceId {
    /// A service from its three parts, as they are.
    pub fn new(
        namespace: impl Into<String>,
        group: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            group: group.into(),
            name: name.into(),
        }
    }

    /// The same group and name in another namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// The namespace's id, possibly empty.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `group@@name`.
    pub(super) fn grouped(&self) -> String {
        format!("{}@@{}", self.group, self.name)
    }
}

impl From<&str> for ServiceId {
    fn from(text: &str) -> Self {
        let (group, name) = model::grouped(text).unwrap_or((DEFAULT_GROUP, text));
        Self::new(PUBLIC_NAMESPACE, group, name)
    }
}

impl From<&String> for ServiceId {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for ServiceId {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&ServiceName> for ServiceId {
    fn from(service: &ServiceName) -> Self {
        Self::new(PUBLIC_NAMESPACE, &**service.group(), &**service.name())
    }
}

impl From<&ServiceKey> for ServiceId {
    fn from(key: &ServiceKey) -> Self {
        Self::new(&**key.namespace(), &**key.group(), &**key.name())
    }
}

impl From<&Self> for ServiceId {
    fn from(id: &Self) -> Self {
        id.clone()
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in namespace {:?}", self.grouped(), self.namespace)
    }
}
