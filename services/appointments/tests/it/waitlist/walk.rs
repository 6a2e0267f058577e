//! Random calls, calendars, times and workers: whatever happens, and beside whatever else, what the tables say of offers hangs together,
//! and in the end nothing is left open.
//!
//! `WAITLIST_WALKS` says how many walks are made, `WAITLIST_SEED` which.

use std::env;
use std::fmt;

use appointments::domain::Span;
use proto::clinic::scheduling::v1::BlockCode;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::race::Draws;
use super::*;
use crate::harness::{minutes, to};

/// Walks when nobody says how many.
const WALKS: u64 = 6;
/// Steps of a walk.
const STEPS: usize = 60;
/// Quarters of an hour in which everything happens.
const QUARTERS: u64 = 16;

/// What must find no row, and what it would mean.
const NEVER: [(&str, &str); 6] = [
    (
        "an offer is open exactly as long as its time is held",
        "select 1 from reservation r full join offer o using (id)
         where (r.state = 'offered' or o.state = 'open') and (r.state = 'offered' and o.state = 'open') is not true",
    ),
    (
        "an entry has an offer exactly as long as it says so",
        "select 1 from waitlist_entry e left join offer o on o.entry_id = e.id and o.state = 'open'
         group by e.id having count(o.id) <> case when e.state = 'offered' then 1 else 0 end",
    ),
    (
        "places are held instead of displaced visits only",
        "select 1 from offer o join reservation v on v.id = o.replaces_id
         where o.entry_id is null and o.state = 'open' and v.state <> 'displaced'",
    ),
    (
        "at most three of them, and never for longer than a day, nor into the last hour",
        "select 1 from offer where entry_id is null and state = 'open' group by replaces_id
         having count(*) > 3 or max(expires_at - made_at) > interval '1 day'
             or min(starts_at - expires_at) < interval '60 minutes'",
    ),
    (
        "what was accepted is where the visit was then",
        "select 1 from offer o where o.state = 'accepted' and not exists (
             select from change c where c.reservation_id = coalesce(o.replaces_id, o.id) and c.state = 'booked'
               and lower(c.visit) = o.starts_at and c.provider_id = o.provider_id)",
    ),
    (
        "every version of everything is told",
        "select 1 from reservation r where r.version <> (select count(*) from outbox where aggregate_id = r.id)
             or r.version <> (select count(*) from change where reservation_id = r.id)",
    ),
];

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Book(i64),
    Close(i64),
    Reopen,
    Accept(u64),
    Decline(u64),
    Move(u64, i64),
    Cancel(u64),
    Join { auto_book: bool, instead: Option<u64> },
    Leave(u64),
    Pass(i64),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

fn drawn(draws: &mut Draws) -> Step {
    let at = |draws: &mut Draws| 15 * (draws.next() % QUARTERS) as i64;
    match draws.next() % 20 {
        0..5 => Step::Book(at(draws)),
        5..7 => Step::Close(at(draws)),
        7 => Step::Reopen,
        8..11 => Step::Accept(draws.next()),
        11 => Step::Decline(draws.next()),
        12..14 => Step::Move(draws.next(), at(draws)),
        14 => Step::Cancel(draws.next()),
        15..17 => {
            let instead = draws.one_in(3).then(|| draws.next());
            Step::Join { auto_book: draws.one_in(3), instead }
        }
        17 => Step::Leave(draws.next()),
        _ => Step::Pass([1, 16, 61, 24 * 60][(draws.next() % 4) as usize]),
    }
}

async fn ids(world: &World, which: &'static str) -> Vec<Uuid> {
    sqlx::query_scalar(which).fetch_all(world.db.pool()).await.unwrap()
}

/// One of those that `which` finds.
async fn one_of(world: &World, which: &'static str, draw: u64) -> Option<Uuid> {
    let found = ids(world, which).await;
    found.get(draw.checked_rem(found.len() as u64)? as usize).copied()
}

const VISITS: &str = "select id from reservation where state in ('booked', 'displaced') order by id";
const OPEN: &str = "select id from offer where state = 'open' order by id";
const ENTRIES: &str = "select id from waitlist_entry where state in ('waiting', 'offered') order by id";

/// Takes a step. That it is refused is as well; that it fails is not.
async fn take(world: &World, calendar: &Calendar, start: DateTime<Utc>, step: Step) -> Result<(), String> {
    let app = &world.app;
    let done = match step {
        Step::Book(at) => world.take(world.slot(start + minutes(at))).await.map(drop),
        Step::Close(at) => {
            let hour = calendar.block(BlockCode::TimeOff, start + minutes(at));
            let version = calendar.script().version;
            world.calendar_changed(version, hour).await;
            Ok(())
        }
        Step::Reopen => {
            calendar.unblock();
            let version = calendar.script().version;
            world.calendar_changed(version, Span { start, end: start + TimeDelta::days(1) }).await;
            Ok(())
        }
        Step::Accept(draw) => match one_of(world, OPEN, draw).await {
            Some(offer) => app.accept(&by_text(), offer.into(), None, None).await.map(drop),
            None => Ok(()),
        },
        Step::Decline(draw) => match one_of(world, OPEN, draw).await {
            Some(offer) => app.decline(&by_text(), offer.into(), None).await.map(drop),
            None => Ok(()),
        },
        Step::Move(draw, at) => match one_of(world, VISITS, draw).await {
            Some(visit) => app.reschedule(&desk(), &to(visit.into(), start + minutes(at))).await.map(drop),
            None => Ok(()),
        },
        Step::Cancel(draw) => match one_of(world, VISITS, draw).await {
            Some(visit) => app.cancel(&desk(), change(visit.into()), true).await.map(drop),
            None => Ok(()),
        },
        Step::Join { auto_book, instead } => {
            let visit = match instead {
                Some(draw) => one_of(world, VISITS, draw).await,
                None => None,
            };
            let mut join = Join { auto_book, ..anything(world) };
            if let Some(visit) = visit {
                join.patient = Some(world.row(visit.into()).await.patient_id);
                join.replaces = Some(visit.into());
            }
            app.join(&desk(), join).await.map(drop)
        }
        Step::Leave(draw) => match one_of(world, ENTRIES, draw).await {
            Some(entry) => app.leave(&desk(), entry.into(), None).await.map(drop),
            None => Ok(()),
        },
        Step::Pass(by) => {
            world.servers.advance(minutes(by)).await;
            Ok(())
        }
    };
    match done {
        Err(Error::Kit(error @ kit::status::Error::Internal(_))) => Err(format!("{error:?}")),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn check(world: &World) -> Result<(), String> {
    for (rule, broken) in NEVER {
        let found = sqlx::query(AssertSqlSafe(broken)).fetch_all(world.db.pool()).await.unwrap().len();
        if found > 0 {
            return Err(format!("{found} times not: {rule}"));
        }
    }
    Ok(())
}

async fn worker(world: &World) -> Result<(), String> {
    world.app.look_after().await.map_err(|error| format!("a worker failed: {error:?}"))
}

/// What is displaced can be chosen for by its patient or stands on the work list; answers how many there are.
async fn nobody_is_forgotten(world: &World) -> Result<usize, String> {
    let forgotten = "select id from reservation v where state = 'displaced' and (work_list_at is not null)
                     = exists (select from offer where replaces_id = v.id and entry_id is null and state = 'open')";
    if !ids(world, forgotten).await.is_empty() {
        return Err("a displaced visit is nobody's".into());
    }
    Ok(ids(world, "select id from reservation where state = 'displaced'").await.len())
}

/// One walk; answers how many visits were displaced at most, and how many offers accepted.
async fn walk(world: &World, calendar: &Calendar, draws: &mut Draws) -> Result<(usize, usize), String> {
    let start = ten_o_clock(world, 0);
    let mut displaced = 0;
    for _ in 0..STEPS {
        let (step, beside) = (drawn(draws), drawn(draws));
        let said = |broken: String| format!("{step}, {beside}: {broken}");
        match draws.next() % 3 {
            0 => take(world, calendar, start, step).await.map_err(said)?,
            1 => {
                take(world, calendar, start, step).await.map_err(said)?;
                worker(world).await.map_err(said)?;
                displaced = displaced.max(nobody_is_forgotten(world).await.map_err(said)?);
            }
            _ => {
                let both = [take(world, calendar, start, step), take(world, calendar, start, beside)];
                let (done, looked) = tokio::join!(futures::future::join_all(both), worker(world));
                done.into_iter().chain([looked]).collect::<Result<(), String>>().map_err(said)?;
            }
        }
        // Each rule is one statement, which sees all or nothing of what tasks do meanwhile that book by themselves.
        check(world).await.map_err(said)?;
    }
    for _ in 0..2 {
        world.servers.advance(TimeDelta::days(1)).await;
        worker(world).await?;
    }
    nobody_is_forgotten(world).await?;
    check(world).await?;
    Ok((displaced, ids(world, "select id from offer where state = 'accepted'").await.len()))
}

#[tokio::test(flavor = "multi_thread")]
async fn random_walks_leave_no_offer_dangling_and_no_displaced_visit_forgotten() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (walks, seed) = (number("WAITLIST_WALKS").unwrap_or(WALKS), number("WAITLIST_SEED").unwrap_or(1));
    let (mut displaced, mut accepted) = (0, 0);
    let (world, calendar) = world().await;
    for n in 0..walks {
        let empty =
            "truncate reservation, change, outbox, request, calendar_seen, waitlist_entry, offer, freed";
        sqlx::raw_sql(empty).execute(world.db.pool()).await.unwrap();
        calendar.unblock();
        morning(&world).await;
        let start = ten_o_clock(&world, 0);
        calendar.script().providers = vec![world.provider];
        calendar.script().free = (0..QUARTERS as i64).map(|n| start + minutes(15 * n)).collect();
        let mut draws = Draws(seed.wrapping_mul(1_000_003).wrapping_add(n));
        let walked = walk(&world, &calendar, &mut draws).await;
        let (most, taken) = walked.unwrap_or_else(|broken| panic!("walk {n} of seed {seed}: {broken}"));
        (displaced, accepted) = (displaced.max(most), accepted + taken);
    }
    assert!(displaced > 1 && accepted > 1, "{displaced} were displaced at once, {accepted} offers accepted");
}
