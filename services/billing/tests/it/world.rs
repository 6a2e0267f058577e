//! A running billing service and the provider it talks to.

use std::path::PathBuf;
use std::sync::Mutex;

use billing::Config;
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use kit::client::Outbound;
use kit::fields::{date, timestamp};
use kit::ids::{AppointmentId, ClinicId, PatientId, RequestId, ServiceTypeId};
use proto::clinic::appointments::v1::{AppointmentFacts, AppointmentState, VisitOutcome};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::billing_service_client::BillingServiceClient;
use proto::google::r#type::{Interval, Money};
use testkit::Servers;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::process::{Process, tell_time};

pub(crate) type Client = BillingServiceClient<Outbound>;

/// The co-pay and the no-show fee of the world's clinic, in cents.
pub(crate) const COPAY: i64 = 2_500;
pub(crate) const FEE: i64 = 1_500;

/// How long billing waits for the provider, in milliseconds: long enough for a busy machine, short enough for a test that waits
/// it out.
const PATIENCE_MS: u64 = 1_500;

/// Where no other service is.
const NOBODY: &str = "http://127.0.0.1:9";

/// From one scheduled reconciliation to the next.
pub(crate) const RECONCILE_EVERY_SECS: u64 = 24 * 60 * 60;

/// Billing, the provider, one clinic with fees.
pub(crate) struct World {
    pub(crate) servers: Servers,
    pub(crate) provider: String,
    pub(crate) url: String,
    pub(crate) clinic: ClinicId,
    pub(crate) service_type: ServiceTypeId,
    pub(crate) http: reqwest::Client,
    appointments: String,
    running: Mutex<Option<Running>>,
    stop: CancellationToken,
}

/// How billing runs.
enum Running {
    /// As tasks of this process, which end where they stand.
    Tasks(Runtime),
    /// As a process of its own, which can be killed.
    Process(Process),
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        end(self.running.get_mut().unwrap());
    }
}

fn end(running: &mut Option<Running>) {
    match running.take() {
        Some(Running::Tasks(runtime)) => runtime.shutdown_background(),
        Some(Running::Process(process)) => drop(process),
        None => {}
    }
}

impl World {
    /// Starts everything and sets the fees.
    pub(crate) async fn start() -> Self {
        let world = Self::without_fees().await;
        let fee = world.fee(Some(COPAY), Some(FEE));
        world.set_fees(vec![fee], "").await.unwrap();
        world
    }

    /// The same, with appointments at `url`.
    pub(crate) async fn beside(url: String) -> Self {
        let (mut world, own) = Self::begin(sandbox::Settings::default()).await;
        world.appointments = url;
        world.run(own).await;
        world.set_fees(vec![world.fee(Some(COPAY), Some(FEE))], "").await.unwrap();
        world
    }

    pub(crate) async fn without_fees() -> Self {
        let (mut world, own) = Self::begin(sandbox::Settings::default()).await;
        world.run(own).await;
        world
    }

    /// Everything, with billing as a process of its own.
    pub(crate) async fn as_process(settings: sandbox::Settings, reconcile_every_secs: u64) -> Self {
        let (mut world, own) = Self::begin(settings).await;
        let config = Config { reconcile_every_secs, ..world.config() };
        let process = Process::start(&world.servers, own, config, None);
        *world.running.get_mut().unwrap() = Some(Running::Process(process));
        world.ready().await;
        world
    }

    /// Everything without fees, with billing as a process of its own whose log can be read.
    pub(crate) async fn logged() -> Self {
        let (mut world, own) = Self::begin(sandbox::Settings::default()).await;
        let process = Process::start(&world.servers, own, world.config(), Some(&world.log_file()));
        *world.running.get_mut().unwrap() = Some(Running::Process(process));
        world.ready().await;
        world
    }

    fn log_file(&self) -> PathBuf {
        self.servers.folder().join("billing.log")
    }

    /// What billing has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap()
    }

    async fn begin(settings: sandbox::Settings) -> (Self, TcpListener) {
        // Refused when another test of this process was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let servers = Servers::start().await;
        let stop = CancellationToken::new();
        let (listener, provider) = testkit::listener().await;
        // Known before the service starts, because the provider is told where its webhooks go.
        let (own, url) = testkit::listener().await;
        let clock = servers.clock.clone();
        let settings =
            sandbox::Settings { webhook_url: Some(format!("{url}/webhooks/payments")), ..settings };
        let config =
            sandbox::Config { settings, clock: std::sync::Arc::new(move || clock.now()), advance: None };
        tokio::spawn(sandbox::serve(listener, config, stop.clone()));
        let world = Self {
            servers,
            provider,
            url,
            clinic: ClinicId::new(),
            service_type: ServiceTypeId::new(),
            http: reqwest::Client::new(),
            appointments: NOBODY.into(),
            running: Mutex::default(),
            stop,
        };
        (world, own)
    }

    fn config(&self) -> Config {
        Config {
            service: self.servers.service(billing::NAME),
            appointments_url: self.appointments.clone(),
            payments_api_base: self.provider.clone(),
            payments_api_key: sandbox::Settings::default().payments_key.as_str().into(),
            payments_webhook_secret: sandbox::Settings::default().webhook_secret.as_str().into(),
            payments_timeout_ms: PATIENCE_MS,
            reconcile_every_secs: RECONCILE_EVERY_SECS,
            currency: "USD".parse().unwrap(),
        }
    }

    async fn run(&mut self, listener: TcpListener) {
        let config = self.config();
        let runtime = Runtime::new().unwrap();
        let listener = listener.into_std().unwrap();
        let (clock, stop) = (self.servers.clock.clone(), self.stop.child_token());
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            billing::run(listener, config, clock, stop).await.unwrap();
        });
        *self.running.get_mut().unwrap() = Some(Running::Tasks(runtime));
        self.ready().await;
    }

    async fn ready(&self) {
        let ready = format!("{}/readyz", self.url);
        testkit::until("billing being ready", async || {
            self.http.get(&ready).send().await.ok()?.error_for_status().ok()
        })
        .await;
    }

    /// Ends the service where it stands: the process by `kill -9`, tasks as that would.
    pub(crate) fn kill(&mut self) {
        end(self.running.get_mut().unwrap());
    }

    /// Kills the process and starts it again, at its old address, where callers find it once it is there.
    pub(crate) fn kill_and_restart(&self) {
        match self.running.lock().unwrap().as_mut() {
            Some(Running::Process(process)) => process.kill_and_restart(),
            _ => panic!("billing is no process of its own"),
        }
    }

    /// Moves time forward to `instant`, for a billing of its own process too. An instant of the past changes nothing.
    pub(crate) async fn advance_to(&self, instant: DateTime<Utc>) {
        if self.today() < instant {
            self.servers.advance_to(instant).await;
            tell_time(&self.servers);
        }
    }

    /// Starts the service again, on a port of its own.
    pub(crate) async fn restart(&mut self) {
        let (listener, url) = testkit::listener().await;
        self.url = url;
        self.run(listener).await;
    }

    pub(crate) fn client(&self, role: Role, subject: &str) -> Client {
        BillingServiceClient::new(self.servers.client(&self.url, role, subject))
    }

    pub(crate) fn service(&self) -> Client {
        self.client(Role::Service, "appointments")
    }

    pub(crate) fn desk(&self) -> Client {
        self.client(Role::FrontDesk, "ana")
    }

    pub(crate) fn patient(&self, patient: PatientId) -> Client {
        self.client(Role::Patient, &patient.to_string())
    }

    pub(crate) fn today(&self) -> DateTime<Utc> {
        self.servers.clock.now()
    }

    pub(crate) fn fee(&self, copay: Option<i64>, no_show: Option<i64>) -> pb::Fee {
        pb::Fee {
            service_type_id: self.service_type.to_string(),
            effective_from: Some(date(self.today().date_naive())),
            effective_until: None,
            copay_amount: copay.map(usd),
            no_show_fee_amount: no_show.map(usd),
        }
    }

    pub(crate) async fn set_fees(&self, fees: Vec<pb::Fee>, etag: &str) -> Result<pb::FeeSchedule, Status> {
        let request = pb::SetFeeScheduleRequest {
            request_id: String::new(),
            clinic_id: self.clinic.to_string(),
            fees,
            etag: etag.to_owned(),
        };
        let answer = self.client(Role::Manager, "mo").set_fee_schedule(request).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn save_card(
        &self,
        patient: PatientId,
        token: &str,
    ) -> Result<pb::PaymentMethod, Status> {
        let request = pb::SavePaymentMethodRequest {
            request_id: RequestId::new().to_string(),
            patient_id: patient.to_string(),
            provider_token: token.to_owned(),
            make_default: false,
        };
        Ok(self.desk().save_payment_method(request).await?.into_inner())
    }

    /// A patient with a card.
    pub(crate) async fn patient_with(&self, token: &str) -> PatientId {
        let patient = PatientId::new();
        self.save_card(patient, token).await.unwrap();
        patient
    }

    /// A request for a held visit of `patient`, two days from now.
    pub(crate) fn request(&self, patient: PatientId) -> pb::AuthorizeCopayRequest {
        self.request_in(patient, TimeDelta::days(2))
    }

    /// A request for a held visit of `patient` that starts after `ahead`.
    pub(crate) fn request_in(&self, patient: PatientId, ahead: TimeDelta) -> pb::AuthorizeCopayRequest {
        let start = (self.today() + ahead).trunc_subsecs(6);
        pb::AuthorizeCopayRequest {
            request_id: String::new(),
            appointment_id: AppointmentId::new().to_string(),
            patient_id: patient.to_string(),
            clinic_id: self.clinic.to_string(),
            service_type_id: self.service_type.to_string(),
            visit_start_time: Some(timestamp(start)),
            visit_date: Some(date(start.date_naive())),
            payment_method_id: String::new(),
            authorize_by: Some(timestamp(self.today() + TimeDelta::minutes(5))),
            off_session: false,
        }
    }

    pub(crate) async fn authorize(&self, request: &pb::AuthorizeCopayRequest) -> Result<pb::Charge, Status> {
        Ok(self.service().authorize_copay(request.clone()).await?.into_inner())
    }

    /// What appointments tell of the visit that `request` is about.
    pub(crate) fn facts(
        &self,
        request: &pb::AuthorizeCopayRequest,
        state: AppointmentState,
    ) -> Option<AppointmentFacts> {
        let interval = Interval { start_time: request.visit_start_time, end_time: request.visit_start_time };
        Some(AppointmentFacts {
            state: state.into(),
            patient_id: request.patient_id.clone(),
            service_type_id: request.service_type_id.clone(),
            clinic_id: request.clinic_id.clone(),
            interval: Some(interval),
            visit_date: request.visit_date,
            copay_required: true,
            ..AppointmentFacts::default()
        })
    }

    /// Tells `event` as appointments would.
    pub(crate) async fn tell<E: prost::Message + prost::Name>(
        &self,
        request: &pb::AuthorizeCopayRequest,
        version: i64,
        event: &E,
    ) {
        let appointment: AppointmentId = request.appointment_id.parse().unwrap();
        testkit::publish(&self.servers.broker().await, "appointments", appointment, version, event).await;
    }

    /// The first `count` events of a type that billing told.
    pub(crate) async fn told<E: prost::Message + prost::Name + Default>(&self, count: usize) -> Vec<E> {
        testkit::collect(&self.servers.broker().await, billing::NAME, count).await
    }

    /// How many events of a type billing has told, or is about to.
    pub(crate) async fn count<E: prost::Name>(&self) -> i64 {
        sqlx::query_scalar("select count(*) from billing.outbox where subject = $1")
            .bind(E::full_name())
            .fetch_one(&mut self.servers.admin().await)
            .await
            .unwrap()
    }

    /// Waits until the charge of `kind` has come to `state`.
    pub(crate) async fn until(
        &self,
        request: &pb::AuthorizeCopayRequest,
        kind: pb::ChargeKind,
        state: pb::ChargeState,
    ) -> pb::Charge {
        testkit::until(state.as_str_name(), async || {
            let list = pb::ListChargesRequest {
                appointment_id: request.appointment_id.clone(),
                kinds: vec![kind.into()],
                states: vec![state.into()],
                ..pb::ListChargesRequest::default()
            };
            self.service().list_charges(list).await.ok()?.into_inner().charges.pop()
        })
        .await
    }

    pub(crate) async fn until_copay(
        &self,
        request: &pb::AuthorizeCopayRequest,
        state: pb::ChargeState,
    ) -> pb::Charge {
        self.until(request, pb::ChargeKind::Copay, state).await
    }

    pub(crate) async fn account(&self, patient_id: &str) -> pb::PatientAccount {
        let request =
            pb::GetPatientAccountRequest { patient_id: patient_id.to_owned(), ..Default::default() };
        self.service().get_patient_account(request).await.unwrap().into_inner()
    }

    /// The co-pay of an attended visit, taken from the card behind `token`, with what it was authorized for.
    pub(crate) async fn captured(&self, token: &str) -> (pb::AuthorizeCopayRequest, pb::Charge) {
        let request = self.request(self.patient_with(token).await);
        self.authorize(&request).await.unwrap();
        let attended = crate::visits::completed(self, &request, VisitOutcome::Attended);
        self.tell(&request, crate::visits::AFTER_BOOKING, &attended).await;
        let charge = self.until_copay(&request, pb::ChargeState::Captured).await;
        (request, charge)
    }

    /// Waits until a charge is as `wanted`.
    pub(crate) async fn until_charge(
        &self,
        id: &str,
        what: &str,
        wanted: impl Fn(&pb::Charge) -> bool,
    ) -> pb::Charge {
        testkit::until(what, async || {
            let get = pb::GetChargeRequest { charge_id: id.to_owned() };
            let charge = self.desk().get_charge(get).await.ok()?.into_inner();
            wanted(&charge).then_some(charge)
        })
        .await
    }

    /// The only number that `sql` answers.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.servers.admin().await).await.unwrap()
    }
}

/// An amount in cents.
pub(crate) fn usd(cents: i64) -> Money {
    Money { currency_code: "USD".into(), units: cents / 100, nanos: (cents % 100) as i32 * 10_000_000 }
}

pub(crate) fn reason(status: &Status) -> String {
    kit::status::reason(status)
}

/// The fields that an INVALID_ARGUMENT names.
pub(crate) fn bad_fields(status: &Status) -> Vec<String> {
    use tonic_types::StatusExt as _;
    let details =
        status.get_details_bad_request().unwrap_or_else(|| panic!("no BadRequest detail in {status:?}"));
    details.field_violations.into_iter().map(|violation| violation.field).collect()
}
