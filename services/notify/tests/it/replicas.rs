//! Several replicas and one queue.

use std::collections::HashSet;

use notify::pace::Pace;
use proto::clinic::appointments::v1::{AppointmentBooked, AppointmentState};
use proto::clinic::notify::v1::ReminderState;
use sqlx::postgres::PgPoolOptions;

use crate::sending::due;
use crate::{Suite, World};

#[tokio::test]
async fn three_replicas_send_each_reminder_once() {
    const VISITS: usize = 150;
    let suite = Suite::of(World { sms_rate: 10_000, ..World::default() }).await;
    suite.replica().await;
    suite.replica().await;
    let visits: Vec<_> = (0..VISITS).map(|_| suite.visit()).collect();
    for visit in &visits {
        let event =
            AppointmentBooked { appointment: visit.facts(AppointmentState::Booked), ..Default::default() };
        suite.tell(visit, 1, &event).await;
    }
    for visit in &visits {
        suite.reminders_when(visit, |r| r.len() == 2).await;
    }
    due(&suite, &visits[0]).await;
    for visit in &visits {
        suite.reminders_when(visit, |r| r[0].state() == ReminderState::Sent).await;
    }
    let taken = suite.taken().await;
    let ids: HashSet<_> = taken.iter().filter_map(|text| text["sid"].as_str()).collect();
    assert_eq!((taken.len(), ids.len()), (VISITS, VISITS));
}

#[tokio::test]
async fn replicas_share_the_pace_of_a_sender() {
    let suite = Suite::start().await;
    let pool = PgPoolOptions::new().connect(&suite.servers.database_url(notify::NAME)).await.expect("a pool");
    let replica = || Pace::new(pool.clone(), "+12025550198", 10);
    let (one, two) = (replica().book(5).await.expect("booked"), replica().book(5).await.expect("booked"));
    let every = std::time::Duration::from_millis(100);
    assert!(one.windows(2).chain(two.windows(2)).all(|pair| pair[1] - pair[0] == every));
    // The second queues behind the first, whenever it came.
    assert!(two[0] > one[0] && replica().wait().await.expect("a wait").is_zero());
    replica().book(100).await.expect("booked");
    assert!(!replica().wait().await.expect("a wait").is_zero());
}
