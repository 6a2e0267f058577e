//! Consent to texts: history, order, and its end with the phone number.

use chrono::TimeDelta;
use kit::fields::timestamp;
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{
    Patient, PatientView, SetSmsConsentRequest, SmsConsentChanged, SmsConsentSource, SmsConsentState,
    UpdatePatientRequest,
};
use tonic::Code;

use crate::{Suite, bad_fields, get, nobody, refused, someone};

fn decision(patient: &Patient, state: SmsConsentState, source: SmsConsentSource) -> SetSmsConsentRequest {
    SetSmsConsentRequest {
        patient_id: patient.id.clone(),
        state: state.into(),
        source: source.into(),
        wording: "Text me about my visits".to_owned(),
        wording_language: "en".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn decisions_follow_each_other_and_a_late_one_changes_nothing() {
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    let granted = decision(&patient, SmsConsentState::Granted, SmsConsentSource::Portal);
    let first = suite.patient(&patient.id).set_sms_consent(granted).await.expect("granted").into_inner();
    assert_eq!((first.state(), first.effective), (SmsConsentState::Granted, true));

    let mut stop = decision(&patient, SmsConsentState::Revoked, SmsConsentSource::InboundSms);
    stop.wording = "STOP".to_owned();
    let mut notify = suite.call_as(Role::Service, "notify");
    let second = notify.set_sms_consent(stop).await.expect("revoked").into_inner();
    assert_eq!((second.state(), second.recorded_by.as_str()), (SmsConsentState::Revoked, "notify"));

    let mut late = decision(&patient, SmsConsentState::Granted, SmsConsentSource::PaperForm);
    late.decide_time = Some(timestamp(suite.servers.clock.now() - TimeDelta::days(1)));
    let third = suite.desk().set_sms_consent(late).await.expect("recorded").into_inner();
    assert_eq!(third, second);

    let mut history = get(&patient.id);
    history.view = PatientView::History.into();
    let shown = suite.desk().get_patient(history).await.expect("shown").into_inner();
    let told: Vec<_> = shown.sms_consent_history.iter().map(|c| (c.source(), c.effective)).collect();
    let expected = [
        (SmsConsentSource::PaperForm, false),
        (SmsConsentSource::InboundSms, true),
        (SmsConsentSource::Portal, true),
    ];
    assert_eq!(told, expected);

    let events: Vec<SmsConsentChanged> = testkit::collect(&suite.servers.broker().await, "patients", 2).await;
    let versions: Vec<_> = events.iter().map(|e| (e.version, e.state())).collect();
    assert_eq!(versions, [(2, SmsConsentState::Granted), (3, SmsConsentState::Revoked)]);
}

#[tokio::test]
async fn a_new_number_ends_the_consent_given_for_the_old_one() {
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    let granted = decision(&patient, SmsConsentState::Granted, SmsConsentSource::FrontDesk);
    suite.desk().set_sms_consent(granted).await.expect("granted");
    let moved = Patient {
        id: patient.id.clone(),
        etag: "2".to_owned(),
        phone: "202-555-0177".to_owned(),
        ..Default::default()
    };
    let request = UpdatePatientRequest { patient: Some(moved), ..Default::default() };
    let changed = suite.desk().update_patient(request).await.expect("moved").into_inner();
    assert_eq!(changed.sms_consent.map(|c| c.state()), Some(SmsConsentState::NotAsked));
    let events: Vec<SmsConsentChanged> = testkit::collect(&suite.servers.broker().await, "patients", 2).await;
    assert_eq!((events[1].version, events[1].state()), (4, SmsConsentState::NotAsked));
}

#[tokio::test]
async fn who_may_say_what_is_checked() {
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "")).await;
    let granted = decision(&patient, SmsConsentState::Granted, SmsConsentSource::Portal);
    let mut own = suite.patient(&patient.id);
    refused(own.set_sms_consent(granted.clone()).await, Code::FailedPrecondition, "NO_PHONE");
    refused(suite.patient(&nobody()).set_sms_consent(granted).await, Code::NotFound, "PATIENT_NOT_FOUND");

    let tomorrow = timestamp(suite.servers.clock.now() + TimeDelta::days(1));
    let bad = SetSmsConsentRequest {
        patient_id: patient.id.clone(),
        state: SmsConsentState::NotAsked.into(),
        source: SmsConsentSource::InboundSms.into(),
        wording_language: "?".to_owned(),
        decide_time: Some(tomorrow),
        ..Default::default()
    };
    let status = refused(own.set_sms_consent(bad).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(bad_fields(&status), ["state", "source", "wording", "wording_language", "decide_time"]);
}

#[tokio::test]
async fn racing_decisions_have_one_order_and_none_is_lost() {
    const DECISIONS: usize = 12;
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "202-555-0123")).await;
    let calls = (0..DECISIONS).map(|n| {
        let (mut notify, mut own) = (suite.call_as(Role::Service, "notify"), suite.patient(&patient.id));
        let mut stop = decision(&patient, SmsConsentState::Revoked, SmsConsentSource::InboundSms);
        stop.wording = "STOP".to_owned();
        let start = decision(&patient, SmsConsentState::Granted, SmsConsentSource::Portal);
        tokio::spawn(async move {
            let told = if n % 2 == 0 {
                notify.set_sms_consent(stop).await
            } else {
                own.set_sms_consent(start).await
            };
            told.expect("recorded")
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("no panic");
    }
    let mut request = get(&patient.id);
    request.view = PatientView::History.into();
    let shown = suite.desk().get_patient(request).await.expect("shown").into_inner();
    assert_eq!(shown.sms_consent_history.len(), DECISIONS);
    let effective: Vec<_> = shown.sms_consent_history.iter().filter(|c| c.effective).collect();
    assert_eq!(shown.sms_consent.as_ref(), effective.first().copied());
    let events: Vec<SmsConsentChanged> =
        testkit::collect(&suite.servers.broker().await, "patients", effective.len()).await;
    let told: Vec<_> = events.iter().rev().map(|e| e.state()).collect();
    assert_eq!(told, effective.iter().map(|c| c.state()).collect::<Vec<_>>());
    let versions: Vec<_> = events.iter().map(|e| e.version).collect();
    assert_eq!(versions, (2..2 + effective.len() as i64).collect::<Vec<_>>());
}
