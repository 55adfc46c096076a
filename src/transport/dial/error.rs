use std::{error::Error as StdError, fmt, io, sync::Arc};

/// Why there is no connection. Shared by all who waited for it.
#[derive(Clone, Debug)]
pub(in crate::transport) struct DialError(Arc<Failure>);

#[derive(Debug)]
struct Failure {
    text: String,
    kind: Kind,
    source: Option<io::Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Failed,
    Late,
    #[cfg_attr(
        not(feature = "tls"),
        expect(dead_code, reason = "never happens without TLS")
    )]
    Tls,
    #[cfg_attr(
        not(feature = "tls"),
        expect(dead_code, reason = "never happens without TLS")
    )]
    LateTls,
    /// The instance is not dialled any more.
    Retirement,
}

impl DialError {
    fn of(kind: Kind, text: impl Into<String>, source: Option<io::Error>) -> Self {
        Self(Arc::new(Failure {
            text: text.into(),
            kind,
            source,
        }))
    }

    pub(in crate::transport) fn new(text: impl Into<String>) -> Self {
        Self::of(Kind::Failed, text, None)
    }

    /// Something did not come in time.
    pub(in crate::transport) fn late(text: impl Into<String>) -> Self {
        Self::of(Kind::Late, text, None)
    }

    pub(in crate::transport) fn io(what: impl fmt::Display, error: io::Error) -> Self {
        Self::of(Kind::Failed, format!("{what}: {error}"), Some(error))
    }

    #[cfg(feature = "tls")]
    pub(in crate::transport) fn tls(text: String, late: bool) -> Self {
        Self::of(if late { Kind::LateTls } else { Kind::Tls }, text, None)
    }

    pub(in crate::transport) fn retired() -> Self {
        let text = "it left while it was being dialled";
        Self::of(Kind::Retirement, text, None)
    }

    pub(in crate::transport) fn is_retirement(&self) -> bool {
        self.0.kind == Kind::Retirement
    }

    pub(in crate::transport) fn is_tls(&self) -> bool {
        matches!(self.0.kind, Kind::Tls | Kind::LateTls)
    }

    pub(in crate::transport) fn is_late(&self) -> bool {
        matches!(self.0.kind, Kind::Late | Kind::LateTls)
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl StdError for DialError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(source) => Some(source),
            None => None,
        }
    }
}
