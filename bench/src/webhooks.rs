//! Webhooks of the payment provider: billing and the sandbox as processes on durable servers; signed events are posted here, at a
//! steady rate, and each acknowledgement is timed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::TimeDelta;
use clap::Args;
use hmac::{Hmac, KeyInit as _, Mac as _};
use kit::clock::Clock;
use kit::fields::{date, timestamp};
use kit::ids::{AppointmentId, ClinicId, PatientId, ServiceTypeId};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1::billing_service_client::BillingServiceClient;
use proto::clinic::billing::v1::{
    AuthorizeCopayRequest, Fee, SavePaymentMethodRequest, SetFeeScheduleRequest,
};
use proto::google::r#type::Money;
use serde_json::{Value, json};
use sha2::Sha256;
use testkit::Servers;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::load::Times;
use crate::processes::{self, Payments, WEBHOOK_SECRET};

/// Authorized co-pays that the events are about.
const CHARGES: usize = 200;
/// One event of so many says what billing does not know, and so has the charge looked up at the provider.
const NEWS_OF: usize = 10;
/// One event of so many is a repetition of the one before.
const REPEATED_OF: usize = 10;
const CARD: &str = "pm_card_visa";
const COPAY_DOLLARS: i64 = 25;
/// How long events are posted before they are counted.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the events of the run may take to be applied.
const APPLIED_WITHIN: Duration = Duration::from_secs(60);

/// How much to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Events a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// How long they are counted.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// Starts everything, measures, stops everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Value> {
    eprintln!("starting PostgreSQL, NATS, the sandbox and billing");
    let servers = Servers::durable().await;
    let processes = Payments::start(&servers).await?;
    let payments: Arc<[String]> = authorized(&servers, &processes).await?.into();
    let url = format!("{}/webhooks/payments", processes.billing.url);
    eprintln!("{} events a second for {} s", options.rate, options.seconds);
    post(&url, &payments, "warm", options.rate, WARM_UP).await?;
    let spent = processes.billing.processor_time()?;
    let begun = Instant::now();
    let times = post(&url, &payments, "counted", options.rate, Duration::from_secs(options.seconds)).await?;
    let took = begun.elapsed();
    let ended = Instant::now();
    applied(&servers).await?;
    let behind = ended.elapsed();
    let spent = processes.billing.processor_time()?.saturating_sub(spent);
    let calls = times.len() as f64;
    let mut figures = times.figures();
    figures["per_second"] = (calls / took.as_secs_f64()).into();
    figures["behind_us"] = (behind.as_secs_f64() * 1e6).into();
    figures["spent_us"] = (spent.as_secs_f64() * 1e6 / calls).into();
    Ok(json!({
        "load_average": processes::load_average()?, "rate": options.rate, "seconds": options.seconds,
        "charges": CHARGES, "webhooks": figures,
    }))
}

/// Authorizes co-pays; answers their payments.
async fn authorized(servers: &Servers, processes: &Payments) -> anyhow::Result<Vec<String>> {
    let client = |role| BillingServiceClient::new(servers.client(&processes.billing.url, role, "bench"));
    let now = servers.clock.now();
    let (clinic, service_type) = (ClinicId::new(), ServiceTypeId::new());
    let fee = Fee {
        service_type_id: service_type.to_string(),
        effective_from: Some(date(now.date_naive())),
        copay_amount: Some(Money { currency_code: "USD".to_owned(), units: COPAY_DOLLARS, nanos: 0 }),
        ..Default::default()
    };
    let fees = SetFeeScheduleRequest { clinic_id: clinic.to_string(), fees: vec![fee], ..Default::default() };
    testkit::until("billing takes fees", || {
        let (mut admin, fees) = (client(Role::Admin), fees.clone());
        async move { admin.set_fee_schedule(fees).await.ok() }
    })
    .await;
    let patient = PatientId::new();
    let card = SavePaymentMethodRequest {
        patient_id: patient.to_string(),
        provider_token: CARD.to_owned(),
        make_default: true,
        ..Default::default()
    };
    client(Role::FrontDesk).save_payment_method(card).await?;
    let start = now + TimeDelta::days(2);
    let mut payments = vec![];
    for _ in 0..CHARGES {
        let request = AuthorizeCopayRequest {
            appointment_id: AppointmentId::new().to_string(),
            patient_id: patient.to_string(),
            clinic_id: clinic.to_string(),
            service_type_id: service_type.to_string(),
            visit_start_time: Some(timestamp(start)),
            visit_date: Some(date(start.date_naive())),
            authorize_by: Some(timestamp(now + TimeDelta::hours(1))),
            ..Default::default()
        };
        payments.push(client(Role::Service).authorize_copay(request).await?.into_inner().provider_reference);
    }
    Ok(payments)
}

/// Posts events at a steady rate, however long each takes. Answers how long their acknowledgements took.
async fn post(
    url: &str,
    payments: &Arc<[String]>,
    name: &str,
    rate: u32,
    length: Duration,
) -> anyhow::Result<Times> {
    // Refused when it has been chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let mut tick = interval(Duration::from_secs(1) / rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    for n in 0..(length.as_secs_f64() * f64::from(rate)) as usize {
        tick.tick().await;
        let (client, url, body) = (client.clone(), url.to_owned(), event(name, n, payments));
        calls.spawn(async move {
            let signed = signature(&body);
            let sent = Instant::now();
            let answer = client.post(url).header("stripe-signature", signed).body(body).send().await?;
            answer.error_for_status()?;
            Ok::<_, reqwest::Error>(sent.elapsed())
        });
    }
    let mut times = vec![];
    while let Some(ended) = calls.join_next().await {
        times.push(ended?.context("a webhook was not acknowledged")?);
    }
    Ok(Times::new(times))
}

fn event(name: &str, n: usize, payments: &[String]) -> String {
    let number = if n % REPEATED_OF == 1 { n - 1 } else { n };
    let kind = match n % NEWS_OF {
        0 => "payment_intent.payment_failed",
        _ => "payment_intent.amount_capturable_updated",
    };
    json!({
        "id": format!("evt_{name}_{number}"), "object": "event", "type": kind,
        "data": { "object": { "id": payments[n % payments.len()], "object": "payment_intent", "status": "requires_capture" } },
    })
    .to_string()
}

/// The header as the provider makes it.
fn signature(body: &str) -> String {
    let at = Clock::System.now().timestamp();
    let mut mac =
        Hmac::<Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
}

/// Waits until every event has been applied, and what it led to is done.
async fn applied(servers: &Servers) -> anyhow::Result<()> {
    let mut db = servers.admin().await;
    let begun = Instant::now();
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "select (select count(*) from billing.webhook_event where due_at is not null)
                  + (select count(*) from billing.charge where due_at <= clock.now())",
        )
        .fetch_one(&mut db)
        .await?;
        if waiting == 0 {
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < APPLIED_WITHIN, "{waiting} events or charges are waiting");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
