use std::fmt::{self, Write};

use crate::status::query::{LIMIT, Query, encode};

/// A text as it may stand between tags and in quoted attributes.
pub(super) struct Esc<'a>(pub(super) &'a str);

impl fmt::Display for Esc<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

/// A link to what is shown now but for the page of it.
pub(super) fn link(query: &Query, page: impl Fn(&Query) -> usize, json: bool) -> String {
    let mut link = String::from("?");
    if let Some(service) = &query.service {
        add(&mut link, "service", service);
    }
    if let Some(registry) = query.registry {
        add(&mut link, "registry", &registry.to_string());
    }
    if !query.filter.is_empty() {
        add(&mut link, "filter", &query.filter);
    }
    if query.limit != LIMIT {
        add(&mut link, "limit", &query.limit.to_string());
    }
    match page(query) {
        1 => {}
        page => add(&mut link, "page", &page.to_string()),
    }
    if json {
        add(&mut link, "format", "json");
    }
    link
}

pub(super) fn add(link: &mut String, key: &str, value: &str) {
    if !link.ends_with('?') {
        link.push('&');
    }
    link.push_str(key);
    link.push('=');
    encode(value, link);
}

/// A word in its colour. The word says it all: not everybody sees the colour.
pub(super) fn badge(out: &mut String, mood: &str, text: &str) -> fmt::Result {
    write!(
        out,
        "<span class=\"badge {}\">{}</span>",
        Esc(mood),
        Esc(text)
    )
}

/// A cell. The label is for narrow screens, where a row is a card and its headers are not to be seen.
pub(super) fn cell(out: &mut String, label: &str, text: impl fmt::Display) -> fmt::Result {
    write!(
        out,
        "<td role=\"cell\" data-label=\"{}\">{}</td>",
        Esc(label),
        Esc(&text.to_string())
    )
}

/// A table up to its body. Roles are said, since a table that is shown as cards is none to some browsers.
pub(super) fn begin_table(out: &mut String, id: &str, label: &str, heads: &[&str]) -> fmt::Result {
    write!(
        out,
        "<table id=\"{id}\" role=\"table\"><caption class=\"hidden\">{}</caption>\
         <thead role=\"rowgroup\"><tr role=\"row\">",
        Esc(label)
    )?;
    for head in heads {
        write!(
            out,
            "<th scope=\"col\" role=\"columnheader\">{}</th>",
            Esc(head)
        )?;
    }
    out.push_str("</tr></thead><tbody role=\"rowgroup\">");
    Ok(())
}

pub(super) fn end_table(out: &mut String) {
    out.push_str("</tbody></table>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_what_it_stands_in() {
        let text = Esc("<script>&\"'</script>é").to_string();
        assert_eq!(text, "&lt;script&gt;&amp;&quot;&#39;&lt;/script&gt;é");
    }
}
