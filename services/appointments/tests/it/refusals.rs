//! What a refused caller is told: every rule, what is in the way, and free slots near it; and candidates tried before that.

use appointments::app::Slot;
use appointments::domain::{Conflict, Reservation};
use kit::ids::{PatientId, ProviderId};
use kit::status::reason;
use prost::Message as _;
use proto::clinic::appointments::v1::NearbySlots;
use proto::clinic::scheduling::v1::BlockCode;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{World, broken, desk, minutes, portal, ten_o_clock};

/// Rules and subjects of a refusal, as its caller reads them.
fn rules(status: &Status) -> Vec<(String, String)> {
    let failed = status.get_details_precondition_failure().unwrap();
    failed.violations.into_iter().map(|v| (v.r#type, v.subject)).collect()
}

/// The free slots that a refusal names, as a client decodes them.
fn nearby(status: &Status) -> Option<NearbySlots> {
    let details = tonic_types::pb::Status::decode(status.details()).unwrap().details;
    let any = details.into_iter().find(|any| any.type_url.ends_with("clinic.appointments.v1.NearbySlots"))?;
    Some(NearbySlots::decode(any.value.as_slice()).unwrap())
}

fn rule(rule: &str, row: &Reservation) -> (String, String) {
    (rule.to_owned(), format!("Appointment/{}", row.id))
}

#[tokio::test]
async fn a_taken_slot_names_who_has_it_to_staff_only_and_the_nearest_free_ones_to_all() {
    let (world, calendar) = World::scripted(1).await;
    let start = ten_o_clock(&world, 0);
    let rival = world.booked(start).await;
    calendar.script().free = (-8..8).map(|n| start + minutes(15 * n + 2)).chain([start]).collect();
    let staff = Status::from(world.take(world.slot(start)).await.unwrap_err());
    assert_eq!((staff.code(), reason(&staff).as_str()), (Code::Aborted, "SLOT_TAKEN"));
    assert_eq!(rules(&staff), [rule("SLOT_TAKEN", &rival), rule("ROOM_TAKEN", &rival)]);
    let starts: Vec<_> = nearby(&staff)
        .unwrap()
        .slots
        .iter()
        .map(|slot| (slot.interval.unwrap().start_time.unwrap().seconds - start.timestamp()) / 60)
        .collect();
    assert_eq!(starts, [2, -13, 17, -28, 32], "the nearest first, and not the slot itself");
    let slot = Slot { patient: None, ..world.slot(start) };
    let patient = Status::from(world.app.hold(&portal(PatientId::new()), &slot, None).await.unwrap_err());
    let anonymous = |rule: &str| (rule.to_owned(), "slot".to_owned());
    assert_eq!(rules(&patient), [anonymous("SLOT_TAKEN"), anonymous("ROOM_TAKEN")]);
    assert_eq!(nearby(&patient).unwrap().slots.len(), 5);
    assert!(!format!("{patient:?}").contains(&rival.id.to_string()));
    // A search that cannot be had spoils nothing.
    calendar.script().free.clear();
    let bare = Status::from(world.take(world.slot(start)).await.unwrap_err());
    assert_eq!((reason(&bare).as_str(), nearby(&bare)), ("SLOT_TAKEN", None));
}

#[tokio::test]
async fn a_refusal_lists_rules_of_the_schedule_and_of_the_database_together() {
    let (world, calendar) = World::scripted(2).await;
    let start = ten_o_clock(&world, 0);
    let own = world.booked(start).await;
    calendar.block(BlockCode::ClinicClosed, start);
    let mut slot = world.slot(start);
    slot.patient = Some(own.patient_id);
    let status = Status::from(world.take(slot.clone()).await.unwrap_err());
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "CLINIC_CLOSED"));
    let all = rules(&status);
    assert_eq!(all[0], ("CLINIC_CLOSED".to_owned(), "slot".to_owned()));
    assert_eq!(all[1..], ["SLOT_TAKEN", "PATIENT_BUSY", "WITHIN_7_DAYS"].map(|r| rule(r, &own)));
    assert_eq!(nearby(&status), None, "no other slot mends the patient's own rules");
    // With a reason the schedule gives way; the database never does.
    slot.override_reason = "an emergency".into();
    let status = Status::from(world.take(slot).await.unwrap_err());
    assert_eq!(reason(&status), "PATIENT_BUSY");
    assert_eq!(rules(&status), ["SLOT_TAKEN", "PATIENT_BUSY", "WITHIN_7_DAYS"].map(|r| rule(r, &own)));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_provider_and_any_room_go_on_to_the_next_when_a_rival_wins() {
    let (world, calendar) = World::scripted(4).await;
    let providers: Vec<_> = (0..3).map(|_| ProviderId::new()).collect();
    calendar.script().providers.clone_from(&providers);
    let start = ten_o_clock(&world, 0);
    let any = || Slot { provider: None, ..world.slot(start) };
    let answers = futures::future::join_all((0..5).map(|_| world.take(any()))).await;
    let mut won: Vec<_> = answers.iter().flatten().map(|row| row.provider_id).collect();
    won.sort();
    let mut all = providers.clone();
    all.sort();
    assert_eq!(won, all, "each of the three is somebody's");
    for refused in answers.into_iter().filter_map(Result::err) {
        assert_eq!(broken(&refused), [Conflict::Provider]);
    }
    // A patient who saw the first lately goes to the second.
    let later = start + minutes(60);
    let mut slot = world.slot(later);
    slot.provider = Some(providers[0]);
    let first = world.take(slot).await.unwrap();
    let slot = Slot { patient: Some(first.patient_id), provider: None, ..world.slot(later + minutes(60)) };
    assert_eq!(world.take(slot).await.unwrap().provider_id, providers[1]);
    // What no provider mends is told at once.
    let busy = Slot { patient: Some(first.patient_id), provider: None, ..world.slot(later) };
    let refused = world.app.hold(&desk(), &busy, None).await.unwrap_err();
    assert!(broken(&refused).contains(&Conflict::Patient));
}
