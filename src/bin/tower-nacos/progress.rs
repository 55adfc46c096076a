//! What takes long shows that it goes on: to a person at a terminal, and gone when it is over.

use std::{
    env,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Output;

/// A line on standard error, as long as this lives. Nothing where nobody reads it as it comes, with `--json`, and
/// where the terminal is to stay plain (`NO_COLOR`; `TERM` unset or `dumb`).
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// So many of something.
    pub(crate) fn of(many: u64, what: impl Into<String>, output: &Output) -> Self {
        Self::new(
            ProgressBar::new(many),
            "{msg} {bar:30} {pos}/{len}, {elapsed} of {duration}",
            what,
            output,
        )
    }

    /// It ends when it ends.
    pub(crate) fn until(what: impl Into<String>, output: &Output) -> Self {
        Self::new(
            ProgressBar::no_length(),
            "{spinner} {msg}, {elapsed}",
            what,
            output,
        )
    }

    fn new(bar: ProgressBar, form: &str, what: impl Into<String>, output: &Output) -> Self {
        if !is_wanted(output) {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template(form);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what.into());
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// One more of them is done.
    pub(crate) fn one_more(&self) {
        self.0.inc(1);
    }

    /// It is at this now.
    pub(crate) fn say(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn is_wanted(output: &Output) -> bool {
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // What `TERM` says is looked at where lines are drawn.
    io::stderr().is_terminal() && !output.json && !plain
}

const TICK: Duration = Duration::from_millis(100);
