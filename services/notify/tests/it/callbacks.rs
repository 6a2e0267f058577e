//! What the provider tells of texts: in any order, twice, of strangers, forged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use notify::ports::Contact;
use proto::clinic::notify::v1::{
    FailureReason, Message, MessageDelivered, MessageFailed, MessageSent, MessageState,
};
use reqwest::StatusCode;
use serde_json::json;
use sha1::Sha1;

use crate::sending::{booked, due, everyone};
use crate::{Suite, Visit, World, reachable};

/// Milliseconds between two states of a text that is delivered in a test.
const SOON: u64 = 1;

impl Suite {
    /// Posts what the provider would, signed by the account's token.
    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> StatusCode {
        self.post_signed(path, form, &self.sms.sms_auth_token).await
    }

    async fn post_signed(&self, path: &str, form: &[(&str, &str)], token: &str) -> StatusCode {
        let url = format!("{}{path}", self.url);
        let mut sorted = form.to_vec();
        sorted.sort_unstable();
        let text = sorted.iter().fold(url.clone(), |text, (name, value)| text + name + value);
        let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("any key");
        mac.update(text.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let request = reqwest::Client::new().post(url).header("x-twilio-signature", signature).form(form);
        request.send().await.expect("an answer").status()
    }

    /// The visit's only message, once it is so far.
    async fn message_in(&self, visit: &Visit, state: MessageState) -> Message {
        testkit::until("the message's state", || async {
            self.messages(visit).await.into_iter().find(|message| message.state() == state)
        })
        .await
    }

    async fn tell_status(&self, reference: &str, status: &str, code: &str) -> StatusCode {
        let form =
            [("MessageSid", reference), ("MessageStatus", status), ("ErrorCode", code), ("To", crate::PHONE)];
        self.post("/webhooks/sms/status", &form).await
    }
}

#[tokio::test]
async fn a_text_is_delivered_in_whatever_order_that_is_told() {
    let suite = Suite::of(World { sms_step_ms: SOON, ..World::default() }).await;
    suite.fault(json!({ "route": "message.sent", "kind": "reorder_webhook" })).await;
    suite.fault(json!({ "route": "message.delivered", "kind": "duplicate_webhook" })).await;
    let visit = booked(&suite).await;
    due(&suite, &visit).await;
    let message = suite.message_in(&visit, MessageState::Delivered).await;
    assert!(message.deliver_time.is_some());
    let told: Vec<MessageDelivered> = testkit::collect(&suite.broker, "notify", 1).await;
    assert_eq!((told[0].message_id.as_str(), told[0].version), (message.id.as_str(), 2));
    assert_eq!(told[0].patient_id, visit.patient.to_string());
}

#[tokio::test]
async fn a_text_that_is_not_delivered_says_why() {
    for (phone, reason, code) in [
        ("+15005553003", FailureReason::Unreachable, "30003"),
        ("+15005553006", FailureReason::Landline, "30006"),
    ] {
        let contact = Contact { phone: Some(phone.to_owned()), ..reachable() };
        let suite =
            Suite::of(World { patients: everyone(contact), sms_step_ms: SOON, ..World::default() }).await;
        let visit = booked(&suite).await;
        due(&suite, &visit).await;
        let message = suite.message_in(&visit, MessageState::Undelivered).await;
        assert_eq!((message.failure_reason(), message.provider_error_code.as_str()), (reason, code));
        let told: Vec<MessageFailed> = testkit::collect(&suite.broker, "notify", 1).await;
        assert_eq!((told[0].message_id.as_str(), told[0].reason()), (message.id.as_str(), reason));
    }
}

#[tokio::test]
async fn a_status_that_is_quicker_than_the_answer_settles_what_became_of_a_text() {
    let suite = Suite::of(World { sms_step_ms: SOON, ..World::default() }).await;
    suite.fail_next_text("act_then_drop").await;
    let visit = booked(&suite).await;
    due(&suite, &visit).await;
    // Nobody looks it up: the minute after which that is done does not pass.
    let message = suite.message_in(&visit, MessageState::Delivered).await;
    let taken = suite.taken().await;
    assert_eq!((taken.len(), message.attempts), (1, 1));
    assert_eq!(taken[0]["sid"], message.provider_reference.as_str());
    let sent: Vec<MessageSent> = testkit::collect(&suite.broker, "notify", 1).await;
    assert_eq!((sent[0].message_id.as_str(), sent[0].version), (message.id.as_str(), 1));
}

#[tokio::test]
async fn states_never_go_back() {
    let suite = Suite::start().await;
    let (arrived, lost) = (booked(&suite).await, booked(&suite).await);
    due(&suite, &arrived).await;
    let arrived_message = suite.message_in(&arrived, MessageState::Sent).await;
    let lost_message = suite.message_in(&lost, MessageState::Sent).await;
    for status in ["delivered", "sent", "undelivered", "queued", "failed", "delivered"] {
        let told = suite.tell_status(&arrived_message.provider_reference, status, "30003").await;
        assert_eq!(told, StatusCode::NO_CONTENT);
    }
    for status in ["undelivered", "delivered", "failed", "sending"] {
        let told = suite.tell_status(&lost_message.provider_reference, status, "30007").await;
        assert_eq!(told, StatusCode::NO_CONTENT);
    }
    let arrived = suite.message_in(&arrived, MessageState::Delivered).await;
    assert_eq!(
        (arrived.failure_reason(), arrived.provider_error_code.as_str()),
        (FailureReason::Unspecified, "")
    );
    let lost = suite.message_in(&lost, MessageState::Undelivered).await;
    assert_eq!((lost.failure_reason(), lost.deliver_time), (FailureReason::Blocked, None));
}

#[tokio::test]
async fn what_is_forged_unknown_or_senseless_is_refused_and_changes_nothing() {
    let suite = Suite::start().await;
    let visit = booked(&suite).await;
    due(&suite, &visit).await;
    let message = suite.message_in(&visit, MessageState::Sent).await;
    let reference = message.provider_reference.as_str();
    let good = [("MessageSid", reference), ("MessageStatus", "delivered")];
    let path = "/webhooks/sms/status";
    assert_eq!(suite.post_signed(path, &good, "another").await, StatusCode::FORBIDDEN);
    let unsigned = reqwest::Client::new().post(format!("{}{path}", suite.url));
    assert_eq!(unsigned.form(&good).send().await.expect("an answer").status(), StatusCode::FORBIDDEN);
    for (form, expected) in [
        (
            vec![("MessageSid", "SM00000000000000000000000000000000"), ("MessageStatus", "sent")],
            StatusCode::NOT_FOUND,
        ),
        (vec![("MessageSid", "../../x"), ("MessageStatus", "sent")], StatusCode::BAD_REQUEST),
        (vec![("MessageSid", reference), ("MessageStatus", "teleported")], StatusCode::BAD_REQUEST),
        (vec![("MessageSid", reference)], StatusCode::BAD_REQUEST),
        (vec![], StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(suite.post(path, &form).await, expected, "{form:?}");
    }
    // The server stops reading at its limit: a client that is still writing then may see the end before the answer.
    let huge = reqwest::Client::new().post(format!("{}{path}", suite.url)).body(vec![b'x'; 10 * 1024 * 1024]);
    let refused = huge.send().await.map(|answer| answer.status());
    assert!(refused.as_ref().map_or(true, |status| *status == StatusCode::PAYLOAD_TOO_LARGE), "{refused:?}");
    assert_eq!(suite.messages(&visit).await, [message]);
}
