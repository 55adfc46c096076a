use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    peers::finish("changes", peers::changes::run().await)
}
