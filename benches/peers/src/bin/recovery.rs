use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    peers::finish("recovery", peers::recovery::run().await)
}
