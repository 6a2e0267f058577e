//! What the real providers do not have: the page that says what this is, faults, the simulated clock, cardholders and banks
//! to be played, and plain views of both stores for tests and people. No key is asked for; bind the server to the loopback address.

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
        api::{Call, transact},
        disputes::{self, REASONS},
        error::ApiError,
        objects::{Charge, Dispute, DisputeStatus, EventRequest, IntentStatus, PaymentIntent, SetupIntent},
    },
    sms::{inbound, message::Message},
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
        .route("/sandbox/disputes", post(open_dispute))
        .route("/sandbox/disputes/close", post(close_dispute))
        .route("/sandbox/messages", get(messages).post(write_text))
        .route("/sandbox/payment_intents", get(payment_intents))
}

async fn about(Extract(state): Extract<State>) -> Json<Value> {
    Json(json!({
        "what": "Sandbox payment provider (Stripe's wire protocol under /v1) and SMS provider (Twilio's under \
                 /2010-04-01). No money moves and no text leaves this machine.",
        "sms_account": state.settings().sms_account,
        "webhooks_to": state.settings().webhook_url,
        "look": ["/sandbox/inbox", "/sandbox/payment_intents?metadata[appointment_id]=…", "/sandbox/messages?to=+1…"],
        "script": ["POST /sandbox/faults {route, kind, ms, secs, times, percent}", "DELETE /sandbox/faults",
                   "POST /sandbox/clock {advance_secs}", "POST /sandbox/authenticate {id, succeeds}",
                   "POST /sandbox/messages {from, to, body}", "POST /sandbox/disputes {id, amount, reason}", "POST /sandbox/disputes/close {id, won}"],
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

/// Runs `work` as nobody's request. `None` from it means that there is no such thing to do: `missing` says so.
fn play(
    state: &State,
    missing: &str,
    work: impl FnOnce(&mut Call<'_>) -> Option<Result<Value, ApiError>>,
) -> Response {
    let origin = EventRequest { id: None, idempotency_key: None };
    match transact(state, &Form::default(), "", origin, work) {
        Ok(Some(Ok(object))) => Json(object).into_response(),
        Ok(Some(Err(error))) => (StatusCode::CONFLICT, Json(error.body())).into_response(),
        Ok(None) => refuse(StatusCode::CONFLICT, missing),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "The journal could not be written."),
    }
}

/// Plays the cardholder who is asked for authentication.
async fn authenticate(Extract(state): Extract<State>, Json(wish): Json<Authentication>) -> Response {
    play(&state, "No intent of that id asks for action.", |call| {
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
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disputing {
    /// A payment intent.
    id: String,
    /// All that was not refunded when absent.
    amount: Option<i64>,
    /// One of the provider's words, `fraudulent` when absent.
    reason: Option<String>,
}

/// Plays the cardholder who asks the bank for the money back.
async fn open_dispute(Extract(state): Extract<State>, Json(wish): Json<Disputing>) -> Response {
    let reason = wish.reason.as_deref().unwrap_or(REASONS[0]);
    if !REASONS.contains(&reason) {
        return refuse(StatusCode::BAD_REQUEST, &format!("A reason is one of {}.", REASONS.join(", ")));
    }
    play(&state, "There is no payment intent of that id.", |call| {
        let intent = call.store.get::<PaymentIntent>(&wish.id).cloned()?;
        Some(disputes::open(call, &intent, wish.amount, reason).and_then(|dispute| call.answer(&dispute)))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Closing {
    /// A dispute that is open.
    id: String,
    /// Whether the merchant keeps the money.
    won: bool,
}

/// Plays the bank that decides a dispute.
async fn close_dispute(Extract(state): Extract<State>, Json(wish): Json<Closing>) -> Response {
    play(&state, "No dispute of that id is open.", |call| {
        let dispute = call.store.get::<Dispute>(&wish.id).cloned()?;
        let open = dispute.status == DisputeStatus::NeedsResponse;
        open.then(|| disputes::close(call, dispute, wish.won)).map(|dispute| call.answer(&dispute))
    })
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    /// The phone that writes.
    from: String,
    /// To whom; the number that texted the phone last when absent.
    to: Option<String>,
    body: String,
}

/// Plays the person at a phone.
async fn write_text(Extract(state): Extract<State>, Json(wish): Json<Text>) -> Response {
    match inbound::receive(&state, &wish.from, wish.to.as_deref(), &wish.body) {
        Ok(message) => Json(message.answer(&state.settings().sms_account)).into_response(),
        Err((status, sentence)) => refuse(status, sentence),
    }
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
