//! SearchAvailability: two replicas and a gateway as processes, a hundred providers in PostgreSQL, callers here.

use std::time::{Duration, Instant};

use bench::{Sample, hundred_providers, monday_after};
use chrono::{Days, NaiveDate, NaiveTime};
use kit::client::{Outbound, channel};
use kit::db::Db;
use kit::fields::{date, timestamp};
use kit::ids::ProviderId;
use prost::Message as _;
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::availability_service_client::AvailabilityServiceClient;
use proto::clinic::scheduling::v1::calendar_service_client::CalendarServiceClient;
use proto::clinic::scheduling::v1::{
    AddExceptionRequest, AvailabilityQuery, AvailabilityView, CalendarException, ExceptionKind,
    RemoveExceptionRequest, SearchAvailabilityRequest, SearchAvailabilityResponse,
};
use proto::google::r#type::Interval;
use rand::RngExt as _;
use scheduling::domain::network::Busy;
use scheduling::domain::search::Search;
use scheduling::store::{self, busy::Taken};
use serde_json::{Value, json};
use testkit::Servers;
use tonic::Status;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::load::{Caller, Times, at_once, in_turn};
use crate::processes::Process;

/// Days searched.
const DAYS: u64 = 14;
/// Slots of a page.
const PAGE: usize = 50;
/// Calls, one after another.
const CALLS: usize = 5_000;
/// How many call at once, and over how many connections.
const CALLERS: [usize; 3] = [16, 32, 64];
const CONNECTIONS: usize = 4;
/// How long many callers call before they are counted, and then.
const WARM_UP: Duration = Duration::from_secs(1);
const COUNTED: Duration = Duration::from_secs(5);
/// Changes at one replica that are looked for at the other: half take time away, half give it back.
const CHANGES: usize = 100;
/// Changes come at any moment of the other replica's round: up to so long after the one before was seen.
const PAUSE_MS: std::ops::Range<u64> = 0..150;
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Starts everything, measures, stops everything.
pub(crate) async fn measure() -> anyhow::Result<Value> {
    eprintln!("starting PostgreSQL, NATS, two replicas of scheduling and a gateway");
    let servers = Servers::start().await;
    let sample = hundred_providers().build(monday_after(servers.clock.now().date_naive()));
    fill(&servers, &sample).await?;
    let here = Process::service(scheduling::NAME, &servers).await?;
    let other = Process::service(scheduling::NAME, &servers).await?;
    let gateway = Process::gateway("SCHEDULING_URL", &here).await?;
    let desk = |process: &Process| Desk::new(&servers, &process.url, &sample);
    for process in [&here, &other, &gateway] {
        let desk = desk(process)?;
        testkit::until("a first answer", || {
            let mut desk = desk.clone();
            async move { desk.search().await.ok() }
        })
        .await;
    }
    let bytes = check(&mut desk(&here)?, &sample).await?;

    eprintln!("one caller");
    let alone = in_turn(&mut desk(&here)?, CALLS).await?.figures();
    let floor = in_turn(&mut Idle::new(&here)?, CALLS).await?.figures();
    let through = in_turn(&mut desk(&gateway)?, CALLS).await?.figures();
    let mut crowds = vec![];
    for callers in CALLERS {
        eprintln!("{callers} callers");
        crowds.push(crowd(&[&here], callers, || desk(&here)).await?);
    }
    let callers = CALLERS[1];
    eprintln!("{callers} callers without work, and through the gateway");
    let floor_crowd = crowd(&[&here], callers, || Idle::new(&here)).await?;
    let through_crowd = crowd(&[&here, &gateway], callers, || desk(&gateway)).await?;
    eprintln!("{CHANGES} changes at one replica, looked for at the other");
    let replicas = replicas(&servers, &sample, &here, &other).await?.figures();
    Ok(json!({
        "bytes": bytes, "connections": CONNECTIONS,
        "search": { "alone": alone, "crowds": crowds },
        "floor": { "alone": floor, "crowd": floor_crowd },
        "gateway": { "alone": through, "crowd": through_crowd },
        "replicas": replicas,
    }))
}

/// Writes the sample as the service itself stores it.
pub(crate) async fn fill(servers: &Servers, sample: &Sample) -> anyhow::Result<()> {
    let db = Db::new(&servers.database_url(scheduling::NAME), scheduling::NAME, 1)?;
    db.migrate(&scheduling::MIGRATOR).await?;
    let mut tx = db.begin().await?;
    store::raise_catalog(&mut tx).await?;
    for clinic in &sample.catalog.clinics {
        store::catalog::insert_clinic(&mut tx, clinic).await?;
    }
    for room in &sample.catalog.rooms {
        store::catalog::insert_room(&mut tx, room).await?;
    }
    for service in &sample.catalog.service_types {
        store::catalog::insert_service_type(&mut tx, service).await?;
    }
    for provider in &sample.catalog.providers {
        store::catalog::insert_provider(&mut tx, provider).await?;
    }
    for (provider_id, calendar, busy) in &sample.members {
        for template in &calendar.templates {
            store::calendar::put_template(&mut tx, template).await?;
        }
        let state = |busy: &Busy| Taken {
            appointment_id: busy.appointment_id,
            version: 1,
            provider_id: *provider_id,
            room_id: busy.room_id,
            times: Some((busy.occupied, busy.visit)),
        };
        store::busy::apply(&mut tx, &busy.iter().map(state).collect::<Vec<_>>()).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The answer over the wire is the engine's own, from the same network in memory. Answers its size on the wire.
async fn check(desk: &mut Desk, sample: &Sample) -> anyhow::Result<usize> {
    let network = sample.network();
    let query = sample.query(DAYS);
    let search = Search::new(&network, &query, sample.now()).expect("it is all there");
    let expected: Vec<_> =
        search.slots(None, PAGE).into_iter().map(|slot| (slot, search.visit(slot).0)).collect();
    let found = desk.search().await?;
    anyhow::ensure!(found.slots.len() == PAGE && found.calendar_versions.len() == sample.members.len());
    for (slot, (expected, visit)) in found.slots.iter().zip(expected) {
        let start = slot.interval.and_then(|i| i.start_time).map(|t| t.seconds);
        anyhow::ensure!(
            slot.provider_id == expected.provider_id.to_string()
                && slot.clinic_id == expected.clinic_id.to_string()
                && start == Some(visit.start * 60),
            "{slot:?} is not {expected:?}"
        );
    }
    let mut counts = desk.clone();
    counts.request.view = AvailabilityView::DayCounts.into();
    let counted: i32 = counts.search().await?.day_counts.iter().map(|day| day.slots).sum();
    let all: i32 = search.day_counts().values().sum();
    anyhow::ensure!(counted == all, "{counted} slots are counted, not {all}");
    Ok(found.encoded_len())
}

/// Many callers at `processes`: how many calls a second, how long each took, and the processes' own time for one.
async fn crowd<C: Caller + Clone>(
    processes: &[&Process],
    callers: usize,
    connect: impl Fn() -> anyhow::Result<C>,
) -> anyhow::Result<Value> {
    let connections = (0..CONNECTIONS).map(|_| connect()).collect::<Result<Vec<_>, _>>()?;
    let callers: Vec<C> = connections.iter().cycle().take(callers).cloned().collect();
    let used = || processes.iter().map(|p| p.processor_time()).sum::<anyhow::Result<Duration>>();
    at_once(callers.clone(), WARM_UP).await?;
    let (begun, before) = (Instant::now(), used()?);
    let times = at_once(callers.clone(), COUNTED).await?;
    let (took, used) = (begun.elapsed(), used()? - before);
    let calls = times.len() as f64;
    let mut figures = times.figures();
    figures["callers"] = callers.len().into();
    figures["per_second"] = (calls / took.as_secs_f64()).into();
    figures["served_us"] = (used.as_secs_f64() * 1e6 / calls).into();
    Ok(figures)
}

/// From the moment a change is asked for at one replica until a search at the other finds it.
async fn replicas(
    servers: &Servers,
    sample: &Sample,
    here: &Process,
    other: &Process,
) -> anyhow::Result<Times> {
    let (provider, day) = (sample.members[0].0, sample.first + Days::new(1));
    let manager = servers.client(&here.url, Role::Manager, "bench");
    let mut calendar = CalendarServiceClient::new(manager);
    let mut desk = Desk::new(servers, &other.url, sample)?;
    desk.request = request(sample, day, day, vec![provider]);
    let free = desk.search().await?.slots.len();
    anyhow::ensure!(free > 0, "the provider has free slots that day");
    let mut times = vec![];
    let mut exception_id = String::new();
    for n in 0..CHANGES {
        let pause = rand::rng().random_range(PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let begun = Instant::now();
        let expected = if n % 2 == 0 {
            let request =
                AddExceptionRequest { exception: Some(day_off(provider, day)), ..Default::default() };
            exception_id = calendar.add_exception(request).await?.into_inner().id;
            0
        } else {
            let request = RemoveExceptionRequest { exception_id: exception_id.clone(), ..Default::default() };
            calendar.remove_exception(request).await?;
            free
        };
        while desk.search().await?.slots.len() != expected {
            anyhow::ensure!(begun.elapsed() < testkit::SOON, "change {n} is not seen at the other replica");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        times.push(begun.elapsed());
    }
    Ok(Times::new(times))
}

/// Time off that has all of `day` in it, in each of the zones.
fn day_off(provider: ProviderId, day: NaiveDate) -> CalendarException {
    let midnight = |day: NaiveDate| Some(timestamp(day.and_time(NaiveTime::MIN).and_utc()));
    CalendarException {
        provider_id: provider.to_string(),
        kind: ExceptionKind::TimeOff.into(),
        interval: Some(Interval { start_time: midnight(day), end_time: midnight(day + Days::new(2)) }),
        ..Default::default()
    }
}

fn request(
    sample: &Sample,
    first: NaiveDate,
    last: NaiveDate,
    providers: Vec<ProviderId>,
) -> SearchAvailabilityRequest {
    let query = AvailabilityQuery {
        service_type_id: sample.service().id.to_string(),
        provider_ids: providers.iter().map(ToString::to_string).collect(),
        first_date: Some(date(first)),
        last_date: Some(date(last)),
        ..Default::default()
    };
    SearchAvailabilityRequest { query: Some(query), page_size: PAGE as i32, ..Default::default() }
}

/// A front desk that searches.
#[derive(Clone)]
struct Desk {
    client: AvailabilityServiceClient<Outbound>,
    request: SearchAvailabilityRequest,
}

impl Desk {
    /// On a connection of its own; clones share it.
    fn new(servers: &Servers, url: &str, sample: &Sample) -> anyhow::Result<Self> {
        let outbound = Outbound::bearing(url, servers.token(Role::FrontDesk, "bench"))?;
        let last = sample.first + Days::new(DAYS - 1);
        let request = request(sample, sample.first, last, vec![]);
        Ok(Self { client: AvailabilityServiceClient::new(outbound), request })
    }

    async fn search(&mut self) -> Result<SearchAvailabilityResponse, Status> {
        Ok(self.client.search_availability(self.request.clone()).await?.into_inner())
    }
}

impl Caller for Desk {
    async fn call(&mut self) -> Result<(), Status> {
        let found = self.search().await?;
        if found.slots.len() == PAGE { Ok(()) } else { Err(Status::data_loss("not a full page")) }
    }
}

/// Asks a service's health, which it knows without work: what any call costs.
#[derive(Clone)]
struct Idle(HealthClient<Channel>);

impl Idle {
    fn new(process: &Process) -> anyhow::Result<Self> {
        Ok(Self(HealthClient::new(channel(&process.url)?)))
    }
}

impl Caller for Idle {
    async fn call(&mut self) -> Result<(), Status> {
        self.0.check(HealthCheckRequest::default()).await.map(drop)
    }
}
