//! The worker that sends what is due. Any number of replicas may run it.
//!
//! For each reminder: claim it, ask how to reach the patient now, judge it again, write its message down, hand it over, write down
//! what came of it. A process may die between any two of these. Afterwards a message row that was being handed over is *unknown*
//! and is looked up in the provider's list; only what is surely not there is handed over again.

use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use futures::StreamExt as _;
use futures::stream;
use kit::clock::Clock;
use kit::db::Db;
use kit::ids::MessageId;
use proto::clinic::notify::v1::{Channel, DropReason, FailureReason, MessageState};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::domain::notice::Facts;
use crate::domain::{Judgement, judge};
use crate::events;
use crate::ports::{Contact, Outcome, Ports, Sms};
use crate::store::Message;
use crate::store::outgoing::{self, Claimed};
use crate::words;
use crate::writer::{Subject, Writer};

/// Reminders in hand at once.
const BATCH: i64 = 64;
/// How long a claim lasts.
const LEASE: Duration = Duration::from_secs(60);
/// All that is done for one reminder at one time takes this long at most: its claim outlives it, and the batch waits no longer.
const TEND: Duration = Duration::from_secs(45);
/// Pause between two looks when nothing more is due.
const POLL: Duration = Duration::from_millis(500);
/// A text whose outcome is unknown is looked up after this: the provider lists it by then if it took it.
const UNKNOWN_WAIT: Duration = Duration::from_secs(60);
/// Wait after a failed try; doubles up to the second figure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How far the provider's clock may be behind ours.
const PROVIDER_SKEW: TimeDelta = TimeDelta::minutes(10);

/// Sends what is due.
#[derive(Clone)]
pub struct Dispatcher {
    db: Db,
    clock: Clock,
    ports: Ports,
    writer: Writer,
}

impl Dispatcher {
    /// On `db`, through `ports`, in the words of `writer`.
    pub fn new(db: Db, clock: Clock, ports: Ports, writer: Writer) -> Self {
        Self { db, clock, ports, writer }
    }

    /// Works until `stop`; what is in hand then is finished first.
    pub async fn run(self, stop: CancellationToken) {
        let mut told = false;
        while !stop.is_cancelled() {
            match self.batch().await {
                Ok(BATCH) => continue,
                Ok(_) => told = false,
                Err(error) if !told => {
                    tracing::warn!(%error, "reminders wait");
                    told = true;
                }
                Err(_) => {}
            }
            stop.run_until_cancelled(tokio::time::sleep(POLL)).await;
        }
    }

    /// Claims and tends one batch; answers how many.
    async fn batch(&self) -> sqlx::Result<i64> {
        let claimed = outgoing::claim(self.db.pool(), BATCH, LEASE).await?;
        let count = claimed.len() as i64;
        stream::iter(claimed).for_each_concurrent(None, |claimed| self.tend(claimed)).await;
        Ok(count)
    }

    async fn tend(&self, claimed: Claimed) {
        let tended = tokio::time::timeout(TEND, self.try_tend(&claimed)).await;
        let Err(error) = tended.unwrap_or_else(|late| Err(late.into())) else { return };
        tracing::warn!(reminder = %claimed.id, error = format!("{error:#}"), "a reminder could not be sent; it waits");
        // Changes nothing once a text was being handed over: that renewed the lease, and the text is unknown until the lease ends.
        let later = self
            .holding(&claimed, async |tx| outgoing::try_later(tx, claimed.id, backoff(claimed.tries)).await);
        if let Err(error) = later.await {
            // The lease ends by itself.
            tracing::debug!(%error, "the next try could not be written down");
        }
    }

    /// Changes a claimed reminder while the claim is this process's; answers whether it was.
    async fn holding(
        &self,
        claimed: &Claimed,
        change: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<()>,
    ) -> sqlx::Result<bool> {
        let mut tx = self.db.begin().await?;
        let held = outgoing::hold(&mut tx, claimed).await?;
        if held {
            change(&mut tx).await?;
            tx.commit().await?;
        }
        Ok(held)
    }

    async fn try_tend(&self, claimed: &Claimed) -> anyhow::Result<()> {
        let unknown = claimed
            .message
            .as_ref()
            .filter(|m| matches!(m.state, MessageState::Sending | MessageState::Unknown));
        if let (Some(reason), None) = (claimed.obsolete, unknown) {
            return self.drop(claimed, reason).await;
        }
        let Some(contact) = self.ports.patients.contact(claimed.patient).await? else {
            return self.drop(claimed, DropReason::NoContact).await;
        };
        // Long before it is due nothing but the recipient's zone is of interest.
        if let (Judgement::Wait(until), None) = (self.judge(claimed, &contact), unknown) {
            return self.postpone(claimed, until).await;
        }
        let Some(phone) = &contact.phone else { return self.drop(claimed, DropReason::NoContact).await };
        if let Some(message) = unknown {
            if let Some(reference) = self.look_up(message, phone).await? {
                return self.taken(message, &reference).await;
            }
            let queued = MessageState::Queued;
            let change =
                async |tx: &mut PgConnection| outgoing::set_state(tx, message.id, queued, self.now()).await;
            if !self.holding(claimed, change).await? {
                return Ok(());
            }
        }
        match self.judge(claimed, &contact) {
            Judgement::Send => self.send(claimed, &contact, phone).await,
            Judgement::Wait(until) => self.postpone(claimed, until).await,
            Judgement::Drop(reason) => self.drop(claimed, reason).await,
        }
    }

    fn judge(&self, claimed: &Claimed, contact: &Contact) -> Judgement {
        if let Some(reason) = claimed.obsolete {
            return Judgement::Drop(reason);
        }
        let zone = contact.zone.unwrap_or(claimed.zone);
        match judge(claimed.kind, claimed.start, claimed.planned, self.now(), zone) {
            Judgement::Send if !contact.consented => Judgement::Drop(DropReason::NoConsent),
            judged => judged,
        }
    }

    async fn postpone(&self, claimed: &Claimed, until: DateTime<Utc>) -> anyhow::Result<()> {
        let change =
            async |tx: &mut PgConnection| outgoing::postpone(tx, claimed.id, until, self.now()).await;
        self.holding(claimed, change).await?;
        Ok(())
    }

    /// Hands a reminder over, for the first time or after it was surely not taken.
    async fn send(&self, claimed: &Claimed, contact: &Contact, phone: &str) -> anyhow::Result<()> {
        let now = self.now();
        let message = match &claimed.message {
            Some(message) => message.clone(),
            None => self.compose(claimed, contact, now).await?,
        };
        let mut tx = self.db.begin().await?;
        if !outgoing::hold(&mut tx, claimed).await? {
            return Ok(());
        }
        let Some(lease) = outgoing::start_sending(&mut tx, claimed, message.id, LEASE, now).await? else {
            return Ok(());
        };
        let claimed = &Claimed { lease, ..claimed.clone() };
        if claimed.message.is_some() {
            outgoing::attempt_again(&mut tx, message.id, now).await?;
        } else {
            outgoing::insert_message(&mut tx, &message).await?;
        }
        tx.commit().await?;

        let validity = (claimed.start - now).to_std().unwrap_or_default();
        let sms = Sms { to: phone.to_owned(), body: message.body.clone(), validity };
        let outcome = self.ports.sms.send(&sms).await;
        count(&outcome);
        match outcome {
            Outcome::Taken(reference) => self.taken(&message, &reference).await,
            Outcome::Refused { reason, code } => self.refused(&message, reason, &code).await,
            Outcome::NotTaken(why) => {
                self.keep(claimed, &message, MessageState::Queued, backoff(claimed.tries), &why).await
            }
            Outcome::Unknown(why) => {
                self.keep(claimed, &message, MessageState::Unknown, UNKNOWN_WAIT, &why).await
            }
        }
    }

    async fn compose(
        &self,
        claimed: &Claimed,
        contact: &Contact,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Message> {
        let kind = words::message_kind(claimed.kind);
        let subject = Subject {
            clinic: Some(claimed.clinic),
            appointment: Some(claimed.appointment),
            start: Some(claimed.start),
            zone: claimed.zone,
            form_open: claimed.has_form,
            facts: &Facts::default(),
        };
        let (text, language) = self.writer.write(kind, Channel::Sms, &contact.language, &subject).await?;
        Ok(Message {
            id: MessageId::new(),
            patient: Some(claimed.patient),
            appointment: Some(claimed.appointment),
            appointment_version: claimed.appointment_version,
            reminder: Some(claimed.id),
            kind,
            channel: Channel::Sms,
            language,
            state: MessageState::Sending,
            drop_reason: DropReason::Unspecified,
            failure_reason: FailureReason::Unspecified,
            provider_error_code: String::new(),
            body: text.body,
            encoding: text.measure.encoding,
            segments: text.measure.segments as i32,
            attempts: 1,
            version: 0,
            provider_reference: None,
            create_time: now,
            send_time: None,
            update_time: now,
        })
    }

    /// The provider's id of a text whose outcome is unknown; `None` = it was surely not taken.
    async fn look_up(&self, message: &Message, phone: &str) -> anyhow::Result<Option<String>> {
        let since = message.create_time - PROVIDER_SKEW;
        let listed = self.ports.sms.taken(phone, &message.body, since).await?;
        Ok(outgoing::first_unclaimed(&mut *self.db.pool().acquire().await?, &listed).await?)
    }

    async fn taken(&self, message: &Message, reference: &str) -> anyhow::Result<()> {
        let now = self.now();
        let mut tx = self.db.begin().await?;
        let message = outgoing::taken(&mut tx, message, reference, now).await?;
        events::message_sent(&mut tx, &message, now).await?;
        Ok(tx.commit().await?)
    }

    async fn refused(&self, message: &Message, reason: FailureReason, code: &str) -> anyhow::Result<()> {
        let mut tx = self.db.begin().await?;
        let message = outgoing::refused(&mut tx, message, (reason, code), self.now()).await?;
        events::message_failed(&mut tx, &message).await?;
        Ok(tx.commit().await?)
    }

    /// Keeps a text for another look after `wait`.
    async fn keep(
        &self,
        claimed: &Claimed,
        message: &Message,
        state: MessageState,
        wait: Duration,
        why: &str,
    ) -> anyhow::Result<()> {
        tracing::warn!(message = %message.id, state = state.as_str_name(), why, "a text was not clearly taken");
        let change = async |tx: &mut PgConnection| {
            outgoing::set_state(tx, message.id, state, self.now()).await?;
            outgoing::try_later(tx, claimed.id, wait).await
        };
        self.holding(claimed, change).await?;
        Ok(())
    }

    async fn drop(&self, claimed: &Claimed, reason: DropReason) -> anyhow::Result<()> {
        let change =
            async |tx: &mut PgConnection| outgoing::drop_held(tx, claimed.id, reason, self.now()).await;
        self.holding(claimed, change).await?;
        Ok(())
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(6)
    }
}

/// Wait before the next try after `tries` failed ones.
fn backoff(tries: i32) -> Duration {
    BACKOFF.1.min(BACKOFF.0 * 2u32.pow(tries.clamp(0, 10) as u32))
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
