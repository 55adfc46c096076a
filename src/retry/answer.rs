use std::time::Duration;

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{DATE, RETRY_AFTER},
};
use tonic::Code;

use crate::retry::{again::Again, policy::Retry};

impl Retry {
    /// What the head of an HTTP response says, that of a gRPC call as well.
    pub fn read(&self, status: StatusCode, headers: &HeaderMap) -> Again {
        if let Some(code) = headers.get(&GRPC_STATUS) {
            let code = code.to_str().ok().and_then(|code| code.parse().ok());
            return code.map_or(Again::No, |code| self.read_grpc(code, headers));
        }
        if !self.takes_status(status.as_u16()) {
            return Again::No;
        }
        match retry_after(headers) {
            Some(wait) if wait > self.longest() => Again::No,
            Some(wait) => Again::After(wait),
            None if self.wants_pace(status) => Again::No,
            None => Again::Yes,
        }
    }

    fn read_grpc(&self, code: u8, headers: &HeaderMap) -> Again {
        if !self.takes_code(code) {
            return Again::No;
        }
        match headers.get(&PUSHBACK) {
            None if code == Code::ResourceExhausted as u8 && self.wants_pushback() => Again::No,
            None => Again::Yes,
            Some(pushback) => {
                let ms = pushback.to_str().ok().and_then(|ms| ms.parse().ok());
                match ms.map(Duration::from_millis) {
                    // gRPC A6: what is negative or no number says not to.
                    None => Again::No,
                    Some(wait) if wait > self.longest() => Again::No,
                    Some(wait) => Again::After(wait),
                }
            }
        }
    }
}

/// In seconds or as a date (RFC 9110, 10.2.3), which is read by the response's own clock: that may be
/// wrong by hours, and the difference is right all the same. What cannot be read is as if it were not
/// there.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than a number holds is more than anybody waits.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let then = httpdate::parse_http_date(text).ok()?;
    let now = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

#[cfg(test)]
mod tests {
    use super::*;

    fn head<const N: usize>(headers: [(&'static str, &str); N]) -> HeaderMap {
        let pairs = headers.into_iter();
        let pair = |(name, value): (&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        pairs.map(pair).collect()
    }

    fn secs(secs: u64) -> Again {
        Again::After(Duration::from_secs(secs))
    }

    const SUNDAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:40 GMT";

    /// Envoy's `gateway-error` and `envoy-ratelimited`, and RFC 9110's `Retry-After`.
    #[test]
    fn http_by_its_status_and_what_is_asked_for() {
        let retry = Retry::new();
        let of = |status: u16, headers: HeaderMap| {
            retry.read(StatusCode::from_u16(status).unwrap(), &headers)
        };
        for status in [200, 204, 301, 400, 404, 409, 421, 500, 501, 505] {
            assert_eq!(of(status, head([])), Again::No, "{status}");
            let asked = head([("retry-after", "1")]);
            assert_eq!(of(status, asked), Again::No, "{status}");
        }
        for status in [502, 503, 504] {
            assert_eq!(of(status, head([])), Again::Yes, "{status}");
        }
        assert_eq!(of(429, head([])), Again::No);
        for status in [429, 503] {
            for (asked, again) in [
                ("0", secs(0)),
                ("3", secs(3)),
                (" 3 ", secs(3)),
                ("10", secs(10)),
                ("11", Again::No),
                ("31536000", Again::No), // a year
                ("99999999999999999999999", Again::No),
            ] {
                let asked = head([("retry-after", asked)]);
                assert_eq!(of(status, asked.clone()), again, "{status} {asked:?}");
            }
            let dated = head([("retry-after", LATER), ("date", SUNDAY)]);
            assert_eq!(of(status, dated), secs(3));
            let past = head([("retry-after", SUNDAY), ("date", LATER)]);
            assert_eq!(of(status, past), secs(0));
        }
        for unreadable in ["", "soon", "-1", "1.5", "+1", LATER] {
            let asked = head([("retry-after", unreadable)]);
            assert_eq!(of(503, asked.clone()), Again::Yes, "{unreadable:?}");
            assert_eq!(of(429, asked), Again::No, "{unreadable:?}");
        }
    }

    /// gRPC A6: "Pushback", and what a trailers-only response is.
    #[test]
    fn grpc_by_its_code_and_the_pushback() {
        let retry = Retry::new();
        let of = |code: &str, pushback: Option<&str>| {
            let mut headers = head([("grpc-status", code)]);
            if let Some(pushback) = pushback {
                headers.insert(PUSHBACK, pushback.parse().unwrap());
            }
            retry.read(StatusCode::OK, &headers)
        };
        for code in (0..=20).filter(|code| ![8, 14].contains(code)) {
            assert_eq!(of(&code.to_string(), None), Again::No, "{code}");
            assert_eq!(of(&code.to_string(), Some("5")), Again::No, "{code}");
        }
        assert_eq!(of("14", None), Again::Yes);
        assert_eq!(of("8", None), Again::No);
        for code in ["8", "14"] {
            let ms = |ms| Again::After(Duration::from_millis(ms));
            assert_eq!(of(code, Some("0")), ms(0));
            assert_eq!(of(code, Some("20")), ms(20));
            for no in [
                "-1",
                "-5",
                "",
                "x",
                "1.5",
                "10001",
                "31536000000",
                "99999999999999999999",
            ] {
                assert_eq!(of(code, Some(no)), Again::No, "{code} {no:?}");
            }
        }
        for bad in ["", "x", "-1", "999999"] {
            assert_eq!(of(bad, None), Again::No, "{bad:?}");
        }
    }

    #[test]
    fn what_is_named_is_taken_as_it_is() {
        let http = Retry::new().statuses([StatusCode::TOO_MANY_REQUESTS, StatusCode::CONFLICT]);
        for (status, again) in [(429, Again::Yes), (409, Again::Yes), (503, Again::No)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(http.read(status, &head([])), again, "{status}");
        }
        let grpc = Retry::new().retryable_status_codes([Code::ResourceExhausted]);
        for (code, again) in [("8", Again::Yes), ("14", Again::No)] {
            let headers = head([("grpc-status", code)]);
            assert_eq!(grpc.read(StatusCode::OK, &headers), again, "{code}");
        }
        let patient = Retry::new().longest_wait(Duration::from_secs(600));
        let asked = head([("retry-after", "600")]);
        assert_eq!(
            patient.read(StatusCode::SERVICE_UNAVAILABLE, &asked),
            secs(600)
        );
    }
}
