//! Lists: by room and day, page by page, and by way of an index however many visits lie behind.

use appointments::app::List;
use appointments::domain::State;
use appointments::store::Filter;
use chrono::{NaiveDate, TimeDelta, TimeZone as _};
use chrono_tz::America::Chicago;
use kit::fields::date;
use kit::ids::ProviderId;
use kit::page::Page;
use kit::status::reason;
use proto::clinic::appointments::v1::{AppointmentState, ListAppointmentsRequest};
use sqlx::postgres::PgConnection;

use crate::harness::{World, broken, change, desk, minutes, portal, ten_o_clock};

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_of_one_clinic_local_day_and_room_in_pages_and_states() {
    let (mut world, calendar) = World::scripted(2).await;
    calendar.script().zone = Chicago;
    let rooms = calendar.script().rooms.clone();
    let url = world.serve(&calendar).await;
    let mut client = world.client(&url, &desk());
    // The day on which clocks go forward is 23 hours long.
    let day = NaiveDate::from_ymd_opt(2031, 3, 9).unwrap();
    let midnight = Chicago.from_local_datetime(&day.and_hms_opt(0, 0, 0).unwrap()).unwrap().to_utc();
    let mut own = vec![];
    for at in [-15, 0, 15, 23 * 60 - 15, 23 * 60] {
        own.push(world.booked(midnight + minutes(at)).await);
    }
    // One more at the same time, in the other room; one called off; one held.
    world.provider = ProviderId::new();
    let other_room = world.booked(midnight).await;
    assert_eq!((own[1].room_id, other_room.room_id), (rooms[0], rooms[1]));
    let off = world.booked(midnight + minutes(60)).await;
    world.app.cancel(&desk(), change(off.id), true).await.unwrap();
    world.app.hold(&desk(), &world.slot(midnight + minutes(90)), None).await.unwrap();

    let by = |change: &dyn Fn(&mut ListAppointmentsRequest)| {
        let mut request = ListAppointmentsRequest { date: Some(date(day)), ..Default::default() };
        request.clinic_id = world.clinic.to_string();
        change(&mut request);
        request
    };
    let ids = |rows: &[&appointments::domain::Reservation]| {
        rows.iter().map(|row| row.id.to_string()).collect::<Vec<_>>()
    };
    let mut list = async |request: ListAppointmentsRequest| {
        let answer = client.list_appointments(request).await.unwrap().into_inner();
        (answer.appointments.into_iter().map(|a| a.id).collect::<Vec<_>>(), answer.next_page_token)
    };
    let (all, end) = list(by(&|_| ())).await;
    assert_eq!((all.len(), end.as_str()), (5, ""), "three, the other room's, the cancelled one; no hold");
    let in_room = by(&|r| (r.clinic_id, r.room_id) = (String::new(), rooms[0].to_string()));
    assert_eq!(list(in_room).await.0[..1], ids(&[&own[1]]));
    let of_provider = by(&|r| r.provider_id = own[0].provider_id.to_string());
    assert_eq!(list(of_provider.clone()).await.0, ids(&[&own[1], &own[2], &own[3]]));
    let backwards = ListAppointmentsRequest { latest_first: true, ..of_provider };
    assert_eq!(list(backwards).await.0, ids(&[&own[3], &own[2], &own[1]]));
    let cancelled = by(&|r| r.states = vec![AppointmentState::Cancelled as i32]);
    assert_eq!(list(cancelled).await.0, ids(&[&off]));
    let held = by(&|r| r.states = vec![AppointmentState::Held as i32]);
    assert_eq!(list(held).await.0.len(), 1);
    let (mut paged, mut token) = (vec![], String::new());
    loop {
        let page = by(&|r| (r.page_size, r.page_token) = (2, token.clone()));
        let (ids, next) = list(page).await;
        assert!(ids.len() <= 2);
        paged.extend(ids);
        token = next;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all);

    // A patient reads its own, whatever it asks for, and nobody reads everything.
    let mine = world.client(&url, &portal(own[1].patient_id)).list_appointments(by(&|_| ())).await;
    let mine: Vec<_> = mine.unwrap().into_inner().appointments.into_iter().map(|a| a.id).collect();
    assert_eq!(mine, ids(&[&own[1]]));
    let others = by(&|r| r.patient_id = own[2].patient_id.to_string());
    let refused = world.client(&url, &portal(own[1].patient_id)).list_appointments(others).await;
    assert_eq!(reason(&refused.unwrap_err()), "PATIENT_NOT_FOUND");
    let unbounded = by(&|r| r.clinic_id.clear());
    let refused = world.client(&url, &desk()).list_appointments(unbounded).await;
    assert_eq!(reason(&refused.unwrap_err()), "INVALID_FIELD");
}

/// Whole-table scans of reservations so far, and rows read by them and by indexes.
async fn reads(admin: &mut PgConnection) -> (i64, i64) {
    let stats = "select coalesce(seq_scan, 0), coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
                 from pg_stat_user_tables where schemaname = 'appointments' and relname = 'reservation'";
    sqlx::query_as(stats).fetch_one(admin).await.unwrap()
}

/// What `calls` read, told by the database when the sessions that made them have ended.
async fn counted(world: &World, calls: impl AsyncFnOnce(&World)) -> (i64, i64) {
    let before = reads(&mut world.servers.admin().await).await;
    let again = world.reopened();
    calls(&again).await;
    again.db.pool().close().await;
    let gone = "select count(*) from pg_stat_activity where usename = 'appointments'";
    testkit::until("the end of the sessions", async || {
        let left: i64 = sqlx::query_scalar(gone).fetch_one(&mut world.servers.admin().await).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
    let after = reads(&mut world.servers.admin().await).await;
    let (scans, rows) = (after.0 - before.0, after.1 - before.1);
    assert!(rows > 0, "the sessions have told what they read");
    (scans, rows)
}

#[tokio::test]
async fn a_hundred_thousand_finished_visits_slow_neither_a_days_list_nor_a_conflicts_look_up() {
    /// Often enough that PostgreSQL considers one plan for all.
    const TIMES: i64 = 12;
    let (world, calendar) = World::scripted(3).await;
    let uuids = |n: usize| (0..n).map(|_| uuid::Uuid::now_v7()).collect::<Vec<_>>();
    let (clinics, mut places) = (uuids(4), uuids(7));
    places.push(world.provider.uuid());
    calendar.script().rooms.extend(places.iter().map(|p| kit::ids::RoomId::from(*p)));
    let start = ten_o_clock(&world, 0);
    let first = start - TimeDelta::days(340);
    world.fill(100_000, first, &clinics, &places).await;
    let day = (start - TimeDelta::days(100)).date_naive();
    world.db.pool().close().await;

    let (clinic, place) = (Some(clinics[0].into()), places[0]);
    let midnight = day.and_hms_opt(0, 0, 0).unwrap().and_utc();
    let (from, until) = (Some(midnight), Some(midnight + TimeDelta::days(1)));
    let days = || {
        [
            Filter { clinic, date: Some(day), ..Filter::default() },
            Filter { provider: Some(place.into()), date: Some(day), ..Filter::default() },
            Filter { room: Some(place.into()), date: Some(day), ..Filter::default() },
            Filter { clinic, from, until, ..Filter::default() },
        ]
    };
    for (n, name) in ["clinic", "provider", "room", "interval"].into_iter().enumerate() {
        let (scans, rows) = counted(&world, async |world| {
            for _ in 0..TIMES {
                let filter = Filter { states: State::ALL.to_vec(), ..days().into_iter().nth(n).unwrap() };
                let list = List { filter, latest_first: false, page: Page::parse(500, "").unwrap() };
                assert!(!world.app.list(&list).await.unwrap().0.is_empty());
            }
        })
        .await;
        assert_eq!(scans, 0, "a {name}'s day");
        // Three days of starts at most are looked at, of which a clinic has 216.
        assert!(rows <= TIMES * 300, "a {name}'s day read {rows} rows in {TIMES} lists");
    }
    let (scans, rows) = counted(&world, async |world| {
        let rival = world.booked(start).await;
        for _ in 0..TIMES {
            let mut slot = world.slot(start + minutes(5));
            slot.patient = Some(rival.patient_id);
            assert!(broken(&world.take(slot).await.unwrap_err()).len() > 1);
        }
    })
    .await;
    assert_eq!(scans, 0, "the look-up of conflicts");
    assert!(rows <= TIMES * 50, "{rows} rows read in {TIMES} refusals");
}
