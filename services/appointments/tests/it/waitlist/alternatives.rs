//! Places held instead of a displaced visit: one answer moves it there, and whatever becomes of the visit gives the others back.

use std::sync::Arc;

use appointments::app::List;
use appointments::domain::{Copay, Span, State};
use appointments::store::{Counts, Filter, counts};
use kit::ids::AppointmentId;
use proto::clinic::appointments::v1::{AppointmentState, VisitOutcome};
use proto::clinic::scheduling::v1::BlockCode;
use testkit::until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tonic::Code;

use super::*;
use crate::harness::{minutes, portal, says, to, told};

/// A fresh patient's visit at `start` whose hour is blacked out, with what was told of it. Free are the times so many minutes from it.
async fn displaced(
    world: &World,
    calendar: &Calendar,
    start: DateTime<Utc>,
    free: &[i64],
) -> (Reservation, pb::AppointmentDisplaced) {
    calendar.script().providers = vec![world.provider];
    calendar.script().free = free.iter().map(|m| start + minutes(*m)).collect();
    let visit = world.booked(start).await;
    close(world, calendar, start).await;
    look(world).await;
    let row = world.row(visit.id).await;
    assert_eq!(row.state, State::Displaced);
    (row, world.last_event().await)
}

/// Blacks an hour out; the workers have not looked yet.
async fn close(world: &World, calendar: &Calendar, start: DateTime<Utc>) {
    let hour = calendar.block(BlockCode::Blackout, start);
    let version = calendar.script().version;
    world.calendar_changed(version, hour).await;
}

/// Takes every blackout back.
async fn reopen(world: &World, calendar: &Calendar) {
    calendar.unblock();
    let version = calendar.script().version;
    let now = world.servers.clock.now();
    world.calendar_changed(version, Span { start: now, end: now + TimeDelta::days(90) }).await;
}

/// The places told of, in the order of preference.
fn ids(told: &pb::AppointmentDisplaced) -> Vec<OfferId> {
    told.alternatives.iter().map(|place| place.offer_id.parse().unwrap()).collect()
}

fn starts(told: &pb::AppointmentDisplaced) -> Vec<DateTime<Utc>> {
    let start = |place: &pb::SlotOption| place.interval.unwrap().start_time.unwrap().seconds;
    told.alternatives.iter().map(|place| DateTime::from_timestamp(start(place), 0).unwrap()).collect()
}

/// What the offers came to, in the order of preference.
async fn outcomes(world: &World, told: &pb::AppointmentDisplaced) -> Vec<OfferState> {
    let mut outcomes = vec![];
    for id in ids(told) {
        let mut conn = world.db.pool().acquire().await.unwrap();
        outcomes.push(appointments::store::offer(&mut conn, id).await.unwrap().unwrap().state);
    }
    outcomes
}

async fn on_work_list(world: &World) -> Vec<AppointmentId> {
    let filter = Filter {
        clinic: Some(world.clinic),
        states: State::ALL.to_vec(),
        on_work_list: true,
        ..Filter::default()
    };
    let list = List { filter, latest_first: false, page: Page::parse(0, "").unwrap() };
    world.app.list(&list).await.unwrap().0.iter().map(|row| row.id).collect()
}

async fn counted(world: &World) -> Counts {
    counts(&mut world.db.pool().acquire().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn the_nearest_three_are_held_for_a_day_and_told_with_their_offers() {
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    let (visit, told_of) = displaced(&world, &calendar, start, &[60, 75, 90, 105, -15]).await;
    assert_eq!(starts(&told_of), [-15, 60, 75].map(|m| start + minutes(m)));
    let open = open_offers(&world).await;
    let mut preferences: Vec<_> = open.iter().map(|o| (o.preference, o.id.clone())).collect();
    preferences.sort();
    let ids: Vec<_> = ids(&told_of).iter().map(ToString::to_string).collect();
    assert_eq!(preferences, [(1, ids[0].clone()), (2, ids[1].clone()), (3, ids[2].clone())]);
    let day = world.servers.clock.now() + TimeDelta::days(1);
    for offer in &open {
        assert_eq!((&offer.waitlist_entry_id[..], &offer.patient_id), ("", &visit.patient_id.to_string()));
        assert_eq!(offer.replaces_appointment_id, visit.id.to_string());
        let ends = offer.expire_time.unwrap().seconds;
        assert!((day.timestamp() - 60..=day.timestamp()).contains(&ends));
        let held = world.row(offer.id.parse().unwrap()).await;
        assert_eq!((held.state, held.copay, held.version), (State::Offered, Copay::NotRequired, 1));
    }
    let taken = world.take(world.slot(start + minutes(60))).await;
    assert_eq!(told(taken), says(Code::Aborted, "SLOT_TAKEN"));
    let expected = Counts { displaced: 1, on_work_list: 0, waiting: 0, offers: 0, alternatives: 3 };
    assert_eq!(counted(&world).await, expected);
}

#[tokio::test]
async fn accepting_one_moves_the_visit_there_for_nothing_and_gives_the_others_back() {
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    world.servers.advance_to(start - minutes(40)).await;
    let (visit, told_of) = displaced(&world, &calendar, start, &[180, 195, 210]).await;
    let [first, second, third] = ids(&told_of)[..] else { panic!("three") };
    let accept = async |caller: Caller, id| world.app.accept(&caller, id, None, None).await.map(|b| b.row);
    let stranger = portal(PatientId::new());
    assert_eq!(told(accept(stranger, second).await), says(Code::NotFound, "OFFER_NOT_FOUND"));
    let moved = accept(portal(visit.patient_id), second).await.unwrap();
    let place = start + minutes(195);
    assert_eq!((moved.id, moved.state, moved.start), (visit.id, State::Booked, place));
    assert_eq!((moved.fee_start, moved.displaced_at, moved.work_list_at), (place, None, None));
    let gone = [OfferState::Withdrawn, OfferState::Accepted, OfferState::Withdrawn];
    assert_eq!(outcomes(&world, &told_of).await, gone);
    let event: pb::AppointmentRescheduled = world.last_event().await;
    assert_eq!((event.offer_id, event.appointment_id), (second.to_string(), visit.id.to_string()));
    for late in [first, second, third] {
        assert_eq!(told(accept(desk(), late).await), says(Code::FailedPrecondition, "WRONG_STATE"));
    }
    world.booked(start + minutes(180)).await;
    world.booked(start + minutes(210)).await;
}

#[tokio::test]
async fn nothing_is_accepted_after_its_day() {
    let (world, calendar) = world().await;
    let (visit, told_of) = displaced(&world, &calendar, ten_o_clock(&world, 0), &[60]).await;
    world.servers.advance(TimeDelta::days(1)).await;
    let late = world.app.accept(&desk(), ids(&told_of)[0], None, None).await.map(|booked| booked.row);
    assert_eq!(told(late), says(Code::FailedPrecondition, "OFFER_EXPIRED"));
    // The same place is there for the asking all the same, as long as nobody has it.
    let moved = world.app.reschedule(&by_text(), &to(visit.id, visit.start + minutes(60))).await.unwrap();
    assert_eq!(moved.state(), AppointmentState::Booked);
    assert_eq!(outcomes(&world, &told_of).await, [OfferState::Expired]);
}

#[tokio::test]
async fn a_move_to_a_held_place_accepts_it_and_to_any_other_gives_all_back() {
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    let (visit, told_of) = displaced(&world, &calendar, start, &[60, 75, 90]).await;
    let answer = world.app.reschedule(&by_text(), &to(visit.id, start + minutes(75))).await.unwrap();
    assert_eq!(answer.state(), AppointmentState::Booked);
    let gone = [OfferState::Withdrawn, OfferState::Accepted, OfferState::Withdrawn];
    assert_eq!(outcomes(&world, &told_of).await, gone);
    let event: pb::AppointmentRescheduled = world.last_event().await;
    assert_eq!(event.offer_id, ids(&told_of)[1].to_string());

    // Across two places that are held for it.
    let (visit, told_of) = displaced(&world, &calendar, start + TimeDelta::days(8), &[60, 75, 90]).await;
    let across = world.app.reschedule(&desk(), &to(visit.id, visit.start + minutes(80))).await.unwrap();
    assert_eq!(across.state(), AppointmentState::Booked);
    assert_eq!(outcomes(&world, &told_of).await, [OfferState::Withdrawn; 3]);
    assert_eq!(world.last_event::<pb::AppointmentRescheduled>().await.offer_id, "");
}

#[tokio::test]
async fn a_refused_move_keeps_what_is_held() {
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    let (visit, told_of) = displaced(&world, &calendar, start, &[60, 75, 90]).await;
    world.booked(start + minutes(120)).await;
    let refused = world.app.reschedule(&desk(), &to(visit.id, start + minutes(120))).await;
    assert_eq!(told(refused), says(Code::Aborted, "SLOT_TAKEN"));
    assert_eq!(outcomes(&world, &told_of).await, [OfferState::Open; 3]);
}

#[tokio::test]
async fn what_is_turned_down_goes_and_when_none_is_left_the_desk_has_the_visit_on_its_list() {
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    let (visit, told_of) = displaced(&world, &calendar, start, &[60, 75, 90]).await;
    let own = portal(visit.patient_id);
    for (n, id) in ids(&told_of).into_iter().enumerate() {
        assert_eq!((on_work_list(&world).await, world.row(visit.id).await.work_list_at), (vec![], None));
        world.app.decline(&own, id, None).await.unwrap();
        look(&world).await;
        world.booked(starts(&told_of)[n]).await;
    }
    assert_eq!(on_work_list(&world).await, [visit.id]);
    let listed = world.row(visit.id).await;
    assert_eq!((listed.state, listed.version), (State::Displaced, visit.version), "no event of the visit");
    assert!(listed.work_list_at.is_some());
    let expected = Counts { displaced: 1, on_work_list: 1, waiting: 0, offers: 0, alternatives: 0 };
    assert_eq!(counted(&world).await, expected);
    // Settled, it is off the list.
    let later = start + minutes(180);
    let settled = world.app.reschedule(&desk(), &to(visit.id, later)).await.unwrap();
    assert_eq!((settled.state(), on_work_list(&world).await), (AppointmentState::Booked, vec![]));
}

#[tokio::test]
async fn whoever_does_not_answer_within_a_day_is_the_desks() {
    let (world, calendar) = world().await;
    let (visit, told_of) = displaced(&world, &calendar, ten_o_clock(&world, 0), &[60, 75]).await;
    world.servers.advance(TimeDelta::minutes(24 * 60 - 1)).await;
    look(&world).await;
    assert_eq!(
        (outcomes(&world, &told_of).await, on_work_list(&world).await),
        (vec![OfferState::Open; 2], vec![])
    );
    world.servers.advance(minutes(1)).await;
    look(&world).await;
    assert_eq!(outcomes(&world, &told_of).await, [OfferState::Expired; 2]);
    assert_eq!(on_work_list(&world).await, [visit.id]);
    assert_eq!(world.told().await[4..], ["SlotReleased", "SlotReleased"], "the patient is not told again");
}

#[tokio::test]
async fn a_place_is_given_back_an_hour_before_it_begins_and_none_is_held_later() {
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    calendar.script().providers = vec![world.provider];
    calendar.script().free = [-120, -90, 300].map(|m| start + minutes(m)).to_vec();
    world.servers.advance_to(start - minutes(180)).await;
    close(&world, &calendar, start).await;
    look(&world).await;
    let told_of: pb::AppointmentDisplaced = world.last_event().await;
    assert_eq!(
        starts(&told_of),
        [-90, 300].map(|m| start + minutes(m)),
        "nothing that begins within the hour"
    );
    let ends: Vec<_> = told_of.alternatives.iter().map(|place| place.expire_time.unwrap().seconds).collect();
    assert_eq!(ends, [-150, 240].map(|m| (start + minutes(m)).timestamp()));
    world.servers.advance_to(start - minutes(150)).await;
    look(&world).await;
    assert_eq!(outcomes(&world, &told_of).await, [OfferState::Expired, OfferState::Open]);
    assert_eq!(world.row(visit.id).await.work_list_at, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_worker_takes_no_place_back_that_another_has_told_of() {
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    calendar.script().providers = vec![world.provider];
    calendar.script().free = [60, 75, 90, 105].map(|m| start + minutes(m)).to_vec();
    close(&world, &calendar, start).await;
    // It judges the visit, holds two places, and is held up over the third.
    let go_on = Arc::new(Notify::new());
    let third = calendar.script().asked + 4;
    calendar.script().held_up = Some((third, go_on.clone()));
    let app = world.app.clone();
    let slow = tokio::spawn(async move { app.look_after().await });
    until("the third place", async || calendar.script().held_up.is_none().then_some(())).await;
    assert_eq!(open_offers(&world).await.len(), 2);
    world.servers.advance(TimeDelta::seconds(16)).await;
    look(&world).await;
    let told_of: pb::AppointmentDisplaced = world.last_event().await;
    assert_eq!((told_of.appointment_id.clone(), ids(&told_of).len()), (visit.id.to_string(), 3));
    go_on.notify_one();
    slow.await.unwrap().unwrap();
    assert_eq!(outcomes(&world, &told_of).await, [OfferState::Open; 3]);
    assert_eq!(open_offers(&world).await.len(), 3);
}

#[tokio::test]
async fn a_visit_that_ends_or_stands_again_gives_its_places_back_and_who_waits_gets_them() {
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    let own = |visit: &Reservation| portal(visit.patient_id);
    let (visit, told_of) = displaced(&world, &calendar, start, &[60, 75, 90]).await;
    let entry = joined(&world, anything(&world)).await;
    world.app.cancel(&own(&visit), change(visit.id), false).await.unwrap();
    assert_eq!(outcomes(&world, &told_of).await, [OfferState::Withdrawn; 3]);
    look(&world).await;
    let offer = the_offer(&world).await;
    assert_eq!(offer.waitlist_entry_id, entry.id);
    assert!(starts(&told_of).iter().any(|start| start.timestamp() == start_of(&offer)));
    world.app.leave(&desk(), entry_id(&entry), None).await.unwrap();

    let (visit, told_of) = displaced(&world, &calendar, start + TimeDelta::days(8), &[60, 75, 90]).await;
    reopen(&world, &calendar).await;
    look(&world).await;
    assert_eq!(world.row(visit.id).await.state, State::Booked);
    assert_eq!(outcomes(&world, &told_of).await, [OfferState::Withdrawn; 3]);

    // The visits of a day that came or did not come, after all.
    let day = start + TimeDelta::days(16);
    let (came, told_came) = displaced(&world, &calendar, day, &[600, 615, 630]).await;
    let (missed, told_missed) = displaced(&world, &calendar, day + minutes(60), &[700, 715, 730]).await;
    world.servers.advance_to(missed.start).await;
    world.app.check_in(&desk(), change(came.id), "").await.unwrap();
    world.app.complete(&desk(), change(missed.id), VisitOutcome::NoShow).await.unwrap();
    for told_of in [told_came, told_missed] {
        let open =
            outcomes(&world, &told_of).await.into_iter().filter(|outcome| *outcome == OfferState::Open);
        assert_eq!(open.count(), 0);
    }
}

#[tokio::test]
async fn a_place_whose_own_calendar_changes_is_taken_back() {
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    let (_, told_of) = displaced(&world, &calendar, start, &[60, 180, 240]).await;
    close(&world, &calendar, start + minutes(180)).await;
    look(&world).await;
    let [first, second, third] = outcomes(&world, &told_of).await[..] else { panic!("three") };
    assert_eq!((first, second, third), (OfferState::Open, OfferState::Withdrawn, OfferState::Open));
}

#[tokio::test]
async fn the_same_time_with_another_provider_is_the_nearest() {
    let (world, calendar) = world().await;
    calendar.script().rooms.push(kit::ids::RoomId::new());
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let other = kit::ids::ProviderId::new();
    calendar.script().providers = vec![other];
    calendar.script().free = [30, 0].map(|m| start + minutes(m)).to_vec();
    // What is closed is the visit's own provider's time; the script knows no other.
    world.calendar_changed(2, Span { start, end: start + minutes(60) }).await;
    calendar.script().version = 2;
    calendar.script().away = Some(visit.provider_id);
    look(&world).await;
    let told_of: pb::AppointmentDisplaced = world.last_event().await;
    assert_eq!(starts(&told_of), [start, start + minutes(30)]);
    assert!(told_of.alternatives.iter().all(|place| place.provider_id == other.to_string()));
}

#[tokio::test]
async fn what_the_patients_other_visits_forbid_is_not_held() {
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    calendar.script().providers = vec![world.provider];
    calendar.script().free = [60, 90].map(|m| start + minutes(m)).to_vec();
    // With somebody else, at one of the two times.
    let mut elsewhere = world.slot(start + minutes(60));
    (elsewhere.patient, elsewhere.provider) = (Some(visit.patient_id), Some(kit::ids::ProviderId::new()));
    calendar.script().rooms.push(kit::ids::RoomId::new());
    world.take(elsewhere).await.unwrap();
    close(&world, &calendar, start).await;
    look(&world).await;
    let told_of: pb::AppointmentDisplaced = world.last_event().await;
    assert_eq!(starts(&told_of), [start + minutes(90)]);
}

/// A service's `/metrics`.
async fn metrics(url: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_is_counted_for_those_who_watch_over_the_service() {
    kit::telemetry::install_metrics().unwrap();
    let (world, calendar) = world().await;
    let start = ten_o_clock(&world, 0);
    displaced(&world, &calendar, start, &[60, 75]).await;
    calendar.script().free.clear();
    displaced(&world, &calendar, start + TimeDelta::days(1), &[]).await;
    look(&world).await;
    let entry = joined(&world, anything(&world)).await;
    freed(&world, start + TimeDelta::days(2)).await;
    look(&world).await;
    assert_eq!(super::entry(&world, &entry).await.state(), pb::WaitlistEntryState::Offered);
    let url = world.serve(&calendar).await;
    let counted = [
        "appointments_displaced 2",
        "appointments_on_work_list 1",
        "alternatives_held 2",
        "waitlist_entries_open 1",
        "waitlist_offers_open 1",
    ];
    until("all counts", async || {
        let lines = metrics(&url).await;
        counted.iter().all(|line| lines.lines().any(|told| told == *line)).then_some(())
    })
    .await;
}
