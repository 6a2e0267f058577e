//! Texts handed to the provider, and what came of it written down: for reminders and for answers alike.
//!
//! Each text has its message row, committed as SENDING, before it comes here.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use kit::clock::Clock;
use kit::db::Db;
use kit::ids::ReminderId;
use kit::messaging::outbox::Event;
use proto::clinic::notify::v1::FailureReason;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use uuid::Uuid;

use crate::events;
use crate::group::{Group, Write};
use crate::pace::Pace;
use crate::ports::{Outcome, Sms, SmsGateway};
use crate::store::bulk::{self, Starting};
use crate::store::opt_out::{self, NumberHash, NumberKey};
use crate::store::{Message, outgoing};

/// How long a text's row is leased from the moment it may leave.
pub const LEASE: Duration = Duration::from_secs(60);
/// How far the provider's clock may be behind ours.
const PROVIDER_SKEW: TimeDelta = TimeDelta::minutes(10);

/// What the start of a reminder came to.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// Its message is written down, and leaves when its turn comes.
    Begun {
        /// The reminder's new lease.
        lease: DateTime<Utc>,
        /// When its sender may send it.
        turn: Instant,
    },
    /// The recipient wants no texts.
    OptedOut,
    /// The recipient has got as many texts as is decent.
    Capped,
    /// It is another's by now, or its visit has changed.
    Lost,
}

/// The way to the provider; clones share it.
#[derive(Clone)]
pub struct Handover {
    db: Db,
    clock: Clock,
    sms: Arc<dyn SmsGateway>,
    pace: Pace,
    key: Arc<OnceCell<NumberKey>>,
    starts: Group<Starts>,
    takens: Group<Takens>,
}

impl Handover {
    /// Through `sms`, from a sender of this `pace`.
    pub fn new(db: Db, clock: Clock, sms: Arc<dyn SmsGateway>, pace: Pace) -> Self {
        let starts = Group::new(Starts { db: db.clone(), clock: clock.clone(), pace: pace.clone() });
        let takens = Group::new(Takens { db: db.clone(), clock: clock.clone() });
        Self { db, clock, sms, pace, key: Arc::default(), starts, takens }
    }

    /// The queue of the sender.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// A number as the tables know it.
    pub async fn number(&self, number: &str) -> sqlx::Result<NumberHash> {
        let key = self.key.get_or_try_init(|| NumberKey::read(self.db.pool())).await?;
        Ok(key.hash(number))
    }

    /// Writes down the message of a claimed reminder, which is handed over next.
    pub async fn start(
        &self,
        reminder: ReminderId,
        lease: DateTime<Utc>,
        message: &Message,
        number: NumberHash,
    ) -> anyhow::Result<Start> {
        self.starts.write(Starting { reminder, lease, message: message.clone(), number }).await
    }

    /// When a text that did not come by [`Handover::start`] may leave.
    pub async fn turn(&self) -> sqlx::Result<Instant> {
        let turns = self.pace.book(1).await?;
        Ok(turns.into_iter().next().unwrap_or_else(Instant::now))
    }

    /// As [`Handover::turn`], for a text that cannot wait: it leaves at once, and those that are booked after it leave later for it.
    pub async fn no_turn(&self) -> sqlx::Result<Instant> {
        self.pace.book(1).await?;
        Ok(Instant::now())
    }

    /// Hands over one text.
    pub async fn send(&self, sms: &Sms, turn: Instant) -> Outcome {
        tokio::time::sleep_until(turn).await;
        let outcome = self.sms.send(sms).await;
        count(&outcome);
        outcome
    }

    /// The provider's id of a text whose outcome is unknown; `None` = it was surely not taken.
    pub async fn look_up(&self, message: &Message, phone: &str) -> anyhow::Result<Option<String>> {
        let since = message.create_time - PROVIDER_SKEW;
        let listed = self.sms.taken(phone, &message.body, since).await?;
        Ok(outgoing::first_unclaimed(&mut *self.db.pool().acquire().await?, &listed).await?)
    }

    /// The provider took `message`, under this id.
    pub async fn taken(&self, message: &Message, reference: &str) -> anyhow::Result<()> {
        self.takens.write((message.clone(), reference.to_owned())).await
    }

    /// The provider refused `message` for good. A number that has opted out there has opted out here.
    pub async fn refused(
        &self,
        message: &Message,
        number: NumberHash,
        (reason, code): (FailureReason, &str),
    ) -> anyhow::Result<()> {
        let now = self.now();
        let mut tx = self.db.begin().await?;
        if let Some(message) = outgoing::refused(&mut tx, message, (reason, code), now).await? {
            if reason == FailureReason::OptedOut {
                opt_out::decide(&mut tx, number, true, now).await?;
            }
            events::message_failed(&mut tx, &message).await?;
        }
        Ok(tx.commit().await?)
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(6)
    }
}

/// Writes down what is handed over next.
struct Starts {
    db: Db,
    clock: Clock,
    pace: Pace,
}

#[async_trait]
impl Write for Starts {
    type One = Starting;
    type Answer = Start;

    async fn write(&self, batch: &[Starting]) -> sqlx::Result<Vec<Start>> {
        let now = self.clock.now().trunc_subsecs(6);
        let leases = bulk::start(self.db.pool(), batch, LEASE, now).await?;
        let mut turns = self.pace.book(leases.len()).await?.into_iter();
        let lost: Vec<&Starting> = batch.iter().filter(|one| !leases.contains_key(&one.reminder)).collect();
        let numbers: Vec<NumberHash> = lost.iter().map(|one| one.number).collect();
        let patients: Vec<Uuid> = lost.iter().filter_map(|one| one.message.patient).map(Uuid::from).collect();
        let (opted_out, capped) = match lost.is_empty() {
            true => (vec![], vec![]),
            false => (
                opt_out::among(self.db.pool(), &numbers).await?,
                bulk::capped(self.db.pool(), &patients, now).await?,
            ),
        };
        let answer = |one: &Starting| match leases.get(&one.reminder) {
            Some(lease) => Start::Begun { lease: *lease, turn: turns.next().unwrap_or_else(Instant::now) },
            None if opted_out.contains(&one.number) => Start::OptedOut,
            None if one.message.patient.is_some_and(|patient| capped.contains(&patient.uuid())) => {
                Start::Capped
            }
            None => Start::Lost,
        };
        Ok(batch.iter().map(answer).collect())
    }
}

/// Writes down what the provider took, and tells it.
struct Takens {
    db: Db,
    clock: Clock,
}

#[async_trait]
impl Write for Takens {
    type One = (Message, String);
    type Answer = ();

    async fn write(&self, batch: &[(Message, String)]) -> sqlx::Result<Vec<()>> {
        let now = self.clock.now().trunc_subsecs(6);
        let taken: Vec<_> =
            batch.iter().map(|(message, reference)| (message.id, reference.clone())).collect();
        let mut tx = self.db.begin().await?;
        let versions = bulk::taken(&mut tx, &taken, now).await?;
        let told = batch.iter().filter_map(|(message, _)| {
            let version = *versions.get(&message.id)?;
            Some((message.id, version, Event::new(&events::message_sent(message, version, now))))
        });
        bulk::tell(&mut tx, &told.collect::<Vec<_>>()).await?;
        tx.commit().await?;
        Ok(vec![(); batch.len()])
    }
}

fn count(outcome: &Outcome) {
    let outcome = match outcome {
        Outcome::Taken(_) => "taken",
        Outcome::Refused { .. } => "refused",
        Outcome::NotTaken(_) => "not_taken",
        Outcome::Unknown(_) => "unknown",
    };
    metrics::counter!("notify_texts_total", "outcome" => outcome).increment(1);
}
