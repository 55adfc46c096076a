//! What one sees while it runs: on a terminal a picture that moves, elsewhere plain lines.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{interval, sleep},
};

use crate::books::{BUCKET, Books, Happening, name_of};

pub(crate) struct View {
    terminal: bool,
    drawn: Arc<Mutex<Drawn>>,
    task: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Drawn {
    events: VecDeque<String>,
    /// How many lines stand there and are to be drawn over.
    lines: usize,
}

/// The events that are shown.
const EVENTS: usize = 12;
const WIDTH: usize = 40;

impl View {
    pub(crate) fn open(books: &Arc<Books>) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let drawn = Arc::<Mutex<Drawn>>::default();
        let (books, picture) = (books.clone(), drawn.clone());
        let task = tokio::spawn(async move {
            if terminal {
                let mut ticks = interval(Duration::from_millis(200));
                loop {
                    ticks.tick().await;
                    picture
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .draw(&books);
                }
            }
            loop {
                sleep(Duration::from_secs(2)).await;
                println!("{}", glance(&books));
            }
        });
        Self {
            terminal,
            drawn,
            task: Some(task),
        }
    }

    pub(crate) fn event(&self, books: &Books, provider: usize, what: Happening, detail: &str) {
        let (at, name) = (books.now().as_secs_f64(), name_of(provider));
        let mut line = format!("{at:6.2} s  {name} {}", what.text());
        if !detail.is_empty() {
            let _ = write!(line, ": {detail}");
        }
        self.say(line);
    }

    pub(crate) fn say(&self, line: String) {
        if !self.terminal {
            println!("{line}");
            return;
        }
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.events.push_back(line);
        if drawn.events.len() > EVENTS {
            drawn.events.pop_front();
        }
    }

    /// Draws it for the last time.
    pub(crate) fn close(mut self, books: &Books) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        if self.terminal {
            self.drawn
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .draw(books);
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Drawn {
    fn draw(&mut self, books: &Books) {
        let mut lines = vec![glance(books), String::new()];
        let (shares, all) = last_second(books);
        for (provider, calls) in shares.iter().enumerate() {
            let filled = (*calls as usize * WIDTH)
                .checked_div(all as usize)
                .unwrap_or(0);
            let bar = "█".repeat(filled) + &"·".repeat(WIDTH - filled);
            lines.push(format!("  {}  {bar}  {calls:4} calls/s", name_of(provider)));
        }
        lines.push(String::new());
        lines.extend(self.events.iter().cloned());
        if let Some(text) = &books.read().last_failure {
            lines.push(format!(
                "last failure: {}",
                text.lines().next().unwrap_or_default()
            ));
        }
        // Lines that are too long are cut, as ones that wrap could not be drawn over.
        let mut out = "\x1b[?7l".to_owned();
        if self.lines > 0 {
            let _ = write!(out, "\x1b[{}A\r", self.lines);
        }
        for line in &lines {
            let _ = writeln!(out, "\x1b[2K{line}");
        }
        out.push_str("\x1b[?7h");
        self.lines = lines.len();
        let mut stdout = std::io::stdout().lock();
        let _ = stdout
            .write_all(out.as_bytes())
            .and_then(|()| stdout.flush());
    }
}

/// One line: time, rate, shares, failures.
fn glance(books: &Books) -> String {
    let (shares, all) = last_second(books);
    let mut line = format!("{:6.2} s  {all} calls/s", books.now().as_secs_f64());
    for (provider, calls) in shares.iter().enumerate() {
        let percent = (calls * 100 + all / 2).checked_div(all).unwrap_or(0);
        let _ = write!(line, "  {} {percent}%", name_of(provider));
    }
    let pages = books.read();
    let _ = write!(
        line,
        "  answered {} failed {}",
        pages.calls.len() - pages.failed,
        pages.failed
    );
    line
}

/// Answers of each provider in the last whole second, and of all.
fn last_second(books: &Books) -> (Vec<u32>, u32) {
    let now = (books.now().as_millis() / BUCKET.as_millis()) as usize;
    let pages = books.read();
    let shares: Vec<u32> = pages
        .answers
        .iter()
        .map(|buckets| {
            let buckets = buckets.iter().take(now).skip(now.saturating_sub(10));
            buckets.flatten().sum()
        })
        .collect();
    let all = shares.iter().sum();
    (shares, all)
}
