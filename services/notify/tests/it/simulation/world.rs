//! Everything around the service: servers, provider, other services, and replicas that can be killed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use kit::fields::timestamp;
use kit::ids::{AppointmentId, ClinicId, PatientId};
use kit::platform::Platform;
use notify::ports::{Clinic, Clinics, Contact, Outcome, Patients, Ports, Sms, SmsGateway};
use notify::replies::worker::Partners;
use notify::twilio::Twilio;
use notify::words::Language;
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentCancelled, AppointmentFacts, AppointmentRescheduled, AppointmentState,
};
use proto::google::r#type::Interval;
use serde_json::{Value, json};
use testkit::Servers;
use tokio::runtime::{Builder, Runtime};

use super::judge::Taken;
use super::plot::{Case, Deed, Event, Plot, phone};
use crate::OWN_NUMBER;
use crate::others::Others;

/// Connections of one replica.
const CONNECTIONS: u32 = 8;
/// Texts a second: nobody waits for a turn.
const RATE: u32 = 10_000;

/// Patients and clinics as their services know them.
struct People {
    contacts: Mutex<HashMap<PatientId, Contact>>,
    clinics: HashMap<ClinicId, String>,
}

#[async_trait]
impl Patients for People {
    async fn contact(&self, patient: PatientId) -> anyhow::Result<Option<Contact>> {
        Ok(self.contacts.lock().expect("held").get(&patient).cloned())
    }

    async fn has_open_intake(&self, _: AppointmentId) -> anyhow::Result<bool> {
        Ok(false)
    }
}

#[async_trait]
impl Clinics for People {
    async fn clinic(&self, clinic: ClinicId) -> anyhow::Result<Clinic> {
        let name = self.clinics[&clinic].clone();
        Ok(Clinic { name, phone: OWN_NUMBER.to_owned(), ..Clinic::default() })
    }
}

/// The provider, and how many calls to it are under way.
struct Counting {
    provider: Twilio,
    under_way: Arc<AtomicUsize>,
}

/// Counts a call for as long as it lives, killed or not.
struct Call(Arc<AtomicUsize>);

impl Call {
    fn of(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(counter.clone())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl SmsGateway for Counting {
    async fn send(&self, sms: &Sms) -> Outcome {
        let _call = Call::of(&self.under_way);
        self.provider.send(sms).await
    }

    async fn taken(&self, to: &str, body: &str, since: DateTime<Utc>) -> anyhow::Result<Vec<String>> {
        let _call = Call::of(&self.under_way);
        self.provider.taken(to, body, since).await
    }

    async fn sender(&self, reference: &str) -> anyhow::Result<Option<String>> {
        self.provider.sender(reference).await
    }
}

pub(super) struct World {
    pub(super) servers: Servers,
    broker: async_nats::Client,
    provider: String,
    sms: notify::config::Sms,
    people: Arc<People>,
    under_way: Arc<AtomicUsize>,
    replicas: Vec<Runtime>,
}

impl World {
    pub(super) async fn start(plot: &Plot, lost_percent: u32) -> Self {
        let servers = Servers::start().await;
        let (listener, provider) = testkit::listener().await;
        let settings = sandbox::Settings { sms_step_ms: 3_600_000, ..sandbox::Settings::default() };
        let sms = notify::config::Sms {
            sms_api_base: provider.clone(),
            sms_account_sid: settings.sms_account.clone(),
            sms_auth_token: settings.sms_token.clone(),
            sms_from: OWN_NUMBER.to_owned(),
            sms_rate: RATE,
            sms_public_url: None,
        };
        let clock = servers.clock.clone();
        let config = sandbox::Config { settings, clock: Arc::new(move || clock.now()), advance: None };
        tokio::spawn(sandbox::serve(listener, config, servers.stop.clone()));
        let contact = |case: usize, zone: Tz| Contact {
            phone: Some(phone(case, 0)),
            consented: true,
            language: "en".to_owned(),
            zone: Some(zone),
            ..Contact::default()
        };
        let cases = plot.cases.iter().enumerate();
        let contacts = cases.clone().map(|(n, case)| (case.patient, contact(n, case.home))).collect();
        let clinics = cases.map(|(n, case)| (case.clinic, format!("K{n}"))).collect();
        let people = Arc::new(People { contacts: Mutex::new(contacts), clinics });
        let broker = servers.broker().await;
        let (under_way, replicas) = (Arc::default(), vec![]);
        let world = Self { servers, broker, provider, sms, people, under_way, replicas };
        for (kind, percent) in
            [("act_then_drop", lost_percent), ("drop", lost_percent), ("error_500", lost_percent)]
        {
            world.trouble(kind, percent).await;
        }
        world
    }

    async fn trouble(&self, kind: &str, percent: u32) {
        let fault =
            json!({ "route": "messages.create", "kind": kind, "percent": percent, "times": u32::MAX });
        let url = format!("{}/sandbox/faults", self.provider);
        let answer = reqwest::Client::new().post(url).json(&fault).send().await.expect("the sandbox answers");
        assert!(answer.status().is_success(), "{:?}", answer.text().await);
    }

    /// Moves time forward, never back.
    pub(super) async fn to(&self, instant: DateTime<Utc>) {
        let ahead = instant - self.servers.clock.now();
        if ahead > TimeDelta::zero() {
            self.servers.advance(ahead).await;
        }
    }

    /// One more replica, on threads of its own.
    pub(super) fn add_replica(&mut self) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let mut service = self.servers.service(notify::NAME);
        service.database_connections = CONNECTIONS;
        let (clock, stop) = (self.servers.clock.clone(), self.servers.stop.clone());
        let provider = Twilio::new(&self.sms).expect("a client");
        let ports = Ports {
            patients: self.people.clone(),
            clinics: self.people.clone(),
            sms: Arc::new(Counting { provider, under_way: self.under_way.clone() }),
            mail: None,
        };
        let others = Arc::new(Others::default());
        let partners = Partners { holders: others.clone(), visits: others };
        let sms = self.sms.clone();
        runtime.spawn(async move {
            let platform = Platform::start(notify::NAME, &service, &notify::MIGRATOR, clock, stop).await;
            let platform = platform.expect("a platform");
            let (listener, _) = testkit::listener().await;
            notify::serve(listener, platform, ports, partners, &sms, Language::English, "").await
        });
        self.replicas.push(runtime);
    }

    /// Ends a replica wherever it stands, and starts another in its place.
    pub(super) fn kill_one(&mut self, which: usize) {
        self.replicas.remove(which).shutdown_background();
        self.add_replica();
    }

    /// Calls to the provider that have not been answered.
    pub(super) fn calls_under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Does one deed, and tells it as its service would.
    pub(super) async fn perform(&self, plot: &Plot, deed: &Event, versions: &mut HashMap<usize, i64>) {
        let case = &plot.cases[deed.case];
        let change = |change: &dyn Fn(&mut Contact)| {
            let mut contacts = self.people.contacts.lock().expect("held");
            change(contacts.get_mut(&case.patient).expect("every case has its patient"));
        };
        match &deed.what {
            Deed::Withdraw => change(&|contact| (contact.consented, contact.withdrawn) = (false, true)),
            Deed::Renumber(number) => change(&|contact| contact.phone = Some(number.clone())),
            Deed::Schedule(start) => {
                let appointment = facts(case, *start, AppointmentState::Booked);
                match next_version(versions, deed.case) {
                    1 => self.tell(case, 1, &AppointmentBooked { appointment, ..Default::default() }).await,
                    version => {
                        let event = AppointmentRescheduled { appointment, ..Default::default() };
                        self.tell(case, version, &event).await;
                    }
                }
            }
            Deed::Cancel => {
                let appointment = facts(case, deed.at + TimeDelta::hours(1), AppointmentState::Cancelled);
                let event = AppointmentCancelled { appointment, ..Default::default() };
                self.tell(case, next_version(versions, deed.case), &event).await;
            }
        }
    }

    async fn tell<E: prost::Message + prost::Name>(&self, case: &Case, version: i64, event: &E) {
        let now = self.servers.clock.now();
        testkit::publish_at(&self.broker, "appointments", case.appointment, version, now, event).await;
    }

    /// Every text the provider took, read from its own store.
    pub(super) async fn taken(&self) -> Vec<Taken> {
        let url = format!("{}/sandbox/messages", self.provider);
        let texts: Vec<Value> =
            reqwest::get(url).await.expect("the sandbox answers").json().await.expect("a list");
        let text = |text: Value| Taken {
            to: text["to"].as_str().expect("a number").to_owned(),
            body: text["body"].as_str().expect("a body").to_owned(),
            at: DateTime::parse_from_rfc2822(text["date_created"].as_str().expect("a date"))
                .expect("a date")
                .to_utc(),
        };
        texts.into_iter().map(text).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.servers.stop.cancel();
        self.replicas.drain(..).for_each(Runtime::shutdown_background);
    }
}

fn next_version(versions: &mut HashMap<usize, i64>, case: usize) -> i64 {
    let version = versions.entry(case).or_insert(0);
    *version += 1;
    *version
}

fn facts(case: &Case, start: DateTime<Utc>, state: AppointmentState) -> Option<AppointmentFacts> {
    Some(AppointmentFacts {
        state: state.into(),
        patient_id: case.patient.to_string(),
        clinic_id: case.clinic.to_string(),
        interval: Some(Interval {
            start_time: Some(timestamp(start)),
            end_time: Some(timestamp(start + TimeDelta::minutes(30))),
        }),
        time_zone: case.clinic_zone.name().to_owned(),
        ..Default::default()
    })
}
