//! A running billing service and the provider it talks to.

use std::path::PathBuf;
use std::sync::Mutex;

use billing::Config;
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use kit::client::Outbound;
use kit::fields::{date, timestamp};
use kit::ids::{AppointmentId, ClinicId, PatientId, RequestId, ServiceTypeId};
use proto::clinic::appointments::v1::{AppointmentFacts, AppointmentState, VisitOutcome};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::billing_service_client::BillingServiceClient;
use proto::google::r#type::{Interval, Money};
use serde_json::{Value, json};
use sha2::Sha256;
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

    /// The provider's payments for an appointment, newest first, as its own store has them.
    pub(crate) async fn payments(&self, request: &pb::AuthorizeCopayRequest) -> Vec<Value> {
        let url = format!("{}/sandbox/payment_intents", self.provider);
        let named = [("metadata[appointment_id]", &request.appointment_id)];
        self.http.get(url).query(&named).send().await.unwrap().json().await.unwrap()
    }

    /// How the provider's payments for an appointment stand, newest first.
    pub(crate) async fn standings(&self, request: &pb::AuthorizeCopayRequest) -> Vec<String> {
        let payments = self.payments(request).await;
        payments.iter().map(|payment| payment["status"].as_str().unwrap().to_owned()).collect()
    }

    /// What the provider lists under `path`, newest first.
    pub(crate) async fn provider_lists(&self, path: &str) -> Vec<Value> {
        let key = sandbox::Settings::default().payments_key;
        let request =
            self.http.get(format!("{}/v1/{path}", self.provider)).query(&[("limit", "100")]).bearer_auth(key);
        let mut list: Value = request.send().await.unwrap().json().await.unwrap();
        serde_json::from_value(list["data"].take()).unwrap()
    }

    /// All that the provider lists under `path`, newest first, page by page.
    pub(crate) async fn all_provider_lists(&self, path: &str) -> Vec<Value> {
        let mut all = vec![];
        let mut next = path.to_owned();
        loop {
            let page = self.provider_lists(&next).await;
            let Some(last) = page.last() else { return all };
            next = format!("{path}?starting_after={}", last["id"].as_str().unwrap());
            all.extend(page);
        }
    }

    /// Scripts trouble at the provider.
    pub(crate) async fn trouble(&self, route: &str, kind: &str, ms: u64, times: u32) {
        self.script(&json!({ "route": route, "kind": kind, "ms": ms, "times": times })).await;
    }

    /// Scripts a fault at the provider, in its own words.
    pub(crate) async fn script(&self, fault: &Value) {
        let answer =
            self.http.post(format!("{}/sandbox/faults", self.provider)).json(fault).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    pub(crate) async fn end_trouble(&self) {
        self.http.delete(format!("{}/sandbox/faults", self.provider)).send().await.unwrap();
    }

    /// Delivers an event of the provider, signed as the provider would; answers how it was taken.
    pub(crate) async fn deliver(&self, event: &Value) -> reqwest::StatusCode {
        let body = event.to_string();
        let signature = self.sign(self.today().timestamp(), &body);
        let request = self.http.post(format!("{}/webhooks/payments", self.url));
        request.header("stripe-signature", signature).body(body).send().await.unwrap().status()
    }

    /// What the provider puts into its header when it sends `body` at that second.
    pub(crate) fn sign(&self, at: i64, body: &str) -> String {
        let secret = sandbox::Settings::default().webhook_secret;
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{at}.{body}").as_bytes());
        format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
    }

    /// Plays the patient who pays an open payment with another card, past this service.
    pub(crate) async fn pay_in_browser(&self, intent: &str, card: &str) {
        let url = format!("{}/v1/payment_intents/{intent}/confirm", self.provider);
        let request = self.http.post(url).bearer_auth(sandbox::Settings::default().payments_key);
        let answer = request.form(&[("payment_method", card)]).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Calls the provider's API past this service.
    pub(crate) async fn at_provider(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let url = format!("{}/v1/{path}", self.provider);
        let request = self.http.post(url).bearer_auth(sandbox::Settings::default().payments_key);
        let answer = request.form(form).send().await.unwrap();
        let (good, body) = (answer.status().is_success(), answer.json().await.unwrap());
        assert!(good, "{body}");
        body
    }

    /// Plays the cardholder who asks the bank for the money of a payment back.
    pub(crate) async fn dispute(&self, payment: &str) {
        let url = format!("{}/sandbox/disputes", self.provider);
        let answer = self.http.post(url).json(&json!({ "id": payment })).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Plays the bank that decides a dispute.
    pub(crate) async fn decide(&self, dispute: &str, won: bool) {
        let url = format!("{}/sandbox/disputes/close", self.provider);
        let answer = self.http.post(url).json(&json!({ "id": dispute, "won": won })).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
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

    /// Plays the cardholder whom the bank asks.
    pub(crate) async fn confirm(&self, intent: &str, succeeds: bool) {
        let wish = json!({ "id": intent, "succeeds": succeeds });
        let url = format!("{}/sandbox/authenticate", self.provider);
        let answer = self.http.post(url).json(&wish).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
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
