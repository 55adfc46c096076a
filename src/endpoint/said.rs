use std::error::Error;

/// The words of an error and of its causes, each once, in one line.
pub(crate) fn in_full(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    say_causes(&mut said, error.source());
    said
}

/// Adds the words of a cause and of those behind it, unless they are said already.
pub(crate) fn say_causes(said: &mut String, cause: Option<&(dyn Error + 'static)>) {
    let mut next = cause;
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        next = cause.source();
    }
}

/// An error says all of these, and one who prints its sources, too, reads each once.
#[cfg(test)]
#[track_caller]
pub(crate) fn assert_said_once(error: &(dyn Error + 'static), words: &[&str]) {
    let mut report = error.to_string();
    for word in words {
        assert!(report.contains(word), "{word:?} is lost: {report}");
    }
    let mut next = error.source();
    while let Some(cause) = next {
        report = format!("{report}\nCaused by: {cause}");
        next = cause.source();
    }
    for word in words {
        assert_eq!(report.matches(word).count(), 1, "{word:?}: {report}");
    }
}

/// An error with a cause, for tests.
#[cfg(test)]
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Layer(
    pub(crate) &'static str,
    #[source] pub(crate) Option<Box<dyn Error + Send + Sync>>,
);

#[cfg(test)]
impl Layer {
    /// Three of them, as hyper's errors are.
    pub(crate) fn nested() -> Self {
        let refused = Self("connection refused", None);
        let connect = Self("tcp connect", Some(refused.into()));
        Self("client error", Some(connect.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cause_repeats_is_said_once() {
        let repeats = Layer(
            "client: tcp connect",
            Some(Layer("tcp connect", None).into()),
        );
        assert_eq!(in_full(&repeats), "client: tcp connect");
        let nested = Layer::nested();
        assert_eq!(
            in_full(&nested),
            "client error: tcp connect: connection refused"
        );
    }
}
