//! Workers that die on the way: what they had begun is taken up by others, and nothing is offered twice.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::*;
use crate::harness::minutes;

/// Visits called off in one case.
const VISITS: i64 = 6;
/// Workers that are killed in one case, each a little later than the one before it.
const KILLED: usize = 60;

#[tokio::test]
async fn a_note_whose_worker_died_is_taken_up_when_its_claim_has_passed() {
    let (world, _) = world().await;
    let entry = joined(&world, anything(&world)).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    let mut conn = world.db.pool().acquire().await.unwrap();
    assert_eq!(appointments::store::claim_freed(&mut conn, true, 10).await.unwrap().len(), 1);
    drop(conn);
    look(&world).await;
    assert!(open_offers(&world).await.is_empty(), "someone is at it");
    world.servers.advance(TimeDelta::seconds(15)).await;
    look(&world).await;
    assert_eq!(the_offer(&world).await.waitlist_entry_id, entry.id);
    assert_eq!(notes(&world).await, 0);
}

#[tokio::test]
async fn workers_killed_anywhere_lose_nothing_and_offer_nothing_twice() {
    let (world, _) = world().await;
    let entries = join_all((0..VISITS).map(|_| joined(&world, anything(&world)))).await;
    let mut visits = vec![];
    for n in 0..VISITS {
        visits.push(world.booked(ten_o_clock(&world, n)).await);
    }
    for visit in visits {
        world.app.cancel(&desk(), change(visit.id), true).await.unwrap();
    }
    for steps in 0..KILLED {
        let app = world.reopened().app;
        let worker = tokio::spawn(async move { app.look_after().await });
        // As many turns as it takes the worker to get a little further each time.
        for _ in 0..steps * 2 {
            sqlx::query("select").execute(world.db.pool()).await.unwrap();
        }
        worker.abort();
        let _ = worker.await;
        if steps % 10 == 9 {
            world.servers.advance(TimeDelta::seconds(16)).await;
        }
    }
    world.servers.advance(TimeDelta::seconds(16)).await;
    look(&world).await;
    let open = open_offers(&world).await;
    let whose: BTreeSet<_> = open.iter().map(|offer| offer.waitlist_entry_id.clone()).collect();
    let starts: BTreeSet<_> = open.iter().map(start_of).collect();
    assert_eq!((open.len(), whose.len(), starts.len()), (6, 6, 6), "{open:?}");
    assert_eq!(whose, entries.into_iter().map(|entry| entry.id).collect());
    let told = world.told().await.into_iter().filter(|event| event == "WaitlistOffered").count();
    assert_eq!(told, 6);
    // Everyone has been asked: the notes that had to wait for answers end too.
    world.servers.advance(minutes(5)).await;
    for offer in open {
        accept(&world, &desk(), &offer).await.unwrap();
    }
    world.servers.advance(minutes(20)).await;
    look(&world).await;
    assert_eq!(notes(&world).await, 0);
}
