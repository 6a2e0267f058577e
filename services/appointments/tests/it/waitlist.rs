//! The waitlist: who waits, whom freed time is offered to, and what becomes of the offer.

mod alternatives;
mod answers;
mod crashes;
mod devices;
mod kept;
mod matching;
mod queue;
mod race;
mod vacation;
mod walk;

use appointments::app::{Join, ListEntries, ListOffers};
use appointments::domain::Reservation;
use appointments::domain::waitlist::OfferState;
use appointments::error::Error;
use appointments::store::{EntryFilter, OfferFilter};
use chrono::{DateTime, NaiveTime, TimeDelta, Timelike as _, Utc};
use kit::auth::Caller;
use kit::ids::{OfferId, PatientId, WaitlistEntryId};
use kit::page::Page;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::auth::v1::Role;

use crate::calendar::Calendar;
use crate::harness::{World, change, desk, ten_o_clock};

/// Another service, which brings a patient's answer to a text.
fn by_text() -> Caller {
    Caller { subject: "notify".into(), roles: vec![Role::Service] }
}

/// A world with one room, in the middle of a clinic's day.
async fn world() -> (World, Calendar) {
    let (world, calendar) = World::scripted(1).await;
    morning(&world).await;
    (world, calendar)
}

/// Moves on to the next 09:00 UTC, unless it is between 09:00 and 18:00.
async fn morning(world: &World) {
    let now = world.servers.clock.now();
    if (9..18).contains(&now.hour()) {
        return;
    }
    let nine = NaiveTime::from_hms_opt(9, 0, 0).unwrap();
    let today = now.date_naive().and_time(nine).and_utc();
    world.servers.advance_to(if today > now { today } else { today + TimeDelta::days(1) }).await;
}

/// A fresh patient who would take any time of the world's provider, for the world's kind of visit.
fn anything(world: &World) -> Join {
    Join {
        id: None,
        patient: Some(PatientId::new()),
        service_type: world.service_type,
        clinics: vec![world.clinic.uuid()],
        providers: vec![world.provider.uuid()],
        first_date: None,
        last_date: None,
        from_minute: 0,
        before_minute: 24 * 60,
        weekdays: 127,
        priority: 0,
        priority_reason: String::new(),
        auto_book: false,
        payment_method: None,
        replaces: None,
        key: None,
    }
}

fn urgent(join: Join, priority: i16) -> Join {
    Join { priority, priority_reason: "in pain".into(), ..join }
}

async fn joined(world: &World, join: Join) -> pb::WaitlistEntry {
    world.app.join(&desk(), join).await.unwrap()
}

/// A patient's entry as it is now.
async fn entry(world: &World, entry: &pb::WaitlistEntry) -> pb::WaitlistEntry {
    let states = appointments::domain::waitlist::EntryState::ALL.to_vec();
    let patient = Some(entry.patient_id.parse().unwrap());
    let filter = EntryFilter { patient, states, ..EntryFilter::default() };
    let list = ListEntries { filter, page: Page::parse(0, "").unwrap() };
    let (entries, _) = world.app.list_entries(&desk(), &list).await.unwrap();
    entries.into_iter().find(|known| known.id == entry.id).unwrap()
}

async fn offers(world: &World, states: Vec<OfferState>) -> Vec<pb::Offer> {
    let filter = OfferFilter { states, ..OfferFilter::default() };
    let list = ListOffers { filter, page: Page::parse(0, "").unwrap() };
    world.app.list_offers(&desk(), &list).await.unwrap().0
}

/// The open offers, earliest start first.
async fn open_offers(world: &World) -> Vec<pb::Offer> {
    let mut open = offers(world, vec![OfferState::Open]).await;
    open.sort_by_key(start_of);
    open
}

/// The one open offer there is.
async fn the_offer(world: &World) -> pb::Offer {
    let open = open_offers(world).await;
    assert_eq!(open.len(), 1, "{open:?}");
    open.into_iter().next().unwrap()
}

fn start_of(offer: &pb::Offer) -> i64 {
    offer.interval.unwrap().start_time.unwrap().seconds
}

fn id_of(offer: &pb::Offer) -> OfferId {
    offer.id.parse().unwrap()
}

fn entry_id(entry: &pb::WaitlistEntry) -> WaitlistEntryId {
    entry.id.parse().unwrap()
}

/// What all workers do when they look next.
async fn look(world: &World) {
    world.app.look_after().await.unwrap();
}

/// A visit at `start` is booked and called off again; the workers have not looked yet.
async fn freed(world: &World, start: DateTime<Utc>) -> Reservation {
    let visit = world.booked(start).await;
    world.app.cancel(&desk(), change(visit.id), true).await.unwrap();
    visit
}

/// An offer of 10:00 next month to a fresh patient, made after a cancellation.
async fn offered(world: &World) -> (pb::WaitlistEntry, pb::Offer) {
    let entry = joined(world, anything(world)).await;
    freed(world, ten_o_clock(world, 0)).await;
    look(world).await;
    (entry, the_offer(world).await)
}

async fn accept(world: &World, caller: &Caller, offer: &pb::Offer) -> Result<Reservation, Error> {
    world.app.accept(caller, id_of(offer), None, None).await.map(|booked| booked.row)
}

fn of_portal(offer: &pb::Offer) -> Caller {
    crate::harness::portal(offer.patient_id.parse().unwrap())
}

/// Notes of freed time that nobody has settled yet.
async fn notes(world: &World) -> i64 {
    sqlx::query_scalar("select count(*) from freed").fetch_one(world.db.pool()).await.unwrap()
}
