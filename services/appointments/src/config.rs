//! The service's options.

use clap::Args;

/// Minutes for which an offer holds its time by default: long enough to read a text and answer it.
pub const OFFER_MINUTES: u64 = 15;
/// Minutes for which places are held instead of a displaced visit by default, and at most: a day, for whoever is told of it at work or
/// at night did not ask to move.
pub const ALTERNATIVE_MINUTES: u64 = 24 * 60;

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
    /// Minutes for which places are held instead of a displaced visit, 1 to 1,440; then the front desk settles it.
    #[arg(long, env = "ALTERNATIVE_MINUTES", default_value_t = ALTERNATIVE_MINUTES,
          value_parser = clap::value_parser!(u64).range(1..=ALTERNATIVE_MINUTES))]
    pub alternative_minutes: u64,
}
