//! One freed slot, fifty who wait for it, and everything at once: answers of several devices, offers that run out, workers of two
//! replicas, and a walk-in at the desk.
//!
//! `WAITLIST_RACES` says how many rounds are run, `WAITLIST_SEED` which draws: `WAITLIST_RACES=1000 cargo test -p appointments --test it
//! fifty_who_wait` (nextest ends a test after three minutes).

use std::env;

use appointments::app::App;
use appointments::domain::State;
use appointments::error::Error;
use futures::future::{BoxFuture, FutureExt as _, join_all};
use kit::ids::{ClinicId, ProviderId, RoomId, ServiceTypeId};
use sqlx::FromRow;
use uuid::Uuid;

use super::*;
use crate::harness::World;

/// Rounds when nobody says how many.
const ROUNDS: u64 = 20;
/// Who waits.
const ENTRIES: i32 = 50;
/// Moments of one round at which everything happens at once; then the slot is simply taken.
const MOMENTS: usize = 40;
/// How long offers hold the slot here, so that a round is over within its day.
const OFFER_SECS: u64 = 60;

/// Repeatable draws (splitmix64).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// What one of them got.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Nothing,
    TheSlot(Uuid),
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_who_wait_a_walk_in_and_the_clock_leave_one_winner_and_nothing_dangling() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (rounds, seed) = (number("WAITLIST_RACES").unwrap_or(ROUNDS), number("WAITLIST_SEED").unwrap_or(1));
    let (mut world, calendar) = world().await;
    let ttl = std::time::Duration::from_secs(OFFER_SECS);
    let replicas = [0, 1].map(|_| world.reopened().app.offering_for(ttl));
    let (mut taken_from_the_list, mut walked_in) = (0, 0);
    for round in 0..rounds {
        // Each is a clinic of its own on the same database.
        (world.provider, world.clinic, world.service_type) =
            (ProviderId::new(), ClinicId::new(), ServiceTypeId::new());
        calendar.script().rooms = vec![RoomId::new()];
        morning(&world).await;
        let mut draws = Draws(seed.wrapping_mul(1_000_003).wrapping_add(round));
        match one_round(&world, &replicas, &mut draws).await {
            Ok(State::Offered) => taken_from_the_list += 1,
            Ok(_) => walked_in += 1,
            Err(broken) => panic!("round {round} of seed {seed}: {broken}"),
        }
    }
    assert!(rounds < ROUNDS || taken_from_the_list > 0 && walked_in > 0, "both ways are tried");
}

/// One slot from its cancellation to its next visit; answers whether that came of an offer.
async fn one_round(world: &World, [one, other]: &[App; 2], draws: &mut Draws) -> Result<State, String> {
    let start = ten_o_clock(world, 0);
    let [before, after] =
        [world.slot(start - TimeDelta::minutes(15)), world.slot(start + TimeDelta::minutes(15))];
    for neighbour in [before, after] {
        world.take(neighbour).await.unwrap();
    }
    fifty_wait(world).await;
    freed(world, start).await;
    let mut winners: Vec<(State, Uuid)> = vec![];
    for _ in 0..MOMENTS {
        if draws.one_in(3) {
            world.servers.advance(TimeDelta::seconds(OFFER_SECS as i64)).await;
        }
        let open = offers_at(world).await;
        let mut at_once: Vec<BoxFuture<'_, Result<Got, String>>> =
            vec![worker(one).boxed(), worker(other).boxed()];
        if let Some(offer) = open {
            let accepting = |caller: Caller| {
                let app = one.clone();
                async move { accepted(app.accept(&caller, offer.into(), None, None).await.map(|b| b.row)) }
            };
            if draws.one_in(6) {
                at_once.push(accepting(desk()).boxed());
                at_once.push(accepting(by_text()).boxed());
            }
            if draws.one_in(2) {
                at_once.push(declining(other, offer.into()).boxed());
            }
        }
        if draws.one_in(12) {
            at_once.push(walking_in(world, start).boxed());
        }
        // In an order of their own each time.
        let len = at_once.len();
        at_once.rotate_left((draws.next() % len as u64) as usize);
        for got in join_all(at_once).await {
            if let Got::TheSlot(id) = got? {
                let state = if open == Some(id) { State::Offered } else { State::Booked };
                winners.push((state, id));
            }
        }
        one.look_after().await.map_err(|e| e.to_string())?;
        winners.dedup();
        if let Some(winner) = winners.first() {
            return judge(world, start, &winners).await.map(|()| winner.0);
        }
        if offers_at(world).await.is_none() && someone_was_not_asked(world).await {
            return Err("the slot is free, someone waits for it, and nobody is asked".into());
        }
    }
    // Nobody wanted it. Whoever has it on offer gives it back, and the desk takes it.
    while let Some(offer) = offers_at(world).await {
        declining(one, offer.into()).await?;
    }
    let Got::TheSlot(id) = walking_in(world, start).await? else { return Err("the slot is lost".into()) };
    judge(world, start, &[(State::Booked, id)]).await.map(|()| State::Booked)
}

async fn worker(app: &App) -> Result<Got, String> {
    app.look_after().await.map_err(|e| format!("a worker failed: {e:?}"))?;
    Ok(Got::Nothing)
}

/// Being too late is no fault.
fn accepted(answer: Result<Reservation, Error>) -> Result<Got, String> {
    match answer {
        Ok(row) if row.state == State::Booked => Ok(Got::TheSlot(row.id.uuid())),
        Err(Error::OfferExpired | Error::WrongState { .. }) => Ok(Got::Nothing),
        other => Err(format!("accepting was answered {other:?}")),
    }
}

async fn declining(app: &App, offer: OfferId) -> Result<Got, String> {
    match app.decline(&by_text(), offer, None).await {
        Ok(_) | Err(Error::OfferExpired | Error::WrongState { .. }) => Ok(Got::Nothing),
        Err(error) => Err(format!("declining was answered {error:?}")),
    }
}

async fn walking_in(world: &World, start: DateTime<Utc>) -> Result<Got, String> {
    match world.take(world.slot(start)).await {
        Ok(row) => Ok(Got::TheSlot(row.id.uuid())),
        Err(Error::Refused(_)) => Ok(Got::Nothing),
        Err(error) => Err(format!("walking in was answered {error:?}")),
    }
}

/// Fifty fresh patients who would take any time, put down past every use case.
async fn fifty_wait(world: &World) {
    let wait = "with patients as (select gen_random_uuid() as id, n from generate_series(1, $1) n),
             seen as (insert into patient_seen select id from patients),
             length as (insert into service_length values ($2, 15, 0, 0, 15))
         insert into waitlist_entry (id, patient_id, service_type_id, clinic_ids, provider_ids, first_date, last_date,
                                     from_minute, before_minute, weekdays, priority, priority_reason, auto_book, created_at)
         select gen_random_uuid(), id, $2, array[$3], array[$4], clock.now()::date, clock.now()::date + 90, 0, 1440, 127, 0, '',
                false, clock.now() + n * interval '1 microsecond' from patients";
    let (kind, clinic) = (world.service_type.uuid(), world.clinic.uuid());
    let query = sqlx::query(wait).bind(ENTRIES).bind(kind).bind(clinic).bind(world.provider.uuid());
    query.execute(world.db.pool()).await.unwrap();
}

/// The open offer of this round's slot.
async fn offers_at(world: &World) -> Option<Uuid> {
    let open = "select id from offer where provider_id = $1 and state = 'open'";
    let open: Vec<Uuid> =
        sqlx::query_scalar(open).bind(world.provider.uuid()).fetch_all(world.db.pool()).await.unwrap();
    assert!(open.len() < 2, "one slot is on offer to several");
    open.first().copied()
}

async fn someone_was_not_asked(world: &World) -> bool {
    let unasked =
        "select exists (select from waitlist_entry e where $1 = any(provider_ids) and state = 'waiting'
                                  and not exists (select from offer where entry_id = e.id))";
    sqlx::query_scalar(unasked).bind(world.provider.uuid()).fetch_one(world.db.pool()).await.unwrap()
}

#[derive(Debug, FromRow, PartialEq, Eq)]
struct Totals {
    /// Who occupies the slot.
    occupying: Vec<Uuid>,
    /// Open offers, offered reservations, and entries with an offer.
    dangling: i64,
    /// Offers whose reservation ended in another way than they did.
    at_odds: i64,
    /// Entries that got a visit.
    fulfilled: i64,
    /// Offers that were told, less those whose end was.
    untold: i64,
    /// Reservations whose history has a gap.
    gaps: i64,
}

/// The slot is the winner's, and nothing is left over.
async fn judge(world: &World, start: DateTime<Utc>, winners: &[(State, Uuid)]) -> Result<(), String> {
    let totals = "with own as (select * from reservation where provider_id = $1)
        select array(select id from own where visit @> $2
                     and state in ('held', 'offered', 'booked', 'displaced', 'checked_in')) as occupying,
               (select count(*) from offer where provider_id = $1 and state = 'open')
                   + (select count(*) from own where state = 'offered')
                   + (select count(*) from waitlist_entry where $1 = any(provider_ids) and state = 'offered') as dangling,
               (select count(*) from offer o join own r using (id)
                where (o.state::text, r.state::text) not in (('accepted', 'booked'), ('declined', 'declined'),
                                                            ('expired', 'expired'), ('withdrawn', 'released'))) as at_odds,
               (select count(*) from waitlist_entry where $1 = any(provider_ids) and state = 'fulfilled') as fulfilled,
               (select count(*) filter (where subject like '%WaitlistOffered') - count(*) filter (where subject like '%WaitlistOfferClosed')
                from outbox where aggregate_id in (select id from own)) as untold,
               (select count(*) from own r where r.version <> (select count(*) from change where reservation_id = r.id)
                                              or r.version <> (select count(*) from outbox where aggregate_id = r.id)) as gaps";
    let found: Totals = sqlx::query_as(totals)
        .bind(world.provider.uuid())
        .bind(start)
        .fetch_one(world.db.pool())
        .await
        .unwrap();
    let [(how, winner)] = winners else { return Err(format!("the winners are {winners:?}")) };
    let expected = Totals {
        occupying: vec![*winner],
        dangling: 0,
        at_odds: 0,
        fulfilled: i64::from(*how == State::Offered),
        untold: 0,
        gaps: 0,
    };
    if found == expected { Ok(()) } else { Err(format!("{found:?} is not {expected:?}")) }
}
