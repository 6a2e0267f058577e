//! The worker that acts on texts received. Any number of replicas may run it.
//!
//! For each: ask the provider for its number, which is kept nowhere here, and patients for whom that belongs to; decide what it means,
//! and write that down before anything is done for it; do it, under a name of its own, so that it is done once; write the answer down with
//! the event; hand it over. A process may die between any two of these, and another goes on from what is written.
//!
//! Auto-responders answer answers. What is not understood is explained once a day to a number, and a number gets [`RECENT_ANSWERS`] in
//! [`RECENT`] and [`ALL_ANSWERS`] in [`SINCE`] at most, so every exchange ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use chrono_tz::Tz;
use futures::StreamExt as _;
use futures::stream;
use kit::clock::Clock;
use kit::db::Db;
use kit::fields::timestamp;
use kit::ids::{AppointmentId, MessageId, PatientId};
use kit::messaging::outbox;
use proto::clinic::notify::v1::{
    Channel, DropReason, FailureReason, MessageState, ReplyMeaning, ReplyReceived,
};
use proto::clinic::patients::v1::SmsConsentSource;
use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ports::{Cancelled, Holder, Holders, Moved, OfferAnswer, Settled, Visits, Wish};
use crate::dispatch::{POLL, UNKNOWN_WAIT, backoff};
use crate::domain::notice::{Answer, Facts};
use crate::events::optional;
use crate::handover::{Handover, LEASE};
use crate::ports::{Outcome, Ports, Sms};
use crate::store::inbound::{self, Asked, Claimed, Decision};
use crate::store::{self, Message, outgoing};
use crate::writer::{Subject, Writer};

/// Texts in hand at once.
pub(super) const BATCH: i64 = 16;
/// All that is done for one text at one time takes this long at most: its claim outlives it.
pub(super) const TEND: Duration = Duration::from_secs(45);
/// Answers to one number…
const RECENT_ANSWERS: i64 = 6;
/// …in this time.
const RECENT: TimeDelta = TimeDelta::hours(1);
/// Answers to one number…
const ALL_ANSWERS: i64 = 20;
/// …in this time, in which what is not understood is explained once, too.
const SINCE: TimeDelta = TimeDelta::hours(24);
/// An answer that could not be sent for so long is not sent any more.
const STALE: TimeDelta = TimeDelta::minutes(30);
/// Visits that a question offers at most: one digit each.
const MOST_CHOICES: usize = 9;

/// Whom the worker asks beside those that the dispatcher does.
#[derive(Clone)]
pub struct Partners {
    /// The patients service.
    pub holders: Arc<dyn Holders>,
    /// The appointments service.
    pub visits: Arc<dyn Visits>,
}

/// Acts on texts received.
#[derive(Clone)]
pub struct Replies {
    /// Where they are kept.
    pub db: Db,
    /// Time.
    pub clock: Clock,
    /// The provider and the clinics.
    pub ports: Ports,
    /// Patients and appointments.
    pub partners: Partners,
    /// The way out.
    pub handover: Handover,
    /// Whose words.
    pub writer: Writer,
    /// The number that texts come to.
    pub own_number: String,
    /// Rings when a text came in.
    pub bell: Arc<Notify>,
}

impl Replies {
    /// Works until `stop`; what is in hand then is finished first.
    pub async fn run(self, stop: CancellationToken) {
        let mut told = false;
        while !stop.is_cancelled() {
            match self.batch().await {
                Ok(BATCH) => continue,
                Ok(_) => told = false,
                Err(error) if !told => {
                    tracing::warn!(%error, "texts received wait");
                    told = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.bell.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn batch(&self) -> sqlx::Result<i64> {
        self.tell_withdrawn().await?;
        let claimed = inbound::claim(self.db.pool(), BATCH, LEASE).await?;
        let count = claimed.len() as i64;
        stream::iter(claimed).for_each_concurrent(None, |claimed| self.tend(claimed)).await;
        Ok(count)
    }

    async fn tend(&self, claimed: Claimed) {
        let tended = tokio::time::timeout(TEND, self.try_tend(&claimed)).await;
        let Err(error) = tended.unwrap_or_else(|late| Err(late.into())) else { return };
        tracing::warn!(message = %claimed.message, error = format!("{error:#}"), "a text received waits");
        let wait = backoff(claimed.tries);
        let later = self.holding(&claimed, async |tx| inbound::next(tx, claimed.message, Some(wait)).await);
        if let Err(error) = later.await {
            // The lease ends by itself.
            tracing::debug!(%error, "the next try could not be written down");
        }
    }

    /// Changes a claimed text while the claim is this process's; answers whether it was.
    pub(super) async fn holding(
        &self,
        claimed: &Claimed,
        change: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<()>,
    ) -> sqlx::Result<bool> {
        let mut tx = self.db.begin().await?;
        let held = inbound::hold(&mut tx, claimed).await?;
        if held {
            change(&mut tx).await?;
            tx.commit().await?;
        }
        Ok(held)
    }

    async fn try_tend(&self, claimed: &Claimed) -> anyhow::Result<()> {
        let Some(phone) = self.ports.sms.sender(&claimed.reference).await? else {
            tracing::warn!(message = %claimed.message, "the provider does not know a text that it told of");
            return self.done(claimed).await;
        };
        if let Some((answer, state)) = inbound::answer(self.db.pool(), claimed.message).await? {
            return self.go_on(claimed, answer, state, &phone).await;
        }
        let holders = self.partners.holders.at(&phone).await?;
        let (decision, answer) = self.decide(claimed, &holders).await?;
        let answer = match answer {
            Some(answer) => Some(answer),
            None => self.act(claimed, &decision, &holders).await?,
        };
        let Some(answer) = answer.filter(|_| phone != self.own_number && !claimed.answered) else {
            return self.close(claimed, &decision, None).await.map(drop);
        };
        let mut message = self.write(claimed, &decision, &holders, &answer).await?;
        if self.close(claimed, &decision, Some((&mut message, &answer))).await?
            && message.state == MessageState::Sending
        {
            self.send(claimed, &message, &phone).await?;
        }
        Ok(())
    }

    /// Does what a text asks for; answers what to say to it.
    async fn act(
        &self,
        claimed: &Claimed,
        decision: &Decision,
        holders: &[Holder],
    ) -> anyhow::Result<Option<Reply>> {
        let visit = || decision.appointment.context("a decision about no visit");
        let (visits, request) = (&self.partners.visits, claimed.message.uuid());
        let reply = match decision.meaning {
            ReplyMeaning::OptOut | ReplyMeaning::OptIn => {
                let granted = decision.meaning == ReplyMeaning::OptIn;
                for Holder { patient, .. } in holders {
                    let wish = Wish {
                        granted,
                        wording: claimed.body.clone(),
                        source: SmsConsentSource::InboundSms,
                        at: claimed.receive_time,
                        request: Uuid::new_v5(&request, patient.uuid().as_bytes()),
                    };
                    self.partners.holders.decide(*patient, &wish).await?;
                }
                // The carrier confirms a withdrawal itself, and takes no more texts to the number.
                if !granted || holders.is_empty() {
                    return Ok(None);
                }
                Answer::OptedIn.into()
            }
            ReplyMeaning::Confirm => match visits.is_booked(visit()?).await? {
                true => Answer::Confirmed.into(),
                false => Answer::Gone.into(),
            },
            ReplyMeaning::Cancel => match visits.cancel(visit()?, request).await? {
                Some(Cancelled { late_fee }) => Reply { late_fee, ..Answer::Cancelled.into() },
                None => Answer::Gone.into(),
            },
            ReplyMeaning::Choose => {
                let question = decision.in_reply_to.context("a choice without a question")?;
                let to = inbound::alternative(self.db.pool(), question, decision.choice).await?;
                let to = to.context("a choice that was not offered")?;
                let answer = match visits.move_to(visit()?, to, request).await? {
                    Moved::Done => Answer::Moved,
                    Moved::Taken => Answer::Taken,
                    Moved::Gone => Answer::Gone,
                };
                Reply { start: Some(to.start), ..answer.into() }
            }
            ReplyMeaning::AcceptOffer | ReplyMeaning::DeclineOffer => {
                let answer = OfferAnswer {
                    offer: decision.offer.context("an answer to no offer")?.into(),
                    patient: decision.patient.context("an answer to nobody's offer")?,
                    takes: decision.meaning == ReplyMeaning::AcceptOffer,
                };
                match visits.answer_offer(answer, request).await? {
                    // The visit is told as visits are.
                    Settled::Booked => return Ok(None),
                    Settled::BookedBefore => Answer::Confirmed,
                    Settled::Declined if answer.takes => Answer::Missed,
                    Settled::Declined => Answer::Noted,
                    Settled::Ended => Answer::Missed,
                    Settled::Unpaid => Answer::Unpaid,
                    Settled::Clashes => Answer::Clashes,
                }
                .into()
            }
            ReplyMeaning::Help | ReplyMeaning::Unknown | ReplyMeaning::Unspecified => Answer::Help.into(),
        };
        Ok(Some(reply))
    }

    /// The message that an answer becomes.
    async fn write(
        &self,
        claimed: &Claimed,
        decision: &Decision,
        holders: &[Holder],
        reply: &Reply,
    ) -> anyhow::Result<Message> {
        let now = self.now();
        let patient = decision.patient.or_else(|| holders.first().map(|holder| holder.patient));
        let holder = holders.iter().find(|holder| Some(holder.patient) == patient);
        let about = decision.appointment.or(decision.offer.map(AppointmentId::from));
        let visit = match about {
            Some(appointment) => inbound::visit(self.db.pool(), appointment).await?,
            None => None,
        };
        // The clinic that speaks is that of the visit, or of the patients' latest.
        let (clinic, start, zone) = match visit {
            Some((clinic, start, zone)) => (Some(clinic), Some(start), zone),
            None => {
                let patients: Vec<PatientId> = holders.iter().map(|holder| holder.patient).collect();
                (inbound::clinic(self.db.pool(), &patients).await?, None, Tz::UTC)
            }
        };
        let facts =
            Facts { answer: Some(reply.answer.clone()), late_fee: reply.late_fee, ..Facts::default() };
        let subject = Subject {
            clinic,
            appointment: about,
            start: reply.start.or(start),
            zone,
            form_open: false,
            facts: &facts,
        };
        let (kind, tag) = (reply.answer.kind(), holder.map_or("", |holder| &holder.language));
        let (text, language) = self.writer.write(kind, Channel::Sms, tag, &subject).await?;
        Ok(Message {
            id: MessageId::new(),
            patient,
            appointment: about,
            appointment_version: 0,
            reminder: None,
            in_reply_to: Some(claimed.message),
            channel: Channel::Sms,
            kind,
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

    /// Writes down what a text was, with its answer, and tells it; an answer that would go on for ever is dropped. Answers whether the
    /// text was still this process's.
    async fn close(
        &self,
        claimed: &Claimed,
        decision: &Decision,
        mut answer: Option<(&mut Message, &Reply)>,
    ) -> anyhow::Result<bool> {
        let now = self.now();
        let event = ReplyReceived {
            message_id: claimed.message.to_string(),
            version: 1,
            patient_id: optional(decision.patient),
            appointment_id: optional(decision.appointment),
            in_reply_to_id: optional(decision.in_reply_to),
            meaning: decision.meaning.into(),
            choice: decision.choice,
            receive_time: Some(timestamp(claimed.receive_time)),
            offer_id: optional(decision.offer),
        };
        let change = async |tx: &mut PgConnection| {
            inbound::decide(tx, claimed.message, decision, now).await?;
            if let Some((message, reply)) = &mut answer {
                let given = inbound::answers(tx, claimed.number, now - RECENT, now - SINCE).await?;
                let again = decision.meaning == ReplyMeaning::Unknown && given.explained > 0;
                if again || given.recent >= RECENT_ANSWERS || given.all >= ALL_ANSWERS {
                    (message.state, message.drop_reason) = (MessageState::Dropped, DropReason::Loop);
                    message.attempts = 0;
                }
                outgoing::insert_message(tx, message).await?;
                let offered: Vec<_> = reply.offered.iter().map(|visit| visit.appointment).collect();
                inbound::offer(tx, message.id, decision.meaning, &offered).await?;
            }
            // An answer on its way is looked after until its lease ends.
            let open = answer.as_ref().is_some_and(|(message, _)| message.state == MessageState::Sending);
            if !open {
                inbound::next(tx, claimed.message, None).await?;
            }
            outbox::put(tx, claimed.message, 1, &event).await
        };
        Ok(self.holding(claimed, change).await?)
    }

    /// Hands an answer over, whose message says SENDING, and writes down what came of it.
    async fn send(&self, claimed: &Claimed, message: &Message, phone: &str) -> anyhow::Result<()> {
        let number = self.handover.number(phone).await?;
        let turn = self.handover.turn().await?;
        let (to, body) = (phone.to_owned(), message.body.clone());
        let validity = STALE.to_std().unwrap_or_default();
        let outcome = self.handover.send(&Sms { message: message.id, to, body, validity }, turn).await;
        let (state, wait, why) = match outcome {
            Outcome::Taken(reference) => {
                self.handover.taken(message, &reference).await?;
                return self.done(claimed).await;
            }
            Outcome::Refused { reason, code } => {
                self.handover.refused(message, number, (reason, &code)).await?;
                return self.done(claimed).await;
            }
            Outcome::NotTaken(why) => (MessageState::Queued, backoff(claimed.tries), why),
            Outcome::Unknown(why) => (MessageState::Unknown, UNKNOWN_WAIT, why),
        };
        tracing::warn!(message = %message.id, state = state.as_str_name(), why, "an answer was not clearly taken");
        let now = self.now();
        let kept = async |tx: &mut PgConnection| {
            store::inbound::step(tx, message.id, state, now).await?;
            inbound::next(tx, claimed.message, Some(wait)).await
        };
        self.holding(claimed, kept).await?;
        Ok(())
    }

    /// Goes on with an answer that an earlier try wrote down.
    async fn go_on(
        &self,
        claimed: &Claimed,
        answer: MessageId,
        state: MessageState,
        phone: &str,
    ) -> anyhow::Result<()> {
        let open = [MessageState::Queued, MessageState::Sending, MessageState::Unknown];
        let message = async { store::message(&mut *self.db.pool().acquire().await?, answer).await };
        let Some(message) = message.await?.filter(|_| open.contains(&state)) else {
            return self.done(claimed).await;
        };
        if state != MessageState::Queued
            && let Some(reference) = self.handover.look_up(&message, phone).await?
        {
            self.handover.taken(&message, &reference).await?;
            return self.done(claimed).await;
        }
        let now = self.now();
        let next =
            if now - message.create_time > STALE { MessageState::Dropped } else { MessageState::Sending };
        let mut mine = false;
        let again = async |tx: &mut PgConnection| {
            mine = store::inbound::step(tx, message.id, next, now).await?;
            Ok(())
        };
        if self.holding(claimed, again).await? && mine && next == MessageState::Sending {
            return self.send(claimed, &message, phone).await;
        }
        self.done(claimed).await
    }

    async fn done(&self, claimed: &Claimed) -> anyhow::Result<()> {
        self.holding(claimed, async |tx| inbound::next(tx, claimed.message, None).await).await?;
        Ok(())
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(6)
    }
}

/// An answer, and what belongs to it.
pub(super) struct Reply {
    answer: Answer,
    /// The visits whose digits it offers.
    offered: Vec<Asked>,
    /// It speaks of a fee.
    late_fee: bool,
    /// It speaks of another time than the visit's.
    start: Option<DateTime<Utc>>,
}

impl Reply {
    /// Asks which of these was meant.
    pub(super) fn which(several: &[Asked]) -> Self {
        let several = &several[..several.len().min(MOST_CHOICES)];
        let which = Answer::Which(several.iter().map(|visit| (visit.start, visit.zone)).collect());
        Self { offered: several.to_vec(), ..Self::from(which) }
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { answer, offered: vec![], late_fee: false, start: None }
    }
}
