//! The worker that sends what is due. Any number of replicas may run it.
//!
//! For each reminder: claim it, ask how to reach the patient now, judge it again, write its message down, hand it over, write down
//! what came of it. A process may die between any two of these. Afterwards a message row that was being handed over is *unknown*
//! and is looked up in the provider's list; only what is surely not there is handed over again.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, Utc};
use kit::clock::Clock;
use kit::db::Db;
use kit::ids::MessageId;
use proto::clinic::notify::v1::{Channel, DropReason, FailureReason, MessageState};
use sqlx::PgConnection;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bells::Bells;
use crate::domain::notice::Facts;
use crate::domain::{Judgement, judge};
use crate::handover::{Handover, LEASE, Start};
use crate::ports::{Contact, Outcome, Ports, Sms};
use crate::store::Message;
use crate::store::opt_out::{self, NumberHash};
use crate::store::outgoing::{self, Claimed};
use crate::words;
use crate::writer::{Subject, Writer, form_open};

/// Reminders claimed at once.
const BATCH: u32 = 64;
/// Reminders in hand at once: what bounds memory, and texts on their way to the provider.
const IN_HAND: u32 = 4 * BATCH;
/// All that is done for one reminder at one time takes this long at most: its claim outlives it.
const TEND: Duration = Duration::from_secs(45);
/// Pause between two looks when nothing more is due.
pub(crate) const POLL: Duration = Duration::from_millis(500);
/// A text whose outcome is unknown is looked up after this: the provider lists it by then if it took it.
pub(crate) const UNKNOWN_WAIT: Duration = Duration::from_secs(60);
/// Wait after a failed try; doubles up to the second figure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Sends what is due.
#[derive(Clone)]
pub struct Dispatcher {
    db: Db,
    clock: Clock,
    ports: Ports,
    handover: Handover,
    writer: Writer,
}

impl Dispatcher {
    /// On `db`, through `ports` and `handover`, in the words of `writer`.
    pub fn new(db: Db, clock: Clock, ports: Ports, handover: Handover, writer: Writer) -> Self {
        Self { db, clock, ports, handover, writer }
    }

    /// Works until `stop`, woken by the bell of reminders; what is in hand then is finished first.
    pub async fn run(self, bells: Arc<Bells>, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(IN_HAND as usize));
        let in_hand = TaskTracker::new();
        let mut told = false;
        while !stop.is_cancelled() {
            let pause = match self.round(&room, &in_hand, &stop).await {
                Ok(pause) => {
                    told = false;
                    pause
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "reminders wait");
                    }
                    POLL
                }
            };
            if !pause.is_zero() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = bells.reminders.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
        in_hand.close();
        in_hand.wait().await;
    }

    /// Claims a batch as soon as there is room for it, and has it tended. Answers how long to wait before the next.
    async fn round(
        &self,
        room: &Arc<Semaphore>,
        in_hand: &TaskTracker,
        stop: &CancellationToken,
    ) -> sqlx::Result<Duration> {
        let queue = self.handover.pace().wait().await?;
        if !queue.is_zero() {
            return Ok(queue);
        }
        let batch = self.handover.pace().batch(BATCH);
        let places = stop.run_until_cancelled(room.clone().acquire_many_owned(batch)).await;
        let Some(Ok(mut places)) = places else { return Ok(Duration::ZERO) };
        let claimed = outgoing::claim(self.db.pool(), batch.into(), LEASE).await?;
        let full = claimed.len() == batch as usize;
        for claimed in claimed {
            let place = places.split(1);
            let dispatcher = self.clone();
            in_hand.spawn(async move {
                dispatcher.tend(claimed).await;
                drop(place);
            });
        }
        Ok(if full { Duration::ZERO } else { POLL })
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
            if let Some(reference) = self.handover.look_up(message, phone).await? {
                return self.handover.taken(message, &reference).await;
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
        let number = self.handover.number(phone).await?;
        let message = match &claimed.message {
            Some(message) => message.clone(),
            None => self.compose(claimed, contact, now).await?,
        };
        let start = match &claimed.message {
            Some(message) => self.start_again(claimed, message, number).await?,
            None => self.handover.start(claimed.id, claimed.lease, &message, number).await?,
        };
        let (lease, turn) = match start {
            Start::Begun { lease, turn } => (lease, turn),
            Start::OptedOut => return self.drop(claimed, DropReason::NoConsent).await,
            Start::Capped => return self.drop(claimed, DropReason::CapReached).await,
            Start::Lost => return Ok(()),
        };
        let claimed = &Claimed { lease, ..claimed.clone() };

        let validity = (claimed.start - now).to_std().unwrap_or_default();
        let (to, body) = (phone.to_owned(), message.body.clone());
        let sms = Sms { message: message.id, to, body, validity };
        match self.handover.send(&sms, turn).await {
            Outcome::Taken(reference) => self.handover.taken(&message, &reference).await,
            Outcome::Refused { reason, code } => {
                self.handover.refused(&message, number, (reason, &code)).await
            }
            Outcome::NotTaken(why) => {
                self.keep(claimed, &message, MessageState::Queued, backoff(claimed.tries), &why).await
            }
            Outcome::Unknown(why) => {
                self.keep(claimed, &message, MessageState::Unknown, UNKNOWN_WAIT, &why).await
            }
        }
    }

    /// Begins another attempt with a message that was surely not taken.
    async fn start_again(
        &self,
        claimed: &Claimed,
        message: &Message,
        number: NumberHash,
    ) -> anyhow::Result<Start> {
        let now = self.now();
        let mut tx = self.db.begin().await?;
        if !outgoing::hold(&mut tx, claimed).await? {
            return Ok(Start::Lost);
        }
        let Some(lease) = outgoing::start_again(&mut tx, claimed, number, LEASE, now).await? else {
            // A connection at a time: whoever holds one must not wait for another.
            tx.rollback().await?;
            let opted_out = opt_out::among(self.db.pool(), &[number]).await?;
            return Ok(if opted_out.is_empty() { Start::Lost } else { Start::OptedOut });
        };
        if !outgoing::attempt_again(&mut tx, message.id, now).await? {
            return Ok(Start::Lost);
        }
        tx.commit().await?;
        Ok(Start::Begun { lease, turn: self.handover.turn().await? })
    }

    async fn compose(
        &self,
        claimed: &Claimed,
        contact: &Contact,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Message> {
        let kind = words::message_kind(claimed.kind);
        let visit = Some(claimed.appointment).filter(|_| claimed.has_form);
        let subject = Subject {
            clinic: Some(claimed.clinic),
            appointment: Some(claimed.appointment),
            start: Some(claimed.start),
            zone: claimed.zone,
            form_open: form_open(&*self.ports.patients, kind, visit).await?,
            facts: &Facts::default(),
        };
        let (text, language) = self.writer.write(kind, Channel::Sms, &contact.language, &subject).await?;
        Ok(Message {
            id: MessageId::new(),
            patient: Some(claimed.patient),
            appointment: Some(claimed.appointment),
            appointment_version: claimed.appointment_version,
            reminder: Some(claimed.id),
            in_reply_to: None,
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
            deliver_time: None,
            update_time: now,
        })
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
pub(crate) fn backoff(tries: i32) -> Duration {
    BACKOFF.1.min(BACKOFF.0 * 2u32.pow(tries.clamp(0, 10) as u32))
}
