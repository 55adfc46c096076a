use std::{
    fmt::{self, Write},
    time::Duration,
};

use super::{
    parts::{filter, pager},
    write::{Esc, add, badge, begin_table, cell, end_table},
};
use crate::status::{
    clock::in_words,
    model::{Detail, List, Page, Service},
    query::Query,
};

pub(super) fn table(
    out: &mut String,
    page: &Page,
    list: &List<Service>,
    query: &Query,
) -> fmt::Result {
    out.push_str("<section aria-labelledby=\"services\"><h2 id=\"services\">Services</h2>");
    filter(out, list, query, "name")?;
    let heads = [
        "Service",
        "Status",
        "Instances",
        "Revision",
        "Newest list",
        "Calls",
        "In flight",
    ];
    begin_table(out, "list", "Services", &heads)?;
    for service in &list.items {
        row(out, page, service)?;
    }
    end_table(out);
    if list.items.is_empty() {
        out.push_str("<p>No service is subscribed to that matches.</p>");
    }
    pager(out, list, query, "services")?;
    out.push_str("</section>");
    Ok(())
}

fn row(out: &mut String, page: &Page, service: &Service) -> fmt::Result {
    let id = format!("{} {}@@{}", service.registry, service.group, service.name);
    let mut link = String::from("?");
    add(
        &mut link,
        "service",
        &format!("{}@@{}", service.group, service.name),
    );
    if page.registries.len() > 1 && service.registry > 0 {
        add(&mut link, "registry", &service.registry.to_string());
    }
    write!(
        out,
        "<tr role=\"row\" data-key=\"{}\"><th scope=\"row\" role=\"rowheader\"><a href=\"{}\">{}</a> \
         <small>{} / {}</small></th>",
        Esc(&id),
        Esc(&link),
        Esc(&service.name),
        Esc(&service.namespace),
        Esc(&service.group)
    )?;
    out.push_str("<td role=\"cell\" data-label=\"Status\">");
    badge(out, mood(service), service.status)?;
    out.push_str("</td><td role=\"cell\" data-label=\"Instances\">");
    states(out, service)?;
    out.push_str("</td>");
    cell(out, "Revision", revision(service))?;
    cell(out, "Newest list", age(service))?;
    let sum = |of: fn(&crate::status::model::Consumer) -> u64| -> u64 {
        service.consumers.iter().map(of).sum()
    };
    let calls = match sum(|c| c.failures) {
        0 => sum(|c| c.calls).to_string(),
        failures => format!("{}, {failures} failed", sum(|c| c.calls)),
    };
    cell(out, "Calls", calls)?;
    cell(out, "In flight", sum(|c| c.in_flight))?;
    out.push_str("</tr>");
    Ok(())
}

/// What is said of one service above its instances.
pub(super) fn head(out: &mut String, page: &Page, detail: &Detail) -> fmt::Result {
    let service = &detail.service;
    write!(
        out,
        "<section aria-labelledby=\"service\"><h2 id=\"service\">{}</h2><dl class=\"card\"><div><dt>Status</dt><dd>",
        Esc(&service.name)
    )?;
    badge(out, mood(service), service.status)?;
    if service.says != service.status {
        write!(out, " {}", Esc(&service.says))?;
    }
    out.push_str("</dd></div><div><dt>Instances</dt><dd>");
    states(out, service)?;
    out.push_str("</dd></div>");
    let mut row = |name: &str, text: &str| {
        write!(
            out,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            Esc(name),
            Esc(text)
        )
    };
    row("Group", &service.group)?;
    row("Namespace", &service.namespace)?;
    if page.registries.len() > 1 {
        row("Registry", &service.registry.to_string())?;
    }
    row("Revision", &revision(service))?;
    row("Newest list", &age(service))?;
    if let Some(hint) = &service.hint {
        row("Hint", hint)?;
    }
    for consumer in &service.consumers {
        let text = format!(
            "{} calls, {} failed, {} in flight, {} moved, {} sent again; {} out now, {} ejected and {} restored so far",
            consumer.calls,
            consumer.failures,
            consumer.in_flight,
            consumer.moved,
            consumer.retries,
            consumer.out,
            consumer.ejections,
            consumer.restorations
        );
        row(&format!("Calls by {}", consumer.name), &text)?;
    }
    if service.consumers.is_empty() {
        row(
            "Calls",
            "no balancer that this page was given picks from it",
        )?;
    }
    out.push_str("</dl></section>");
    Ok(())
}

fn states(out: &mut String, service: &Service) -> fmt::Result {
    if service.states.is_empty() {
        return badge(out, "bad", "none");
    }
    for count in &service.states {
        let text = format!("{} {}", count.instances, count.state.text());
        badge(out, count.state.mood(), &text)?;
        out.push(' ');
    }
    Ok(())
}

fn mood(service: &Service) -> &'static str {
    match service.status {
        "fresh" => "good",
        "closed" => "idle",
        "undecodable" => "bad",
        _ => "fair",
    }
}

fn revision(service: &Service) -> String {
    match service.applied_revision {
        applied if applied >= service.revision => format!("{}, applied", service.revision),
        applied => format!("{}, applied up to {applied}", service.revision),
    }
}

fn age(service: &Service) -> String {
    let Some(age) = service.age_ms else {
        return "none yet".to_owned();
    };
    let age = in_words(Duration::from_millis(age));
    match service.origin {
        Some(origin) => format!("{age} ago, by {origin}"),
        None => format!("{age} ago"),
    }
}
