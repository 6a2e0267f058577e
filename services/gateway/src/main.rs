//! The gateway as a program of its own.

use clap::Parser;

/// The one public port of the clinic suite: gRPC, grpc-web, reflection, webhooks.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  gateway --listen 0.0.0.0:8080 --billing-url http://billing:50054"
)]
struct Cli {
    #[command(flatten)]
    process: kit::config::Process,
    #[command(flatten)]
    config: gateway::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    kit::platform::main(
        gateway::NAME,
        gateway::PORT,
        |cli: &Cli| cli.process.clone(),
        |listener, cli, stop| gateway::run(listener, cli.config, stop),
    )
    .await
}
