//! `watch`: what changes, as it changes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use tower_nacos::{
    Client, Subscription,
    directory::{Change, ChangeKind, Status},
    provider,
};

use crate::{
    failure::Failure,
    list::subscribe,
    output::{Color, INSTANCE_HEAD, Output, columns, instance_row, plain, plain_json},
};

#[derive(Args)]
pub(crate) struct Watch {
    /// The services, each `[group@]name`
    #[arg(required = true)]
    services: Vec<String>,
    /// Ends when nothing may be called any more, or something may be
    #[arg(long, value_name = "INSTANCES")]
    until: Option<usize>,
}

enum News {
    Change(usize, Change),
    Status(usize, Status),
}

impl Watch {
    pub(crate) async fn run(self, nacos: &Client, output: &mut Output) -> Result<(), Failure> {
        let mut services = Vec::new();
        let (tell, mut news) = mpsc::channel(64);
        let mut following = tokio::task::JoinSet::new();
        for (which, name) in self.services.iter().enumerate() {
            let service = subscribe(nacos, name).await?;
            let mut changes = service.changes();
            let mut statuses = service.status_changes();
            let changed = tell.clone();
            following.spawn(async move {
                while let Some(change) = changes.next().await {
                    if changed.send(News::Change(which, change)).await.is_err() {
                        return;
                    }
                }
            });
            let changed = tell.clone();
            following.spawn(async move {
                while let Some(status) = statuses.next().await {
                    if changed.send(News::Status(which, status)).await.is_err() {
                        return;
                    }
                }
            });
            services.push(service);
        }
        drop(tell);
        let mut last = Vec::new();
        let mut end = std::pin::pin!(provider::signal());
        loop {
            if output.terminal {
                draw(&services, &last, output)?;
            }
            if let Some(wanted) = self.until
                && services.iter().all(|service| reached(service, wanted))
            {
                return Ok(());
            }
            let one = tokio::select! {
                one = news.recv() => one,
                () = &mut end => return Ok(()),
            };
            let Some(one) = one else {
                return Err(Failure::registry("the client was closed"));
            };
            let line = self.line(&one);
            if output.json {
                output.value(&value(&services, &one))?;
            } else if output.terminal {
                last.push(line);
                last.drain(..last.len().saturating_sub(LAST));
            } else {
                output.line(line)?;
            }
        }
    }

    fn line(&self, news: &News) -> String {
        let now = time_of_day();
        match news {
            News::Change(which, change) => {
                let change = plain(&change.to_string());
                format!("{now} {} {change}", self.services[*which])
            }
            News::Status(which, status) => format!("{now} {} {status}", self.services[*which]),
        }
    }
}

/// As many changes stand under the table.
const LAST: usize = 10;
/// As many instances of a service are shown in it.
const ROWS: usize = 30;

/// None wanted is none; otherwise at least so many.
fn reached(service: &Subscription, wanted: usize) -> bool {
    let callable = service.snapshot().callable_len();
    if wanted == 0 {
        callable == 0
    } else {
        callable >= wanted
    }
}

fn draw(services: &[Subscription], last: &[String], output: &mut Output) -> Result<(), Failure> {
    let mut text = String::from("\u{1b}[H\u{1b}[2J");
    for service in services {
        let snapshot = service.snapshot();
        let callable = snapshot.callable_len();
        let color = if callable == 0 {
            Color::Bad
        } else {
            Color::Good
        };
        let state = output.paint(color, format_args!("{callable} callable"));
        let status = output.paint(Color::Faint, service.status());
        text += &format!(
            "{}: {state}, revision {}, {status}\n",
            service.key(),
            snapshot.revision()
        );
        let rows: Vec<_> = snapshot
            .entries()
            .iter()
            .take(ROWS)
            .map(instance_row)
            .collect();
        for line in columns(&INSTANCE_HEAD, &rows) {
            text += &format!("  {line}\n");
        }
        if snapshot.entries().len() > ROWS {
            text += &format!("  and {} more\n", snapshot.entries().len() - ROWS);
        }
        text.push('\n');
    }
    for line in last {
        text += &output.paint(Color::Faint, line);
        text.push('\n');
    }
    output.bytes(text.as_bytes())?;
    Ok(())
}

fn value(services: &[Subscription], news: &News) -> serde_json::Value {
    let at = since_1970().as_millis() as u64;
    let service = |which: usize| services[which].key().to_string();
    match news {
        News::Change(which, change) => json!({
            "at": at,
            "service": service(*which),
            "change": match change.kind {
                ChangeKind::Added => "added",
                ChangeKind::Removed { .. } => "removed",
                _ => "updated",
            },
            "cause": change.cause().map(|cause| cause.to_string()),
            "revision": change.revision.get(),
            "instance": plain_json(&change.instance),
        }),
        News::Status(which, status) => json!({
            "at": at,
            "service": service(*which),
            "status": status.to_string(),
        }),
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// In UTC, which needs no table of the world's clocks.
fn time_of_day() -> String {
    let now = since_1970();
    let seconds = now.as_secs() % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let millis = now.subsec_millis();
    format!("{hours:02}:{minutes:02}:{:02}.{millis:03}Z", seconds % 60)
}
