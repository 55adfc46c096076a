use std::{fmt, sync::Arc};

/// A text that no log, error or `Debug` may show.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Arc<str>);

impl Secret {
    /// The text itself. Only for what goes to a server.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// `text` without the secret, should a server have repeated it.
    pub(super) fn strike_out(&self, text: &str) -> String {
        if self.0.is_empty() {
            return text.to_owned();
        }
        text.replace(&*self.0, "<secret>")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}
