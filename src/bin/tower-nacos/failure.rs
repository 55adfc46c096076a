//! Why a command ends without having done what it was asked.

use std::{fmt, io, process::ExitCode};

pub(crate) enum Failure {
    /// It is not so; empty where the output has said it.
    NotSo(String),
    /// The command, its options or a file of theirs.
    Usage(String),
    /// The registry.
    Registry(String),
    /// Nobody reads what is written: no failure of ours.
    Unread,
}

impl Failure {
    pub(crate) fn not_so(what: impl fmt::Display) -> Self {
        Self::NotSo(what.to_string())
    }

    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        Self::Usage(what.to_string())
    }

    pub(crate) fn registry(what: impl fmt::Display) -> Self {
        Self::Registry(what.to_string())
    }

    pub(crate) fn tell(&self) {
        match self {
            Self::NotSo(what) | Self::Usage(what) | Self::Registry(what) if !what.is_empty() => {
                eprintln!("tower-nacos: {what}");
            }
            _ => {}
        }
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Unread => 0,
            Self::NotSo(_) => 1,
            Self::Usage(_) => 2,
            Self::Registry(_) => 3,
        })
    }
}

impl From<io::Error> for Failure {
    /// Of writing to the standard output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Unread
        } else {
            Self::not_so(format_args!("the output cannot be written: {error}"))
        }
    }
}
