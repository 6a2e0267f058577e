//! The worker that e-mails what waits for it. Any number of replicas may run it.

use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, Utc};
use futures::{StreamExt as _, stream};
use kit::clock::Clock;
use kit::db::Db;
use kit::messaging::outbox;
use proto::clinic::notify::v1::{DropReason, FailureReason, MessageKind};
use tokio_util::sync::CancellationToken;

use crate::domain::Visit;
use crate::events;
use crate::invite::{Invite, Method};
use crate::ports::{Attached, Email, Mailer, Outcome, Ports};
use crate::store::mails::{self, Mail};
use crate::store::{self, notices};

/// E-mails in hand at once.
const BATCH: i64 = 16;
/// How long a claim lasts: longer than a relay may take for one e-mail.
const LEASE: Duration = Duration::from_secs(120);
/// Pause between two looks when nothing more waits.
const POLL: Duration = Duration::from_millis(500);
/// Wait after a failed try; doubles up to the second figure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15 * 60));
/// An e-mail that no relay took after so many tries, a day or so, is given up.
const MOST_TRIES: i32 = 100;

/// E-mails what waits.
#[derive(Clone)]
pub struct Post {
    db: Db,
    clock: Clock,
    ports: Ports,
}

impl Post {
    /// On `db`, through `ports`.
    pub fn new(db: Db, clock: Clock, ports: Ports) -> Self {
        Self { db, clock, ports }
    }

    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Some(mailer) = self.ports.mail.clone() else { return };
        while !stop.is_cancelled() {
            match mails::claim(self.db.pool(), BATCH, LEASE).await {
                Ok(claimed) if !claimed.is_empty() => {
                    stream::iter(claimed).for_each_concurrent(None, |mail| self.tend(&*mailer, mail)).await;
                    continue;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "e-mails wait"),
            }
            stop.run_until_cancelled(tokio::time::sleep(POLL)).await;
        }
    }

    async fn tend(&self, mailer: &dyn Mailer, mail: Mail) {
        let Err(error) = self.try_tend(mailer, &mail).await else { return };
        tracing::warn!(message = %mail.id, error = format!("{error:#}"), "an e-mail could not be sent; it waits");
        if let Err(error) = mails::try_later(self.db.pool(), &mail, backoff(mail.tries), self.now()).await {
            // The lease ends by itself.
            tracing::debug!(%error, "the next try could not be written down");
        }
    }

    async fn try_tend(&self, mailer: &dyn Mailer, mail: &Mail) -> anyhow::Result<()> {
        let visit = match mail.appointment {
            Some(appointment) => notices::visit(&mut *self.db.pool().acquire().await?, appointment).await?,
            None => None,
        };
        let newer = |v: &Visit| mail.appointment_version > 0 && v.version > mail.appointment_version;
        if visit.as_ref().is_some_and(newer) {
            return Ok(mails::dropped(self.db.pool(), mail, DropReason::Superseded, self.now()).await?);
        }
        let contact = self.ports.patients.contact(mail.patient).await?;
        let Some(to) = contact.and_then(|contact| contact.email) else {
            return Ok(mails::dropped(self.db.pool(), mail, DropReason::NoContact, self.now()).await?);
        };
        let now = self.now();
        let invite = match (method(mail.kind), &visit) {
            (Some(method), Some(visit)) => {
                let clinic = self.ports.clinics.clinic(visit.clinic).await?;
                let invite = Invite {
                    method,
                    appointment: visit.appointment,
                    version: visit.version,
                    start: visit.start,
                    end: visit.end,
                    zone: visit.zone,
                    // The clinic alone: calendars are shown to others.
                    summary: &clinic.name,
                    location: &clinic.address,
                    organizer: &mailer.from(),
                    attendee: &to,
                };
                Some(Attached { method, file: invite.text(now) })
            }
            (Some(_), None) | (None, _) => None,
        };
        let (subject, body) = (mail.subject.clone(), mail.body.clone());
        let email = Email { id: mail.id, to, subject, body, date: now, invite };
        let outcome = mailer.send(&email).await;
        match outcome {
            Outcome::Taken(_) => self.taken(mail).await,
            Outcome::Refused { reason, code } => self.refused(mail, reason, &code).await,
            Outcome::NotTaken(why) | Outcome::Unknown(why) if mail.tries < MOST_TRIES => {
                Err(anyhow::anyhow!(why))
            }
            Outcome::NotTaken(_) | Outcome::Unknown(_) => {
                self.refused(mail, FailureReason::Expired, "").await
            }
        }
    }

    async fn taken(&self, mail: &Mail) -> anyhow::Result<()> {
        metrics::counter!("notify_emails_total", "outcome" => "taken").increment(1);
        let now = self.now();
        let mut tx = self.db.begin().await?;
        if mails::taken(&mut tx, mail, now).await?.is_some()
            && let Some(message) = store::message(&mut tx, mail.id).await?
        {
            let told = events::message_sent(&message, message.version, now);
            outbox::put(&mut tx, message.id, message.version, &told).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn refused(&self, mail: &Mail, reason: FailureReason, code: &str) -> anyhow::Result<()> {
        metrics::counter!("notify_emails_total", "outcome" => "refused").increment(1);
        let mut tx = self.db.begin().await?;
        if mails::refused(&mut tx, mail, (reason, code), self.now()).await?.is_some()
            && let Some(message) = store::message(&mut tx, mail.id).await?
        {
            events::message_failed(&mut tx, &message).await?;
        }
        Ok(tx.commit().await?)
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(6)
    }
}

/// What a kind of e-mail asks of calendars.
fn method(kind: MessageKind) -> Option<Method> {
    match kind {
        MessageKind::Booked | MessageKind::Rescheduled => Some(Method::Request),
        MessageKind::Cancelled => Some(Method::Cancel),
        _ => None,
    }
}

fn backoff(tries: i32) -> Duration {
    BACKOFF.1.min(BACKOFF.0 * 2u32.pow(tries.clamp(0, 10) as u32))
}
