use std::{fmt, time::Duration};

use serde::Deserialize;
use tonic::Code;

use crate::retry::policy::Retry;

/// Why what was said about calls cannot be meant so: retries, hedges, times, limits or zones that contradict themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidCallPolicy(String);

/// What gRPC's service config calls `retryPolicy`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    max_attempts: u32,
    initial_backoff: String,
    max_backoff: String,
    backoff_multiplier: f64,
    retryable_status_codes: Vec<Named>,
}

/// A code by its name or its number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Number(u8),
    Name(String),
}

impl InvalidCallPolicy {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Retry {
    /// The `retryPolicy` of a gRPC service config, in JSON, with the other options' defaults. By A6 more than
    /// five attempts are five, and names may be in lower case.
    ///
    /// It says nothing of which methods it is for: what is sent again are marked calls, or all with
    /// [`every_request`](Self::every_request).
    ///
    /// ```
    /// # fn main() -> Result<(), tower_nacos::retry::InvalidCallPolicy> {
    /// use tower_nacos::retry::Retry;
    ///
    /// let retry = Retry::from_service_config(
    ///     r#"{
    ///         "maxAttempts": 4,
    ///         "initialBackoff": "0.1s",
    ///         "maxBackoff": "1s",
    ///         "backoffMultiplier": 2,
    ///         "retryableStatusCodes": ["UNAVAILABLE"]
    ///     }"#,
    /// )?;
    /// # let _ = retry;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If it is no such object, or one of A6's rules is broken: at least two attempts, rests and multiplier
    /// above 0, and a code.
    pub fn from_service_config(json: &str) -> Result<Self, InvalidCallPolicy> {
        let config: Config = serde_json::from_str(json)
            .map_err(|error| InvalidCallPolicy(format!("no retryPolicy: {error}")))?;
        if config.max_attempts < 2 {
            let text = format!(
                "maxAttempts is {}: it has to be 2 at least",
                config.max_attempts
            );
            return Err(InvalidCallPolicy(text));
        }
        if config.retryable_status_codes.is_empty() {
            return Err(InvalidCallPolicy::new("retryableStatusCodes names none"));
        }
        let codes = config.retryable_status_codes.iter().map(Named::code);
        let retry = Self::new()
            .max_attempts(config.max_attempts.min(MOST_ATTEMPTS))
            .initial_backoff(duration("initialBackoff", &config.initial_backoff)?)
            .max_backoff(duration("maxBackoff", &config.max_backoff)?)
            .backoff_multiplier(config.backoff_multiplier)
            .retryable_status_codes(codes.collect::<Result<Vec<_>, _>>()?);
        retry.check()?;
        Ok(retry)
    }

    /// Whether it can be meant so: what is built with one that cannot is built all the same, with a warning,
    /// and `try_build` fails with it.
    ///
    /// # Errors
    ///
    /// If rests do not grow by a positive number.
    pub fn check(&self) -> Result<(), InvalidCallPolicy> {
        let multiplier = self.multiplier();
        if multiplier.is_finite() && multiplier > 0.0 {
            return Ok(());
        }
        let text = format!("a backoff multiplier of {multiplier}: it has to be above 0");
        Err(InvalidCallPolicy(text))
    }
}

/// Whether tries may last so long, in calls that may last so long.
pub(crate) fn check_times(
    per_try: Option<Duration>,
    timeout: Option<Duration>,
) -> Result<(), InvalidCallPolicy> {
    match (per_try, timeout) {
        (Some(Duration::ZERO), _) => Err(InvalidCallPolicy::new(
            "a per_try_timeout of 0 lets nothing through",
        )),
        (Some(per_try), Some(timeout)) if per_try > timeout => Err(InvalidCallPolicy(format!(
            "a per_try_timeout of {per_try:?} is never reached in a timeout of {timeout:?}"
        ))),
        _ => Ok(()),
    }
}

impl Named {
    fn code(&self) -> Result<Code, InvalidCallPolicy> {
        let known = match self {
            Self::Number(number) => CODES.get(usize::from(*number)),
            Self::Name(name) => CODES
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name)),
        };
        match (known, self) {
            (Some((_, code)), _) => Ok(*code),
            (None, Self::Number(number)) => {
                Err(InvalidCallPolicy(format!("{number} is no status code")))
            }
            (None, Self::Name(name)) => {
                Err(InvalidCallPolicy(format!("{name:?} is no status code")))
            }
        }
    }
}

/// Seconds and a decimal fraction, then `s` (the JSON of protobuf's Duration).
fn duration(name: &str, text: &str) -> Result<Duration, InvalidCallPolicy> {
    let seconds = text.strip_suffix('s');
    let seconds = seconds.filter(|s| s.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    let read = seconds.and_then(|seconds| seconds.parse().ok());
    let read = read.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    read.filter(|duration| !duration.is_zero()).ok_or_else(|| {
        InvalidCallPolicy(format!(
            "{name} is {text:?}: it has to be seconds above 0, such as \"0.1s\""
        ))
    })
}

impl fmt::Display for InvalidCallPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidCallPolicy {}

/// gRPC A6.
const MOST_ATTEMPTS: u32 = 5;
/// By their numbers.
static CODES: [(&str, Code); 17] = [
    ("OK", Code::Ok),
    ("CANCELLED", Code::Cancelled),
    ("UNKNOWN", Code::Unknown),
    ("INVALID_ARGUMENT", Code::InvalidArgument),
    ("DEADLINE_EXCEEDED", Code::DeadlineExceeded),
    ("NOT_FOUND", Code::NotFound),
    ("ALREADY_EXISTS", Code::AlreadyExists),
    ("PERMISSION_DENIED", Code::PermissionDenied),
    ("RESOURCE_EXHAUSTED", Code::ResourceExhausted),
    ("FAILED_PRECONDITION", Code::FailedPrecondition),
    ("ABORTED", Code::Aborted),
    ("OUT_OF_RANGE", Code::OutOfRange),
    ("UNIMPLEMENTED", Code::Unimplemented),
    ("INTERNAL", Code::Internal),
    ("UNAVAILABLE", Code::Unavailable),
    ("DATA_LOSS", Code::DataLoss),
    ("UNAUTHENTICATED", Code::Unauthenticated),
];

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::retry::Again;

    fn config(attempts: &str, initial: &str, multiplier: &str, codes: &str) -> String {
        format!(
            r#"{{"maxAttempts": {attempts}, "initialBackoff": {initial}, "maxBackoff": "1s",
                "backoffMultiplier": {multiplier}, "retryableStatusCodes": {codes}}}"#
        )
    }

    #[test]
    fn what_a6_allows_is_read() {
        for (codes, code) in [
            (r#"["UNAVAILABLE"]"#, "14"),
            (r#"["unavailable", "ABORTED"]"#, "10"),
            ("[14, 8]", "8"),
        ] {
            let json = config("4", r#""0.1s""#, "2", codes);
            let retry = Retry::from_service_config(&json).unwrap();
            let headers = [("grpc-status", code)]
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let headers: HeaderMap = headers.into_iter().collect();
            assert_eq!(retry.read(StatusCode::OK, &headers), Again::Yes, "{codes}");
            let again = |used| retry.has_more(used, Duration::ZERO);
            assert_eq!((again(2), again(3)), (true, false));
        }
        let most = config("100", r#""2.5s""#, "1.5", "[14]");
        let most = Retry::from_service_config(&most).unwrap();
        assert!(most.has_more(3, Duration::ZERO) && !most.has_more(4, Duration::ZERO));
    }

    #[test]
    fn what_a6_forbids_is_refused_and_says_why() {
        let good = ["4", r#""0.1s""#, "2", "[14]"];
        for (at, bad, why) in [
            (0, "1", "2 at least"),
            (0, "0", "2 at least"),
            (0, "-1", "no retryPolicy"),
            (0, "1.5", "no retryPolicy"),
            (1, r#""0s""#, "above 0"),
            (1, r#""-1s""#, "above 0"),
            (1, r#""100""#, "above 0"),
            (1, r#""1e9s""#, "above 0"),
            (1, r#""99999999999999999999999s""#, "above 0"),
            (1, "0.1", "no retryPolicy"),
            (2, "0", "above 0"),
            (2, "-2", "above 0"),
            (3, "[]", "names none"),
            (3, r#"["UNAVAILIBLE"]"#, "is no status code"),
            (3, "[17]", "is no status code"),
            (3, "[-1]", "no retryPolicy"),
        ] {
            let mut parts = good;
            parts[at] = bad;
            let json = config(parts[0], parts[1], parts[2], parts[3]);
            let error = Retry::from_service_config(&json).unwrap_err();
            assert!(error.to_string().contains(why), "{bad}: {error}");
        }
        for json in ["", "{}", "[]", "null"] {
            assert!(Retry::from_service_config(json).is_err(), "{json:?}");
        }
    }

    #[test]
    fn a_multiplier_that_is_none_is_said() {
        for multiplier in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let retry = Retry::new().backoff_multiplier(multiplier);
            assert!(retry.check().is_err(), "{multiplier}");
        }
        assert!(Retry::new().check().is_ok());
    }
}
