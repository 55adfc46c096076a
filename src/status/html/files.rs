/// One of the page's own files.
pub(in crate::status) fn file(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "status.css" => Some(("text/css; charset=utf-8", include_str!("status.css"))),
        "status.js" => Some(("text/javascript; charset=utf-8", include_str!("status.js"))),
        _ => None,
    }
}
