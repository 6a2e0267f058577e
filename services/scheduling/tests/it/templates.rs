//! Which weekly templates are taken and which are refused, and that what is retired stays.

use kit::ids::{RequestId, WeeklyTemplateId};
use proto::clinic::scheduling::v1::{
    AvailabilityQuery, BlockCode, CheckSlotRequest, Clinic, DeleteWeeklyTemplateRequest, GetClinicRequest,
    GetProviderRequest, GetRoomRequest, GetServiceTypeRequest, ListWeeklyTemplatesRequest, Provider,
    PutWeeklyTemplateRequest, Room, SearchAvailabilityRequest, ServiceType, UpdateClinicRequest,
    UpdateProviderRequest, UpdateRoomRequest, UpdateServiceTypeRequest, WeeklyTemplate,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::making::{shift, visit};
use super::{Suite, ZONE, bad_fields, code_and_reason};

/// A Monday, before the clocks of New York go forward on the 10th, and those of London on the 31st.
const MONDAY: &str = "2030-03-04T12:00:00Z";

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_at_one_clinic_at_a_time_on_every_clock() {
    let suite = Suite::start_at(MONDAY).await;
    let lakeside = suite.clinic("Lakeside", ZONE).await;
    let riverside = suite.clinic("Riverside", "America/Chicago").await;
    let thames = suite.clinic("Thames", "Europe/London").await;
    let provider = suite.provider("Dr. Ada Osei").await;
    let morning = suite.put(&shift(&lakeside, &provider, "FREQ=DAILY", ["09:00", "11:00"])).await;

    // Nine to ten in Chicago is ten to eleven in New York.
    let id = WeeklyTemplateId::new().to_string();
    let clash = shift(&riverside, &provider, "FREQ=DAILY", ["09:00", "10:00"]);
    let clash = WeeklyTemplate { id: id.clone(), ..clash };
    let request_id = RequestId::new().to_string();
    let mut request = PutWeeklyTemplateRequest { request_id, weekly_template: Some(clash) };
    let refused = suite.calendar().put_weekly_template(request.clone()).await.unwrap_err();
    assert_eq!(code_and_reason(&refused), (Code::FailedPrecondition, "TEMPLATES_OVERLAP".to_owned()));
    for word in [&id, &morning.id, "Lakeside", "Riverside", "2030-03-04 09:00 to 10:00"] {
        assert!(refused.message().contains(word), "{word} is not in {}", refused.message());
    }
    let rules = refused.get_details_precondition_failure().unwrap().violations;
    let subjects: Vec<_> = rules.iter().map(|v| (v.r#type.as_str(), v.subject.as_str())).collect();
    let named = [format!("WeeklyTemplate/{id}"), format!("WeeklyTemplate/{}", morning.id)];
    assert_eq!(subjects, named.each_ref().map(|subject| ("TEMPLATES_OVERLAP", subject.as_str())));
    assert!(rules[0].description.contains("Riverside") && rules[1].description.contains("Lakeside"));

    // Nothing was written, so the request may be mended and sent again. An end is no overlap.
    let list = ListWeeklyTemplatesRequest { provider_id: provider.id.clone(), ..Default::default() };
    let list = suite.calendar().list_weekly_templates(list).await.unwrap().into_inner();
    assert_eq!(list.weekly_templates, std::slice::from_ref(&morning));
    assert_eq!(suite.calendar_version(&provider.id).await, morning.calendar_version);
    let touching = shift(&riverside, &provider, "FREQ=DAILY", ["10:00", "11:00"]);
    request.weekly_template = Some(WeeklyTemplate { id: id.clone(), ..touching });
    let touching = suite.calendar().put_weekly_template(request.clone()).await.unwrap().into_inner();
    assert_eq!(touching.id, id);
    assert_eq!(suite.calendar().put_weekly_template(request).await.unwrap().into_inner(), touching);

    // Two in the afternoon of London is nine in New York, and ten while only New York's clocks have gone forward.
    let tea = shift(&thames, &provider, "FREQ=DAILY", ["13:00", "14:00"]);
    let refused = suite.try_put(&tea).await.unwrap_err();
    assert!(refused.message().contains("2030-03-10 13:00 to 14:00"), "{}", refused.message());
    let weekdays_until_then = "FREQ=DAILY;UNTIL=20300309T235959Z";
    suite.put(&shift(&thames, &provider, weekdays_until_then, ["13:00", "14:00"])).await;

    // A template is replaced without regard to what it was, and moved to a clinic where it is in nobody's way.
    let longer = WeeklyTemplate { start_time: Some(kit::fields::time_of_day(10 * 60)), ..touching.clone() };
    suite.put(&WeeklyTemplate { end_time: Some(kit::fields::time_of_day(12 * 60)), ..longer }).await;
    let refused = suite.try_put(&WeeklyTemplate { id, ..tea }).await.unwrap_err();
    assert_eq!(code_and_reason(&refused).1, "TEMPLATES_OVERLAP");
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_of_one_clinic_add_up_and_there_are_at_most_fifty() {
    let suite = Suite::start_at(MONDAY).await;
    let clinic = suite.clinic("Lakeside", ZONE).await;
    suite.room(&clinic, &[]).await;
    let provider = suite.provider("Dr. Ada Osei").await;
    let service = suite.service(visit("Follow-up", 30)).await;
    let tuesdays = "FREQ=WEEKLY;BYDAY=TU;COUNT=3";
    let first = suite.put(&shift(&clinic, &provider, tuesdays, ["09:00", "10:15"])).await;
    let last = suite.put(&shift(&clinic, &provider, tuesdays, ["10:00", "11:00"])).await;
    let query = AvailabilityQuery { service_type_id: service.id, ..Default::default() };
    let search = SearchAvailabilityRequest { query: Some(query), ..Default::default() };
    // The visit at ten lies across the seam.
    assert_eq!(super::times(&suite.find(&search).await), ["09:00", "09:30", "10:00", "10:30"]);

    for _ in 2..50 {
        suite.put(&shift(&clinic, &provider, "FREQ=DAILY;COUNT=1", ["09:00", "09:30"])).await;
    }
    let more = suite.try_put(&shift(&clinic, &provider, "FREQ=DAILY;COUNT=1", ["09:00", "09:30"])).await;
    let refused = (Code::FailedPrecondition, "TOO_MANY_TEMPLATES".to_owned());
    assert_eq!(code_and_reason(&more.unwrap_err()), refused);
    assert_eq!(suite.calendar_version(&provider.id).await, 51);
    suite.put(&WeeklyTemplate { etag: first.etag.clone(), ..first.clone() }).await;

    // A stale etag changes nothing, neither here nor for what is gone or belongs to somebody else.
    let mismatch = (Code::Aborted, "ETAG_MISMATCH".to_owned());
    assert_eq!(code_and_reason(&suite.try_put(&first).await.unwrap_err()), mismatch);
    let request = |id: &str, etag: &str| DeleteWeeklyTemplateRequest {
        weekly_template_id: id.to_owned(),
        etag: etag.to_owned(),
        ..Default::default()
    };
    let delete = |request| {
        let mut calendar = suite.calendar();
        async move { calendar.delete_weekly_template(request).await }
    };
    assert_eq!(code_and_reason(&delete(request(&first.id, "1")).await.unwrap_err()), mismatch);
    let deleted = delete(request(&last.id, &last.etag)).await.unwrap().into_inner();
    assert_eq!(deleted.calendar_version, 53);
    let gone = delete(request(&last.id, "")).await.unwrap_err();
    assert_eq!(code_and_reason(&gone), (Code::NotFound, "WEEKLY_TEMPLATE_NOT_FOUND".to_owned()));
    assert_eq!(code_and_reason(&suite.try_put(&last).await.unwrap_err()), mismatch, "it has no state now");
    let other = suite.provider("Dr. Ben Ode").await;
    let stolen = WeeklyTemplate { provider_id: other.id, etag: String::new(), ..first };
    assert_eq!(bad_fields(&suite.try_put(&stolen).await.unwrap_err()), ["weekly_template.provider_id"]);
    let monday = "09:00";
    assert_eq!(super::times(&suite.find(&search).await), [monday, "09:00", "09:30"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_cannot_be_used_is_refused_in_words() {
    let suite = Suite::start_at(MONDAY).await;
    let clinic = suite.clinic("Lakeside", ZONE).await;
    let provider = suite.provider("Dr. Ada Osei").await;
    let good = shift(&clinic, &provider, "FREQ=DAILY", ["09:00", "11:00"]);
    let on = |first: &str, rrule: &str| format!("DTSTART;TZID={ZONE}:{first}T090000\nRRULE:{rrule}");
    let today = |rrule: &str| on("20300304", rrule);
    let exdates = format!("\nEXDATE;TZID={ZONE}:20300305T090000").repeat(25_000);
    for (rule, words) in [
        (today("FREQ=HOURLY"), "FREQ must be DAILY, WEEKLY, MONTHLY or YEARLY"),
        (today("FREQ=MINUTELY;BYSETPOS=1;BYDAY=MO"), "FREQ must be"),
        (today("FREQ=DAILY;BYHOUR=9,10"), "BYHOUR is not supported"),
        (today("FREQ=DAILY;BYSETPOS=1"), "BYSETPOS needs another BY part"),
        (today("FREQ=MONTHLY;BYDAY=MO;BYSETPOS=9"), "falls on no day"),
        (today("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"), "falls on no day"),
        (today("FREQ=DAILY;COUNT=1000000000"), "COUNT must be 1 to 5000"),
        (today("FREQ=DAILY;INTERVAL=60000"), "INTERVAL must be 1 to 366"),
        (today("FREQ=DAILY;BYEASTER=1"), "BYEASTER is not supported"),
        (on("19000101", "FREQ=DAILY"), "DTSTART must lie in the years 1970 to 2199"),
        (on("99991231", "FREQ=DAILY"), "DTSTART must lie in the years"),
        (today("FREQ=DAILY") + &exdates, "at most 4000 characters"),
        (today("FREQ=DAILY").replace(ZONE, "Mars/Olympus"), "IANA time zone"),
        (today("FREQ=DAILY").replace(ZONE, "Europe/Paris"), "TZID must be the clinic's time zone"),
        (today("FREQ=DAILY").replace("T0900", "T0905"), "time of day of DTSTART must be start_time"),
        (String::new(), "must have a DTSTART such as"),
    ] {
        let refused =
            suite.try_put(&WeeklyTemplate { rule: rule.clone(), ..good.clone() }).await.unwrap_err();
        let rule = &rule[..rule.len().min(100)];
        assert_eq!(code_and_reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".to_owned()), "{rule}");
        let details = refused.get_details_bad_request().unwrap().field_violations;
        assert_eq!(details[0].field, "weekly_template.rule", "{rule}");
        assert!(details[0].description.contains(words), "{rule}: {}", details[0].description);
    }
    suite.put(&WeeklyTemplate { rule: on("19700101", "FREQ=DAILY"), ..good.clone() }).await;
    let last_friday = today("FREQ=MONTHLY;BYDAY=FR;BYSETPOS=-1");
    suite.put(&WeeklyTemplate { rule: last_friday, ..good }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_retired_stays_readable_and_takes_no_new_visits() {
    let suite = Suite::start_at(MONDAY).await;
    let clinic = suite.clinic("Lakeside", ZONE).await;
    let room = suite.room(&clinic, &[]).await;
    let provider = suite.provider("Dr. Ada Osei").await;
    let service = suite.service(visit("Follow-up", 30)).await;
    suite.put(&shift(&clinic, &provider, "FREQ=DAILY", ["09:00", "11:00"])).await;
    let world = super::World {
        template: shift(&clinic, &provider, "FREQ=DAILY", ["09:00", "11:00"]),
        clinic: clinic.clone(),
        room: room.clone(),
        provider: provider.clone(),
        service: service.clone(),
    };
    let search = suite.search(&world, 2, 2);
    let slot = suite.find(&search).await.slots.remove(0);
    let check = CheckSlotRequest {
        service_type_id: service.id.clone(),
        clinic_id: clinic.id.clone(),
        provider_id: provider.id.clone(),
        room_id: room.id.clone(),
        start_time: slot.interval.and_then(|i| i.start_time),
        overriding: true,
        ..Default::default()
    };
    for thing in ["clinic", "room", "provider", "service type"] {
        for retired in [true, false] {
            let mask = || Some(prost_types::FieldMask { paths: vec!["retired".into()] });
            let mut catalog = suite.catalog();
            let read = match thing {
                "clinic" => {
                    let clinic = Some(Clinic { id: clinic.id.clone(), retired, ..Default::default() });
                    let request = UpdateClinicRequest { clinic, update_mask: mask(), ..Default::default() };
                    catalog.update_clinic(request).await.unwrap();
                    let request = GetClinicRequest { clinic_id: check.clinic_id.clone() };
                    catalog.get_clinic(request).await.unwrap().into_inner().retired
                }
                "room" => {
                    let room = Some(Room { id: room.id.clone(), retired, ..Default::default() });
                    let request = UpdateRoomRequest { room, update_mask: mask(), ..Default::default() };
                    catalog.update_room(request).await.unwrap();
                    let request = GetRoomRequest { room_id: check.room_id.clone() };
                    catalog.get_room(request).await.unwrap().into_inner().retired
                }
                "provider" => {
                    let provider = Some(Provider { id: provider.id.clone(), retired, ..Default::default() });
                    let request =
                        UpdateProviderRequest { provider, update_mask: mask(), ..Default::default() };
                    catalog.update_provider(request).await.unwrap();
                    let request = GetProviderRequest { provider_id: check.provider_id.clone() };
                    catalog.get_provider(request).await.unwrap().into_inner().retired
                }
                _ => {
                    let service_type =
                        Some(ServiceType { id: service.id.clone(), retired, ..Default::default() });
                    let request =
                        UpdateServiceTypeRequest { service_type, update_mask: mask(), ..Default::default() };
                    catalog.update_service_type(request).await.unwrap();
                    let request = GetServiceTypeRequest { service_type_id: check.service_type_id.clone() };
                    catalog.get_service_type(request).await.unwrap().into_inner().retired
                }
            };
            assert_eq!(read, retired, "{thing}");
            assert_eq!(suite.find(&search).await.slots.len(), if retired { 0 } else { 4 }, "{thing}");
            let answer = suite.booking().check_slot(check.clone()).await.unwrap().into_inner();
            let codes: Vec<_> = answer.blocks.iter().map(|b| (b.code(), b.overridable)).collect();
            let expected = if retired { vec![(BlockCode::Retired, false)] } else { vec![] };
            assert_eq!((answer.ok, codes), (!retired, expected), "{thing}");
        }
    }
}
