//! Billing as its own process.

use clap::Parser;
use kit::clock::Clock;

/// Co-pays, no-show fees and the ledger of the clinic network.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  DATABASE_URL=postgres://billing:secret@db:5432/clinic NATS_URL=nats://nats:4222 \\\n  \
                  CLINIC_JWKS_FILE=/keys/jwks.json CLINIC_SERVICE_KEY_FILE=/keys/billing.pem \\\n  \
                  PAYMENTS_API_KEY=sk_live_… PAYMENTS_WEBHOOK_SECRET=whsec_… billing"
)]
struct Cli {
    #[command(flatten)]
    process: kit::config::Process,
    #[command(flatten)]
    config: billing::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    kit::platform::main(
        billing::NAME,
        billing::PORT,
        |cli: &Cli| cli.process.clone(),
        |listener, cli, stop| billing::run(listener, cli.config, Clock::System, stop),
    )
    .await
}
