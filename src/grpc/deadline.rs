//! How long a call may take, as gRPC says it: the header `grpc-timeout`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// See the gRPC over HTTP/2 specification, "Timeout".
pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The shorter of what the request's header says and `own`, and the header to match. A header that
/// cannot be read is left to the instance, which refuses it or not.
pub(super) fn agree(headers: &mut HeaderMap, own: Option<Duration>) -> Option<Duration> {
    let asked = headers.get(GRPC_TIMEOUT).and_then(parse);
    match (asked, own) {
        (Some(asked), Some(own)) if asked <= own => Some(asked),
        (_, Some(own)) => {
            headers.insert(GRPC_TIMEOUT, render(own));
            Some(own)
        }
        (asked, None) => asked,
    }
}

/// The header of an attempt that may last so long.
pub(super) fn header(left: Duration) -> (HeaderName, HeaderValue) {
    (GRPC_TIMEOUT, render(left.max(Duration::from_nanos(1))))
}

/// At most 8 digits and a unit.
fn parse(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let digits = text.get(..text.len().checked_sub(1)?)?;
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty() || digits.len() > 8 || !all_digits {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match text.as_bytes().last()? {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// In the finest unit that 8 digits hold; rounded down, so that the instance never waits longer
/// than the caller.
fn render(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let nanos = timeout.as_nanos();
    let units = [
        (1, "n"),
        (1_000, "u"),
        (1_000_000, "m"),
        (1_000_000_000, "S"),
        (60_000_000_000, "M"),
        (3_600_000_000_000, "H"),
    ];
    let fitting = units.into_iter().find(|(unit, _)| nanos / unit <= MOST);
    let (unit, name) = fitting.unwrap_or((u128::MAX, "H"));
    let amount = if unit == u128::MAX {
        MOST
    } else {
        nanos / unit
    };
    let text = format!("{amount}{name}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("99999999H"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &'static str) -> HeaderMap {
        [(GRPC_TIMEOUT, HeaderValue::from_static(text))]
            .into_iter()
            .collect()
    }

    #[test]
    fn every_unit_is_read() {
        for (text, duration) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("42S", Duration::from_secs(42)),
            ("13m", Duration::from_millis(13)),
            ("2u", Duration::from_micros(2)),
            ("82n", Duration::from_nanos(82)),
        ] {
            assert_eq!(agree(&mut header(text), None), Some(duration), "{text}");
        }
    }

    #[test]
    fn what_is_no_timeout_is_none_and_left_alone() {
        for text in ["", "S", "82f", "123456789S", "-1S", "+1S", "1.5S", " 1S"] {
            let mut headers = header(text);
            assert_eq!(agree(&mut headers, None), None, "{text:?}");
            assert_eq!(headers[GRPC_TIMEOUT], text);
        }
    }

    #[test]
    fn the_shorter_one_holds_and_is_what_is_sent() {
        let mut headers = header("5S");
        let agreed = agree(&mut headers, Some(Duration::from_secs(2)));
        assert_eq!(agreed, Some(Duration::from_secs(2)));
        assert_eq!(headers[GRPC_TIMEOUT], "2000000u");

        let mut headers = header("5S");
        let agreed = agree(&mut headers, Some(Duration::from_secs(9)));
        assert_eq!(agreed, Some(Duration::from_secs(5)));
        assert_eq!(headers[GRPC_TIMEOUT], "5S");

        let mut headers = HeaderMap::new();
        assert_eq!(agree(&mut headers, None), None);
        assert!(headers.is_empty());
    }

    #[test]
    fn what_is_sent_is_read_back_and_never_longer() {
        for nanos in [1, 99_999_999, 100_000_000, 123_456_789_012, u64::MAX] {
            let timeout = Duration::from_nanos(nanos);
            let read = parse(&render(timeout)).expect("readable");
            assert!(
                read <= timeout && read >= timeout.mul_f64(0.99),
                "{nanos}: {read:?}"
            );
        }
        assert_eq!(render(Duration::MAX), "99999999H");
    }
}
