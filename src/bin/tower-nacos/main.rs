//! `tower-nacos`: what a Nacos registry says, who may be called, and what is wrong, from a terminal.
//!
//! Built on this crate's public interface alone: what it shows is what a program's balancer sees.

#![expect(
    clippy::disallowed_methods,
    reason = "a program owns its tasks and reads the clocks"
)]

mod call;
mod completions;
mod connection;
mod doctor;
mod explain;
mod failure;
mod list;
mod output;
mod progress;
mod register;
mod serve;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use connection::Connection;
use failure::Failure;
use output::Output;

/// Looks into a Nacos registry as a program's balancer sees it.
#[derive(Parser)]
#[command(name = "tower-nacos", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    /// JSON in place of text: one value, or one a line of what goes on
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The services of the group, or those that a pattern takes (`order-*`, `billing@*`)
    Ls(list::Ls),
    /// The instances of a service: who may be called, and who not, and why
    Get(list::Get),
    /// What changes, as it changes: a table in a terminal, a line a change elsewhere; until Ctrl-C
    Watch(watch::Watch),
    /// Why instances are picked, or are not
    Explain(explain::Explain),
    /// Calls a service by its name, once or many times
    Call(call::Call),
    /// Registers what listens on a port of this machine, until Ctrl-C; leaves without a failed call
    Register(register::Register),
    /// A registry on loopback, for trying things out; what it knows is gone when it ends
    Serve(serve::Serve),
    /// What is wrong between here and the registry, and what to do
    Doctor(doctor::Doctor),
    /// A script that completes this command in a shell
    Completions(completions::Completions),
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 it is not so: no instance, a call that failed, a fault found; \
2 the command cannot be read; 3 the registry cannot be reached, or refuses.

Options count in this order: given here, NACOS_SERVER and the variables NACOS_… of the library, --config.";

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut output = Output::new(cli.json);
    match run(cli, &mut output).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            failure.code()
        }
    }
}

async fn run(cli: Cli, output: &mut Output) -> Result<(), Failure> {
    let connection = cli.connection;
    match cli.command {
        Command::Ls(command) => command.run(&connection.open().await?, output).await,
        Command::Get(command) => command.run(&connection.open().await?, output).await,
        Command::Watch(command) => command.run(&connection.open().await?, output).await,
        Command::Explain(command) => command.run(&connection.open().await?, output).await,
        Command::Call(command) => command.run(&connection.open().await?, output).await,
        Command::Register(command) => command.run(&connection.open().await?, output).await,
        Command::Serve(command) => command.run(output).await,
        Command::Doctor(command) => command.run(&connection, output).await,
        Command::Completions(command) => command.run(output),
    }
}
