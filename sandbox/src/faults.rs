//! Trouble by script: slow, lost and broken answers, and webhooks that come twice, late, shuffled or not at all.

use std::{sync::Mutex, time::Duration};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// Longest pause a script may ask for: ten minutes.
const LONGEST_MS: u64 = 600_000;
/// Longest delay in simulated time: a month.
const LONGEST_SECS: i64 = 30 * 24 * 60 * 60;
/// How long `act_then_timeout` stays silent when the script does not say: longer than any caller waits.
const SILENCE_MS: u64 = 60_000;
/// How long a `reorder_webhook` waits for another delivery to overtake it when the script does not say.
const OVERTAKEN_MS: u64 = 1_000;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trouble {
    /// Wait `ms`, then act and answer as ever.
    Latency,
    /// Do nothing, wait `ms`, close the connection.
    Drop,
    /// Act, stay silent for `ms`, close the connection.
    ActThenTimeout,
    /// Act, then close the connection at once.
    ActThenDrop,
    /// Act, then answer 500; repetitions under the same idempotency key get that 500 again.
    #[serde(rename = "act_then_error_500")]
    ActThenError500,
    /// Answer 500 without acting.
    #[serde(rename = "error_500")]
    Error500,
    /// The same, and again for each repetition under the same idempotency key. Texts have none: `error_500` to them.
    #[serde(rename = "error_500_remembered")]
    Error500Remembered,
    /// Deliver the webhook twice.
    DuplicateWebhook,
    /// Deliver the webhook `ms`, or `secs` of the simulated clock, later; it is signed when it leaves.
    DelayWebhook,
    /// Deliver the webhook after another one, or after `ms`.
    ReorderWebhook,
    /// Never deliver the webhook; it stays in the events list.
    DropWebhook,
}

impl Trouble {
    fn of_webhooks(self) -> bool {
        match self {
            Self::Latency
            | Self::Drop
            | Self::ActThenTimeout
            | Self::ActThenDrop
            | Self::ActThenError500
            | Self::Error500
            | Self::Error500Remembered => false,
            Self::DuplicateWebhook | Self::DelayWebhook | Self::ReorderWebhook | Self::DropWebhook => true,
        }
    }
}

/// One scripted fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// A call (`payment_intents.create`), an event (`payment_intent.succeeded`, `message.sent`), all of one noun
    /// (`payment_intents.*`) or everything (`*`).
    pub(crate) route: String,
    pub(crate) kind: Trouble,
    /// Milliseconds; each kind says what for.
    #[serde(default)]
    pub(crate) ms: Option<u64>,
    /// `delay_webhook` alone: seconds of the simulated clock.
    #[serde(default)]
    pub(crate) secs: i64,
    /// How often it strikes before it is used up.
    #[serde(default = "once")]
    pub(crate) times: u32,
    /// How many of a hundred things that it concerns it strikes, as drawn; it leaves the others to the faults after it.
    #[serde(default = "always")]
    pub(crate) percent: u32,
}

fn once() -> u32 {
    1
}

fn always() -> u32 {
    100
}

impl Fault {
    pub(crate) fn pause(&self) -> Duration {
        let unsaid = match self.kind {
            Trouble::ActThenTimeout => SILENCE_MS,
            Trouble::ReorderWebhook => OVERTAKEN_MS,
            _ => 0,
        };
        Duration::from_millis(self.ms.unwrap_or(unsaid))
    }

    fn concerns(&self, name: &str) -> bool {
        match self.route.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.route == name,
        }
    }
}

/// The faults still to strike, oldest first, and what draws for those that strike now and then.
pub(crate) struct Faults(Mutex<(Vec<Fault>, StdRng)>);

impl Faults {
    /// None yet; `seed` repeats the draws.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(Mutex::new((Vec::new(), StdRng::seed_from_u64(seed.unwrap_or_else(rand::random)))))
    }

    /// Adds a fault, or says in a sentence what is wrong with it.
    pub(crate) fn add(&self, fault: Fault) -> Result<(), String> {
        if fault.times == 0 || fault.ms.is_some_and(|ms| ms > LONGEST_MS) {
            return Err(format!("A fault strikes at least once and lasts at most {LONGEST_MS} ms."));
        }
        if !(1..=always()).contains(&fault.percent) {
            return Err("A fault strikes 1 to 100 percent of what it concerns.".into());
        }
        let delays = fault.kind == Trouble::DelayWebhook && (1..=LONGEST_SECS).contains(&fault.secs);
        if fault.secs != 0 && !delays {
            return Err(format!("A delay_webhook alone takes secs, from 1 to {LONGEST_SECS}."));
        }
        self.lock().0.push(fault);
        Ok(())
    }

    pub(crate) fn list(&self) -> Vec<Fault> {
        self.lock().0.clone()
    }

    pub(crate) fn clear(&self) {
        self.lock().0.clear();
    }

    /// Uses up one strike of the oldest fault that concerns this webhook.
    pub(crate) fn strike_webhook(&self, event: &str) -> Option<Fault> {
        self.strike(event, true)
    }

    fn strike(&self, name: &str, webhook: bool) -> Option<Fault> {
        let (faults, draws) = &mut *self.lock();
        let mut strikes = |fault: &Fault| {
            fault.kind.of_webhooks() == webhook
                && fault.concerns(name)
                && draws.random_range(0..always()) < fault.percent
        };
        let at = faults.iter().position(&mut strikes)?;
        faults[at].times -= 1;
        let struck = faults[at].clone();
        faults.retain(|fault| fault.times > 0);
        Some(struck)
    }

    /// Runs one call under whatever fault is due for it; `broken` answers the provider's own kind of 500.
    pub(crate) async fn around<A: FnOnce() -> Response>(
        &self,
        name: &str,
        broken: impl FnOnce(Broken<A>) -> Response,
        act: A,
    ) -> Response {
        let Some(fault) = self.strike(name, false) else { return act() };
        match fault.kind {
            Trouble::Error500 => broken(Broken::Before),
            Trouble::Error500Remembered => broken(Broken::Remembered),
            Trouble::ActThenError500 => broken(Broken::After(act)),
            Trouble::Drop => {
                tokio::time::sleep(fault.pause()).await;
                hang_up()
            }
            Trouble::ActThenTimeout | Trouble::ActThenDrop => {
                act();
                tokio::time::sleep(fault.pause()).await;
                hang_up()
            }
            _ => {
                tokio::time::sleep(fault.pause()).await;
                act()
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<Fault>, StdRng)> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What a 500 leaves behind.
pub(crate) enum Broken<A> {
    /// Nothing: the call may be made again.
    Before,
    /// Itself, under the call's idempotency key, and nothing else.
    Remembered,
    /// The same, and all that the call did.
    After(A),
}

/// Marks a response that must not be sent: the server closes the connection instead.
#[derive(Clone, Copy)]
pub(crate) struct HangUp;

/// A response nobody receives.
pub(crate) fn hang_up() -> Response {
    let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
    response.extensions_mut().insert(HangUp);
    response
}
