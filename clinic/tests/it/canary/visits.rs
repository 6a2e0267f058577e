//! A canary's visits: booked, moved, paid, asked about, reminded of, attended, called off.

use chrono::{DateTime, TimeDelta, Utc};
use kit::fields::timestamp;
use proto::clinic::appointments::v1 as visits;
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as money;
use proto::clinic::notify::v1 as texts;
use proto::clinic::patients::v1::{self as pb, get_intake_request::Key};
use proto::clinic::scheduling::v1::{CreateServiceTypeRequest, ServiceType};
use testkit::network::{Network, ZONE};
use testkit::until;

use super::needles::{ANSWER, ANSWER_KEY, DRAFTED};
use super::outputs::Output;
use super::story::{REASON, Story, id};
use crate::process::http;

/// Asks for an allergy, and for nothing else.
const FORM: &str = r#"{"type": "object", "required": ["allergy"], "additionalProperties": false,
    "properties": {"allergy": {"type": "string", "minLength": 3}, "smokes": {"enum": ["yes", "no"]}}}"#;

impl Story<'_> {
    /// A visit with a form and a co-pay that is moved and attended, and one that is held, let go, booked and called off.
    pub(super) async fn visits(&mut self, network: &Network, patient: &str) {
        let admin = self.caller(Role::Admin, "officer");
        let form = pb::Form {
            name: "Before your visit".into(),
            schema_json: FORM.into(),
            language: "en".into(),
            ..pb::Form::default()
        };
        let publish = pb::PublishFormRequest { form: Some(form), ..pb::PublishFormRequest::default() };
        let form =
            self.told("IntakeService/PublishForm", &admin, admin.desk.intakes().publish_form(publish)).await;
        let form = form.expect("published");
        let asking = ServiceType {
            name: "First visit".into(),
            duration_minutes: 30,
            intake_form_id: form.id.clone(),
            ..ServiceType::default()
        };
        let request = CreateServiceTypeRequest { service_type: Some(asking), ..Default::default() };
        let asking = admin.desk.catalog().create_service_type(request).await.expect("made").into_inner().id;

        let own = self.caller(Role::Patient, patient);
        let card = money::SavePaymentMethodRequest {
            request_id: id(),
            patient_id: patient.to_owned(),
            provider_token: "pm_card_visa".into(),
            make_default: true,
        };
        let card = self
            .told("BillingService/SavePaymentMethod", &own, own.desk.billing().save_payment_method(card))
            .await;
        card.expect("saved");

        // Afternoon at the clinic, so that quiet hours move no text.
        let day = self.now().with_timezone(&ZONE).date_naive() + TimeDelta::days(3);
        let start = day.and_hms_opt(20, 0, 0).expect("a time").and_utc();
        let booking = network.booking(patient, &asking, start + TimeDelta::hours(1));
        let booked = self
            .told("BookingService/BookAppointment", &own, own.desk.booking().book_appointment(booking))
            .await;
        let booked = booked.expect("booked");
        let moving = visits::RescheduleAppointmentRequest {
            request_id: id(),
            appointment_id: booked.id.clone(),
            etag: booked.etag,
            start_time: Some(timestamp(start)),
            ..visits::RescheduleAppointmentRequest::default()
        };
        let mut client = own.desk.booking();
        let moved = self
            .told("BookingService/RescheduleAppointment", &own, client.reschedule_appointment(moving))
            .await;
        moved.expect("moved");
        let paid = network.booking(patient, &network.paid_visit, start + TimeDelta::days(8));
        let paid = self
            .told("BookingService/BookAppointment", &own, own.desk.booking().book_appointment(paid))
            .await;
        let paid = paid.expect("booked");

        self.intake(&booked.id, &form.id, patient).await;
        self.texted(patient, &booked.id, start).await;
        self.ended(&booked.id, &paid.id, patient, start).await;
    }

    /// The form: asked, drafted, drafted wrong, submitted.
    async fn intake(&mut self, appointment: &str, form: &str, patient: &str) {
        let own = self.caller(Role::Patient, patient);
        let mut client = own.desk.intakes();
        let request = |view: pb::IntakeView, key| pb::GetIntakeRequest {
            key: Some(key),
            view: view.into(),
            ..Default::default()
        };
        let by_visit = request(pb::IntakeView::Basic, Key::AppointmentId(appointment.to_owned()));
        let opened = until("the intake", async || {
            Some(own.desk.intakes().get_intake(by_visit.clone()).await.ok()?.into_inner())
        })
        .await;
        let of = pb::GetFormRequest { form_id: form.to_owned(), version: 0 };
        self.told("IntakeService/GetForm", &own, client.get_form(of)).await.expect("shown");
        let desk = self.caller(Role::FrontDesk, "ana");
        let mut at_desk = desk.desk.intakes();
        let list = pb::ListFormsRequest::default();
        self.told("IntakeService/ListForms", &desk, at_desk.list_forms(list)).await.expect("listed");

        let draft = |answers_json: String, etag: &str| pb::SaveIntakeDraftRequest {
            request_id: id(),
            intake_id: opened.id.clone(),
            answers_json,
            etag: etag.to_owned(),
        };
        let wrong = format!(r#"{{"{ANSWER_KEY}": 3, "smokes": "{DRAFTED}", "allergy": ["{DRAFTED}"]}}"#);
        let saved = draft(wrong, &opened.etag);
        let saved =
            self.told("IntakeService/SaveIntakeDraft", &own, client.save_intake_draft(saved.clone())).await;
        let mut etag = saved.expect("a draft may be wrong").etag;
        for broken in
            [format!(r#"{{"allergy": "{ANSWER}"#), format!("{ANSWER} {{}}"), format!(r#"["{ANSWER}"]"#)]
        {
            let _ = self
                .told("IntakeService/SaveIntakeDraft", &own, client.save_intake_draft(draft(broken, &etag)))
                .await;
        }
        let submit = |answers_json: String, etag: &str| pb::SubmitIntakeRequest {
            request_id: id(),
            intake_id: opened.id.clone(),
            answers_json,
            etag: etag.to_owned(),
        };
        let early = client.submit_intake(submit(String::new(), &etag)).await;
        self.outputs
            .push(Output::of_error("error of IntakeService/SubmitIntake", &early.expect_err("incomplete")));
        let good = format!(r#"{{"allergy": "{ANSWER}", "smokes": "no"}}"#);
        let wrong = format!(r#"{{"allergy": 7, "smokes": "{ANSWER}", "{ANSWER_KEY}": "{ANSWER}"}}"#);
        let _ =
            self.told("IntakeService/SubmitIntake", &own, client.submit_intake(submit(wrong, &etag))).await;
        let saved = self
            .told("IntakeService/SaveIntakeDraft", &desk, at_desk.save_intake_draft(draft(good, &etag)))
            .await;
        etag = saved.expect("saved").etag;
        let done = self
            .told("IntakeService/SubmitIntake", &own, client.submit_intake(submit(String::new(), &etag)))
            .await;
        done.expect("submitted");
        for role in [Role::Patient, Role::FrontDesk, Role::Provider, Role::Admin, Role::Service] {
            let caller = self.caller(role, if role == Role::Patient { patient } else { "someone" });
            for view in [pb::IntakeView::Basic, pb::IntakeView::Full] {
                let mut request = request(view, Key::IntakeId(opened.id.clone()));
                request.break_glass_reason = REASON.into();
                let mut client = caller.desk.intakes();
                let _ = self.told("IntakeService/GetIntake", &caller, client.get_intake(request)).await;
            }
        }
    }

    /// A reminder whose first try has an unknown end, and whose provider cannot be asked at first.
    async fn texted(&mut self, patient: &str, appointment: &str, start: DateTime<Utc>) {
        let sandbox = self.up.url("sandbox");
        for fault in [
            r#"{"route": "messages.create", "kind": "act_then_drop"}"#,
            r#"{"route": "messages.list", "kind": "error_500"}"#,
            // Else the provider tells by itself what became of it, and is never asked.
            r#"{"route": "message.*", "kind": "drop_webhook", "times": 9}"#,
        ] {
            let (status, answer) = http("POST", &format!("{sandbox}/sandbox/faults"), fault).await;
            assert_eq!(status, 200, "{answer}");
        }
        // The first try is due, then the look at what became of it, then the next look, each after a minute's wait at most.
        self.advance_to(start - TimeDelta::hours(23)).await;
        for left in [1, 0] {
            until("a fault's strike", async || {
                let (_, faults) = http("GET", &format!("{sandbox}/sandbox/faults"), "").await;
                let faults: Vec<serde_json::Value> = serde_json::from_str(&faults).ok()?;
                let calls = faults.iter().filter(|fault| fault["route"] != "message.*");
                (calls.count() == left).then_some(())
            })
            .await;
            self.advance_to(self.now() + TimeDelta::seconds(61)).await;
        }
        let desk = self.caller(Role::FrontDesk, "ana");
        let reminders =
            texts::ListRemindersRequest { appointment_id: appointment.to_owned(), ..Default::default() };
        until("the text", async || {
            let all = desk.desk.notify().list_reminders(reminders.clone()).await.ok()?.into_inner().reminders;
            all.iter().any(|r| r.state() == texts::ReminderState::Sent).then_some(())
        })
        .await;
        let mut client = desk.desk.notify();
        let listed = self.told("NotifyService/ListReminders", &desk, client.list_reminders(reminders)).await;
        listed.expect("listed");
        let messages = texts::ListMessagesRequest {
            patient_id: patient.to_owned(),
            show_body: true,
            ..texts::ListMessagesRequest::default()
        };
        let listed = self.told("NotifyService/ListMessages", &desk, client.list_messages(messages)).await;
        let message_id = listed.expect("listed").messages.first().expect("a text").id.clone();
        let request = texts::GetMessageRequest { message_id };
        self.told("NotifyService/GetMessage", &desk, client.get_message(request)).await.expect("shown");
    }

    /// One visit attended, one called off; what billing says of both.
    async fn ended(&mut self, attended: &str, cancelled: &str, patient: &str, start: DateTime<Utc>) {
        self.advance_to(start - TimeDelta::minutes(10)).await;
        let desk = self.caller(Role::FrontDesk, "ana");
        let check_in = visits::CheckInRequest { appointment_id: attended.to_owned(), ..Default::default() };
        until("check-in", async || desk.desk.booking().check_in(check_in.clone()).await.ok()).await;
        let mut client = desk.desk.booking();
        let complete = visits::CompleteVisitRequest {
            appointment_id: attended.to_owned(),
            outcome: visits::VisitOutcome::Attended.into(),
            ..visits::CompleteVisitRequest::default()
        };
        let ended = self.told("BookingService/CompleteVisit", &desk, client.complete_visit(complete)).await;
        ended.expect("ended");
        let cancel =
            visits::CancelAppointmentRequest { appointment_id: cancelled.to_owned(), ..Default::default() };
        let gone =
            self.told("BookingService/CancelAppointment", &desk, client.cancel_appointment(cancel)).await;
        gone.expect("called off");
        let list = visits::ListAppointmentsRequest { patient_id: patient.to_owned(), ..Default::default() };
        let listed =
            self.told("BookingService/ListAppointments", &desk, client.list_appointments(list)).await;
        listed.expect("listed");
        let mut billing = desk.desk.billing();
        let charges = money::ListChargesRequest { patient_id: patient.to_owned(), ..Default::default() };
        until("the voided co-pay", async || {
            let all = desk.desk.billing().list_charges(charges.clone()).await.ok()?.into_inner().charges;
            all.iter().any(|c| c.state() == money::ChargeState::Voided).then_some(())
        })
        .await;
        self.told("BillingService/ListCharges", &desk, billing.list_charges(charges)).await.expect("listed");
        let account =
            money::GetPatientAccountRequest { patient_id: patient.to_owned(), ..Default::default() };
        let shown =
            self.told("BillingService/GetPatientAccount", &desk, billing.get_patient_account(account)).await;
        shown.expect("shown");
    }
}
