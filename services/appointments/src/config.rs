//! The service's options.

use clap::Args;

/// Minutes for which an offer holds its time by default: long enough to read a text and answer it.
pub const OFFER_MINUTES: u64 = 15;

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
    /// Minutes for which an offer from the waitlist holds its time, 1 to 1,440.
    #[arg(long, env = "OFFER_MINUTES", default_value_t = OFFER_MINUTES, value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub offer_minutes: u64,
}
