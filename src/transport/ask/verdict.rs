use http::{HeaderMap, StatusCode, header::LOCATION};

use crate::endpoint::Failure;

/// What the head of an answer to a GET says.
pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
    if status.is_success() {
        return Ok(());
    }
    if !status.is_redirection() {
        return Err(Failure::said(format_args!("it answers {status}")));
    }
    let to = match headers.get(LOCATION) {
        Some(to) => format!(" to {:?}", String::from_utf8_lossy(to.as_bytes())),
        None => String::new(),
    };
    Err(Failure::said(format_args!(
        "it answers {status}, a redirect{to}, which a check does not follow: name a path that answers itself"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundreds_pass_and_whatever_else_says_what_it_was() {
        for (status, said) in [
            (200, None),
            (204, None),
            (299, None),
            (404, Some("404 Not Found")),
            (503, Some("503 Service Unavailable")),
            (304, Some("304 Not Modified, a redirect, which")),
        ] {
            let verdict = of(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
            let reason = verdict.err().map(Failure::into_reason);
            assert_eq!(reason.is_some(), said.is_some(), "{status}");
            assert!(reason.is_none_or(|reason| reason.contains(said.unwrap())));
        }
    }

    #[test]
    fn a_redirect_names_where_it_leads_in_so_many_characters() {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, "/login".parse().unwrap());
        let reason = of(StatusCode::FOUND, &headers).unwrap_err().into_reason();
        assert!(
            reason.contains("302 Found, a redirect to \"/login\""),
            "{reason}"
        );
        headers.insert(LOCATION, "x".repeat(60_000).parse().unwrap());
        let reason = of(StatusCode::FOUND, &headers).unwrap_err().into_reason();
        assert!(reason.chars().count() <= 301, "{}", reason.len());
    }
}
