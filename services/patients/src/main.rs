//! The patients service as a process of its own.

use clap::Parser;
use kit::clock::Clock;

/// Serves clinic.patients.v1.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  patients --database-url postgres://patients:secret@db:5432/clinic \\\n    \
                  --jwks-file /etc/clinic/jwks.json --service-key-file /etc/clinic/patients.pem"
)]
struct Cli {
    #[command(flatten)]
    process: kit::config::Process,
    #[command(flatten)]
    config: patients::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    kit::platform::main(
        patients::NAME,
        patients::PORT,
        |cli: &Cli| cli.process.clone(),
        |listener, cli, stop| patients::run(listener, cli.config, Clock::System, stop),
    )
    .await
}
