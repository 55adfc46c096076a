use std::fmt::{self, Write};

use super::write::{Esc, badge, link};
use crate::status::{
    clock::in_words,
    model::{List, Page, Registry},
    query::Query,
};

pub(super) fn registries(out: &mut String, page: &Page) -> fmt::Result {
    if page.registries.is_empty() {
        return Ok(());
    }
    out.push_str("<section aria-labelledby=\"registries\"><h2 id=\"registries\">Registry</h2><div class=\"cards\">");
    for registry in &page.registries {
        card(out, registry)?;
    }
    out.push_str("</div></section>");
    Ok(())
}

fn card(out: &mut String, registry: &Registry) -> fmt::Result {
    let mood = match registry.state {
        "connected" => "good",
        "connecting" => "bad",
        _ => "idle",
    };
    let number = registry.number;
    write!(
        out,
        "<dl class=\"card\" data-key=\"registry-{number}\"><div><dt>State</dt><dd>"
    )?;
    badge(out, mood, registry.state)?;
    write!(
        out,
        " for {}{}</dd></div>",
        if registry.since_at_least {
            "at least "
        } else {
            ""
        },
        in_words(std::time::Duration::from_millis(registry.for_ms))
    )?;
    let mut row = |name: &str, text: &str| {
        write!(
            out,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            Esc(name),
            Esc(text)
        )
    };
    row("Client", &registry.name)?;
    row("Namespace", &registry.namespace)?;
    if let Some(server) = &registry.server {
        row("Connected to", server)?;
    }
    row("Servers", &registry.servers.join(", "))?;
    if registry.server.is_none() {
        row("Says", &registry.says)?;
    }
    match &registry.last_error {
        Some(error) => row("Last error", &format!("{} ({})", error.text, error.at))?,
        None => row("Last error", "none since this page began")?,
    }
    let latency = registry.latency_ms.zip(registry.latency_smoothed_ms);
    match latency {
        Some((last, lately)) => row(
            "Latency of a call",
            &format!("{}, lately {}", ms(last), ms(lately)),
        )?,
        None => row("Latency of a call", "unknown without a connection")?,
    }
    let delay = registry
        .push_delay_ms
        .zip(registry.push_delay_smoothed_ms)
        .zip(registry.push_delay_error_ms);
    match delay {
        Some(((last, lately), error)) => row(
            "Push delay seen",
            &format!("{} ± {}, lately {}", ms(last), ms(error), ms(lately)),
        )?,
        None => row("Push delay seen", "unknown: no push yet that tells")?,
    }
    row("Services", &registry.services.to_string())?;
    out.push_str("</dl>");
    Ok(())
}

/// Tenths count where a call takes a few ms, and nowhere else.
fn ms(took: f64) -> String {
    match took {
        ..10.0 => format!("{took:.1} ms"),
        _ => format!("{took:.0} ms"),
    }
}

/// The form that narrows a list.
pub(super) fn filter<T>(
    out: &mut String,
    list: &List<T>,
    query: &Query,
    what: &str,
) -> fmt::Result {
    out.push_str("<form class=\"filter\" method=\"get\" role=\"search\">");
    if let Some(service) = &query.service {
        write!(
            out,
            "<input type=\"hidden\" name=\"service\" value=\"{}\">",
            Esc(service)
        )?;
    }
    if let Some(registry) = query.registry {
        write!(
            out,
            "<input type=\"hidden\" name=\"registry\" value=\"{registry}\">"
        )?;
    }
    write!(
        out,
        "<label for=\"filter\">Filter by {}</label><input id=\"filter\" name=\"filter\" type=\"search\" \
         maxlength=\"256\" value=\"{}\"><button type=\"submit\">Filter</button></form>",
        Esc(what),
        Esc(&list.filter)
    )
}

/// Where one is in a list, and the ways to the rest of it.
pub(super) fn pager<T>(out: &mut String, list: &List<T>, query: &Query, what: &str) -> fmt::Result {
    let List {
        total,
        matching,
        page,
        pages,
        ..
    } = list;
    write!(
        out,
        "<nav class=\"pager\" aria-label=\"Parts of the list of {}\"><p>",
        Esc(what)
    )?;
    let what = match total {
        1 => what.trim_end_matches('s'),
        _ => what,
    };
    if matching == total {
        write!(out, "{total} {}", Esc(what))?;
    } else {
        write!(out, "{matching} of {total} {}", Esc(what))?;
    }
    write!(out, ", page {page} of {pages}</p>")?;
    let mut to = |name: &str, there: bool, page: usize| {
        if there {
            let link = link(query, |_| page, false);
            write!(out, "<a href=\"{}\">{name}</a>", Esc(&link))
        } else {
            write!(out, "<span class=\"off\">{name}</span>")
        }
    };
    to("First", *page > 1, 1)?;
    to("Previous", *page > 1, page.saturating_sub(1))?;
    to("Next", page < pages, page + 1)?;
    to("Last", page < pages, *pages)?;
    out.push_str("</nav>");
    Ok(())
}
