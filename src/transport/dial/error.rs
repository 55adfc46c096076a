use std::{error::Error as StdError, fmt, io, sync::Arc};

use tower::BoxError;

/// Why there is no connection. Shared by all who waited for it.
#[derive(Clone, Debug)]
pub(in crate::transport) struct DialError(Arc<Failure>);

#[derive(Debug)]
struct Failure {
    text: String,
    kind: Kind,
    source: Option<BoxError>,
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
    fn of(kind: Kind, text: impl Into<String>, source: Option<BoxError>) -> Self {
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
        Self::of(Kind::Failed, format!("{what}: {error}"), Some(error.into()))
    }

    /// A connector of the user's has none.
    pub(in crate::transport) fn connector(error: BoxError) -> Self {
        let text = format!("no connection by its connector: {}", in_full(&*error));
        Self::of(Kind::Failed, text, Some(error))
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

/// What an error says, and its causes that it does not say itself.
fn in_full(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl StdError for DialError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}
