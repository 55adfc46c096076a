use std::time::Duration;

/// What an answer says of sending the request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Again {
    /// It is the answer.
    No,
    /// It is to be sent again, after a rest as long as the policy says.
    Yes,
    /// After no less than so long, since whoever answered asks for that.
    After(Duration),
}
