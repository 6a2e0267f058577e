//! The workers by which notices become messages when they may be told: one for offers, which stand for minutes and queue behind nothing,
//! and one for all others. Any number of replicas may run them.
//!
//! Whether a patient may be told, and how, is asked when it is sent and not before: consent, numbers, languages and zones change. A
//! text is handed over once its row is committed, and looked up at the provider before it is handed over again, as reminders are.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, Utc};
use kit::clock::Clock;
use kit::db::Db;
use proto::clinic::notify::v1::{Channel, DropReason, MessageKind, MessageState};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bells::Bells;
use crate::dispatch::{UNKNOWN_WAIT, backoff};
use crate::domain::Judgement;
use crate::domain::notice::{FORM_GRACE, capped, is_unasked, judge, needs_consent};
use crate::handover::{Handover, LEASE};
use crate::ports::{Contact, Outcome, Ports, Sms};
use crate::store::notices::{self, Claimed, Notice, Written};
use crate::store::{Message, opt_out, outgoing};
use crate::words::Text;
use crate::writer::{Subject, Writer, form_open};

/// Notices claimed at once.
const BATCH: u32 = 16;
/// Notices in hand at once: connections to the database are few.
const IN_HAND: u32 = 4 * BATCH;
/// All that is done for one notice at one time takes this long at most: its claim outlives it.
const TEND: Duration = Duration::from_secs(45);
/// Pause between two looks when nothing more is due.
const POLL: Duration = Duration::from_millis(200);

/// Which notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Offers of freed time.
    Offers,
    /// All others.
    News,
}

impl Queue {
    fn bell(self, bells: &Bells) -> &Notify {
        match self {
            Self::Offers => &bells.offers,
            Self::News => &bells.news,
        }
    }
}

/// Tells what is to be told.
#[derive(Clone)]
pub struct Courier {
    db: Db,
    clock: Clock,
    ports: Ports,
    handover: Handover,
    writer: Writer,
}

/// What is done with a notice now.
enum Step {
    /// It is handed over, with these words in this language.
    Send(Text, String),
    /// It waits.
    Wait(DateTime<Utc>),
    /// It is not told.
    Drop(DropReason),
    /// It goes by the other way alone, or there is nothing left to tell.
    Forget,
}

impl Courier {
    /// On `db`, through `ports` and `handover`, in the words of `writer`.
    pub fn new(db: Db, clock: Clock, ports: Ports, handover: Handover, writer: Writer) -> Self {
        Self { db, clock, ports, handover, writer }
    }

    /// Works on one of the queues until `stop`, woken by its bell; what is in hand then is finished first.
    pub async fn run(self, queue: Queue, bells: Arc<Bells>, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(IN_HAND as usize));
        let in_hand = TaskTracker::new();
        let mut told = false;
        while !stop.is_cancelled() {
            match self.round(queue, &room, &in_hand, &stop).await {
                Ok(true) => continue,
                Ok(false) => told = false,
                Err(error) if !told => {
                    tracing::warn!(%error, "notices wait");
                    told = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = queue.bell(&bells).notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
        in_hand.close();
        in_hand.wait().await;
    }

    /// Claims a batch as soon as there is room for it, and has it tended; answers whether there may be more.
    async fn round(
        &self,
        queue: Queue,
        room: &Arc<Semaphore>,
        in_hand: &TaskTracker,
        stop: &CancellationToken,
    ) -> sqlx::Result<bool> {
        let places = stop.run_until_cancelled(room.clone().acquire_many_owned(BATCH)).await;
        let Some(Ok(mut places)) = places else { return Ok(false) };
        let offers = queue == Queue::Offers;
        let claimed = notices::claim(self.db.pool(), offers, BATCH.into(), LEASE).await?;
        let full = claimed.len() == BATCH as usize;
        for claimed in claimed {
            let place = places.split(1);
            let courier = self.clone();
            in_hand.spawn(async move {
                courier.tend(claimed).await;
                drop(place);
            });
        }
        Ok(full)
    }

    async fn tend(&self, claimed: Claimed) {
        let tended = tokio::time::timeout(TEND, self.try_tend(&claimed)).await;
        let Err(error) = tended.unwrap_or_else(|late| Err(late.into())) else { return };
        let id = claimed.notice.id;
        tracing::warn!(message = %id, error = format!("{error:#}"), "a notice could not be told; it waits");
        // Changes nothing once a text was being handed over: that renewed the lease.
        if let Err(error) = notices::try_later(self.db.pool(), &claimed, backoff(claimed.tries)).await {
            // The lease ends by itself.
            tracing::debug!(%error, "the next try could not be written down");
        }
    }

    async fn try_tend(&self, claimed: &Claimed) -> anyhow::Result<()> {
        if claimed.message.as_ref().is_some_and(settled) {
            // The provider told what became of it before its answer came.
            return self.forget(claimed).await;
        }
        let mut notice = claimed.notice.clone();
        let contact = self.ports.patients.contact(notice.patient).await?;
        let unknown = |m: &&Message| matches!(m.state, MessageState::Sending | MessageState::Unknown);
        if let Some(message) = claimed.message.as_ref().filter(unknown)
            && let Some(phone) = contact.as_ref().and_then(|contact| contact.phone.as_deref())
            && let Some(reference) = self.handover.look_up(message, phone).await?
        {
            self.handover.taken(message, &reference).await?;
            return self.forget(claimed).await;
        }
        let now = self.now();
        match self.step(claimed, contact.as_ref(), &mut notice, now).await? {
            Step::Wait(until) => Ok(notices::postpone(self.db.pool(), claimed, until).await?),
            Step::Drop(reason) => self.drop(claimed, &notice, reason, now).await,
            Step::Forget => self.forget(claimed).await,
            Step::Send(text, language) => match (notice.channel, contact.and_then(|contact| contact.phone)) {
                (Channel::Sms, Some(phone)) => self.text(claimed, &notice, (&text, &language), phone).await,
                (Channel::Sms | Channel::Email | Channel::Unspecified, _) => {
                    self.mail(claimed, &notice, (&text, &language), now).await
                }
            },
        }
    }

    /// Judges a notice at `now`; changes its channel where it goes by e-mail instead.
    async fn step(
        &self,
        claimed: &Claimed,
        contact: Option<&Contact>,
        notice: &mut Notice,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Step> {
        if claimed.superseded {
            return Ok(Step::Drop(DropReason::Superseded));
        }
        let Some(contact) = contact else { return Ok(Step::Drop(DropReason::NoContact)) };
        let mailable = contact.email.is_some() && self.ports.mail.is_some();
        if notice.channel == Channel::Email && !mailable {
            return Ok(Step::Forget);
        }
        if notice.channel == Channel::Sms
            && let Some(reason) = unreachable(notice.kind, contact)
        {
            if !(notice.or_email && mailable) || claimed.message.is_some() {
                return Ok(Step::Drop(reason));
            }
            notice.channel = Channel::Email;
        }
        let mut judged = match notice.channel {
            Channel::Sms => {
                let (what, zone) = ((notice.kind, notice.facts.asked), contact.zone.unwrap_or(claimed.zone));
                judge(what, notice.expire_time, now, zone)
            }
            Channel::Email | Channel::Unspecified if now < notice.expire_time => Judgement::Send,
            Channel::Email | Channel::Unspecified => Judgement::Drop(DropReason::TooLate),
        };
        if matches!(judged, Judgement::Drop(DropReason::QuietHours))
            && notice.or_email
            && mailable
            && claimed.message.is_none()
        {
            // An e-mail wakes nobody.
            notice.channel = Channel::Email;
            judged = Judgement::Send;
        }
        Ok(match judged {
            Judgement::Wait(until) => Step::Wait(until),
            Judgement::Drop(reason) => Step::Drop(reason),
            Judgement::Send => {
                if let Some(message) = &claimed.message {
                    return Ok(Step::Send(Text::of(message), message.language.clone()));
                }
                let visit = notice.appointment.filter(|_| claimed.has_form);
                let form_open = form_open(&*self.ports.patients, notice.kind, visit).await?;
                if notice.kind == MessageKind::IntakeOpen && !form_open {
                    let opened = notice.create_time + FORM_GRACE;
                    return Ok(if now < opened { Step::Wait(opened) } else { Step::Forget });
                }
                let (text, language) = self.write(claimed, notice, contact, form_open).await?;
                Step::Send(text, language)
            }
        })
    }

    async fn write(
        &self,
        claimed: &Claimed,
        notice: &Notice,
        contact: &Contact,
        form_open: bool,
    ) -> anyhow::Result<(Text, String)> {
        let subject = Subject {
            clinic: notice.clinic,
            appointment: notice.appointment,
            start: claimed.start,
            zone: claimed.zone,
            form_open,
            facts: &notice.facts,
        };
        self.writer.write(notice.kind, notice.channel, &contact.language, &subject).await
    }

    /// An e-mail waits for the post from now on.
    async fn mail(
        &self,
        claimed: &Claimed,
        notice: &Notice,
        (text, language): (&Text, &str),
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let state = MessageState::Queued;
        let written =
            Written { notice, state, drop_reason: DropReason::Unspecified, text: Some(text), language };
        let mut tx = self.db.begin().await?;
        if notices::take(&mut tx, claimed).await? {
            notices::put_message(&mut tx, &written, now).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Hands a text over, for the first time or after it was surely not taken.
    async fn text(
        &self,
        claimed: &Claimed,
        notice: &Notice,
        (text, language): (&Text, &str),
        phone: String,
    ) -> anyhow::Result<()> {
        let now = self.now();
        // A connection at a time: whoever holds one must not wait for another.
        let number = self.handover.number(&phone).await?;
        let mut tx = self.db.begin().await?;
        if is_unasked(notice.kind) && !notice.facts.asked {
            let sent = notices::texts_to(&mut tx, notice.patient, notice.id, now).await?;
            if capped(&sent, now).is_some() {
                drop(tx);
                return self.drop(claimed, notice, DropReason::CapReached, now).await;
            }
        }
        let Some(lease) = notices::renew(&mut tx, claimed, number, LEASE).await? else {
            drop(tx);
            let opted_out = opt_out::among(self.db.pool(), &[number]).await?;
            // Else it is another's by now, or newer news replaced it.
            return match opted_out.is_empty() {
                true => Ok(()),
                false => self.drop(claimed, notice, DropReason::NoConsent, now).await,
            };
        };
        let claimed = &Claimed { lease, ..claimed.clone() };
        let state = MessageState::Sending;
        let written =
            Written { notice, state, drop_reason: DropReason::Unspecified, text: Some(text), language };
        notices::put_message(&mut tx, &written, now).await?;
        notices::offer_choices(&mut tx, notice).await?;
        let message = outgoing::load(&mut tx, &[notice.id.uuid()]).await?.pop();
        tx.commit().await?;
        let Some(message) = message.filter(|message| !settled(message)) else { return Ok(()) };

        let validity = (notice.expire_time - now).to_std().unwrap_or_default();
        let sms = Sms { message: message.id, to: phone, body: text.body.clone(), validity };
        let turn = match notice.kind {
            MessageKind::WaitlistOffer => self.handover.no_turn().await?,
            _ => self.handover.turn().await?,
        };
        match self.handover.send(&sms, turn).await {
            Outcome::Taken(reference) => {
                self.handover.taken(&message, &reference).await?;
                self.forget(claimed).await
            }
            Outcome::Refused { reason, code } => {
                self.handover.refused(&message, number, (reason, &code)).await?;
                self.forget(claimed).await
            }
            Outcome::NotTaken(why) => {
                self.keep(claimed, &message, MessageState::Queued, backoff(claimed.tries), &why).await
            }
            Outcome::Unknown(why) => {
                self.keep(claimed, &message, MessageState::Unknown, UNKNOWN_WAIT, &why).await
            }
        }
    }

    /// Takes a notice out of the queue that needs no more doing.
    async fn forget(&self, claimed: &Claimed) -> anyhow::Result<()> {
        let mut tx = self.db.begin().await?;
        notices::take(&mut tx, claimed).await?;
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
        outgoing::set_state(&mut *self.db.pool().acquire().await?, message.id, state, self.now()).await?;
        Ok(notices::try_later(self.db.pool(), claimed, wait).await?)
    }

    async fn drop(
        &self,
        claimed: &Claimed,
        notice: &Notice,
        drop_reason: DropReason,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let mut tx = self.db.begin().await?;
        if notices::take(&mut tx, claimed).await? {
            let written =
                Written { notice, state: MessageState::Dropped, drop_reason, text: None, language: "" };
            notices::put_message(&mut tx, &written, now).await?;
        }
        Ok(tx.commit().await?)
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(6)
    }
}

/// Why a patient cannot be texted a kind of message; `None` = it can be.
pub fn unreachable(kind: MessageKind, contact: &Contact) -> Option<DropReason> {
    if contact.phone.is_none() {
        return Some(DropReason::NoContact);
    }
    let silent = contact.withdrawn || needs_consent(kind) && !contact.consented;
    silent.then_some(DropReason::NoConsent)
}

/// Whether nothing more is done for a message.
fn settled(message: &Message) -> bool {
    !matches!(message.state, MessageState::Queued | MessageState::Sending | MessageState::Unknown)
}
