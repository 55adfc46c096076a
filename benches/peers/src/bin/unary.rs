use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    peers::finish("unary", peers::unary::run().await)
}
