//! The RPCs: decode, read, encode. Callers see messages and reminders; numbers are nowhere here.

mod words;

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::fields::{Fields, timestamp};
use kit::idempotency::{self, Attempt};
use kit::ids::{MessageId, PatientId};
use kit::merges;
use kit::page::Page;
use kit::status::{Error as KitError, Violation};
use proto::clinic::auth::v1::Role;
use proto::clinic::notify::v1 as pb;
use proto::clinic::notify::v1::notify_service_server::NotifyService;
use proto::clinic::notify::v1::{Channel, MessageKind, MessageState, ReminderKind, ReminderState};
use proto::google::r#type::Interval;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::app::{self, App};
use crate::error::Error;
use crate::events::optional;
use crate::store::lists::{self, Filter, Key};
use crate::store::{self, Message, Reminder};

/// Answers `NotifyService`.
pub struct Notify {
    app: App,
}

impl Notify {
    /// The calls of `app`.
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

/// The patient that a caller is confined to: one whose only role that these methods know is the patient's.
fn confined(caller: &Caller) -> Option<PatientId> {
    let staff = [Role::FrontDesk, Role::Manager, Role::Admin, Role::Service];
    let free = staff.into_iter().any(|role| caller.is(role));
    (!free).then(|| caller.subject.parse().unwrap_or_else(|_| PatientId::from(Uuid::nil())))
}

/// Whether a caller may read texts.
fn reads_texts(caller: &Caller) -> bool {
    confined(caller).is_some() || caller.is(Role::FrontDesk) || caller.is(Role::Admin)
}

impl Notify {
    /// Narrows a list to the caller's own rows, or refuses a patient who asks for another's.
    async fn narrow(&self, caller: &Caller, filter: &mut Filter, fields: &mut Fields) -> Result<(), Error> {
        let Some(own) = confined(caller) else { return Ok(()) };
        match filter.patient {
            Some(other) if !self.is_own(own, other).await? => return Err(KitError::not_found(other).into()),
            None if filter.appointment.is_none() => {
                fields.refuse("patient_id", "is required of a patient unless appointment_id is given");
            }
            Some(_) | None => filter.patient = Some(own),
        }
        Ok(())
    }

    /// Whether `patient` is `own`, or the same person after a merge.
    async fn is_own(&self, own: PatientId, patient: PatientId) -> Result<bool, Error> {
        if own == patient {
            return Ok(true);
        }
        let same =
            async { merges::is_same_person(&mut *self.app.db.pool().acquire().await?, own, patient).await };
        Ok(same.await?)
    }
}

/// Names of the enum values that a filter lists.
fn names<E>(fields: &mut Fields, field: &str, values: &[i32], name: impl Fn(E) -> &'static str) -> Vec<String>
where
    E: TryFrom<i32> + Default + PartialEq,
{
    let mut names = vec![];
    for (i, value) in values.iter().enumerate() {
        match E::try_from(*value) {
            Ok(known) if known != E::default() => names.push(name(known).to_owned()),
            Ok(_) | Err(_) => {
                fields.refuse(format!("{field}[{i}]"), "must be a specified value of the contract")
            }
        }
    }
    names
}

type Bound = Option<DateTime<Utc>>;

fn interval(fields: &mut Fields, field: &str, interval: Option<Interval>) -> (Bound, Bound) {
    let (start, end) = interval.map_or((None, None), |i| (i.start_time, i.end_time));
    let from = start.map(|time| fields.instant(&format!("{field}.start_time"), Some(time)));
    let until = end.map(|time| fields.instant(&format!("{field}.end_time"), Some(time)));
    (from, until)
}

/// The page asked for; its bad fields are reported with the others.
fn page(fields: &mut Fields, size: i32, token: &str) -> Page<Key> {
    Page::parse(size, token).unwrap_or_else(|error| {
        if let KitError::Invalid(bad) = error {
            bad.into_iter().for_each(|v| fields.refuse(v.field, v.description));
        }
        Page { size: 1, after: None }
    })
}

#[tonic::async_trait]
impl NotifyService for Notify {
    async fn list_reminders(
        &self,
        request: Request<pb::ListRemindersRequest>,
    ) -> Result<Response<pb::ListRemindersResponse>, Status> {
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let appointment = fields.optional_id("appointment_id", &request.appointment_id);
        let patient = fields.optional_id("patient_id", &request.patient_id);
        let kinds = names(&mut fields, "kinds", &request.kinds, |k: ReminderKind| k.as_str_name());
        let states = names(&mut fields, "states", &request.states, |s: ReminderState| s.as_str_name());
        let (from, until) = interval(&mut fields, "due_interval", request.due_interval);
        let page = page(&mut fields, request.page_size, &request.page_token);
        let mut filter = Filter { patient, appointment, kinds, states, from, until };
        self.narrow(&caller, &mut filter, &mut fields).await?;
        fields.check().map_err(Error::from)?;
        let rows = async {
            let conn = &mut *self.app.db.pool().acquire().await?;
            lists::reminders(conn, &filter, page.after, page.limit()).await
        };
        let rows = rows.await.map_err(Error::from)?;
        let (reminders, next_page_token) = page.cut(rows, |r| (r.due_time, r.id.uuid()));
        let reminders = reminders.iter().map(reminder).collect();
        Ok(Response::new(pb::ListRemindersResponse { reminders, next_page_token }))
    }

    async fn list_messages(
        &self,
        request: Request<pb::ListMessagesRequest>,
    ) -> Result<Response<pb::ListMessagesResponse>, Status> {
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let patient = fields.optional_id("patient_id", &request.patient_id);
        let appointment = fields.optional_id("appointment_id", &request.appointment_id);
        let kinds = names(&mut fields, "kinds", &request.kinds, |k: MessageKind| k.as_str_name());
        let states = names(&mut fields, "states", &request.states, |s: MessageState| s.as_str_name());
        let channel = match Channel::try_from(request.channel) {
            Ok(Channel::Unspecified) => "",
            Ok(channel) => channel.as_str_name(),
            Err(_) => {
                fields.refuse("channel", "must be a value of the contract");
                ""
            }
        };
        let (from, until) = interval(&mut fields, "create_interval", request.create_interval);
        let page = page(&mut fields, request.page_size, &request.page_token);
        let mut filter = Filter { patient, appointment, kinds, states, from, until };
        self.narrow(&caller, &mut filter, &mut fields).await?;
        fields.check().map_err(Error::from)?;
        let rows = async {
            let conn = &mut *self.app.db.pool().acquire().await?;
            lists::messages(conn, &filter, channel, page.after, page.limit()).await
        };
        let rows = rows.await.map_err(Error::from)?;
        let (messages, next_page_token) = page.cut(rows, |m| (m.create_time, m.id.uuid()));
        let show_body = request.show_body && reads_texts(&caller);
        let messages = messages.iter().map(|m| message(m, show_body)).collect();
        Ok(Response::new(pb::ListMessagesResponse { messages, next_page_token }))
    }

    async fn get_message(
        &self,
        request: Request<pb::GetMessageRequest>,
    ) -> Result<Response<pb::Message>, Status> {
        let caller = kit::auth::caller(&request)?;
        let mut fields = Fields::new();
        let id: MessageId = fields.id("message_id", &request.get_ref().message_id);
        fields.check().map_err(Error::from)?;
        let found = async { store::message(&mut *self.app.db.pool().acquire().await?, id).await };
        let found = found.await.map_err(Error::from)?;
        let found = found.ok_or_else(|| Error::from(KitError::not_found(id)))?;
        if let Some(own) = confined(&caller) {
            let is_own = match found.patient {
                Some(patient) => self.is_own(own, patient).await?,
                None => false,
            };
            if !is_own {
                return Err(Error::from(KitError::not_found(id)).into());
            }
        }
        Ok(Response::new(message(&found, reads_texts(&caller))))
    }

    async fn send_message(
        &self,
        request: Request<pb::SendMessageRequest>,
    ) -> Result<Response<pb::Message>, Status> {
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let wish = words::wish(&mut fields, &caller, &request);
        for Violation { field, description } in app::faults(&wish) {
            fields.refuse(field, description);
        }
        fields.check().map_err(Error::from)?;
        let db = &self.app.db;
        let key = idempotency::Key::new(&caller, "SendMessage", request_id, &request);
        if let Some(key) = &key {
            let found = async { idempotency::find(&mut *db.pool().acquire().await?, key).await };
            if let Some(first) = found.await.map_err(Error::from)? {
                return Ok(Response::new(first));
            }
        }
        // Asks others, so before the transaction.
        let granted = self.app.grant(&wish).await?;
        let mut fresh = match idempotency::begin_keyed(db, key, None).await.map_err(Error::from)? {
            Attempt::Replayed(first) => return Ok(Response::new(first)),
            Attempt::Fresh(fresh) => fresh,
        };
        let queued = self.app.queue(&mut fresh.tx, &granted).await?;
        let answer = message(&queued, reads_texts(&caller));
        fresh.finish(&answer).await.map_err(Error::from)?;
        self.app.bells.ring(queued.kind);
        Ok(Response::new(answer))
    }

    async fn set_template(
        &self,
        request: Request<pb::SetTemplateRequest>,
    ) -> Result<Response<pb::Template>, Status> {
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let wish = words::template(&mut fields, request.template.as_ref());
        for (field, sentence) in wish.problems() {
            fields.refuse(format!("template.{field}"), sentence);
        }
        fields.check().map_err(Error::from)?;
        let begun = idempotency::begin(&self.app.db, &caller, "SetTemplate", request_id, &request).await;
        let mut fresh = match begun.map_err(Error::from)? {
            Attempt::Replayed(first) => return Ok(Response::new(first)),
            Attempt::Fresh(fresh) => fresh,
        };
        let stored = self.app.set_template(&mut fresh.tx, &wish, &caller.subject).await?;
        let answer = words::stored(&stored);
        fresh.finish(&answer).await.map_err(Error::from)?;
        self.app.templates().forget();
        Ok(Response::new(answer))
    }

    async fn preview_template(
        &self,
        request: Request<pb::PreviewTemplateRequest>,
    ) -> Result<Response<pb::PreviewTemplateResponse>, Status> {
        kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let wish = words::template(&mut fields, request.template.as_ref());
        let values = words::values(&mut fields, &request.values);
        fields.check().map_err(Error::from)?;
        let found = self.app.templates().in_force(wish.kind, wish.channel, &wish.language);
        let found = found.await.map_err(Error::from)?;
        Ok(Response::new(words::preview(wish, values, found)))
    }
}

fn reminder(reminder: &Reminder) -> pb::Reminder {
    pb::Reminder {
        id: reminder.id.to_string(),
        appointment_id: reminder.appointment.to_string(),
        appointment_version: reminder.appointment_version,
        patient_id: reminder.patient.to_string(),
        kind: reminder.kind.into(),
        visit_start_time: Some(timestamp(reminder.visit_start_time)),
        due_time: Some(timestamp(reminder.due_time)),
        state: reminder.state.into(),
        drop_reason: reminder.drop_reason.into(),
        message_id: reminder.message.map(|id| id.to_string()).unwrap_or_default(),
        create_time: Some(timestamp(reminder.create_time)),
        update_time: Some(timestamp(reminder.update_time)),
    }
}

fn message(message: &Message, show_body: bool) -> pb::Message {
    pb::Message {
        id: message.id.to_string(),
        patient_id: optional(message.patient),
        appointment_id: optional(message.appointment),
        appointment_version: message.appointment_version,
        reminder_id: optional(message.reminder),
        in_reply_to_id: optional(message.in_reply_to),
        kind: message.kind.into(),
        channel: message.channel.into(),
        language: message.language.clone(),
        state: message.state.into(),
        drop_reason: message.drop_reason.into(),
        failure_reason: message.failure_reason.into(),
        provider_error_code: message.provider_error_code.clone(),
        body: if show_body && message.kind != MessageKind::SignInCode {
            message.body.clone()
        } else {
            String::new()
        },
        encoding: message.encoding.into(),
        segments: message.segments,
        attempts: message.attempts,
        provider_reference: message.provider_reference.clone().unwrap_or_default(),
        create_time: Some(timestamp(message.create_time)),
        send_time: message.send_time.map(timestamp),
        deliver_time: message.deliver_time.map(timestamp),
        update_time: Some(timestamp(message.update_time)),
    }
}
