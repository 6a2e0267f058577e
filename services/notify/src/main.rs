//! The notify service as a process of its own.

use clap::Parser;
use kit::clock::Clock;

/// Serves clinic.notify.v1 and sends what is due.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  notify --database-url postgres://notify:secret@db:5432/clinic \\\n    \
                  --jwks-file /etc/clinic/jwks.json --service-key-file /etc/clinic/service.pem \\\n    \
                  --sms-account-sid AC… --sms-auth-token … --sms-from +12025550100"
)]
struct Cli {
    #[command(flatten)]
    process: kit::config::Process,
    #[command(flatten)]
    config: notify::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    kit::platform::main(
        notify::NAME,
        notify::PORT,
        |cli: &Cli| cli.process.clone(),
        |listener, cli, stop| notify::run(listener, cli.config, Clock::System, stop),
    )
    .await
}
