//! The service's options.

use clap::Args;

/// Options of appointments.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Database, broker, identity.
    #[command(flatten)]
    pub service: kit::config::Service,
    /// Where scheduling answers.
    #[arg(long, env = "SCHEDULING_URL", default_value = "http://127.0.0.1:50051")]
    pub scheduling_url: String,
    /// Where patients answers.
    #[arg(long, env = "PATIENTS_URL", default_value = "http://127.0.0.1:50053")]
    pub patients_url: String,
    /// Where billing answers.
    #[arg(long, env = "BILLING_URL", default_value = "http://127.0.0.1:50054")]
    pub billing_url: String,
}
