//! Payment and SMS providers that speak the real protocols, for development and tests.
//!
//! The suite's own adapters run against this server everywhere, so what they do here they do against the real
//! providers. It differs from those in that it can be told to fail (`POST /sandbox/faults`), to let time pass
//! (`POST /sandbox/clock`), to act as a cardholder or a bank (`POST /sandbox/authenticate`, `POST /sandbox/disputes`), to write texts
//! from a phone (`POST /sandbox/messages`, or the page `/sandbox/inbox`) and to show what it remembers
//! (`GET /sandbox/payment_intents`, `GET /sandbox/messages`).
//!
//! - `config`: keys, addresses, clock
//! - `server`: accept loop that can hang up on a caller
//! - `control`: the calls under `/sandbox`
//! - `payments`: `/v1`, Stripe's protocol: `api` shares, a file per noun decides
//! - `sms`: `/2010-04-01`, Twilio's protocol
//! - `faults`: trouble by script
//! - `outbound`: signed webhooks and status callbacks
//! - `store`: objects in memory behind a journal that survives a killed process
//! - `form`: bracketed forms
//!
//! Cards and numbers that fail are the providers' documented ones: see `payments/cards.rs` and `sms/message.rs`.

mod config;
mod control;
mod faults;
mod form;
mod outbound;
mod payments;
mod server;
mod sms;
mod store;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::Router;
use chrono::{DateTime, Utc};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{Advance, Clock, Config, Settings};

/// How often lapsed authorizations are looked for when nobody calls.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Both providers' memory and the means to act on it; clones share it.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    config: Config,
    store: Mutex<store::Store>,
    faults: faults::Faults,
    outbound: outbound::Outbound,
    running_keys: Mutex<BTreeSet<String>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl State {
    /// Opens the journal, if a folder is configured, and takes up what an earlier process left unfinished: webhooks not
    /// yet taken, messages on their way. Must run inside a tokio runtime. Background work ends when `shutdown` is
    /// cancelled. Fails when the journal cannot be read or written.
    pub fn open(config: Config, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let state = Self(Arc::new(Inner {
            store: Mutex::new(store::Store::open(config.settings.data_dir.as_deref())?),
            faults: faults::Faults::new(config.settings.fault_seed),
            config,
            outbound: outbound::Outbound::new()?,
            running_keys: Mutex::default(),
            tasks: TaskTracker::new(),
            shutdown,
        }));
        outbound::resume(&state);
        sms::resume(&state);
        let sweeper = state.clone();
        drop(state.spawn(async move {
            loop {
                payments::api::sweep(&sweeper);
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        }));
        Ok(state)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.config.settings
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        (self.0.config.clock)()
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, store::Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn faults(&self) -> &faults::Faults {
        &self.0.faults
    }

    pub(crate) fn outbound(&self) -> &outbound::Outbound {
        &self.0.outbound
    }

    /// Runs work that outlives its caller; it answers `None` when the shutdown cut it short.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let shutdown = self.0.shutdown.clone();
        self.0.tasks.spawn(async move { shutdown.run_until_cancelled(work).await })
    }

    /// Takes an idempotency key for as long as its request runs; `None` while another request has it.
    pub(crate) fn claim(&self, key: &str) -> Option<Claim> {
        let mut running = self.0.running_keys.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(key.to_owned()).then(|| Claim { state: self.clone(), key: key.to_owned() })
    }
}

/// An idempotency key in use; free again when dropped.
pub(crate) struct Claim {
    state: State,
    key: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.state.0.running_keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Every path of both providers. Scripted hang-ups close the connection only under `serve`; elsewhere they show as an
/// empty 503.
pub fn router(state: State) -> Router {
    Router::new().merge(control::router()).merge(payments::router()).merge(sms::router()).with_state(state)
}

/// Serves both providers until `shutdown` is cancelled; then open connections get a few seconds to end. Fails when the
/// journal cannot be opened.
pub async fn serve(listener: TcpListener, config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let state = State::open(config, shutdown.clone())?;
    tracing::info!(address = %listener.local_addr()?, "The sandbox providers listen.");
    server::run(listener, router(state.clone()), shutdown).await;
    state.0.tasks.close();
    state.0.tasks.wait().await;
    Ok(())
}
