//! The appointments service as a process of its own.

use clap::Parser;
use kit::clock::Clock;

/// Holds, bookings and visits: the service that never double-books.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  DATABASE_URL=postgres://appointments:secret@db/clinic NATS_URL=nats://nats:4222 \\\n  \
                  CLINIC_JWKS_FILE=jwks.json CLINIC_SERVICE_KEY_FILE=service.pem \\\n  \
                  SCHEDULING_URL=http://scheduling:50051 appointments --listen 0.0.0.0:50052"
)]
struct Cli {
    #[command(flatten)]
    process: kit::config::Process,
    #[command(flatten)]
    config: appointments::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    kit::platform::main::<Cli, _>(
        appointments::NAME,
        appointments::PORT,
        |cli| cli.process.clone(),
        |listener, cli, stop| appointments::run(listener, cli.config, Clock::System, stop),
    )
    .await
}
