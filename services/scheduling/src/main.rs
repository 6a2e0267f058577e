//! The scheduling service as its own process.

use clap::Parser;
use kit::clock::Clock;

#[derive(Parser)]
#[command(
    name = "scheduling",
    about = "Calendars and availability of the clinic network, over gRPC",
    after_help = "Example:\n  scheduling --database-url postgres://scheduling:secret@db/clinic --nats-url nats://broker:4222 \\\n    \
                  --jwks-file jwks.json --service-key-file service.pem"
)]
struct Cli {
    #[command(flatten)]
    process: kit::config::Process,
    #[command(flatten)]
    config: scheduling::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    kit::platform::main(
        scheduling::NAME,
        scheduling::PORT,
        |cli: &Cli| cli.process.clone(),
        |listener, cli, stop| scheduling::run(listener, cli.config, Clock::System, stop),
    )
    .await
}
