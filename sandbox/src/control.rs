//! What the real providers do not have: the page that says what this is, faults, the simulated clock, and plain views
//! of both stores for tests and people. No key is asked for; bind the server to the loopback address.

use axum::{
    Json, Router,
    extract::{RawQuery, State as Extract},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::SecondsFormat;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    State,
    faults::Fault,
    form::Form,
    payments::{
        self,
        api::transact,
        objects::{Charge, EventRequest, IntentStatus, PaymentIntent, SetupIntent},
    },
    sms::message::Message,
    store::Kind,
};

/// Furthest the clock moves in one call: a year.
const FURTHEST_SECS: i64 = 366 * 24 * 60 * 60;

pub(crate) fn router() -> Router<State> {
    Router::new()
        .route("/", get(about))
        .route("/healthz", get(|| async { "ok" }))
        .route("/sandbox/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .route("/sandbox/clock", get(show_clock).post(advance_clock))
        .route("/sandbox/authenticate", post(authenticate))
        .route("/sandbox/messages", get(messages))
        .route("/sandbox/payment_intents", get(payment_intents))
}

async fn about(Extract(state): Extract<State>) -> Json<Value> {
    Json(json!({
        "what": "Sandbox payment provider (Stripe's wire protocol under /v1) and SMS provider (Twilio's under \
                 /2010-04-01). No money moves and no text leaves this machine.",
        "sms_account": state.settings().sms_account,
        "webhooks_to": state.settings().webhook_url,
        "look": ["/sandbox/payment_intents?metadata[appointment_id]=…", "/sandbox/messages?to=+1…"],
        "script": ["POST /sandbox/faults {route, kind, ms, times}", "DELETE /sandbox/faults",
                   "POST /sandbox/clock {advance_secs}", "POST /sandbox/authenticate {id, succeeds}"],
    }))
}

fn refuse(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({ "error": sentence }))).into_response()
}

async fn list_faults(Extract(state): Extract<State>) -> Json<Vec<Fault>> {
    Json(state.faults().list())
}

async fn add_fault(Extract(state): Extract<State>, Json(fault): Json<Fault>) -> Response {
    match state.faults().add(fault) {
        Ok(()) => Json(state.faults().list()).into_response(),
        Err(sentence) => refuse(StatusCode::BAD_REQUEST, &sentence),
    }
}

async fn clear_faults(Extract(state): Extract<State>) -> StatusCode {
    state.faults().clear();
    StatusCode::NO_CONTENT
}

async fn show_clock(Extract(state): Extract<State>) -> Json<Value> {
    Json(json!({ "now": state.now().to_rfc3339_opts(SecondsFormat::Millis, true) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advancing {
    advance_secs: i64,
}

async fn advance_clock(Extract(state): Extract<State>, Json(wish): Json<Advancing>) -> Response {
    let Some(advance) = state.config().advance.clone() else {
        return refuse(StatusCode::CONFLICT, "The suite runs on the real clock, which cannot be advanced.");
    };
    if !(1..=FURTHEST_SECS).contains(&wish.advance_secs) {
        let sentence = format!("The clock moves forward by 1 to {FURTHEST_SECS} seconds at a time.");
        return refuse(StatusCode::BAD_REQUEST, &sentence);
    }
    match advance(wish.advance_secs).await {
        Ok(now) => {
            payments::api::sweep(&state);
            Json(json!({ "now": now.to_rfc3339_opts(SecondsFormat::Millis, true) })).into_response()
        }
        Err(sentence) => refuse(StatusCode::CONFLICT, &sentence),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authentication {
    /// A payment intent or setup intent that asks for action.
    id: String,
    succeeds: bool,
}

/// Plays the cardholder who is asked for authentication.
async fn authenticate(Extract(state): Extract<State>, Json(wish): Json<Authentication>) -> Response {
    let origin = EventRequest { id: None, idempotency_key: None };
    let outcome = transact(&state, &Form::default(), &wish.id, origin, |call| {
        let payment = call.store.get::<PaymentIntent>(&wish.id).cloned();
        let setup = call.store.get::<SetupIntent>(&wish.id).cloned();
        match (payment, setup) {
            (Some(intent), _) if intent.status == IntentStatus::RequiresAction => {
                let settled = payments::intents::authenticate(call, intent, wish.succeeds);
                Some(settled.and_then(|intent| call.answer(&intent)))
            }
            (_, Some(intent)) if intent.status == IntentStatus::RequiresAction => {
                let settled = payments::setup_intents::authenticate(call, intent, wish.succeeds);
                Some(settled.and_then(|intent| call.answer(&intent)))
            }
            _ => None,
        }
    });
    match outcome {
        Ok(Some(Ok(intent))) => Json(intent).into_response(),
        Ok(Some(Err(error))) => (StatusCode::CONFLICT, Json(error.body())).into_response(),
        Ok(None) => refuse(StatusCode::CONFLICT, "No intent of that id asks for action."),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "The journal could not be written."),
    }
}

/// Messages to `to`, or all, newest first.
async fn messages(Extract(state): Extract<State>, RawQuery(query): RawQuery) -> Json<Vec<Value>> {
    let form = Form::parse(query.unwrap_or_default().as_bytes());
    // A plus sign typed into an address bar arrives as a space.
    let to = form.get("to").map(|to| to.replacen(' ', "+", 1));
    let store = state.store();
    let chosen =
        store.all::<Message>().rev().filter(|message| to.as_ref().is_none_or(|to| *to == message.to));
    Json(chosen.map(|message| message.answer(&state.settings().sms_account)).collect())
}

/// Payment intents whose metadata has all the asked pairs, newest first, with their latest charge in them.
async fn payment_intents(Extract(state): Extract<State>, RawQuery(query): RawQuery) -> Json<Vec<Value>> {
    let asked = Form::parse(query.unwrap_or_default().as_bytes()).map("metadata");
    payments::api::sweep(&state);
    let store = state.store();
    let chosen = store
        .all::<PaymentIntent>()
        .rev()
        .filter(|intent| asked.iter().all(|(key, value)| intent.metadata.get(key) == Some(value)));
    let view = |intent: &PaymentIntent| {
        let charge = intent.latest_charge.as_deref().and_then(|id| store.get::<Charge>(id));
        let mut shown = serde_json::to_value(intent.clone().wrap()).ok()?;
        shown["latest_charge"] = serde_json::to_value(charge.cloned().map(Kind::wrap)).ok()?;
        Some(shown)
    };
    Json(chosen.filter_map(view).collect())
}
