//! The provider as tests meet it past billing: its lists, its faults by script, its webhooks, and the cardholders and banks behind it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use proto::clinic::billing::v1 as pb;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::world::World;

impl World {
    /// The provider's payments for an appointment, newest first, as its own store has them.
    pub(crate) async fn payments(&self, request: &pb::AuthorizeCopayRequest) -> Vec<Value> {
        let url = format!("{}/sandbox/payment_intents", self.provider);
        let named = [("metadata[appointment_id]", &request.appointment_id)];
        self.http.get(url).query(&named).send().await.unwrap().json().await.unwrap()
    }

    /// How the provider's payments for an appointment stand, newest first.
    pub(crate) async fn standings(&self, request: &pb::AuthorizeCopayRequest) -> Vec<String> {
        let payments = self.payments(request).await;
        payments.iter().map(|payment| payment["status"].as_str().unwrap().to_owned()).collect()
    }

    /// What the provider lists under `path`, newest first.
    pub(crate) async fn provider_lists(&self, path: &str) -> Vec<Value> {
        let key = sandbox::Settings::default().payments_key;
        let request =
            self.http.get(format!("{}/v1/{path}", self.provider)).query(&[("limit", "100")]).bearer_auth(key);
        let mut list: Value = request.send().await.unwrap().json().await.unwrap();
        serde_json::from_value(list["data"].take()).unwrap()
    }

    /// All that the provider lists under `path`, newest first, page by page.
    pub(crate) async fn all_provider_lists(&self, path: &str) -> Vec<Value> {
        let mut all = vec![];
        let mut next = path.to_owned();
        loop {
            let page = self.provider_lists(&next).await;
            let Some(last) = page.last() else { return all };
            next = format!("{path}?starting_after={}", last["id"].as_str().unwrap());
            all.extend(page);
        }
    }

    /// Scripts trouble at the provider.
    pub(crate) async fn trouble(&self, route: &str, kind: &str, ms: u64, times: u32) {
        self.script(&json!({ "route": route, "kind": kind, "ms": ms, "times": times })).await;
    }

    /// Scripts a fault at the provider, in its own words.
    pub(crate) async fn script(&self, fault: &Value) {
        let answer =
            self.http.post(format!("{}/sandbox/faults", self.provider)).json(fault).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    pub(crate) async fn end_trouble(&self) {
        self.http.delete(format!("{}/sandbox/faults", self.provider)).send().await.unwrap();
    }

    /// What the provider puts into its header when it sends `body` at that second.
    pub(crate) fn sign(&self, at: i64, body: &str) -> String {
        let secret = sandbox::Settings::default().webhook_secret;
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{at}.{body}").as_bytes());
        format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
    }

    /// Delivers an event of the provider, signed as the provider would; answers how it was taken.
    pub(crate) async fn deliver(&self, event: &Value) -> reqwest::StatusCode {
        let body = event.to_string();
        let signature = self.sign(self.today().timestamp(), &body);
        let request = self.http.post(format!("{}/webhooks/payments", self.url));
        request.header("stripe-signature", signature).body(body).send().await.unwrap().status()
    }

    /// Plays the patient who pays an open payment with another card, past this service.
    pub(crate) async fn pay_in_browser(&self, intent: &str, card: &str) {
        let url = format!("{}/v1/payment_intents/{intent}/confirm", self.provider);
        let request = self.http.post(url).bearer_auth(sandbox::Settings::default().payments_key);
        let answer = request.form(&[("payment_method", card)]).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Calls the provider's API past this service.
    pub(crate) async fn at_provider(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let url = format!("{}/v1/{path}", self.provider);
        let request = self.http.post(url).bearer_auth(sandbox::Settings::default().payments_key);
        let answer = request.form(form).send().await.unwrap();
        let (good, body) = (answer.status().is_success(), answer.json().await.unwrap());
        assert!(good, "{body}");
        body
    }

    /// Plays the cardholder who asks the bank for the money of a payment back.
    pub(crate) async fn dispute(&self, payment: &str) {
        let url = format!("{}/sandbox/disputes", self.provider);
        let answer = self.http.post(url).json(&json!({ "id": payment })).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Plays the bank that decides a dispute.
    pub(crate) async fn decide(&self, dispute: &str, won: bool) {
        let url = format!("{}/sandbox/disputes/close", self.provider);
        let answer = self.http.post(url).json(&json!({ "id": dispute, "won": won })).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Plays the cardholder whom the bank asks.
    pub(crate) async fn confirm(&self, intent: &str, succeeds: bool) {
        let wish = json!({ "id": intent, "succeeds": succeeds });
        let url = format!("{}/sandbox/authenticate", self.provider);
        let answer = self.http.post(url).json(&wish).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }
}
