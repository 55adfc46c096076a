use std::fmt::{self, Write};

use super::write::{Esc, badge, begin_table, cell, end_table};
use crate::status::model::Page;

pub(super) fn table(out: &mut String, page: &Page) -> fmt::Result {
    out.push_str("<section aria-labelledby=\"timeline\"><h2 id=\"timeline\">Timeline</h2>");
    if page.timeline.is_empty() {
        out.push_str("<p>Nothing has changed since this page began.</p></section>");
        return Ok(());
    }
    let heads = ["Time", "What", "Service", "Instance", "Details"];
    begin_table(out, "events", "Timeline, the newest first", &heads)?;
    for event in &page.timeline {
        let at = Esc(&event.at);
        write!(
            out,
            "<tr role=\"row\" data-key=\"event-{}\"><th scope=\"row\" role=\"rowheader\">\
             <time datetime=\"{at}\">{}</time></th><td role=\"cell\" data-label=\"What\">",
            event.number,
            Esc(&event.at.replace('T', " ").replace('Z', ""))
        )?;
        badge(out, event.kind.mood(), event.kind.text())?;
        out.push_str("</td>");
        let registry = match event.registry {
            0 => "–".to_owned(),
            number => format!("registry {number}"),
        };
        cell(out, "Service", event.service.as_ref().unwrap_or(&registry))?;
        cell(out, "Instance", event.instance.as_deref().unwrap_or("–"))?;
        let by = event.consumer.as_ref();
        let by = by.map_or_else(String::new, |consumer| format!(" (by {consumer})"));
        cell(out, "Details", format!("{}{by}", event.text))?;
        out.push_str("</tr>");
    }
    end_table(out);
    out.push_str("</section>");
    Ok(())
}
