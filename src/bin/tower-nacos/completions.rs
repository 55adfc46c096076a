use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{Cli, failure::Failure, output::Output};

#[derive(Args)]
pub(crate) struct Completions {
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tower-nacos", &mut script);
        output.bytes(&script)?;
        Ok(())
    }
}
