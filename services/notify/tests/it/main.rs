//! The notify service on real servers: events in over JetStream, texts out over HTTP to the sandbox provider. Mocked are only the two
//! services it asks. E-mails go to a relay of the tests' own.

mod callbacks;
mod logs;
mod mails;
mod merges;
mod notices;
mod offers;
mod others;
mod planning;
mod replicas;
mod replies;
mod sending;
mod signatures;
mod simulation;
mod sink;
mod wishes;

use std::sync::Arc;

use chrono::{DateTime, Days, NaiveTime, SubsecRound as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::America::New_York;
use kit::client::Outbound;
use kit::fields::timestamp;
use kit::ids::{AppointmentId, ClinicId, PatientId};
use kit::platform::Platform;
use mockall::mock;
use notify::mail::Smtp;
use notify::ports::{Clinic, Clinics, Contact, Mailer, Patients, Ports};
use notify::replies::worker::Partners;
use notify::twilio::Twilio;
use notify::words::Language;
use proto::clinic::appointments::v1::{AppointmentFacts, AppointmentState};
use proto::clinic::auth::v1::Role;
use proto::clinic::notify::v1::notify_service_client::NotifyServiceClient;
use proto::clinic::notify::v1::{
    ListMessagesRequest, ListRemindersRequest, Message, MessageKind, Reminder, ReminderState,
};
use proto::google::r#type::Interval;
use serde_json::Value;
use sink::Sink;
use testkit::Servers;
use tokio::net::TcpListener;

use crate::others::Others;

pub(crate) type Client = NotifyServiceClient<Outbound>;

mock! {
    pub(crate) Patients {}
    #[async_trait::async_trait]
    impl Patients for Patients {
        async fn contact(&self, patient: PatientId) -> anyhow::Result<Option<Contact>>;
        async fn has_open_intake(&self, appointment: AppointmentId) -> anyhow::Result<bool>;
    }
}

mock! {
    pub(crate) Clinics {}
    #[async_trait::async_trait]
    impl Clinics for Clinics {
        async fn clinic(&self, clinic: ClinicId) -> anyhow::Result<Clinic>;
    }
}

/// The number of the patient that most tests text.
pub(crate) const PHONE: &str = "+12025550123";

/// The number that texts come from and answers go to.
pub(crate) const OWN_NUMBER: &str = "+12025550100";
/// Texts stay queued at the provider, where no test waits for their delivery.
const NEVER: u64 = 3_600_000;

/// What a suite is started with.
pub(crate) struct World {
    pub(crate) patients: MockPatients,
    /// Milliseconds that a text spends in each state at the provider.
    pub(crate) sms_step_ms: u64,
    /// Texts a second.
    pub(crate) sms_rate: u32,
}

impl Default for World {
    /// Everyone is reached at [`PHONE`] and has agreed.
    fn default() -> Self {
        let mut patients = MockPatients::new();
        patients.expect_contact().returning(|_| Ok(Some(reachable())));
        Self { patients, sms_step_ms: NEVER, sms_rate: notify::config::SMS_RATE }
    }
}

/// A running service, the servers below it, the provider beside it and the others that it calls.
pub(crate) struct Suite {
    pub(crate) servers: Servers,
    pub(crate) broker: async_nats::Client,
    pub(crate) mail: Sink,
    pub(crate) others: Arc<Others>,
    pub(crate) url: String,
    pub(crate) provider: String,
    pub(crate) sms: notify::config::Sms,
    ports: Ports,
}

/// Where patients see their visits.
pub(crate) const PORTAL: &str = "https://clinic.example";

impl Suite {
    pub(crate) async fn start() -> Self {
        Self::of(World::default()).await
    }

    pub(crate) async fn with(patients: MockPatients) -> Self {
        Self::of(World { patients, ..World::default() }).await
    }

    /// Unless the patients say otherwise, no form is open.
    pub(crate) async fn of(mut world: World) -> Self {
        world.patients.expect_has_open_intake().returning(|_| Ok(false));
        let servers = Servers::start().await;
        let (listener, provider) = testkit::listener().await;
        let (service, url) = testkit::listener().await;
        let settings = sandbox::Settings {
            sms_step_ms: world.sms_step_ms,
            sms_inbound_url: Some(format!("{url}/webhooks/sms/inbound")),
            ..sandbox::Settings::default()
        };
        let sms = notify::config::Sms {
            sms_api_base: provider.clone(),
            sms_account_sid: settings.sms_account.clone(),
            sms_auth_token: settings.sms_token.clone(),
            sms_from: OWN_NUMBER.to_owned(),
            sms_rate: world.sms_rate,
            sms_public_url: Some(url.parse().expect("an origin")),
        };
        let clock = servers.clock.clone();
        let config = sandbox::Config { settings, clock: Arc::new(move || clock.now()), advance: None };
        tokio::spawn(sandbox::serve(listener, config, servers.stop.clone()));

        let mail = Sink::start().await;
        let relay = notify::config::Mail {
            smtp_url: Some(mail.url()),
            mail_from: "Harbor Clinics <clinic@clinic.example>".to_owned(),
        };
        let mut clinics = MockClinics::new();
        let clinic = Clinic {
            name: "Harbor Clinic".to_owned(),
            phone: "+12025550100".to_owned(),
            address: "1 Pier Road\nBoston".to_owned(),
        };
        clinics.expect_clinic().returning(move |_| Ok(clinic.clone()));
        let ports = Ports {
            patients: Arc::new(world.patients),
            clinics: Arc::new(clinics),
            sms: Arc::new(Twilio::new(&sms).expect("a client")),
            mail: Smtp::new(&relay).expect("a relay").map(|smtp| Arc::new(smtp) as Arc<dyn Mailer>),
        };
        let broker = servers.broker().await;
        let suite = Self { servers, broker, mail, others: Arc::default(), url, provider, sms, ports };
        suite.serve(service).await;
        suite
    }

    /// Another replica of the service.
    pub(crate) async fn replica(&self) {
        let (listener, _) = testkit::listener().await;
        self.serve(listener).await;
    }

    async fn serve(&self, listener: TcpListener) {
        let service = self.servers.service(notify::NAME);
        let (clock, stop) = (self.servers.clock.clone(), self.servers.stop.clone());
        let platform = Platform::start(notify::NAME, &service, &notify::MIGRATOR, clock, stop).await;
        let platform = platform.expect("a platform");
        let partners = Partners { holders: self.others.clone(), visits: self.others.clone() };
        let (ports, sms) = (self.ports.clone(), self.sms.clone());
        tokio::spawn(async move {
            notify::serve(listener, platform, ports, partners, &sms, Language::English, PORTAL).await
        });
    }

    pub(crate) fn call_as(&self, role: Role, subject: &str) -> Client {
        NotifyServiceClient::new(self.servers.client(&self.url, role, subject))
    }

    pub(crate) fn desk(&self) -> Client {
        self.call_as(Role::FrontDesk, "ana")
    }

    /// A visit at 14:00 in New York in four days.
    pub(crate) fn visit(&self) -> Visit {
        let day = self.servers.clock.now().with_timezone(&New_York).date_naive() + Days::new(4);
        let afternoon = NaiveTime::from_hms_opt(14, 0, 0).expect("a time of day");
        let start =
            New_York.from_local_datetime(&day.and_time(afternoon)).single().expect("no clock changes at two");
        Visit { id: AppointmentId::new(), patient: PatientId::new(), start: start.to_utc() }
    }

    /// A visit that starts so long from now.
    pub(crate) fn visit_in(&self, ahead: TimeDelta) -> Visit {
        let start = (self.servers.clock.now() + ahead).trunc_subsecs(0);
        Visit { id: AppointmentId::new(), patient: PatientId::new(), start }
    }

    /// Tells an event about a visit, as appointments would, long after it happened: reminders are planned, and nothing is news.
    pub(crate) async fn tell<E: prost::Message + prost::Name>(&self, visit: &Visit, version: i64, event: &E) {
        let long_ago = self.servers.clock.now() - TimeDelta::days(30);
        testkit::publish_at(&self.broker, "appointments", visit.id, version, long_ago, event).await;
    }

    /// As [`Suite::tell`], of what has just happened.
    pub(crate) async fn happens<E: prost::Message + prost::Name>(
        &self,
        visit: &Visit,
        version: i64,
        event: &E,
    ) {
        let now = self.servers.clock.now();
        testkit::publish_at(&self.broker, "appointments", visit.id, version, now, event).await;
    }

    /// The visit's reminders, by due time.
    pub(crate) async fn reminders(&self, visit: &Visit) -> Vec<Reminder> {
        let request = ListRemindersRequest { appointment_id: visit.id.to_string(), ..Default::default() };
        self.desk().list_reminders(request).await.expect("listed").into_inner().reminders
    }

    /// The visit's reminders, once `wanted` holds of them.
    pub(crate) async fn reminders_when(
        &self,
        visit: &Visit,
        wanted: impl Fn(&[Reminder]) -> bool,
    ) -> Vec<Reminder> {
        testkit::until("the reminders' state", || async {
            Some(self.reminders(visit).await).filter(|reminders| wanted(reminders))
        })
        .await
    }

    /// The visit's messages of a kind with their texts, once `wanted` holds of them.
    pub(crate) async fn when_told(
        &self,
        visit: &Visit,
        kind: MessageKind,
        wanted: impl Fn(&[Message]) -> bool,
    ) -> Vec<Message> {
        testkit::until("what is told", || async {
            let mut messages = self.messages(visit).await;
            messages.retain(|message| message.kind() == kind);
            Some(messages).filter(|messages| wanted(messages))
        })
        .await
    }

    /// The visit's messages with their texts, newest first.
    pub(crate) async fn messages(&self, visit: &Visit) -> Vec<Message> {
        let request = ListMessagesRequest {
            appointment_id: visit.id.to_string(),
            show_body: true,
            ..Default::default()
        };
        self.desk().list_messages(request).await.expect("listed").into_inner().messages
    }

    /// Every message, with its text, newest first.
    pub(crate) async fn all_messages(&self) -> Vec<Message> {
        let request = ListMessagesRequest { show_body: true, ..Default::default() };
        self.desk().list_messages(request).await.expect("listed").into_inner().messages
    }

    /// Texts that the provider took, newest first.
    pub(crate) async fn taken(&self) -> Vec<Value> {
        let answer =
            reqwest::get(format!("{}/sandbox/messages", self.provider)).await.expect("the sandbox answers");
        answer.json().await.expect("a list")
    }

    /// Lets the provider fail the next time somebody sends a text.
    pub(crate) async fn fail_next_text(&self, kind: &str) {
        self.fault(serde_json::json!({ "route": "messages.create", "kind": kind })).await;
    }

    /// Scripts a fault of the provider.
    pub(crate) async fn fault(&self, fault: Value) {
        let url = format!("{}/sandbox/faults", self.provider);
        let answer = reqwest::Client::new().post(url).json(&fault).send().await.expect("the sandbox answers");
        assert!(answer.status().is_success());
    }
}

/// A visit as the tests know it.
#[derive(Clone)]
pub(crate) struct Visit {
    pub(crate) id: AppointmentId,
    pub(crate) patient: PatientId,
    pub(crate) start: DateTime<Utc>,
}

impl Visit {
    pub(crate) fn facts(&self, state: AppointmentState) -> Option<AppointmentFacts> {
        let end = self.start + TimeDelta::minutes(30);
        Some(AppointmentFacts {
            state: state.into(),
            patient_id: self.patient.to_string(),
            clinic_id: ClinicId::new().to_string(),
            interval: Some(Interval {
                start_time: Some(timestamp(self.start)),
                end_time: Some(timestamp(end)),
            }),
            time_zone: New_York.name().to_owned(),
            ..Default::default()
        })
    }
}

pub(crate) fn reachable() -> Contact {
    let (phone, language) = (Some(PHONE.to_owned()), "en".to_owned());
    Contact { phone, language, consented: true, ..Contact::default() }
}

pub(crate) fn states(reminders: &[Reminder]) -> Vec<ReminderState> {
    reminders.iter().map(Reminder::state).collect()
}
