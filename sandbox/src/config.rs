//! What the caller chooses: keys, addresses, where to keep the store, and which clock to believe.

use std::{path::PathBuf, sync::Arc};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

/// Tells the present. The suite passes its own clock, simulated or real, so that both sides agree on `now`.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Moves the simulated clock forward by so many seconds and answers the new present; an error is one plain sentence.
pub type Advance = Arc<dyn Fn(i64) -> BoxFuture<'static, Result<DateTime<Utc>, String>> + Send + Sync>;

/// Settings from the command line or the environment.
#[derive(clap::Args, Clone, Debug)]
pub struct Settings {
    /// Secret key callers of the payment API present (Bearer, or Basic user name).
    #[arg(long, env = "SANDBOX_PAYMENTS_KEY", default_value = "sk_test_sandbox", hide_env_values = true)]
    pub payments_key: String,
    /// Where payment events are delivered; empty: events are only listed.
    #[arg(long, env = "SANDBOX_WEBHOOK_URL")]
    pub webhook_url: Option<String>,
    /// Kinds of payment events that are delivered, as the provider's endpoints choose theirs; `*`: all. Others are only listed.
    #[arg(long, env = "SANDBOX_WEBHOOK_EVENTS", value_delimiter = ',', default_value = "*")]
    pub webhook_events: Vec<String>,
    /// Signs payment events (`Stripe-Signature`).
    #[arg(long, env = "SANDBOX_WEBHOOK_SECRET", default_value = "whsec_sandbox", hide_env_values = true)]
    pub webhook_secret: String,
    /// SMS account: `AC` and 32 hexadecimal digits.
    #[arg(long, env = "SANDBOX_SMS_ACCOUNT", default_value = "AC00000000000000000000000000005a4d", value_parser = account_sid)]
    pub sms_account: String,
    /// SMS account's token: Basic password of callers, and the key that signs status callbacks.
    #[arg(long, env = "SANDBOX_SMS_TOKEN", default_value = "sandbox_sms_token", hide_env_values = true)]
    pub sms_token: String,
    /// Where texts from phones are told; empty: phones cannot write.
    #[arg(long, env = "SANDBOX_SMS_INBOUND_URL")]
    pub sms_inbound_url: Option<String>,
    /// Milliseconds of real time a message spends in each state on its way to the phone.
    #[arg(long, env = "SANDBOX_SMS_STEP_MS", default_value_t = 50)]
    pub sms_step_ms: u64,
    /// Repeats the draws of faults that strike now and then; empty: other draws each time.
    #[arg(long, env = "SANDBOX_FAULT_SEED")]
    pub fault_seed: Option<u64>,
    /// Folder of the journal that outlives the process; empty: memory only.
    #[arg(long, env = "SANDBOX_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Default for Settings {
    /// The values the command line has when nothing is given; the environment is not read.
    fn default() -> Self {
        Self {
            payments_key: "sk_test_sandbox".into(),
            webhook_url: None,
            webhook_events: vec!["*".into()],
            webhook_secret: "whsec_sandbox".into(),
            sms_account: "AC00000000000000000000000000005a4d".into(),
            sms_token: "sandbox_sms_token".into(),
            sms_inbound_url: None,
            sms_step_ms: 50,
            fault_seed: None,
            data_dir: None,
        }
    }
}

impl Settings {
    /// True when payment events of this kind are delivered.
    pub(crate) fn delivers(&self, kind: &str) -> bool {
        self.webhook_url.is_some() && self.webhook_events.iter().any(|wanted| wanted == "*" || wanted == kind)
    }
}

/// Everything the server needs to start.
#[derive(Clone)]
pub struct Config {
    /// Keys, addresses and folder.
    pub settings: Settings,
    /// The present.
    pub clock: Clock,
    /// Moves the clock; `None` when the suite runs on the real one.
    pub advance: Option<Advance>,
}

fn account_sid(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("AC").unwrap_or_default();
    if digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text.to_owned())
    } else {
        Err("an account is AC and 32 hexadecimal digits".into())
    }
}
