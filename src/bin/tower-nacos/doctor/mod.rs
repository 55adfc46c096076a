//! `doctor`: what is wrong between here and the registry, found one after another, each with what to do.

mod network;
mod registry;

use clap::Args;
use serde_json::json;

use crate::{
    connection::Connection,
    failure::Failure,
    output::{Color, Output, plain},
};

#[derive(Args)]
pub(crate) struct Doctor {
    /// Services whose instances are dialled from here, each `[group@]name`
    services: Vec<String>,
}

/// What one look has found.
struct Finding {
    what: &'static str,
    verdict: Verdict,
    said: String,
    /// Empty where nothing is to be done.
    remedy: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It may be meant so.
    Doubtful,
    Bad,
}

/// What was found so far, told as it is found.
struct Findings<'a> {
    output: &'a mut Output,
    bad: usize,
}

impl Doctor {
    pub(crate) async fn run(
        self,
        connection: &Connection,
        output: &mut Output,
    ) -> Result<(), Failure> {
        connection.builder()?; // what is wrong with the options is told first
        let mut findings = Findings { output, bad: 0 };
        if let Some(servers) = connection.servers() {
            for server in servers {
                network::look(&server, connection, &mut findings).await?;
            }
        }
        registry::look(connection, &self.services, &mut findings).await?;
        match findings.bad {
            0 => Ok(()),
            1 => Err(Failure::not_so("1 fault")),
            bad => Err(Failure::not_so(format_args!("{bad} faults"))),
        }
    }
}

impl Findings<'_> {
    fn tell(&mut self, finding: Finding) -> Result<(), Failure> {
        let Finding {
            what,
            verdict,
            said,
            remedy,
        } = finding;
        self.bad += usize::from(verdict == Verdict::Bad);
        let word = match verdict {
            Verdict::Good => "ok",
            Verdict::Doubtful => "doubtful",
            Verdict::Bad => "bad",
        };
        if self.output.json {
            self.output.value(&json!({
                "what": what,
                "verdict": word,
                "said": said,
                "remedy": remedy,
            }))?;
            return Ok(());
        }
        let color = match verdict {
            Verdict::Good => Color::Good,
            Verdict::Doubtful | Verdict::Bad => Color::Bad,
        };
        let mark = self.output.paint(color, format_args!("{word:>8}"));
        self.output
            .line(format_args!("{mark}  {what}: {}", plain(&said)))?;
        if !remedy.is_empty() {
            self.output
                .line(format_args!("          {}", plain(&remedy)))?;
        }
        Ok(())
    }

    fn good(&mut self, what: &'static str, said: impl Into<String>) -> Result<(), Failure> {
        self.tell(Finding {
            what,
            verdict: Verdict::Good,
            said: said.into(),
            remedy: String::new(),
        })
    }

    fn doubtful(
        &mut self,
        what: &'static str,
        said: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Result<(), Failure> {
        self.tell(Finding {
            what,
            verdict: Verdict::Doubtful,
            said: said.into(),
            remedy: remedy.into(),
        })
    }

    fn bad(
        &mut self,
        what: &'static str,
        said: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Result<(), Failure> {
        self.tell(Finding {
            what,
            verdict: Verdict::Bad,
            said: said.into(),
            remedy: remedy.into(),
        })
    }
}
