//! The service's options.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use crate::domain::money::Currency;

/// Options of billing, each with its environment variable.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// What every service has.
    #[command(flatten)]
    pub service: kit::config::Service,
    /// The appointments service: whether a visit is booked, which reconciliation asks.
    #[arg(long, env = "APPOINTMENTS_URL", default_value = "http://127.0.0.1:50052")]
    pub appointments_url: String,
    /// Payment provider: where its API is, without a path. Anything that speaks Stripe's protocol.
    #[arg(long, env = "PAYMENTS_API_BASE", default_value = "https://api.stripe.com")]
    pub payments_api_base: String,
    /// Payment provider: the secret key to its API ("sk_…").
    #[arg(long, env = "PAYMENTS_API_KEY", hide_env_values = true)]
    pub payments_api_key: Secret,
    /// Payment provider: the secret that signs its webhooks ("whsec_…"). Of its events, enable for this endpoint those that
    /// gateway/stripe.rs lists as EVENTS; others are answered and forgotten.
    #[arg(long, env = "PAYMENTS_WEBHOOK_SECRET", hide_env_values = true)]
    pub payments_webhook_secret: Secret,
    /// Milliseconds that one call to the payment provider may take; its outcome is unknown after that. At most 8000, so that
    /// what a killed process left is settled by another within 30 seconds.
    #[arg(long, env = "PAYMENTS_TIMEOUT_MS", default_value_t = 8_000, value_parser = clap::value_parser!(u64).range(1..=8_000))]
    pub payments_timeout_ms: u64,
    /// Seconds from one scheduled reconciliation to the next; 0 = only on demand.
    #[arg(long, env = "BILLING_RECONCILE_EVERY_SECS", default_value_t = 24 * 60 * 60)]
    pub reconcile_every_secs: u64,
    /// The network's currency, ISO 4217, one whose minor unit is a hundredth.
    #[arg(long, env = "CLINIC_CURRENCY", default_value = "USD")]
    pub currency: Currency,
}

/// Text that must not be printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
