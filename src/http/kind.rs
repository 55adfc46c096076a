use crate::{http::error::Error, transport::ErrorKind};

impl Error {
    /// What kind of failure it is, in one of few words: what traces show as `error.type`.
    pub(super) fn kind(&self) -> &'static str {
        match () {
            () if self.is_uri() || self.is_request() => "request",
            () if self.is_too_many_services() => "too_many_services",
            () if self.is_closed() => "closed",
            () if self.is_timeout() => "timeout",
            () if self.is_no_instances() => "no_instances",
            () if self.is_unknown() => "unknown_instances",
            () if self.is_overloaded() => "overloaded",
            () if self.is_connect() => "connect",
            () if self.is_aborted() => "aborted",
            () => match self.transport().map(crate::transport::Error::kind) {
                Some(ErrorKind::Unsent | ErrorKind::Refused) => "refused",
                Some(ErrorKind::Lost) => "lost",
                Some(ErrorKind::Reset) => "reset",
                Some(ErrorKind::Protocol) => "protocol",
                _ => "_OTHER",
            },
        }
    }
}
