//! The program's side of a provider's process.

use std::{process::Stdio, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tower_nacos::Address;

use crate::{Error, HANG, books::Books};

/// Where providers register.
pub(crate) struct Place<'a> {
    pub(crate) server: &'a str,
    pub(crate) service: &'a str,
    pub(crate) push_delay: Duration,
}

/// The first argument of the program when it is a provider.
pub(crate) const AS_PROVIDER: &str = "as-provider";

/// One life of a provider. Killed when dropped; ends by itself when this program does, as its
/// standard input closes then.
pub(crate) struct Child {
    process: tokio::process::Child,
    commands: ChildStdin,
    said: mpsc::UnboundedReceiver<String>,
    journal: JoinHandle<()>,
    pub(crate) address: Address,
    /// Which in the books.
    pub(crate) life: usize,
}

impl Child {
    /// Starts it, and returns when it has registered.
    pub(crate) async fn start(
        books: &Arc<Books>,
        place: &Place<'_>,
        provider: usize,
        at: Option<&Address>,
    ) -> Result<Self, Error> {
        let (life, name) = books.new_life(provider);
        let at = at.map_or_else(|| "127.0.0.1:0".to_owned(), ToString::to_string);
        let mut process = Command::new(std::env::current_exe()?)
            .args([AS_PROVIDER, place.server, place.service, &name, &at])
            .arg(place.push_delay.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(commands), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("a child without pipes".into());
        };
        let (say, mut said) = mpsc::unbounded_channel();
        let journal = tokio::spawn(read(stdout, books.clone(), life, say));
        let ready = expect(&mut said, "ready").await?;
        Ok(Self {
            process,
            commands,
            said,
            journal,
            address: ready.parse()?,
            life,
        })
    }

    /// Tells it to go; returns when the registry has confirmed that it lists it no more.
    pub(crate) async fn offline(&mut self) -> Result<(), Error> {
        self.commands.write_all(b"offline\n").await?;
        expect(&mut self.said, "offline").await?;
        Ok(())
    }

    /// Waits for its end, which is its own affair; returns its report.
    pub(crate) async fn ended(mut self) -> Result<String, Error> {
        let report = expect(&mut self.said, "over").await?;
        let end = timeout(HANG, self.process.wait()).await;
        let status = end.map_err(|_| "a provider never ends")??;
        self.journal.await?;
        match status.success() {
            true => Ok(report),
            false => Err(format!("a provider ended with {status}").into()),
        }
    }

    /// `kill -9`; returns when there is no process any more and its journal is read.
    pub(crate) async fn kill(mut self) -> Result<(), Error> {
        self.process.kill().await?;
        self.journal.await?;
        Ok(())
    }
}

async fn expect(said: &mut mpsc::UnboundedReceiver<String>, word: &str) -> Result<String, Error> {
    let line = timeout(HANG, said.recv()).await;
    let line = line.map_err(|_| format!("a provider never says {word}"))?;
    let line = line.ok_or_else(|| format!("a provider ended before it said {word}"))?;
    let rest = line.strip_prefix(word);
    let rest = rest.ok_or_else(|| format!("a provider says {line} in place of {word}"))?;
    Ok(rest.trim().to_owned())
}

/// Enters the journal into the books, and hands on everything else that it says.
async fn read(
    stdout: ChildStdout,
    books: Arc<Books>,
    life: usize,
    say: mpsc::UnboundedSender<String>,
) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let entry = line
            .split_once(' ')
            .and_then(|(what, id)| Some((what, id.parse().ok()?)));
        match entry {
            Some(("b", id)) => books.begun(life, id),
            Some(("f", id)) => books.finished(life, id),
            _ => drop(say.send(line)),
        }
    }
}
