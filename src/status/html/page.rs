use std::fmt::{self, Write};

use super::{
    instances,
    parts::registries,
    services, timeline,
    write::{Esc, link},
};
use crate::status::{model::Page, query::Query};

pub(in crate::status) fn page(page: &Page, query: &Query) -> String {
    let mut out = String::with_capacity(32 * 1024);
    // Writing to a text does not fail.
    let _ = write_page(&mut out, page, query);
    out
}

fn write_page(out: &mut String, page: &Page, query: &Query) -> fmt::Result {
    let title = match &page.service {
        Some(detail) => format!("{} – tower-nacos", detail.service.name),
        None => "tower-nacos".to_owned(),
    };
    begin(out, &title, page.service.is_some())?;
    registries(out, page)?;
    if let Some(services) = &page.services {
        services::table(out, page, services, query)?;
    }
    if let Some(detail) = &page.service {
        services::head(out, page, detail)?;
        instances::table(out, detail, query)?;
    }
    timeline::table(out, page)?;
    let at = Esc(&page.at);
    write!(
        out,
        "</main><footer><p>As of <time datetime=\"{at}\">{at}</time>, version {}. \
         <a href=\"{}\">As JSON</a></p></footer></body></html>",
        page.version,
        Esc(&link(query, |query| query.page, true)),
    )
}

/// What is told instead of a page.
pub(in crate::status) fn missing(what: &str) -> String {
    let mut out = String::new();
    let _ = begin(&mut out, "Not here – tower-nacos", true);
    let _ = write!(
        out,
        "<h2>Not here</h2><p>{}</p></main></body></html>",
        Esc(what)
    );
    out
}

fn begin(out: &mut String, title: &str, back: bool) -> fmt::Result {
    write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{}</title>\
         <link rel=\"stylesheet\" href=\"?file=status.css\">\
         <script src=\"?file=status.js\" defer></script></head><body>\
         <a class=\"skip\" href=\"#main\">Skip to the page</a>\
         <header><h1>tower-nacos</h1>",
        Esc(title)
    )?;
    if back {
        out.push_str("<nav aria-label=\"Pages\"><a href=\"?\">All services</a></nav>");
    }
    // What the script says of itself; without it there is nothing to be said.
    out.push_str(
        "<div class=\"live\"><p id=\"live\" role=\"status\"></p>\
         <button id=\"pause\" type=\"button\" hidden>Pause</button></div></header><main id=\"main\" tabindex=\"-1\">",
    );
    Ok(())
}
