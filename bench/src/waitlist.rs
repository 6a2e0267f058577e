//! The waitlist: appointments, scheduling, notify and the sandbox as processes on durable servers; the patients that they ask for are
//! answered from here. Many wait for any time there is; visits are cancelled one by one, and each time is offered by text.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::{Shape, Taken, Week, monday_after};
use chrono::{DateTime, Utc};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use proto::clinic::appointments::v1::waitlist_service_client::WaitlistServiceClient;
use proto::clinic::appointments::v1::{CancelAppointmentRequest, JoinWaitlistRequest, WaitlistEntry};
use proto::clinic::auth::v1::Role;
use serde_json::{Value, json};
use sqlx::PgConnection;
use testkit::Servers;
use tokio::task::JoinSet;
use tokio::time::interval;
use uuid::Uuid;

use crate::agenda::{Agenda, DAY};
use crate::load::Times;
use crate::notify::{noon_zone, serve_others};
use crate::processes::{self, Process};
use crate::search::fill;

/// Calls at once while visits are booked and patients join.
const AT_ONCE: usize = 16;
/// How long the last text may take.
const SENT_WITHIN: Duration = Duration::from_secs(60);

/// How much to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Patients who wait, each for any time with anyone.
    #[arg(long, default_value_t = 10_000)]
    waiting: usize,
    /// Visits that are cancelled.
    #[arg(long, default_value_t = 300)]
    cancellations: usize,
    /// Cancellations a second.
    #[arg(long, default_value_t = 10)]
    rate: u32,
}

/// Starts everything, measures, stops everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Value> {
    eprintln!("starting PostgreSQL, NATS, the sandbox, scheduling, appointments and notify");
    let servers = Servers::durable().await;
    let mut db = servers.admin().await;
    let others = serve_others().await?;
    let agenda = agenda(&servers)?;
    fill(&servers, &agenda.sample).await?;
    let sandbox = Process::sms_sandbox().await?;
    let scheduling = Process::service("scheduling", &servers).await?;
    let appointments = Process::appointments(&servers, &scheduling, &others).await?;
    let _notify = Process::notify(&servers, &sandbox, &others).await?;
    let desk = servers.client(&appointments.url, Role::FrontDesk, "bench");

    let service = agenda.sample.service().id;
    let lane = agenda.lanes(1, service).remove(0);
    eprintln!("{} visits", options.cancellations);
    let first = lane.request()?;
    let first = testkit::until("a first booking", || {
        let (mut desk, first) = (BookingServiceClient::new(desk.clone()), first.clone());
        async move { desk.book_appointment(first).await.ok() }
    })
    .await;
    let others = (1..options.cancellations).map(|_| lane.request()).collect::<anyhow::Result<Vec<_>>>()?;
    let booked = stream::iter(others).map(|request| {
        let mut desk = BookingServiceClient::new(desk.clone());
        async move { Ok::<_, tonic::Status>(desk.book_appointment(request).await?.into_inner()) }
    });
    let mut visits: Vec<_> = booked.buffered(AT_ONCE).try_collect().await?;
    visits.push(first.into_inner());

    eprintln!("{} patients join", options.waiting);
    let joined = stream::iter(0..options.waiting).map(|_| {
        let (mut desk, patient) = (WaitlistServiceClient::new(desk.clone()), lane.new_patient());
        let entry = WaitlistEntry {
            patient_id: patient.to_string(),
            service_type_id: service.to_string(),
            last_date: visits
                .iter()
                .filter_map(|visit| visit.visit_date)
                .max_by_key(|d| (d.year, d.month, d.day)),
            ..Default::default()
        };
        async move {
            desk.join_waitlist(JoinWaitlistRequest { waitlist_entry: Some(entry), ..Default::default() })
                .await
        }
    });
    joined.buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await?;

    eprintln!("{} of the visits are cancelled a second", options.rate);
    let mut calls = JoinSet::new();
    let mut tick = interval(Duration::from_secs(1) / options.rate);
    let mut received = HashMap::new();
    for visit in &visits {
        tick.tick().await;
        let cancel = CancelAppointmentRequest { appointment_id: visit.id.clone(), ..Default::default() };
        let mut desk = BookingServiceClient::new(desk.clone());
        let interval = visit.interval.unwrap_or_default();
        let start =
            interval.start_time.and_then(|t| DateTime::from_timestamp(t.seconds, 0)).unwrap_or_default();
        received.insert((visit.provider_id.parse::<Uuid>()?, start), servers.clock.now());
        calls.spawn(async move { desk.cancel_appointment(cancel).await });
    }
    while let Some(ended) = calls.join_next().await {
        ended??;
    }
    let texts = texts(&mut db, visits.len()).await?;
    let times = texts.iter().map(|text| {
        let begun = received
            .get(&(text.provider, text.start))
            .ok_or_else(|| anyhow::anyhow!("an offer of other time"))?;
        Ok((text.sent - *begun).to_std()?)
    });
    let times = Times::new(times.collect::<anyhow::Result<Vec<_>>>()?);
    Ok(json!({
        "load_average": processes::load_average()?, "waiting": options.waiting, "rate": options.rate,
        "cancellations": options.cancellations, "texts": times.figures(),
    }))
}

/// Two hundred providers who work eight hours every day, at a clinic where it is noon: texts come by day.
fn agenda(servers: &Servers) -> anyhow::Result<Arc<Agenda>> {
    let now = servers.clock.now();
    let zone = noon_zone(now).parse().map_err(anyhow::Error::msg)?;
    let shape = Shape {
        clinics: 20,
        zones: [zone; 2],
        providers: 200,
        shifts: vec![DAY],
        week: Week::EveryDay,
        visit_minutes: 15,
        taken: Taken::Nothing,
    };
    Ok(Agenda::new(shape.build(monday_after(now.date_naive()))))
}

/// The text of an offer: for which provider's time, and when the SMS provider had taken it.
struct Text {
    provider: Uuid,
    start: DateTime<Utc>,
    sent: DateTime<Utc>,
}

/// Waits for so many.
async fn texts(db: &mut PgConnection, count: usize) -> anyhow::Result<Vec<Text>> {
    let begun = Instant::now();
    loop {
        let rows: Vec<(Uuid, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
            "select o.provider_id, o.starts_at, m.send_time
             from appointments.offer o join notify.message m on m.appointment_id = o.id
             where m.kind = 'MESSAGE_KIND_WAITLIST_OFFER' and m.send_time is not null",
        )
        .fetch_all(&mut *db)
        .await?;
        if rows.len() >= count {
            return Ok(rows
                .into_iter()
                .map(|(provider, start, sent)| Text { provider, start, sent })
                .collect());
        }
        anyhow::ensure!(begun.elapsed() < SENT_WITHIN, "{} of {count} offers were texted", rows.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
