//! The SMS provider: Twilio's wire protocol over the store.
//!
//! `message` is one text, `inbound` texts from phones, `inbox` the page on which a person reads and writes them.
//!
//! Messages move queued, sent, delivered on their own; each step is posted, signed, to the message's callback. Which
//! numbers fail, and how, stands in `message`.

pub(crate) mod inbound;
mod inbox;
pub(crate) mod message;

use std::time::Duration;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, RawQuery, State as Extract},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};

use crate::{
    State,
    faults::{self, Broken},
    form::Form,
    outbound,
    store::Kind,
};
use message::{Draft, Message};

const API_VERSION: &str = "2010-04-01";
/// Hexadecimal digits of a message's id after `SM`.
const SID_DIGITS: usize = 32;
/// To a phone that said STOP.
const OPTED_OUT: (u32, &str) = (21610, "Attempt to send to unsubscribed recipient.");
/// Messages a page holds when `PageSize` is absent, and at most.
const PAGE: (usize, usize) = (50, 1000);

/// Every path of the SMS API.
pub(crate) fn router() -> Router<State> {
    Router::new()
        .route("/2010-04-01/Accounts/{account}/Messages.json", get(list).post(create))
        .route("/2010-04-01/Accounts/{account}/Messages/{file}", get(retrieve))
        .merge(inbox::router())
}

async fn create(
    Extract(state): Extract<State>,
    Path(account): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let at = state.clone();
    let act = move || {
        let form = Form::parse(&body);
        let draft = Draft {
            to: form.get("To"),
            from: form.get("From"),
            service: form.get("MessagingServiceSid"),
            body: form.get("Body"),
            callback: form.get("StatusCallback"),
            validity: form.get("ValidityPeriod"),
        };
        let mut store = at.store();
        if draft.to.is_some_and(|to| store.has_opted_out(to)) {
            return refuse(StatusCode::BAD_REQUEST, OPTED_OUT.0, OPTED_OUT.1);
        }
        let id = store.new_id(Message::PREFIX, SID_DIGITS);
        let message = match Message::new(&draft, id, at.now()) {
            Ok(message) => message,
            Err((code, sentence)) => return refuse(StatusCode::BAD_REQUEST, code, sentence),
        };
        store.put(&message);
        if let Err(error) = store.commit() {
            tracing::error!(%error, "The journal could not be written.");
            return broken();
        }
        drop(store);
        drop(at.spawn(drive(at.clone(), message.id.clone())));
        (StatusCode::CREATED, Json(message.answer(&at.settings().sms_account))).into_response()
    };
    call(state, "messages.create", account, headers, act).await
}

async fn retrieve(
    Extract(state): Extract<State>,
    Path((account, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let at = state.clone();
    let act = move || {
        let store = at.store();
        match file.strip_suffix(".json").and_then(|id| store.get::<Message>(id)) {
            Some(message) => Json(message.answer(&at.settings().sms_account)).into_response(),
            None => refuse(StatusCode::NOT_FOUND, 20404, "The requested resource was not found"),
        }
    };
    call(state, "messages.retrieve", account, headers, act).await
}

async fn list(
    Extract(state): Extract<State>,
    Path(account): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let at = state.clone();
    let act = move || match page(&at, &Form::parse(query.unwrap_or_default().as_bytes())) {
        Some(page) => Json(page).into_response(),
        None => refuse(StatusCode::BAD_REQUEST, 20001, "A filter or page parameter is not valid."),
    };
    call(state, "messages.list", account, headers, act).await
}

/// One page of messages, newest first; `None` when a parameter makes no sense. What was not sent yet has no date that a filter on
/// it could meet.
fn page(state: &State, form: &Form) -> Option<Value> {
    let size = form
        .get("PageSize")
        .map_or(Ok(PAGE.0), str::parse)
        .ok()
        .filter(|size| (1..=PAGE.1).contains(size))?;
    let number: usize = form.get("Page").map_or(Ok(0), str::parse).ok()?;
    let token = form.get("PageToken").map(|token| token.strip_prefix("PA").unwrap_or(token));
    let date = |name: &str| form.get(name).map(When::parse).map_or(Some(None), |when| when.map(Some));
    let (on, from, until) = (date("DateSent")?, date("DateSent>")?, date("DateSent<")?);
    let (recipient, sender) = (form.get("To"), form.get("From"));
    let wanted = |message: &&Message| {
        recipient.is_none_or(|to| message.to == to)
            && sender.is_none_or(|from| message.from.as_deref() == Some(from))
            && on.is_none_or(|when| message.sent.is_some_and(|at| when.covers(at)))
            && from.is_none_or(|when| message.sent.is_some_and(|at| when.start() <= at))
            && until.is_none_or(|when| message.sent.is_some_and(|at| at <= when.start() || when.covers(at)))
            && token.is_none_or(|after| message.id.as_str() < after)
    };
    let store = state.store();
    // One more than the page tells whether another follows.
    let mut messages: Vec<_> = store.all::<Message>().rev().filter(wanted).take(size + 1).collect();
    let more = messages.len() > size;
    messages.truncate(size);
    let account = &state.settings().sms_account;
    let uri = |page: usize, token: Option<&str>| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(
            ["To", "From", "DateSent", "DateSent>", "DateSent<"]
                .iter()
                .filter_map(|name| Some((*name, form.get(name)?))),
        );
        query.append_pair("PageSize", &size.to_string()).append_pair("Page", &page.to_string());
        if let Some(token) = token {
            query.append_pair("PageToken", &format!("PA{token}"));
        }
        format!("/{API_VERSION}/Accounts/{account}/Messages.json?{}", query.finish())
    };
    let next = messages.last().filter(|_| more).map(|last| uri(number + 1, Some(&last.id)));
    let start = number.saturating_mul(size);
    Some(json!({
        "end": start + messages.len().saturating_sub(1),
        "first_page_uri": uri(0, None),
        "messages": messages.iter().map(|message| message.answer(account)).collect::<Vec<_>>(),
        "next_page_uri": next,
        "page": number,
        "page_size": size,
        "previous_page_uri": null,
        "start": start,
        "uri": uri(number, token),
    }))
}

/// A filter's value: a whole day in UTC or one instant.
#[derive(Clone, Copy)]
enum When {
    Day(NaiveDate),
    Instant(DateTime<Utc>),
}

impl When {
    fn parse(text: &str) -> Option<Self> {
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").map(Self::Day);
        day.or_else(|_| DateTime::parse_from_rfc3339(text).map(|at| Self::Instant(at.to_utc()))).ok()
    }

    fn start(self) -> DateTime<Utc> {
        match self {
            Self::Day(day) => day.and_time(chrono::NaiveTime::MIN).and_utc(),
            Self::Instant(at) => at,
        }
    }

    fn covers(self, at: DateTime<Utc>) -> bool {
        match self {
            Self::Day(day) => at.date_naive() == day,
            Self::Instant(instant) => at == instant,
        }
    }
}

/// Checks the caller, then answers in a task of its own: the provider does not stop because its caller hung up.
async fn call(
    state: State,
    name: &'static str,
    account: String,
    headers: HeaderMap,
    act: impl FnOnce() -> Response + Send + 'static,
) -> Response {
    let settings = state.settings();
    let expected = STANDARD.encode(format!("{}:{}", settings.sms_account, settings.sms_token));
    let given =
        headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
    if given != Some(&expected) || account != settings.sms_account {
        return refuse(StatusCode::UNAUTHORIZED, 20003, "Authenticate");
    }
    let at = state.clone();
    let answer = async move { at.faults().around(name, broken_by_script, act).await };
    state.spawn(answer).await.ok().flatten().unwrap_or_else(faults::hang_up)
}

fn refuse(status: StatusCode, code: u32, message: &str) -> Response {
    let more_info = format!("https://www.twilio.com/docs/errors/{code}");
    let body = json!({ "code": code, "message": message, "more_info": more_info, "status": status.as_u16() });
    (status, Json(body)).into_response()
}

/// Texts have no keys to remember a 500 under.
fn broken_by_script<A: FnOnce() -> Response>(how: Broken<A>) -> Response {
    if let Broken::After(act) = how {
        act();
    }
    broken()
}

fn broken() -> Response {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, 20500, "Internal server error")
}

/// Moves one message to its end, telling its callback of every step.
async fn drive(state: State, id: String) {
    loop {
        tokio::time::sleep(Duration::from_millis(state.settings().sms_step_ms)).await;
        let message = {
            let mut store = state.store();
            let Some(mut message) = store.get::<Message>(&id).cloned() else { return };
            message.advance(state.now());
            store.put(&message);
            if let Err(error) = store.commit() {
                tracing::error!(%error, "The journal could not be written.");
            }
            message
        };
        if let Some(url) = &message.callback {
            let params = message.callback_params(&state.settings().sms_account);
            outbound::deliver_status(
                &state,
                &format!("message.{}", message.status().name()),
                url.clone(),
                params,
            );
        }
        if message.status().is_final() {
            return;
        }
    }
}

/// Takes up the messages an earlier process left on their way.
pub(crate) fn resume(state: &State) {
    let open: Vec<String> = {
        let store = state.store();
        store.all::<Message>().filter(|m| !m.status().is_final()).map(|m| m.id.clone()).collect()
    };
    for id in open {
        drop(state.spawn(drive(state.clone(), id)));
    }
}
