//! Booking: appointments, scheduling, billing and the sandbox as processes on durable servers, callers here.

mod effect;
mod past;
mod peer;
mod race;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::{Shape, Taken, Week, ZONES, monday_after};
use clap::Args;
use kit::client::Outbound;
use kit::db::Db;
use kit::fields::date;
use kit::ids::ServiceTypeId;
use proto::clinic::appointments::v1::AppointmentState;
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1::billing_service_client::BillingServiceClient;
use proto::clinic::billing::v1::{Fee, SavePaymentMethodRequest, SetFeeScheduleRequest};
use proto::google::r#type::Money;
use serde_json::{Value, json};
use sqlx::PgConnection;
use testkit::Servers;
use tonic::Status;
use uuid::Uuid;

use crate::agenda::{Agenda, DAY, Lane};
use crate::load::{Caller, at_once};
use crate::processes::{self, Processes};
use crate::search::fill;

/// Patients that are known before the first call.
const PATIENTS: i64 = 300_000;
/// Patients with a card, for each caller.
const CARDS: usize = 4;
/// A card that the sandbox accepts, and what it is asked for.
const CARD: &str = "pm_card_visa";
const COPAY_DOLLARS: i64 = 25;
/// How long callers call before anything is counted, until the server's log has its size.
const SETTLE: Duration = Duration::from_secs(8);
/// How long callers call before they are counted.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the events of a run may take to be followed.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(120);

/// How much to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Who book at once, each on its turn.
    #[arg(long, default_value_t = 16)]
    callers: usize,
    /// Who book with a co-pay at once. Each waits for the payment provider, so it takes more of them to keep the machine at work.
    #[arg(long, default_value_t = 32)]
    payers: usize,
    /// How long bookings are counted, in each of the runs.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Slots that 32 clients race for, one after another.
    #[arg(long, default_value_t = 20)]
    slots: usize,
    /// Bookings a second while their effect is looked for.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Past appointments that the last run is among; 0 = there is no such run.
    #[arg(long, default_value_t = 10_000)]
    past: i64,
}

/// Starts everything, measures, stops everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Value> {
    eprintln!("starting PostgreSQL, NATS, the sandbox, billing, scheduling and appointments");
    let servers = Servers::durable().await;
    let mut db = servers.admin().await;
    let (agenda, paid) = agenda(&servers);
    fill(&servers, &agenda.sample).await?;
    Db::new(&servers.database_url(appointments::NAME), appointments::NAME, 1)?
        .migrate(&appointments::MIGRATOR)
        .await?;
    let processes = Processes::booking(&servers).await?;
    prepare(&servers, &mut db, &processes, &agenda, paid).await?;
    let desk = || -> anyhow::Result<_> {
        let token = servers.token(Role::FrontDesk, "bench");
        Ok(BookingServiceClient::new(Outbound::bearing(&processes.appointments.url, token)?))
    };
    let length = Duration::from_secs(options.seconds);
    let bookers = |lanes: Vec<Lane>| -> anyhow::Result<Vec<Booker>> {
        lanes.into_iter().map(|lane| Ok(Booker { desk: desk()?, lane })).collect()
    };
    let free = agenda.sample.service().id;

    eprintln!("{} callers book without a co-pay", options.callers);
    let lanes = bookers(agenda.lanes(options.callers, free))?;
    // A new server makes its log's files while it is written to; one that has run for a while uses them again. After a
    // checkpoint each page goes to the log whole, once.
    at_once(lanes.clone(), SETTLE).await?;
    sqlx::raw_sql("checkpoint").execute(&mut db).await?;
    at_once(lanes.clone(), SETTLE).await?;
    let empty = counted(&mut db, lanes.clone(), length).await?;
    eprintln!("pgbench inserts the same");
    let peer = peer::measure(&servers, &mut db, length).await?;
    eprintln!("{} callers book with a co-pay", options.payers);
    let with_cards = cards(&servers, &processes, agenda.lanes(options.payers, paid)).await?;
    let copay = counted(&mut db, bookers(with_cards)?, length).await?;
    eprintln!("{} clients race for each of {} slots", race::CLIENTS, options.slots);
    let race = race::measure(&mut db, &agenda, &desk()?, options.slots).await?;
    eprintln!("{} bookings a second, looked for in scheduling's busy time", options.rate);
    let effect = effect::measure(
        &servers,
        &mut db,
        bookers(agenda.lanes(options.callers, free))?,
        options.rate,
        length,
    )
    .await?;
    let past = match options.past {
        0 => Value::Null,
        rows => {
            eprintln!("the first run again, among {rows} past appointments");
            past::fill(&mut db, &agenda.sample, rows).await?;
            at_once(lanes.clone(), SETTLE).await?;
            let mut figures = counted(&mut db, lanes, length).await?;
            figures["rows"] = rows.into();
            figures
        }
    };
    Ok(json!({
        "load_average": processes::load_average()?, "callers": options.callers, "payers": options.payers, "seconds": options.seconds,
        "booking": empty, "peer": peer, "copay": copay, "race": race, "effect": effect, "past": past,
    }))
}

/// Two hundred providers, ten in each clinic, who work eight hours every day, and a second kind of visit, with a co-pay.
fn agenda(servers: &Servers) -> (Arc<Agenda>, ServiceTypeId) {
    let shape = Shape {
        clinics: 20,
        zones: ZONES,
        providers: 200,
        shifts: vec![DAY],
        week: Week::EveryDay,
        visit_minutes: 15,
        taken: Taken::Nothing,
    };
    let mut sample = shape.build(monday_after(servers.clock.now().date_naive()));
    let mut paid = sample.service().clone();
    (paid.id, paid.name, paid.copay_required) =
        (ServiceTypeId::new(), "Visit with a co-pay".to_owned(), true);
    let id = paid.id;
    sample.catalog.service_types.push(paid);
    for provider in &mut sample.catalog.providers {
        provider.service_type_ids.push(id);
    }
    (Agenda::new(sample), id)
}

/// Waits until everything answers; then patients are known, and fees set.
async fn prepare(
    servers: &Servers,
    db: &mut PgConnection,
    processes: &Processes,
    agenda: &Arc<Agenda>,
    paid: ServiceTypeId,
) -> anyhow::Result<()> {
    let billing = servers.client(&processes.billing.url, Role::Admin, "bench");
    let today = servers.clock.now().date_naive();
    for clinic in &agenda.sample.catalog.clinics {
        let dollars = Money { currency_code: "USD".to_owned(), units: COPAY_DOLLARS, nanos: 0 };
        let fee = Fee {
            service_type_id: paid.to_string(),
            effective_from: Some(date(today)),
            copay_amount: Some(dollars.clone()),
            no_show_fee_amount: Some(dollars),
            ..Default::default()
        };
        let request =
            SetFeeScheduleRequest { clinic_id: clinic.id.to_string(), fees: vec![fee], ..Default::default() };
        testkit::until("billing takes fees", || {
            let (mut billing, request) = (BillingServiceClient::new(billing.clone()), request.clone());
            async move { billing.set_fee_schedule(request).await.ok() }
        })
        .await;
    }
    let desk = servers.client(&processes.appointments.url, Role::FrontDesk, "bench");
    let lane = agenda.lanes(1, agenda.sample.service().id).remove(0);
    sqlx::query(
        "insert into appointments.patient_seen
         select ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid from generate_series(0, $1) n",
    )
    .bind(PATIENTS)
    .execute(db)
    .await?;
    testkit::until("a first booking", || {
        let mut booker = Booker { desk: BookingServiceClient::new(desk.clone()), lane: lane.clone() };
        async move { booker.call().await.ok() }
    })
    .await;
    Ok(())
}

/// Gives each lane patients with a card.
async fn cards(servers: &Servers, processes: &Processes, lanes: Vec<Lane>) -> anyhow::Result<Vec<Lane>> {
    let billing = servers.client(&processes.billing.url, Role::FrontDesk, "bench");
    let billing = BillingServiceClient::new(billing);
    let save = |lane: Lane| {
        let mut billing = billing.clone();
        async move {
            let patients: Vec<Uuid> = (0..CARDS).map(|_| lane.new_patient()).collect();
            for patient in &patients {
                let request = SavePaymentMethodRequest {
                    patient_id: patient.to_string(),
                    provider_token: CARD.to_owned(),
                    make_default: true,
                    ..Default::default()
                };
                billing.save_payment_method(request).await?;
            }
            Ok::<_, anyhow::Error>(lane.with_patients(patients))
        }
    };
    futures::future::try_join_all(lanes.into_iter().map(save)).await
}

/// A front desk that books the slots of its lane.
#[derive(Clone)]
struct Booker {
    desk: BookingServiceClient<Outbound>,
    lane: Lane,
}

impl Caller for Booker {
    async fn call(&mut self) -> Result<(), Status> {
        let request = self.lane.request().map_err(|e| Status::out_of_range(e.to_string()))?;
        let booked = self.desk.book_appointment(request).await?.into_inner();
        match booked.state() {
            AppointmentState::Booked => Ok(()),
            state => Err(Status::data_loss(format!("{} and not booked", state.as_str_name()))),
        }
    }
}

/// All of them book for a while. Bookings a second, how long each took, what each program spent on one, and how far scheduling was
/// behind in the end.
async fn counted(db: &mut PgConnection, bookers: Vec<Booker>, length: Duration) -> anyhow::Result<Value> {
    at_once(bookers.clone(), WARM_UP).await?;
    let (begun, before) = (Instant::now(), processes::processor_times()?);
    let times = at_once(bookers.clone(), length).await?;
    let (took, after) = (begun.elapsed(), processes::processor_times()?);
    let ended = Instant::now();
    followed(db).await?;
    let calls = times.len() as f64;
    let spent: BTreeMap<_, _> = after
        .iter()
        .map(|(name, used)| {
            let used = used.saturating_sub(before.get(name).copied().unwrap_or_default());
            (name, used.as_secs_f64() * 1e6 / calls)
        })
        .collect();
    let mut figures = times.figures();
    figures["per_second"] = (calls / took.as_secs_f64()).into();
    figures["spent_us"] = json!(spent);
    figures["behind_us"] = (ended.elapsed().as_secs_f64() * 1e6).into();
    Ok(figures)
}

/// Waits until every booking is busy time at scheduling, and nothing more is to be told.
async fn followed(db: &mut PgConnection) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let (booked, busy, untold): (i64, i64, i64) = sqlx::query_as(
            "select (select count(*) from appointments.reservation where state = 'booked'),
                    (select count(*) from scheduling.busy where occupied_end is not null),
                    (select count(*) from appointments.outbox where published_at is null)",
        )
        .fetch_one(&mut *db)
        .await?;
        if booked == busy && untold == 0 {
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < FOLLOWED_WITHIN, "{busy} of {booked} bookings have been followed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
