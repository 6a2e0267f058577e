//! A service that follows the teller's events and writes each into its `effect` table; it can be told to fail or to wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use async_trait::async_trait;
use kit::db::Db;
use kit::ids::PatientId;
use kit::messaging::inbox::{self, Handler, Incoming, Retry, Subscription};
use prost::Name as _;
use proto::clinic::patients::v1::PatientChanged;
use sqlx::PgConnection;
use testkit::{Servers, until};
use tokio::sync::{Notify, Semaphore};

use crate::{effects, schema};

/// Its name: schema, role and durable consumer.
pub(crate) const NAME: &str = "notify";
/// As many deliveries as in production, without the minute that they take there.
pub(crate) const SOON: Retry =
    Retry { deliveries: 10, first_delay: Duration::from_millis(1), longest_delay: Duration::from_millis(10) };

/// What it does with events.
pub(crate) struct Effects {
    /// Deliveries of each patient's events so far.
    deliveries: Mutex<HashMap<PatientId, usize>>,
    /// How many deliveries of a patient's events are still to fail.
    failures: Mutex<HashMap<PatientId, usize>>,
    /// Rung when an event is about to be applied.
    pub(crate) entered: Notify,
    /// Closed while it has no permits.
    pub(crate) gate: Semaphore,
}

#[async_trait]
impl Handler for Effects {
    async fn handle(&self, tx: &mut PgConnection, event: &Incoming) -> anyhow::Result<()> {
        let Some(event) = event.decode::<PatientChanged>()? else { return Ok(()) };
        let patient: PatientId = event.patient_id.parse()?;
        *self.deliveries.lock().unwrap().entry(patient).or_default() += 1;
        self.entered.notify_one();
        let _open = self.gate.acquire().await?;
        // Before the failure, which must undo it.
        sqlx::query("insert into effect (of) values ($1)").bind(patient).execute(tx).await?;
        if let Some(left @ 1..) = self.failures.lock().unwrap().get_mut(&patient) {
            *left -= 1;
            anyhow::bail!("told to fail\nfor {patient}");
        }
        Ok(())
    }
}

impl Effects {
    /// Lets the next `times` deliveries of events about `patient` fail.
    pub(crate) fn fail(&self, patient: PatientId, times: usize) {
        self.failures.lock().unwrap().insert(patient, times);
    }

    /// Deliveries of events about `patient` so far.
    pub(crate) fn deliveries(&self, patient: PatientId) -> usize {
        self.deliveries.lock().unwrap().get(&patient).copied().unwrap_or_default()
    }
}

/// The running follower and the servers below it.
pub(crate) struct Follower {
    pub(crate) servers: Servers,
    pub(crate) db: Db,
    pub(crate) js: jetstream::Context,
    pub(crate) effects: Arc<Effects>,
}

impl Follower {
    /// Follows at once whatever is delivered.
    pub(crate) async fn start() -> Self {
        Self::with_gate(Semaphore::new(Semaphore::MAX_PERMITS)).await
    }

    /// Follows too, but applies nothing before [`Effects::gate`] opens.
    pub(crate) async fn start_waiting() -> Self {
        Self::with_gate(Semaphore::new(0)).await
    }

    async fn with_gate(gate: Semaphore) -> Self {
        let servers = Servers::start().await;
        let db = schema(&servers, NAME).await;
        let js = kit::messaging::jetstream(servers.broker().await);
        let effects = Arc::new(Effects {
            deliveries: Mutex::default(),
            failures: Mutex::default(),
            entered: Notify::new(),
            gate,
        });
        let subscription = Subscription {
            context: crate::TELLER,
            consumer: NAME,
            subjects: vec![PatientChanged::full_name()],
        };
        let nats = kit::messaging::connect(&servers.nats.url(), NAME).await.unwrap();
        let (handler, stop) = (effects.clone(), servers.stop.clone());
        tokio::spawn(inbox::consume_with(db.clone(), nats, subscription, handler, SOON, stop));
        Self { servers, db, js, effects }
    }

    /// Waits until an event about `patient` has taken effect.
    pub(crate) async fn applied(&self, patient: PatientId) {
        until("the event's effect", || async { (effects(&self.db, patient).await > 0).then_some(()) }).await;
    }
}
