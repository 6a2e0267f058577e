//! Many visits displaced at once: what is held for one is not held for another, whoever is killed on the way, and however their
//! patients, the desk and the calendar cross each other.

use std::collections::HashSet;

use appointments::domain::{Span, State};
use futures::future::{BoxFuture, FutureExt as _, join_all};
use proto::clinic::scheduling::v1::BlockCode;
use uuid::Uuid;

use super::*;
use crate::harness::{minutes, to};

/// Visits of the vacation.
const VISITS: i64 = 40;
/// Workers that are killed, each a little later than the one before it.
const KILLED: usize = 60;
/// Rounds in which everything happens to one displaced visit at once.
const ROUNDS: i64 = 25;

/// Books visits one after the other, and takes their time away for a day; `free` are the times after that which a search finds.
async fn vacation(world: &World, calendar: &Calendar, visits: i64, free: i64) -> Vec<Reservation> {
    let start = ten_o_clock(world, 0);
    let mut booked = vec![];
    for n in 0..visits {
        booked.push(world.booked(start + minutes(15 * n)).await);
    }
    let away = Span { start, end: start + TimeDelta::days(1) };
    {
        let mut script = calendar.script();
        script.providers = vec![world.provider];
        script.free = (0..free).map(|n| away.end + minutes(15 * n)).collect();
        script.blocks.push((BlockCode::TimeOff, away));
        script.version += 1;
    }
    let version = calendar.script().version;
    world.calendar_changed(version, away).await;
    booked
}

/// For how many visits each number of places is held, from none to three; no place is held twice.
async fn held(world: &World) -> [usize; 4] {
    let rows: Vec<(Uuid, DateTime<Utc>)> = sqlx::query_as(
        "select o.replaces_id, o.starts_at from offer o join reservation r using (id)
         where o.state = 'open' and r.state = 'offered' and o.entry_id is null",
    )
    .fetch_all(world.db.pool())
    .await
    .unwrap();
    let starts: HashSet<_> = rows.iter().map(|row| row.1).collect();
    assert_eq!(starts.len(), rows.len());
    let visits: Vec<Uuid> = sqlx::query_scalar("select id from reservation where state = 'displaced'")
        .fetch_all(world.db.pool())
        .await
        .unwrap();
    let mut counts = [0; 4];
    for visit in visits {
        counts[rows.iter().filter(|row| row.0 == visit).count()] += 1;
    }
    counts
}

async fn told_of_displacement(world: &World) -> Vec<pb::AppointmentDisplaced> {
    use prost::{Message as _, Name as _};
    let told = "select payload from outbox where subject = $1 order by position";
    let payloads: Vec<Vec<u8>> = sqlx::query_scalar(told)
        .bind(pb::AppointmentDisplaced::full_name())
        .fetch_all(world.db.pool())
        .await
        .unwrap();
    payloads.iter().map(|payload| pb::AppointmentDisplaced::decode(payload.as_slice()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_visits_displaced_at_once_share_what_is_free_and_each_patient_is_told_once() {
    let (world, calendar) = world().await;
    // For thirty of them three each, were they to stand in line.
    let visits = vacation(&world, &calendar, VISITS, 90).await;
    let replicas = [0, 1, 2].map(|_| world.reopened().app);
    for looked in join_all(replicas.iter().map(|app| app.look_after())).await {
        looked.unwrap();
    }
    look(&world).await;
    let told = told_of_displacement(&world).await;
    let whom: HashSet<_> = told.iter().map(|told| told.appointment_id.clone()).collect();
    assert_eq!((told.len(), whom.len()), (visits.len(), visits.len()));
    let counts = held(&world).await;
    let places: usize = counts.iter().enumerate().map(|(places, visits)| places * visits).sum();
    assert_eq!((counts.iter().sum::<usize>(), places), (visits.len(), 90), "all is shared out: {counts:?}");
    let named: usize = told.iter().map(|told| told.alternatives.len()).sum();
    assert_eq!(named, 90, "and told");
    let listed: i64 = sqlx::query_scalar("select count(*) from reservation where work_list_at is not null")
        .fetch_one(world.db.pool())
        .await
        .unwrap();
    assert_eq!(listed as usize, counts[0], "whoever has nothing to choose from is the desk's at once");
}

#[tokio::test]
async fn workers_killed_while_they_displace_hold_nothing_twice_and_leave_nothing_held() {
    let (world, calendar) = world().await;
    let visits = vacation(&world, &calendar, 6, 30).await;
    for steps in 0..KILLED {
        let app = world.reopened().app;
        let worker = tokio::spawn(async move { app.look_after().await });
        // As many turns as it takes the worker to get a little further each time.
        for _ in 0..steps * 2 {
            sqlx::query("select").execute(world.db.pool()).await.unwrap();
        }
        worker.abort();
        let _ = worker.await;
        if steps % 5 == 4 {
            world.servers.advance(TimeDelta::seconds(16)).await;
        }
    }
    world.servers.advance(TimeDelta::seconds(16)).await;
    look(&world).await;
    assert_eq!(told_of_displacement(&world).await.len(), visits.len());
    assert_eq!(held(&world).await, [0, 0, 0, visits.len()]);
    let held_at_all: i64 = sqlx::query_scalar("select count(*) from offer where state = 'open'")
        .fetch_one(world.db.pool())
        .await
        .unwrap();
    assert_eq!(held_at_all as usize, 3 * visits.len());
}

#[tokio::test]
async fn places_held_by_a_worker_that_died_are_given_back_when_the_visit_stands() {
    let (world, calendar) = world().await;
    let visits = vacation(&world, &calendar, 1, 3).await;
    // The worker stops where it would tell, until it is dead.
    let mut admin = world.servers.admin().await;
    let stop = "create function appointments.stop() returns trigger language plpgsql
                    as 'begin perform pg_advisory_xact_lock(42); return new; end';
                create trigger stop before insert on appointments.outbox for each row
                    when (new.subject like '%AppointmentDisplaced') execute function appointments.stop();
                select pg_advisory_lock(42)";
    sqlx::raw_sql(stop).execute(&mut admin).await.unwrap();
    let app = world.reopened().app;
    let worker = tokio::spawn(async move { app.look_after().await });
    world.until_blocked(1).await;
    worker.abort();
    let _ = worker.await;
    sqlx::raw_sql("select pg_advisory_unlock(42)").execute(&mut admin).await.unwrap();
    assert_eq!(open_offers(&world).await.len(), 3, "held, and told to nobody");
    calendar.unblock();
    world.servers.advance(TimeDelta::seconds(61)).await;
    look(&world).await;
    assert_eq!(world.row(visits[0].id).await.state, State::Booked);
    assert!(open_offers(&world).await.is_empty() && told_of_displacement(&world).await.is_empty());
}

/// One answer, or another change, of a visit; refusals by whoever was faster are expected, failures are not.
async fn one_of(world: &World, visit: &Reservation, n: usize, offers: &[OfferId]) -> Result<(), String> {
    let app = world.app.clone();
    let refused = |error: Error| match error {
        Error::Kit(error) => Err(format!("{error:?}")),
        _ => Ok(()),
    };
    match n {
        0..3 => app.accept(&by_text(), offers[n], None, None).await.map(drop).or_else(refused),
        3 => app.decline(&desk(), offers[0], None).await.map(drop).or_else(refused),
        4 => app
            .reschedule(&desk(), &to(visit.id, visit.start + TimeDelta::days(3)))
            .await
            .map(drop)
            .or_else(refused),
        5 => app.cancel(&desk(), change(visit.id), true).await.map(drop).or_else(refused),
        _ => app.look_after().await.map_err(|error| format!("{error:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_moves_cancellations_and_a_vacation_taken_back_leave_nothing_held() {
    let (world, calendar) = world().await;
    let mut ended = HashSet::new();
    for round in 0..ROUNDS {
        let start = ten_o_clock(&world, 8 * round);
        calendar.script().providers = vec![world.provider];
        calendar.script().free = (4..7).map(|n| start + minutes(15 * n)).collect();
        let visit = world.booked(start).await;
        let hour = calendar.block(BlockCode::TimeOff, start);
        let version = calendar.script().version;
        world.calendar_changed(version, hour).await;
        look(&world).await;
        let offers: Vec<_> = open_offers(&world).await.iter().map(id_of).collect();
        assert_eq!(offers.len(), 3);
        if round % 3 == 0 {
            // Back from vacation: the visit may stand again at the same moment.
            calendar.unblock();
            let version = calendar.script().version;
            world.calendar_changed(version, hour).await;
        }
        let mut at_once: Vec<BoxFuture<'_, _>> = (0..7)
            .filter(|n| round % 2 == 0 || *n != 5)
            .map(|n| one_of(&world, &visit, n, &offers).boxed())
            .collect();
        at_once.rotate_left(round as usize % 6);
        for done in join_all(at_once).await {
            done.unwrap_or_else(|broken| panic!("round {round}: {broken}"));
        }
        look(&world).await;
        let row = world.row(visit.id).await;
        assert!(matches!(row.state, State::Booked | State::Cancelled), "round {round}: {:?}", row.state);
        assert!(open_offers(&world).await.is_empty(), "round {round}");
        ended.insert((row.state, row.start - start));
        calendar.unblock();
    }
    assert!(ended.len() > 1, "more than one of them wins: {ended:?}");
}
