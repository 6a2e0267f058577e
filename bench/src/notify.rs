//! Reminders that are due: notify and the sandbox as processes on durable servers; the sandbox takes its time with each text. What
//! notify asks of patients and scheduling is answered from here, without their databases.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Timelike as _, Utc};
use clap::Args;
use proto::clinic::patients::v1::patient_service_server::{PatientService, PatientServiceServer};
use proto::clinic::patients::v1::{GetPatientRequest, Patient, SmsConsent, SmsConsentState};
use proto::clinic::scheduling::v1::catalog_service_server::{CatalogService, CatalogServiceServer};
use proto::clinic::scheduling::v1::{Clinic, GetClinicRequest};
use serde_json::{Value, json};
use sqlx::PgConnection;
use testkit::Servers;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::processes::{self, Process};

/// Reminders written at once.
const BATCH: i64 = 10_000;
/// How often progress and memory are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long a replica may take to prepare its schema.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long all texts may take.
const DRAINED_WITHIN: Duration = Duration::from_secs(900);
/// A visit that starts so soon still gets the reminder of two hours before.
const AHEAD: TimeDelta = TimeDelta::minutes(110);
/// Noon, where the patients live: no text comes at night.
const NOON: i32 = 12;

/// How much to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Reminders that are due at the start.
    #[arg(long, default_value_t = 100_000)]
    reminders: i64,
    /// Replicas of notify.
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// Milliseconds that the provider takes for each text.
    #[arg(long, default_value_t = 50)]
    answer_ms: u64,
}

/// Starts everything, measures, stops everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Value> {
    eprintln!("starting PostgreSQL, NATS, the sandbox and notify");
    let servers = Servers::durable().await;
    let others = serve_others().await?;
    let sandbox = Process::sms_sandbox().await?;
    slow_down(&sandbox, options.answer_ms).await?;
    let mut db = servers.admin().await;
    // Started once before the reminders are there: it makes the tables.
    let first = Process::notify(&servers, &sandbox, &others).await?;
    ready(&mut db).await?;
    drop(first);
    eprintln!("{} reminders", options.reminders);
    seed(&mut db, &servers, options.reminders).await?;

    let before = processes::processor_times()?;
    let begun = Instant::now();
    let mut replicas = vec![];
    for _ in 0..options.replicas {
        replicas.push(Process::notify(&servers, &sandbox, &others).await?);
    }
    let (mut memory, mut left) = (vec![], options.reminders);
    while left > 0 {
        anyhow::ensure!(begun.elapsed() < DRAINED_WITHIN, "{left} reminders are waiting");
        tokio::time::sleep(LOOK).await;
        left = sqlx::query_scalar(
            "select count(*) from notify.reminder
             where state in ('REMINDER_STATE_PLANNED', 'REMINDER_STATE_SENDING')",
        )
        .fetch_one(&mut db)
        .await?;
        memory.push((options.reminders - left, replicas[0].memory()?));
    }
    let took = begun.elapsed();
    let used = processes::processor_times()?;
    let (sent, twice) = counted(&mut db, &sandbox).await?;
    anyhow::ensure!(sent == options.reminders, "{sent} of {} reminders were sent", options.reminders);
    let at =
        |share: i64| memory.iter().find(|(done, _)| *done >= options.reminders * share / 10).map(|(_, m)| *m);
    let spent = used.iter().map(|(name, used)| {
        let used = used.saturating_sub(before.get(name).copied().unwrap_or_default());
        (name.clone(), json!(used.as_secs_f64() * 1e6 / options.reminders as f64))
    });
    Ok(json!({
        "load_average": processes::load_average()?, "reminders": options.reminders, "replicas": options.replicas,
        "answer_ms": options.answer_ms, "seconds": took.as_secs_f64(),
        "per_second": options.reminders as f64 / took.as_secs_f64(), "twice": twice,
        "memory": { "tenth": at(1), "half": at(5), "end": at(10), "peak": memory.iter().map(|(_, m)| *m).max() },
        "processors": spent.collect::<serde_json::Map<_, _>>(),
    }))
}

/// Lets the sandbox take its time with every text.
async fn slow_down(sandbox: &Process, ms: u64) -> anyhow::Result<()> {
    // Refused when it has been chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fault = json!({ "route": "messages.create", "kind": "latency", "ms": ms, "times": u32::MAX });
    let url = format!("{}/sandbox/faults", sandbox.url);
    testkit::until("the sandbox takes scripts", || async {
        let answer = reqwest::Client::new().post(&url).json(&fault).send().await.ok()?;
        answer.error_for_status().ok()
    })
    .await;
    Ok(())
}

async fn ready(db: &mut PgConnection) -> anyhow::Result<()> {
    let begun = Instant::now();
    while sqlx::query("select from notify.inbound").execute(&mut *db).await.is_err() {
        anyhow::ensure!(begun.elapsed() < READY_WITHIN, "notify did not prepare its schema");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Writes visits, each with one reminder whose time has come.
async fn seed(db: &mut PgConnection, servers: &Servers, reminders: i64) -> anyhow::Result<()> {
    let now = servers.clock.now();
    let zone = noon_zone(now);
    let clinic = Uuid::now_v7();
    for _ in 0..reminders / BATCH {
        sqlx::query(
            "with made as (
                 insert into notify.visit (appointment_id, version, patient_id, clinic_id, start_time, time_zone, standing)
                 select gen_random_uuid(), 1, gen_random_uuid(), $1, $2, $3, true from generate_series(1, $4)
                 returning appointment_id, patient_id
             )
             insert into notify.reminder
                 (id, appointment_id, appointment_version, patient_id, kind, visit_start_time, due_time, next_try, state,
                  drop_reason, create_time, update_time)
             select gen_random_uuid(), appointment_id, 1, patient_id, 'REMINDER_KIND_HOURS_2', $2, $5, $5,
                    'REMINDER_STATE_PLANNED', 'DROP_REASON_UNSPECIFIED', $6, $6
             from made",
        )
        .bind(clinic)
        .bind(now + AHEAD)
        .bind(&zone)
        .bind(BATCH)
        .bind(now)
        .bind(now - TimeDelta::days(2))
        .execute(&mut *db)
        .await?;
    }
    sqlx::query("vacuum analyze").execute(db).await?;
    Ok(())
}

/// A time zone in which it is noon, or nearly.
pub(crate) fn noon_zone(now: DateTime<Utc>) -> String {
    let offset = NOON - now.hour() as i32;
    // The names of these zones count westward.
    if offset <= 0 { format!("Etc/GMT+{}", -offset) } else { format!("Etc/GMT-{offset}") }
}

/// Reminders sent, and how many texts more than that the provider took.
async fn counted(db: &mut PgConnection, sandbox: &Process) -> anyhow::Result<(i64, i64)> {
    let sent: i64 =
        sqlx::query_scalar("select count(*) from notify.reminder where state = 'REMINDER_STATE_SENT'")
            .fetch_one(db)
            .await?;
    let all = reqwest::get(format!("{}/sandbox/messages", sandbox.url)).await?.json::<Vec<Value>>().await?;
    Ok((sent, all.len() as i64 - sent))
}

/// Patients and scheduling as far as notify asks them; answers where.
pub(crate) async fn serve_others() -> anyhow::Result<String> {
    let address = processes::free_address().await?;
    let server = tonic::transport::Server::builder()
        .add_service(PatientServiceServer::new(Others))
        .add_service(CatalogServiceServer::new(Others));
    tokio::spawn(server.serve(address));
    Ok(processes::url(address))
}

struct Others;

#[async_trait]
impl PatientService for Others {
    async fn get_patient(&self, request: Request<GetPatientRequest>) -> Result<Response<Patient>, Status> {
        /// So many numbers below +1 202.
        const NUMBERS: u128 = 10_000_000;
        let id = request.into_inner().patient_id;
        let parsed: Uuid = id.parse().map_err(|_| Status::invalid_argument("patient_id"))?;
        let consent = SmsConsent { state: SmsConsentState::Granted.into(), ..Default::default() };
        Ok(Response::new(Patient {
            id,
            phone: format!("+1202{:07}", parsed.as_u128() % NUMBERS),
            language: "en".to_owned(),
            sms_consent: Some(consent),
            ..Default::default()
        }))
    }
}

#[async_trait]
impl CatalogService for Others {
    async fn get_clinic(&self, request: Request<GetClinicRequest>) -> Result<Response<Clinic>, Status> {
        let clinic = request.into_inner().clinic_id;
        let (name, phone) = ("Harbor Clinic".to_owned(), "+12025550100".to_owned());
        Ok(Response::new(Clinic { id: clinic, name, phone, ..Default::default() }))
    }
}
