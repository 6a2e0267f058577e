//! A clinic's day as it is watched: first everything, then each change, by whichever replica.

use std::collections::BTreeMap;

use appointments::store::By;
use chrono::{DateTime, TimeDelta, Utc};
use kit::auth::Caller;
use kit::fields::date;
use kit::ids::{PatientId, ProviderId};
use kit::messaging::outbox::Event;
use kit::status::reason;
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use proto::clinic::appointments::v1::{
    PatientCheckedIn, WatchAppointmentsRequest, WatchAppointmentsResponse,
};
use testkit::until;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status, Streaming};

use crate::calendar::Calendar;
use crate::harness::{World, change, desk, minutes, ten_o_clock, to};

/// A stream of a day, and what its reader knows.
struct Board {
    stream: Streaming<WatchAppointmentsResponse>,
    versions: BTreeMap<String, i64>,
}

impl Board {
    async fn next(&mut self) -> Result<WatchAppointmentsResponse, Status> {
        let next = tokio::time::timeout(testkit::SOON, self.stream.message()).await;
        let message = next.expect("a message in time")?.expect("no silent end");
        for id in &message.removed_appointment_ids {
            assert!(self.versions.remove(id).is_some(), "only what was shown is removed");
        }
        let shown = message.appointments.iter().map(|a| (a.id.clone(), a.version));
        self.versions.extend(shown);
        Ok(message)
    }

    /// Reads until the day is complete; answers the sizes of the messages.
    async fn opened(&mut self) -> Vec<usize> {
        let mut sizes = vec![];
        loop {
            let message = self.next().await.unwrap();
            sizes.push(message.appointments.len());
            if message.snapshot_complete {
                return sizes;
            }
        }
    }
}

fn request(world: &World, day: DateTime<Utc>, provider: Option<ProviderId>) -> WatchAppointmentsRequest {
    WatchAppointmentsRequest {
        clinic_id: world.clinic.to_string(),
        date: Some(date(day.date_naive())),
        provider_id: provider.map(|p| p.to_string()).unwrap_or_default(),
    }
}

/// Opens a stream on a connection of its own, by a client that takes little unread.
async fn watch(
    world: &World,
    url: &str,
    caller: &Caller,
    request: WatchAppointmentsRequest,
) -> Result<Board, Status> {
    const WINDOW: u32 = 65_535;
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let token = world.servers.token(caller.roles[0], &caller.subject);
    let mut request = Request::new(request);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut client = BookingServiceClient::new(endpoint.connect_lazy());
    Ok(Board { stream: client.watch_appointments(request).await?.into_inner(), versions: BTreeMap::new() })
}

async fn served(rooms: usize) -> (World, Calendar, String) {
    let (world, calendar) = World::scripted(rooms).await;
    let url = world.serve(&calendar).await;
    (world, calendar, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_day_comes_in_parts_and_then_each_change_to_all_who_watch() {
    let (world, _, url) = served(2).await;
    let start = ten_o_clock(&world, 0);
    let midnight = start - TimeDelta::hours(10);
    let mut empty = watch(&world, &url, &desk(), request(&world, start, None)).await.unwrap();
    assert_eq!(empty.opened().await, [0], "an empty day is complete at once");
    let places = [world.provider.uuid()];
    world.fill(250, midnight, &[world.clinic.uuid()], &places).await;
    world.fill(210, midnight, &[world.clinic.uuid()], &places).await;
    let mut board = watch(&world, &url, &desk(), request(&world, start, None)).await.unwrap();
    assert_eq!((board.opened().await, board.versions.len()), (vec![200, 200, 60], 460));

    // Another replica books, moves within the day, and moves away.
    let visit = world.booked(start).await;
    let id = visit.id.to_string();
    for board in [&mut empty, &mut board] {
        let message = board.next().await.unwrap();
        assert_eq!((message.appointments[0].id.as_str(), message.appointments.len()), (id.as_str(), 1));
    }
    world.app.reschedule(&desk(), &to(visit.id, start + minutes(30))).await.unwrap();
    assert_eq!(board.next().await.unwrap().appointments[0].version, 2);
    world.app.reschedule(&desk(), &to(visit.id, start + TimeDelta::days(1))).await.unwrap();
    assert_eq!(board.next().await.unwrap().removed_appointment_ids, [id]);
    // A change elsewhere is not told; the next one here is.
    world.app.cancel(&desk(), change(visit.id), true).await.unwrap();
    let other = world.booked(start).await.id.to_string();
    assert_eq!(board.next().await.unwrap().appointments[0].id, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_board_loses_what_goes_to_another_provider_and_gains_what_comes() {
    let (world, _, url) = served(2).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let other = ProviderId::new();
    let mut own = watch(&world, &url, &desk(), request(&world, start, Some(world.provider))).await.unwrap();
    let mut others = watch(&world, &url, &desk(), request(&world, start, Some(other))).await.unwrap();
    assert_eq!((own.opened().await, others.opened().await), (vec![1], vec![0]));
    let mut away = to(visit.id, start);
    away.provider = Some(other);
    world.app.reschedule(&desk(), &away).await.unwrap();
    assert_eq!(own.next().await.unwrap().removed_appointment_ids, [visit.id.to_string()]);
    assert_eq!(others.next().await.unwrap().appointments[0].provider_id, other.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_began_before_the_watch_and_is_committed_after_it_is_told() {
    let (world, _, url) = served(1).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let mut early = world.db.begin().await.unwrap();
    let mut row = appointments::store::lock(&mut early, visit.id).await.unwrap().unwrap();
    row.state = appointments::domain::State::CheckedIn;
    let tell = |_: &_| Event::new(&PatientCheckedIn::default());
    appointments::store::save(&mut early, &mut row, By::default(), tell).await.unwrap();
    let mut board = watch(&world, &url, &desk(), request(&world, start, None)).await.unwrap();
    board.opened().await;
    // Younger transactions are seen first.
    let later = world.booked(start + minutes(60)).await.id.to_string();
    assert_eq!(board.next().await.unwrap().appointments[0].id, later);
    early.commit().await.unwrap();
    let told = board.next().await.unwrap();
    assert_eq!((told.appointments[0].id.clone(), told.appointments[0].version), (visit.id.to_string(), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_committed_while_a_board_opens_is_missed() {
    let (world, _, url) = served(2).await;
    for round in 0..8 {
        let start = ten_o_clock(&world, round) - TimeDelta::hours(10);
        let (app, calls) =
            (world.app.clone(), (0..24).map(|n| world.slot(start + minutes(15 * n))).collect::<Vec<_>>());
        let busy = tokio::spawn(async move {
            for slot in calls {
                let held = app.hold(&desk(), &slot, None).await.unwrap();
                app.release(&desk(), change(held.id.parse().unwrap())).await.unwrap();
            }
        });
        let mut board = watch(&world, &url, &desk(), request(&world, start, None)).await.unwrap();
        board.opened().await;
        busy.await.unwrap();
        while board.versions.values().filter(|version| **version == 2).count() < 24 {
            board.next().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_that_nobody_reads_is_let_go_and_its_seat_is_free_again() {
    let (world, _, url) = served(1).await;
    let start = ten_o_clock(&world, 0);
    for _ in 0..10 {
        world.fill(280, start - TimeDelta::hours(10), &[world.clinic.uuid()], &[world.provider.uuid()]).await;
    }
    let open = async || watch(&world, &url, &desk(), request(&world, start, None)).await;
    let mut boards = vec![];
    let refused = loop {
        match open().await {
            Ok(board) => boards.push(board),
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "TOO_MANY_STREAMS"));
    // Another caller is not concerned.
    let ben = Caller { subject: "ben".into(), ..desk() };
    watch(&world, &url, &ben, request(&world, start, None)).await.unwrap();
    until("a seat for one more", async || open().await.ok()).await;
    // Whoever was let go is told why, after what was on its way.
    let mut endings = vec![];
    for board in &mut boards {
        loop {
            match board.next().await {
                Ok(message) if message.snapshot_complete => break,
                Ok(_) => {}
                Err(ending) => break endings.push((ending.code(), reason(&ending))),
            }
        }
    }
    assert!(!endings.is_empty());
    assert!(endings.iter().all(|e| *e == (Code::Unavailable, "READER_TOO_SLOW".to_owned())), "{endings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_ends_its_boards_with_a_word() {
    let (world, _, url) = served(1).await;
    let start = ten_o_clock(&world, 0);
    let mut board = watch(&world, &url, &desk(), request(&world, start, None)).await.unwrap();
    board.opened().await;
    world.servers.stop.cancel();
    let ending = board.next().await.unwrap_err();
    assert_eq!((ending.code(), reason(&ending).as_str()), (Code::Unavailable, "WATCH_ENDED"));
    let patient =
        Caller { roles: vec![proto::clinic::auth::v1::Role::Patient], subject: PatientId::new().to_string() };
    assert!(watch(&world, &url, &patient, request(&world, start, None)).await.is_err());
}
