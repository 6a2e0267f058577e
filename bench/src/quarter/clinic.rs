//! The clinic: appointments and scheduling as services in this process, on servers of their own, and what its desk asks of them.
//!
//! Two things make weeks pass in minutes. Workers that wait for a second to pass look at once, for a second replica of the use cases is
//! told to. And patients search with scheduling's own engine in this process, which follows the database itself: the events that bring
//! it to the service's replicas take milliseconds, in which no simulated time passes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use appointments::app::App;
use appointments::ports::Remote;
use bench::{Shape, Taken, Week};
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kit::client::Outbound;
use kit::db::Db;
use kit::fields::{date, time_of_day, timestamp};
use kit::ids::{AppointmentId, ClinicId, ProviderId, RoomId, ServiceTypeId};
use kit::status::reason;
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use proto::clinic::appointments::v1::waitlist_service_client::WaitlistServiceClient;
use proto::clinic::appointments::v1::{
    AcceptOfferRequest, Appointment, BookAppointmentRequest, CancelAppointmentRequest, CheckInRequest,
    CompleteVisitRequest, DeclineOfferRequest, JoinWaitlistRequest, LeaveWaitlistRequest,
    ListAppointmentsRequest, RescheduleAppointmentRequest, VisitOutcome, WaitlistEntry,
};
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::GetClinicRequest;
use proto::clinic::scheduling::v1::catalog_service_client::CatalogServiceClient;
use scheduling::domain::network::{Busy, Network};
use scheduling::domain::search::{Query, Search};
use scheduling::domain::span::{self, Minute, Span};
use scheduling::domain::zone;
use sqlx::PgConnection;
use testkit::Servers;
use tonic::Status;
use uuid::Uuid;

use super::demand::Patient;
use super::{PROVIDERS, Quarter, SHIFTS, ZONE};
use crate::notify::serve_others;
use crate::search::fill;

/// Lengths of the two kinds of visit, in minutes. Both start on each quarter of an hour.
const SHORT: u16 = 15;
const LONG: i32 = 30;
/// The first patient's id.
const PATIENT: u128 = 0x0000_0000_0000_7000_8000_0000_0000_0000;
/// Visits that are closed at once in the evening.
const AT_ONCE: usize = 8;
/// Pause between two looks at what is due, and how many there may be.
const LOOK: Duration = Duration::from_millis(2);
const MOST_LOOKS: usize = 5_000;
/// Reasons with which appointments refuses to change what is closed.
const CLOSED: [&str; 2] = ["OFFER_EXPIRED", "WRONG_STATE"];
/// No patient considers more free times.
const SLOTS: usize = 50_000;

/// A visit that someone has.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub(super) id: String,
    pub(super) start: Minute,
}

/// A free time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    start: Minute,
    provider: ProviderId,
}

/// An offer that was made.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) id: Uuid,
    pub(super) patient: usize,
    pub(super) start: Minute,
}

pub(super) struct Clinic {
    servers: Servers,
    db: PgConnection,
    replica: App,
    desk: BookingServiceClient<Outbound>,
    waitlist: WaitlistServiceClient<Outbound>,
    id: ClinicId,
    providers: Vec<ProviderId>,
    short: ServiceTypeId,
    long: ServiceTypeId,
    network: Network,
    /// Whose time each appointment takes.
    taken: HashMap<Uuid, ProviderId>,
    /// Up to when the network has followed, and which offers were seen.
    followed: DateTime<Utc>,
    offers_seen: DateTime<Utc>,
}

impl Clinic {
    /// Starts everything, at the beginning of the quarter.
    pub(super) async fn open(quarter: &Quarter) -> anyhow::Result<Self> {
        let servers = Servers::start().await;
        let begin = span::instant(quarter.begin());
        servers.advance_to(begin).await;
        let shape = Shape {
            clinics: 1,
            zones: [ZONE; 2],
            providers: PROVIDERS,
            shifts: SHIFTS.to_vec(),
            week: Week::Workdays,
            visit_minutes: SHORT,
            taken: Taken::Nothing,
        };
        let mut sample = shape.build(quarter.first_simulated());
        let short = sample.service().clone();
        let mut long = short.clone();
        (long.id, long.name) = (ServiceTypeId::new(), "Long visit".to_owned());
        (long.duration_minutes, long.step_minutes) = (LONG, SHORT.into());
        for provider in &mut sample.catalog.providers {
            provider.service_type_ids.push(long.id);
        }
        let long_id = long.id;
        sample.catalog.service_types.push(long);
        fill(&servers, &sample).await?;

        let patients = serve_others().await?;
        let (listener, scheduling) = testkit::listener().await;
        let config = scheduling::Config {
            service: servers.service(scheduling::NAME),
            public_url: scheduling.parse().map_err(anyhow::Error::msg)?,
        };
        tokio::spawn(scheduling::run(listener, config, servers.clock.clone(), servers.stop.clone()));
        let (listener, url) = testkit::listener().await;
        let config = appointments::Config {
            service: servers.service(appointments::NAME),
            scheduling_url: scheduling.clone(),
            patients_url: patients.clone(),
            // Nothing here has a co-pay.
            billing_url: patients.clone(),
            offer_minutes: appointments::OFFER_MINUTES,
            alternative_minutes: appointments::ALTERNATIVE_MINUTES,
        };
        tokio::spawn(appointments::run(listener, config, servers.clock.clone(), servers.stop.clone()));
        let asks = |url: &str| servers.client(url, Role::Service, appointments::NAME);
        let outbound = servers.client(&url, Role::FrontDesk, "desk");
        let desk = BookingServiceClient::new(outbound.clone());
        let id = sample.catalog.clinics[0].id;
        testkit::until("both answer", || {
            let (mut desk, clinic_id) = (desk.clone(), id.to_string());
            let mut catalog = CatalogServiceClient::new(asks(&scheduling));
            async move {
                catalog.get_clinic(GetClinicRequest { clinic_id: clinic_id.clone() }).await.ok()?;
                let request = ListAppointmentsRequest { clinic_id, ..Default::default() };
                desk.list_appointments(request).await.ok()
            }
        })
        .await;

        let remote = Arc::new(Remote {
            scheduling: asks(&scheduling),
            patients: asks(&patients),
            billing: asks(&patients),
        });
        let db = Db::new(&servers.database_url(appointments::NAME), appointments::NAME, 8)?.by_key();
        let (clock, stop) = (servers.clock.clone(), servers.stop.clone());
        let replica = App::new(db, clock, remote.clone(), remote.clone(), remote, stop);
        Ok(Self {
            db: servers.admin().await,
            replica,
            desk,
            waitlist: WaitlistServiceClient::new(outbound),
            id,
            providers: sample.members.iter().map(|member| member.0).collect(),
            short: short.id,
            long: long_id,
            network: sample.network(),
            taken: HashMap::new(),
            followed: begin,
            offers_seen: begin,
            servers,
        })
    }

    /// Moves time forward.
    pub(super) async fn advance_to(&self, at: Minute) {
        self.servers.advance_to(span::instant(at)).await;
    }

    /// The database, to be read.
    pub(super) fn db(&mut self) -> &mut PgConnection {
        &mut self.db
    }

    /// The first free time from one minute to another that suits a patient. Of several providers each patient prefers another.
    pub(super) fn first_free(
        &self,
        patient: &Patient,
        now: Minute,
        from: Minute,
        until: Minute,
    ) -> anyhow::Result<Option<Free>> {
        let query = Query {
            service_type: self.kind(patient),
            clinics: vec![],
            providers: patient.provider.map(|n| self.providers[n]).into_iter().collect(),
            first: Some(zone::date(ZONE, from)),
            last: Some(zone::date(ZONE, until)),
            from_minute: patient.hours.0,
            before_minute: patient.hours.1,
            weekdays: vec![],
            any_provider: false,
        };
        let search = Search::new(&self.network, &query, span::instant(now));
        let search = search.map_err(|unknown| anyhow::anyhow!("{unknown:?}"))?;
        let place = |provider: ProviderId| {
            let place = self.providers.iter().position(|id| *id == provider).unwrap_or_default();
            (place + patient.number) % PROVIDERS
        };
        let slots = search.slots(None, SLOTS);
        let suits = slots.iter().filter(|slot| (from..=until).contains(&slot.start));
        let first = suits.min_by_key(|slot| (slot.start, place(slot.provider_id)));
        Ok(first.map(|slot| Free { start: slot.start, provider: slot.provider_id }))
    }

    /// Books a free time.
    pub(super) async fn book(&mut self, patient: &Patient, free: Free) -> anyhow::Result<Visit> {
        let request = BookAppointmentRequest {
            patient_id: patient_id(patient.number).to_string(),
            service_type_id: self.kind(patient).to_string(),
            clinic_id: self.id.to_string(),
            provider_id: free.provider.to_string(),
            start_time: Some(timestamp(span::instant(free.start))),
            ..Default::default()
        };
        visit(self.desk.book_appointment(request).await?.into_inner())
    }

    /// Moves a visit to a free time.
    pub(super) async fn reschedule(&mut self, old: &Visit, free: Free) -> anyhow::Result<Visit> {
        let request = RescheduleAppointmentRequest {
            appointment_id: old.id.clone(),
            provider_id: free.provider.to_string(),
            start_time: Some(timestamp(span::instant(free.start))),
            ..Default::default()
        };
        visit(self.desk.reschedule_appointment(request).await?.into_inner())
    }

    pub(super) async fn cancel(&mut self, visit: &Visit) -> anyhow::Result<()> {
        let request = CancelAppointmentRequest { appointment_id: visit.id.clone(), ..Default::default() };
        self.desk.cancel_appointment(request).await?;
        Ok(())
    }

    /// Joins the waitlist, for time before the visit that the patient has, if any. Answers the entry's id.
    pub(super) async fn join(
        &mut self,
        patient: &Patient,
        now: Minute,
        replaces: Option<&Visit>,
    ) -> anyhow::Result<String> {
        let entry = WaitlistEntry {
            patient_id: patient_id(patient.number).to_string(),
            service_type_id: self.kind(patient).to_string(),
            provider_ids: patient.provider.map(|n| self.providers[n].to_string()).into_iter().collect(),
            first_date: Some(date(zone::date(ZONE, patient.earliest(now)))),
            last_date: Some(date(zone::date(ZONE, patient.patient_until))),
            start_from: Some(time_of_day(patient.hours.0)),
            start_before: Some(time_of_day(patient.hours.1)),
            replaces_appointment_id: replaces.map(|visit| visit.id.clone()).unwrap_or_default(),
            ..Default::default()
        };
        let request = JoinWaitlistRequest { waitlist_entry: Some(entry), ..Default::default() };
        Ok(self.waitlist.join_waitlist(request).await?.into_inner().id)
    }

    /// Leaves the waitlist, unless the entry is closed already.
    pub(super) async fn leave(&mut self, entry: String) -> anyhow::Result<()> {
        let request = LeaveWaitlistRequest { waitlist_entry_id: entry, ..Default::default() };
        unless_closed(self.waitlist.leave_waitlist(request).await).map(drop)
    }

    /// Accepts an offer; nothing when it is closed already.
    pub(super) async fn accept(&mut self, offer: Uuid) -> anyhow::Result<Option<Visit>> {
        let request = AcceptOfferRequest { offer_id: offer.to_string(), ..Default::default() };
        unless_closed(self.waitlist.accept_offer(request).await)?.map(visit).transpose()
    }

    /// Declines an offer, unless it is closed already.
    pub(super) async fn decline(&mut self, offer: Uuid) -> anyhow::Result<()> {
        let request = DeclineOfferRequest { offer_id: offer.to_string(), ..Default::default() };
        unless_closed(self.waitlist.decline_offer(request).await).map(drop)
    }

    /// Closes visits that are over: who came, and who did not.
    pub(super) async fn close(&self, visits: Vec<(Visit, bool)>) -> anyhow::Result<()> {
        let closed = stream::iter(visits).map(|(visit, missed)| {
            let mut desk = self.desk.clone();
            async move {
                let id = visit.id;
                if !missed {
                    desk.check_in(CheckInRequest { appointment_id: id.clone(), ..Default::default() })
                        .await?;
                }
                let outcome = if missed { VisitOutcome::NoShow } else { VisitOutcome::Attended };
                let request = CompleteVisitRequest {
                    appointment_id: id,
                    outcome: outcome.into(),
                    ..Default::default()
                };
                desk.complete_visit(request).await.map(drop)
            }
        });
        Ok(closed.buffer_unordered(AT_ONCE).try_collect().await?)
    }

    /// Lets the workers do what is due.
    pub(super) async fn settle(&mut self) -> anyhow::Result<()> {
        for _ in 0..MOST_LOOKS {
            self.replica.look_after().await?;
            let due: bool = sqlx::query_scalar(
                "select exists (select from appointments.freed where due_at <= clock.now())
                     or exists (select from appointments.reservation
                                where state in ('held', 'offered') and hold_expires_at <= clock.now())",
            )
            .fetch_one(&mut self.db)
            .await?;
            if !due {
                return Ok(());
            }
            // The service's own worker has it in hand.
            tokio::time::sleep(LOOK).await;
        }
        anyhow::bail!("freed time is never settled")
    }

    /// Offers that were made since this was asked last.
    pub(super) async fn new_offers(&mut self) -> anyhow::Result<Vec<Offer>> {
        let rows: Vec<(Uuid, Uuid, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
            "select id, patient_id, starts_at, made_at from appointments.offer where made_at > $1 order by made_at, starts_at, id",
        )
        .bind(self.offers_seen)
        .fetch_all(&mut self.db)
        .await?;
        self.offers_seen = rows.last().map_or(self.offers_seen, |row| row.3);
        let offer = |(id, patient, start, _): (Uuid, Uuid, DateTime<Utc>, _)| {
            let patient = patient.as_u128().checked_sub(PATIENT).context("a patient of ours")?;
            Ok(Offer { id, patient: usize::try_from(patient)?, start: span::minute(start) })
        };
        rows.into_iter().map(offer).collect()
    }

    /// The minute after which the workers have something to do, if nothing happens before.
    pub(super) async fn next_due(&mut self) -> anyhow::Result<Option<Minute>> {
        let due: Option<DateTime<Utc>> = sqlx::query_scalar(
            "select least((select min(due_at) from appointments.freed),
                          (select min(hold_expires_at) from appointments.reservation where state in ('held', 'offered')))",
        )
        .fetch_one(&mut self.db)
        .await?;
        // What was done within a minute took some of it; one minute later it is over in any case.
        Ok(due.map(|due| span::minute(due) + 1))
    }

    /// Follows what is taken.
    pub(super) async fn follow(&mut self) -> anyhow::Result<()> {
        type Row = (Uuid, Uuid, Uuid, bool, [DateTime<Utc>; 4], DateTime<Utc>);
        let rows: Vec<Row> = sqlx::query_as::<_, (Uuid, Uuid, Uuid, bool, Vec<DateTime<Utc>>, DateTime<Utc>)>(
            "select id, provider_id, room_id, state in ('held', 'offered', 'booked', 'displaced', 'checked_in'),
                    array[lower(occupied), upper(occupied), lower(visit), upper(visit)], updated_at
             from appointments.reservation where updated_at >= $1 order by updated_at",
        )
        .bind(self.followed)
        .fetch_all(&mut self.db)
        .await?
        .into_iter()
        .map(|(id, provider, room, takes, times, at)| {
            Ok((id, provider, room, takes, times.try_into().map_err(|_| anyhow::anyhow!("four instants"))?, at))
        })
        .collect::<anyhow::Result<_>>()?;
        for (id, provider, room, takes, times, at) in rows {
            let [from, to, start, end] = times.map(span::minute);
            let (id, provider) = (AppointmentId::from(id), ProviderId::from(provider));
            let busy = takes.then_some(Busy {
                appointment_id: id,
                room_id: RoomId::from(room),
                occupied: Span::new(from, to),
                visit: Span::new(start, end),
            });
            let before = self.taken.insert(id.uuid(), provider).filter(|before| *before != provider);
            let gone = before.map(|before| (before, id, None));
            self.network.take_busy(gone.into_iter().chain([(provider, id, busy)]));
            self.followed = at;
        }
        Ok(())
    }

    fn kind(&self, patient: &Patient) -> ServiceTypeId {
        if patient.long { self.long } else { self.short }
    }
}

fn patient_id(number: usize) -> Uuid {
    Uuid::from_u128(PATIENT + number as u128)
}

fn visit(appointment: Appointment) -> anyhow::Result<Visit> {
    let start = appointment.interval.and_then(|interval| interval.start_time).context("a start")?;
    Ok(Visit { id: appointment.id, start: start.seconds / 60 })
}

/// The answer; nothing when what it was asked of is closed already.
fn unless_closed<T>(answer: Result<tonic::Response<T>, Status>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if CLOSED.contains(&reason(&status).as_str()) => Ok(None),
        Err(status) => Err(status.into()),
    }
}
