use std::{
    fmt::{self, Write},
    time::Duration,
};

use super::{
    parts::{filter, pager},
    write::{Esc, badge, begin_table, cell, end_table},
};
use crate::status::{
    clock::in_words,
    model::{Detail, Instance, Picked},
    query::Query,
};

pub(super) fn table(out: &mut String, detail: &Detail, query: &Query) -> fmt::Result {
    let list = &detail.instances;
    out.push_str("<section aria-labelledby=\"instances\"><h2 id=\"instances\">Instances</h2>");
    filter(out, list, query, "address, cluster or state")?;
    let heads = [
        "Instance",
        "State",
        "Why",
        "Share wanted",
        "Share had",
        "Calls",
        "In flight",
        "Latency",
        "Next probe",
        "Details",
    ];
    begin_table(out, "list", "Instances", &heads)?;
    for instance in &list.items {
        match &*instance.consumers {
            [] => row(out, instance, None, false)?,
            consumers => {
                for picked in consumers {
                    row(out, instance, Some(picked), consumers.len() > 1)?;
                }
            }
        }
    }
    end_table(out);
    if list.items.is_empty() {
        out.push_str("<p>No instance is listed that matches.</p>");
    }
    pager(out, list, query, "instances")?;
    out.push_str("</section>");
    Ok(())
}

fn row(
    out: &mut String,
    instance: &Instance,
    picked: Option<&Picked>,
    several: bool,
) -> fmt::Result {
    let consumer = picked.map_or("", |picked| &picked.consumer);
    write!(
        out,
        "<tr role=\"row\" data-key=\"{} {}\"><th scope=\"row\" role=\"rowheader\">{}",
        Esc(&instance.address),
        Esc(consumer),
        Esc(&instance.address)
    )?;
    if several {
        write!(out, " <small>for {}</small>", Esc(consumer))?;
    }
    out.push_str("</th><td role=\"cell\" data-label=\"State\">");
    badge(out, instance.state.mood(), instance.state.text())?;
    out.push_str("</td>");
    let Some(picked) = picked else {
        cell(out, "Why", &instance.registry_says)?;
        for label in [
            "Share wanted",
            "Share had",
            "Calls",
            "In flight",
            "Latency",
            "Next probe",
        ] {
            cell(out, label, "–")?;
        }
        details(out, instance)?;
        out.push_str("</tr>");
        return Ok(());
    };
    cell(out, "Why", &picked.why)?;
    cell(out, "Share wanted", percent(picked.share_wanted))?;
    cell(
        out,
        "Share had",
        picked.share_had.map_or_else(none, percent),
    )?;
    let calls = match picked.failures {
        0 => picked.calls.to_string(),
        failures => format!("{}, {failures} failed", picked.calls),
    };
    cell(out, "Calls", calls)?;
    let in_flight = match picked.waiting {
        0 => picked.in_flight.to_string(),
        waiting => format!("{}, {waiting} waiting", picked.in_flight),
    };
    cell(out, "In flight", in_flight)?;
    cell(
        out,
        "Latency",
        picked
            .latency_ms
            .map_or_else(none, |ms| format!("{ms:.1} ms")),
    )?;
    let probe = picked.next_probe_ms.map(Duration::from_millis);
    cell(
        out,
        "Next probe",
        probe.map_or_else(none, |due| format!("in {}", in_words(due))),
    )?;
    details(out, instance)?;
    out.push_str("</tr>");
    Ok(())
}

fn details(out: &mut String, instance: &Instance) -> fmt::Result {
    write!(
        out,
        "<td role=\"cell\" data-label=\"Details\"><details><summary>Metadata<span class=\"hidden\"> of {}</span></summary><dl>",
        Esc(&instance.address)
    )?;
    let mut row = |name: &str, text: &str| {
        write!(
            out,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            Esc(name),
            Esc(text)
        )
    };
    row("Registry", &instance.registry_says)?;
    row("Generation", &instance.generation.to_string())?;
    row("Weight", &instance.weight.to_string())?;
    row("Cluster", &instance.cluster)?;
    if let Some(source) = &instance.source {
        row("Source", source)?;
    }
    for pair in &instance.metadata {
        if pair.cut {
            row(
                &pair.key,
                &format!("{} ({} bytes, cut)", pair.value, pair.bytes),
            )?;
        } else {
            row(&pair.key, &pair.value)?;
        }
    }
    out.push_str("</dl>");
    if let Some(note) = &instance.metadata_note {
        write!(out, "<p>{}</p>", Esc(note))?;
    }
    out.push_str("</details></td>");
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn none() -> String {
    "–".to_owned()
}
