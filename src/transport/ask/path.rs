use http::uri::PathAndQuery;

/// What is asked for by that, if it is a path (and query) that can be.
///
/// # Errors
///
/// What is wrong with it, and how to write it.
pub(super) fn read(path: &str) -> Result<PathAndQuery, String> {
    let Some(at) = wrong(path) else {
        // Nothing is left that it could mind.
        let read = PathAndQuery::try_from(path).map_err(|error| error.to_string());
        return read.map_err(|why| refuse(path, &why));
    };
    Err(refuse(path, &at))
}

fn refuse(path: &str, why: &str) -> String {
    format!("{path:?} is no path to ask for ({why}); write one like \"/health\"")
}

fn wrong(path: &str) -> Option<String> {
    if path.is_empty() {
        return Some("it is empty".to_owned());
    }
    if !path.starts_with('/') {
        return Some("it does not begin with a slash".to_owned());
    }
    if path.len() > LONGEST {
        return Some(format!("it is longer than {LONGEST} bytes"));
    }
    // `http` would cut it off and say nothing.
    if let Some((_, fragment)) = path.split_once('#') {
        return Some(format!("no server is sent a fragment: \"#{fragment}\""));
    }
    let (before, query) = path.split_once('?').unwrap_or((path, ""));
    let odd = |part: &str, lead: &str| {
        part.chars()
            .find(|c| !c.is_ascii() || PathAndQuery::try_from(format!("{lead}{c}")).is_err())
    };
    let odd = odd(before, "/").or_else(|| odd(query, "/?"))?;
    let mut bytes = [0; 4];
    let encoded: String = odd
        .encode_utf8(&mut bytes)
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    Some(format!("write {encoded} for {odd:?}"))
}

/// As much of a request line as servers take; nobody means more.
const LONGEST: usize = 8_000;

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn what_is_wrong_with_a_path_is_named() {
        let long = format!("/{}", "x".repeat(100_000));
        for (path, why) in [
            ("", "it is empty"),
            ("health", "it does not begin with a slash"),
            (" /health", "it does not begin with a slash"),
            ("*", "it does not begin with a slash"),
            ("http://a/b", "it does not begin with a slash"),
            ("/health#deep", "no server is sent a fragment: \"#deep\""),
            ("/health?a=1#", "no server is sent a fragment: \"#\""),
            ("/a b", "write %20 for ' '"),
            ("/health\r\nhost: b", "write %0D for '\\r'"),
            ("/health?a=\"b\"", "write %22 for '\"'"),
            ("/gesundheit/ü", "write %C3%BC for 'ü'"),
            ("/\u{0}", "write %00 for '\\0'"),
            (&long, "it is longer than 8000 bytes"),
        ] {
            let error = read(path).unwrap_err();
            assert!(error.contains(&format!("{path:?}")), "{error}");
            assert!(error.contains(&format!("({why}); write one")), "{error}");
        }
    }

    #[test]
    fn what_is_a_path_is_asked_for_as_it_is_written() {
        for path in [
            "/",
            "/health",
            "/health/",
            "/h?deep=1&a=b?",
            "//x",
            "/a%20b",
            "/a;b=c",
        ] {
            assert_eq!(read(path).unwrap().as_str(), path);
        }
    }
}
