//! What somebody asks for: messages to be sent now, and the words they are written in.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use chrono_tz::Tz;
use kit::clock::Clock;
use kit::db::Db;
use kit::ids::{AppointmentId, ClinicId, MessageId, PatientId};
use kit::merges;
use kit::status::{Error as KitError, Violation};
use proto::clinic::appointments::v1::AppointmentState;
use proto::clinic::notify::v1::{Channel, DropReason, MessageKind, MessageState};
use sqlx::PgConnection;

use crate::bells::Bells;
use crate::courier::unreachable;
use crate::domain::notice::{Facts, capped, expires, is_unasked};
use crate::domain::{Visit, is_quiet};
use crate::error::Error;
use crate::ports::{Contact, Ports};
use crate::store::notices::{self, Notice, Written};
use crate::store::templates::{self, Stored};
use crate::store::{self, Message};
use crate::templates::{Templates, normal};
use crate::words::Text;
use crate::words::template::{Placeholder, about_a_visit, problems};
use crate::writer::{Subject, Writer, form_open};

/// Characters of a value that a caller gives at most.
const MOST_VALUE: usize = 40;
/// The placeholder that says how long a code holds.
const EXPIRY_MINUTES: &str = "expiry_minutes";

/// Sends and sets.
#[derive(Clone)]
pub struct App {
    /// The schema.
    pub db: Db,
    /// Now.
    pub clock: Clock,
    /// Who is asked.
    pub ports: Ports,
    /// Whose words.
    pub writer: Writer,
    /// What wakes those who send.
    pub bells: Arc<Bells>,
}

/// A message that somebody wants sent.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The id it shall have; `None` = any.
    pub id: Option<MessageId>,
    /// Whom.
    pub patient: PatientId,
    /// About which visit.
    pub appointment: Option<AppointmentId>,
    /// What.
    pub kind: MessageKind,
    /// By which way; unspecified = by text where that can be, else by e-mail.
    pub channel: Channel,
    /// BCP 47; empty = the patient's.
    pub language: String,
    /// What only the caller knows.
    pub values: BTreeMap<String, String>,
}

/// A wish that may be fulfilled, with its words.
#[derive(Debug)]
pub struct Granted {
    notice: Notice,
    text: Text,
    language: String,
}

/// The placeholders whose values the caller of SendMessage gives.
pub fn asked_of_caller(kind: MessageKind) -> &'static [Placeholder] {
    match kind {
        MessageKind::LateVisit => &[Placeholder::DelayMinutes],
        MessageKind::PaymentProblem => &[Placeholder::Amount],
        MessageKind::SignInCode => &[Placeholder::Code, Placeholder::ExpiryMinutes],
        _ => &[],
    }
}

/// What is wrong with a wish by itself.
pub fn faults(wish: &Wish) -> Vec<Violation> {
    let mut found = vec![];
    let mut refuse = |field: String, description: String| found.push(Violation { field, description });
    if about_a_visit(wish.kind) && wish.appointment.is_none() {
        refuse("appointment_id".to_owned(), "is required for a message about a visit".to_owned());
    }
    let asked = asked_of_caller(wish.kind);
    for (name, value) in &wish.values {
        if !asked.iter().any(|known| known.name() == name) {
            refuse(format!("values.{name}"), "has no place in this kind of message".to_owned());
        } else if value.trim().is_empty() || value.chars().count() > MOST_VALUE {
            refuse(format!("values.{name}"), format!("must have 1 to {MOST_VALUE} characters"));
        } else if name.ends_with("_minutes") && minutes(value).is_none_or(|minutes| minutes == 0) {
            refuse(format!("values.{name}"), "must be a number of minutes".to_owned());
        }
    }
    for missing in asked.iter().filter(|known| !wish.values.contains_key(known.name())) {
        refuse(format!("values.{}", missing.name()), "is required for this kind of message".to_owned());
    }
    found
}

fn minutes(value: &str) -> Option<u16> {
    value.parse().ok()
}

impl App {
    /// Judges a wish, and writes its words. Nothing is kept.
    pub async fn grant(&self, wish: &Wish) -> Result<Granted, Error> {
        let visit = match wish.appointment {
            Some(appointment) => Some(self.visit(appointment, wish).await?),
            None => None,
        };
        let contact = self.ports.patients.contact(wish.patient).await;
        let contact = contact.map_err(|_| KitError::Unavailable { what: "the patients service" })?;
        let contact = contact.ok_or_else(|| KitError::not_found(wish.patient))?;
        let channel = self.channel(wish, &contact)?;
        let (clinic, zone) = self.place(wish, visit.as_ref()).await?;
        let now = self.now();
        if channel == Channel::Sms && is_unasked(wish.kind) && is_quiet(now, contact.zone.unwrap_or(zone)) {
            return Err(Error::QuietHours(wish.patient));
        }
        let form = visit.as_ref().filter(|visit| visit.has_form).map(|visit| visit.appointment);
        let form_open = form_open(&*self.ports.patients, wish.kind, form).await;
        let form_open = form_open.map_err(|_| KitError::Unavailable { what: "the patients service" })?;
        let facts = Facts { given: wish.values.clone(), ..Facts::default() };
        let start = visit.as_ref().map(|visit| visit.start);
        let subject =
            Subject { clinic, appointment: wish.appointment, start, zone, form_open, facts: &facts };
        let language = if wish.language.is_empty() { &contact.language } else { &wish.language };
        let written = self.writer.write(wish.kind, channel, language, &subject).await;
        let (text, language) = written.map_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "a message could not be written");
            KitError::Unavailable { what: "the scheduling service" }
        })?;
        let holds = wish.values.get(EXPIRY_MINUTES).and_then(|value| minutes(value));
        let notice = Notice {
            id: wish.id.unwrap_or_else(MessageId::new),
            kind: wish.kind,
            channel,
            or_email: false,
            patient: wish.patient,
            clinic,
            appointment: wish.appointment,
            appointment_version: visit.map_or(0, |visit| visit.version),
            charge: None,
            facts,
            expire_time: match holds {
                Some(minutes) => now + TimeDelta::minutes(minutes.into()),
                None => expires(wish.kind, now, start),
            },
            create_time: now,
        };
        Ok(Granted { notice, text, language })
    }

    async fn visit(&self, appointment: AppointmentId, wish: &Wish) -> Result<Visit, Error> {
        let conn = &mut *self.db.pool().acquire().await?;
        let found = notices::visit(conn, appointment).await?;
        let visit = found.ok_or_else(|| KitError::not_found(appointment))?;
        if !merges::is_same_person(conn, visit.patient, wish.patient).await? {
            return Err(KitError::not_found(appointment).into());
        }
        let now = self.now();
        let open = match visit.state {
            AppointmentState::Booked | AppointmentState::Displaced => visit.end > now,
            // The patient waits for a clinic that runs late.
            AppointmentState::CheckedIn => matches!(wish.kind, MessageKind::LateVisit),
            _ => false,
        };
        let anytime = !about_a_visit(wish.kind);
        if open || anytime { Ok(visit) } else { Err(Error::WrongState(appointment)) }
    }

    /// The way a message goes.
    fn channel(&self, wish: &Wish, contact: &Contact) -> Result<Channel, Error> {
        let mailable = contact.email.is_some() && self.ports.mail.is_some();
        match (wish.channel, unreachable(wish.kind, contact)) {
            (Channel::Sms | Channel::Unspecified, None) => Ok(Channel::Sms),
            (Channel::Email, _) | (Channel::Unspecified, Some(_)) if mailable => Ok(Channel::Email),
            (_, Some(DropReason::NoConsent)) if wish.channel != Channel::Email => {
                Err(Error::NoConsent(wish.patient))
            }
            (_, _) => Err(Error::NoContact(wish.patient)),
        }
    }

    /// The clinic a message speaks for, and its zone: the visit's, else the patient's latest. Codes speak for none.
    async fn place(&self, wish: &Wish, visit: Option<&Visit>) -> Result<(Option<ClinicId>, Tz), Error> {
        if let Some(visit) = visit {
            return Ok((Some(visit.clinic), visit.zone));
        }
        let home = notices::home(&mut *self.db.pool().acquire().await?, wish.patient).await?;
        match home {
            Some((clinic, zone)) if wish.kind != MessageKind::SignInCode => Ok((Some(clinic), zone)),
            None if wish.kind != MessageKind::SignInCode => {
                let sentence = "is required: the patient has had no visit that tells the clinic";
                Err(KitError::invalid("appointment_id", sentence).into())
            }
            Some((_, zone)) => Ok((None, zone)),
            None => Ok((None, Tz::UTC)),
        }
    }

    /// Queues a granted message, unless its patient has had too many or its id is in use.
    pub async fn queue(&self, tx: &mut PgConnection, granted: &Granted) -> Result<Message, Error> {
        let Granted { notice, text, language } = granted;
        let now = notice.create_time;
        if store::message(tx, notice.id).await?.is_some() {
            return Err(Error::MessageExists(notice.id));
        }
        if notice.channel == Channel::Sms && is_unasked(notice.kind) {
            let sent = notices::texts_to(tx, notice.patient, notice.id, now).await?;
            if let Some(wait) = capped(&sent, now) {
                return Err(Error::CapReached { wait });
            }
        }
        let (state, drop_reason) = (MessageState::Queued, DropReason::Unspecified);
        let written = Written { notice, state, drop_reason, text: Some(text), language };
        notices::put_message(tx, &written, now).await?;
        if notice.channel == Channel::Sms {
            notices::insert(tx, notice, now).await?;
        }
        let queued = store::message(tx, notice.id).await?;
        Ok(queued.ok_or_else(|| KitError::internal(anyhow::anyhow!("message {} is not there", notice.id)))?)
    }

    /// Sets the words of a template whose etag is `etag`, empty = whatever they were before.
    pub async fn set_template(&self, tx: &mut PgConnection, wish: &Words, by: &str) -> Result<Stored, Error> {
        let language = normal(&wish.language);
        let before = templates::version(tx, wish.kind, wish.channel, &language).await?;
        let seen = wish.etag.is_empty() || wish.etag == etag(before);
        let stored = Stored {
            kind: wish.kind,
            channel: wish.channel,
            language,
            subject: wish.subject.clone(),
            body: wish.body.clone(),
            version: before + 1,
            update_time: self.now(),
            updated_by: by.to_owned(),
        };
        if !seen || !templates::put(tx, &stored, before).await? {
            return Err(KitError::EtagMismatch { kind: "Template" }.into());
        }
        Ok(stored)
    }

    /// Every template.
    pub fn templates(&self) -> &Templates {
        self.writer.templates()
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(6)
    }
}

/// Words that somebody wants to set or to see.
#[derive(Clone, Debug)]
pub struct Words {
    /// What for.
    pub kind: MessageKind,
    /// SMS or e-mail.
    pub channel: Channel,
    /// BCP 47.
    pub language: String,
    /// Subject of an e-mail.
    pub subject: String,
    /// The pattern; empty = the built-in words.
    pub body: String,
    /// As read; empty = not compared.
    pub etag: String,
}

impl Words {
    /// What is wrong with them, by field of the template.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        if self.body.is_empty() && self.subject.is_empty() {
            return vec![];
        }
        problems(self.kind, self.channel, &self.subject, &self.body)
    }
}

/// Names a state of a template.
pub fn etag(version: i32) -> String {
    version.to_string()
}
