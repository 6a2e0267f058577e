//! Fee schedules.

use chrono::{Days, NaiveDate};
use kit::fields::date;
use kit::ids::{RequestId, ServiceTypeId};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as pb;
use proto::google::r#type::Money;
use tonic::Code;

use crate::world::{COPAY, FEE, World, bad_fields, reason, usd};

fn from(world: &World, days: u64) -> NaiveDate {
    world.today().date_naive() + Days::new(days)
}

#[tokio::test]
async fn each_fee_holds_until_the_next_one_begins() {
    let world = World::start().await;
    let later = pb::Fee {
        effective_from: Some(date(from(&world, 30))),
        copay_amount: Some(usd(3_000)),
        ..world.fee(None, None)
    };
    let schedule = world.set_fees(vec![later], "1").await.unwrap();
    let spans: Vec<_> = schedule.fees.iter().map(|f| (f.copay_amount.clone(), f.effective_until)).collect();
    assert_eq!(spans, [(Some(usd(COPAY)), Some(date(from(&world, 30)))), (Some(usd(3_000)), None)]);

    let on = async |day: u64| {
        let request = pb::GetFeeScheduleRequest {
            clinic_id: world.clinic.to_string(),
            service_type_id: world.service_type.to_string(),
            visit_date: Some(date(from(&world, day))),
        };
        world.desk().get_fee_schedule(request).await.unwrap().into_inner().fees
    };
    assert_eq!(on(29).await[0].copay_amount, Some(usd(COPAY)));
    assert_eq!(on(29).await[0].no_show_fee_amount, Some(usd(FEE)));
    assert_eq!(on(30).await[0].copay_amount, Some(usd(3_000)));
    assert_eq!(on(30).await.len(), 1);
}

#[tokio::test]
async fn a_schedule_changes_only_for_who_read_it_last() {
    let world = World::start().await;
    for stale in ["", "0", "7"] {
        let refused = world.set_fees(vec![world.fee(None, None)], stale).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::Aborted, "ETAG_MISMATCH"),
            "{stale:?}"
        );
    }
    let request = pb::SetFeeScheduleRequest {
        request_id: RequestId::new().to_string(),
        clinic_id: world.clinic.to_string(),
        fees: vec![world.fee(Some(9_900), None)],
        etag: "1".into(),
    };
    let first =
        world.client(Role::Manager, "mo").set_fee_schedule(request.clone()).await.unwrap().into_inner();
    let again = world.client(Role::Manager, "mo").set_fee_schedule(request).await.unwrap().into_inner();
    assert_eq!((first.etag.as_str(), &again), ("2", &first));
}

#[tokio::test]
async fn a_clinic_without_fees_answers_an_empty_schedule() {
    let world = World::without_fees().await;
    let request = pb::GetFeeScheduleRequest { clinic_id: world.clinic.to_string(), ..Default::default() };
    let schedule = world.service().get_fee_schedule(request).await.unwrap().into_inner();
    assert!(schedule.fees.is_empty() && schedule.etag.is_empty() && schedule.update_time.is_none());
}

#[tokio::test]
async fn a_day_that_is_over_everywhere_gets_no_fee() {
    let world = World::without_fees().await;
    let past = pb::Fee {
        effective_from: Some(date(world.today().date_naive() - Days::new(2))),
        ..world.fee(Some(COPAY), None)
    };
    assert_eq!(reason(&world.set_fees(vec![past], "").await.unwrap_err()), "EFFECTIVE_DATE_PASSED");
}

#[tokio::test]
async fn bad_amounts_and_fields_are_all_named() {
    let world = World::without_fees().await;
    let money =
        |currency_code: &str, units, nanos| Some(Money { currency_code: currency_code.into(), units, nanos });
    let bad = vec![
        pb::Fee { copay_amount: money("EUR", 25, 0), ..world.fee(None, None) },
        pb::Fee { copay_amount: money("USD", 0, 0), ..world.fee(None, None) },
        pb::Fee { copay_amount: money("USD", -25, 0), service_type_id: "x".into(), ..world.fee(None, None) },
        pb::Fee { no_show_fee_amount: money("USD", 1, 1), effective_from: None, ..world.fee(None, None) },
        pb::Fee { no_show_fee_amount: money("USD", i64::MAX, 0), ..world.fee(None, None) },
    ];
    let refused = world.set_fees(bad, "").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let fields = bad_fields(&refused);
    for field in [
        "fees[0].copay_amount",
        "fees[1].copay_amount",
        "fees[2].copay_amount",
        "fees[2].service_type_id",
        "fees[3].no_show_fee_amount",
        "fees[3].effective_from",
        "fees[4].no_show_fee_amount",
        "fees[1]",
    ] {
        assert!(fields.iter().any(|f| f == field), "{field} in {fields:?}");
    }
    let twice = vec![world.fee(Some(COPAY), None); 2];
    assert_eq!(bad_fields(&world.set_fees(twice, "").await.unwrap_err()), ["fees[1]"]);
    let other = ServiceTypeId::new().to_string();
    let many = vec![pb::Fee { service_type_id: other, ..world.fee(Some(COPAY), None) }; 101];
    assert_eq!(bad_fields(&world.set_fees(many, "").await.unwrap_err()), ["fees"]);
}
