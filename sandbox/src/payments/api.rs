//! What every call of the payment API shares: the key, the form, idempotency, faults, events, the answer's shape.

use axum::{
    Json,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::MethodFilter,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    error::ApiError,
    intents,
    objects::{Event, EventData, EventRequest},
    refunds,
};
use crate::{
    Settings, State,
    faults::Broken,
    form::Form,
    outbound,
    store::{Kind, Replay, Store},
};

/// The protocol version the objects follow.
const API_VERSION: &str = "2025-09-30.clover";
/// How long an answer is kept under its idempotency key: 24 hours.
const REPLAY_SECS: i64 = 24 * 60 * 60;
/// Longest idempotency key.
const KEY_LENGTH: usize = 255;
/// Hexadecimal digits in an id.
const ID_DIGITS: usize = 24;
/// Entries a list answers when `limit` is absent, and at most.
const PAGE: (usize, usize) = (10, 100);
/// Keys in one object's metadata, and longest key and value.
const METADATA: (usize, usize, usize) = (50, 40, 500);

/// One call of the API.
pub(crate) struct Route {
    pub(crate) method: MethodFilter,
    pub(crate) path: &'static str,
    /// The name faults know it by.
    pub(crate) name: &'static str,
    /// Parameters it takes; others are refused. `expand` is taken everywhere.
    pub(crate) params: &'static [&'static str],
    pub(crate) handler: fn(&mut Call<'_>) -> Result<Value, ApiError>,
}

/// A request as it arrived.
pub(crate) struct Incoming {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The id in the path, empty when there is none.
    pub(crate) id: String,
    pub(crate) headers: HeaderMap,
    pub(crate) form: Form,
}

/// What a handler works with while it holds the store.
pub(crate) struct Call<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) form: &'a Form,
    pub(crate) id: &'a str,
    /// Seconds since 1970.
    pub(crate) now: i64,
    origin: EventRequest,
    settings: &'a Settings,
    events: Vec<Event>,
}

impl<'a> Call<'a> {
    pub(crate) fn new_id(&mut self, prefix: &str) -> String {
        self.store.new_id(prefix, ID_DIGITS)
    }

    /// The object the path names.
    pub(crate) fn found<K: Kind>(&self, noun: &str) -> Result<K, ApiError> {
        self.store.get(self.id).cloned().ok_or_else(|| ApiError::not_found(noun, self.id))
    }

    /// The object a parameter names.
    pub(crate) fn existing<K: Kind>(&self, noun: &str, id: &str, param: &str) -> Result<K, ApiError> {
        self.store.get(id).cloned().ok_or_else(|| ApiError::no_such(noun, id, param))
    }

    pub(crate) fn text(&self, param: &str) -> Option<String> {
        self.form.get(param).map(str::to_owned)
    }

    pub(crate) fn required(&self, param: &str) -> Result<&'a str, ApiError> {
        let missing =
            || ApiError::param("parameter_missing", param, format!("Missing required param: {param}."));
        self.form.get(param).ok_or_else(missing)
    }

    pub(crate) fn integer(&self, param: &str) -> Result<Option<i64>, ApiError> {
        let invalid =
            |text| ApiError::param("parameter_invalid_integer", param, format!("Invalid integer: {text}"));
        self.form.get(param).map(|text| text.parse().map_err(|_| invalid(text))).transpose()
    }

    pub(crate) fn flag(&self, param: &str) -> Result<bool, ApiError> {
        match self.form.get(param) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => {
                Err(ApiError::param("parameter_invalid", param, format!("Invalid boolean: {text}")))
            }
        }
    }

    /// One of the listed words, the first when absent.
    pub(crate) fn choice(&self, param: &str, words: &[&str]) -> Result<String, ApiError> {
        let word = self.form.get(param).unwrap_or(words[0]);
        if words.contains(&word) {
            return Ok(word.to_owned());
        }
        let message = format!("Invalid {param}: must be one of {}", words.join(", "));
        Err(ApiError::param("parameter_invalid", param, message))
    }

    pub(crate) fn metadata(&self) -> Result<super::objects::Metadata, ApiError> {
        let metadata = self.form.map("metadata");
        let (keys, key_length, value_length) = METADATA;
        let long = |(key, value): (&String, &String)| {
            key.chars().count() > key_length || value.chars().count() > value_length
        };
        if metadata.len() > keys || metadata.iter().any(long) {
            let message = format!(
                "Metadata takes {keys} keys of {key_length} characters and values of {value_length} characters."
            );
            return Err(ApiError::param("parameter_invalid", "metadata", message));
        }
        Ok(metadata)
    }

    /// The object as it travels.
    pub(crate) fn answer<K: Kind>(&self, object: &K) -> Result<Value, ApiError> {
        serde_json::to_value(object.clone().wrap()).map_err(|_| ApiError::broken())
    }

    /// Records that `kind` happened to `object`, to be delivered when the call is through.
    pub(crate) fn emit<K: Kind>(&mut self, kind: &str, object: &K) {
        let Ok(object) = self.answer(object) else { return };
        let event = Event {
            id: self.new_id("evt_"),
            api_version: API_VERSION.into(),
            created: self.now,
            data: EventData { object },
            livemode: false,
            pending_webhooks: u32::from(self.settings.delivers(kind)),
            request: self.origin.clone(),
            r#type: kind.into(),
        };
        self.store.put(&event);
        self.events.push(event);
    }

    /// One page of a kind, newest first, kept by `keep` and by the `created` range.
    pub(crate) fn list<K: Kind>(
        &self,
        created: impl Fn(&K) -> i64,
        keep: impl Fn(&K) -> bool,
    ) -> Result<Value, ApiError> {
        let limit = match self.integer("limit")? {
            None => PAGE.0,
            Some(limit) => {
                usize::try_from(limit).ok().filter(|limit| (1..=PAGE.1).contains(limit)).ok_or_else(|| {
                    ApiError::param("parameter_invalid_integer", "limit", "limit is from 1 to 100")
                })?
            }
        };
        let bound = |name| self.integer(name);
        let (gt, gte) = (bound("created[gt]")?, bound("created[gte]")?);
        let (lt, lte, at) = (bound("created[lt]")?, bound("created[lte]")?, bound("created")?);
        let in_range = |item: &K| {
            let created = created(item);
            gt.is_none_or(|t| created > t)
                && gte.is_none_or(|t| created >= t)
                && lt.is_none_or(|t| created < t)
                && lte.is_none_or(|t| created <= t)
                && at.is_none_or(|t| created == t)
        };
        let wanted = |item: &&K| in_range(item) && keep(item);
        // Ids grow with age, so a cursor is a comparison. One entry more than asked for tells whether there is more.
        let mut page: Vec<&K> = match (self.form.get("starting_after"), self.form.get("ending_before")) {
            (Some(_), Some(_)) => {
                let message = "You cannot parameterize both starting_after and ending_before.";
                return Err(ApiError::param("parameter_invalid", "ending_before", message));
            }
            (None, Some(before)) => {
                self.store.all().filter(|i: &&K| i.id() > before).filter(wanted).take(limit + 1).collect()
            }
            (after, None) => {
                let older = |item: &&K| after.is_none_or(|after| item.id() < after);
                self.store.all().rev().filter(older).filter(wanted).take(limit + 1).collect()
            }
        };
        let has_more = page.len() > limit;
        page.truncate(limit);
        if self.form.get("ending_before").is_some() {
            page.reverse();
        }
        let data = page.into_iter().map(|item| self.answer(item)).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "object": "list", "data": data, "has_more": has_more }))
    }
}

/// Runs `work` on the store as the provider's own doing or for one request, writes what changed in one piece and
/// hands the events to delivery.
pub(crate) fn transact<T>(
    state: &State,
    form: &Form,
    id: &str,
    origin: EventRequest,
    work: impl FnOnce(&mut Call<'_>) -> T,
) -> std::io::Result<T> {
    let mut store = state.store();
    let now = state.now().timestamp();
    let mut call =
        Call { store: &mut store, form, id, now, origin, settings: state.settings(), events: Vec::new() };
    intents::lapse(&mut call);
    refunds::settle(&mut call);
    let result = work(&mut call);
    let events = call.events;
    store.commit()?;
    drop(store);
    for event in events {
        outbound::deliver_event(state, event);
    }
    Ok(result)
}

/// Does what has become due: authorizations lapse, banks answer refunds.
pub(crate) fn sweep(state: &State) {
    let nobody = EventRequest { id: None, idempotency_key: None };
    if let Err(error) = transact(state, &Form::default(), "", nobody, |_| ()) {
        tracing::error!(%error, "The journal could not be written.");
    }
}

/// Answers one request, whoever is still listening.
pub(crate) async fn execute(state: State, route: &'static Route, incoming: Incoming) -> Response {
    let request = format!("req_{:016x}", rand::random::<u64>());
    if let Err(error) = check(&state, route, &incoming) {
        return respond(error.status, error.body(), &request, None, false);
    }
    let key = idempotency_key(&incoming).map(str::to_owned);
    let running = match &key {
        None => None,
        Some(key) => match state.claim(key) {
            Some(running) => Some(running),
            None => {
                let error = ApiError::key_in_use(key);
                return respond(error.status, error.body(), &request, Some(key), false);
            }
        },
    };
    let answer = |work: &dyn Fn(&mut Call<'_>) -> Result<Value, ApiError>| {
        let (status, body, replayed) = run(&state, work, &incoming, key.clone(), &request);
        respond(status, body, &request, key.as_deref(), replayed)
    };
    let broken = |how: Broken<_>| match how {
        Broken::Before => respond(500, ApiError::broken().body(), &request, key.as_deref(), false),
        Broken::Remembered => answer(&|_| Err(ApiError::broken_at_work())),
        Broken::After(_) => answer(&|call| {
            let _ = (route.handler)(call);
            Err(ApiError::broken_at_work())
        }),
    };
    let act = || {
        let response = answer(&route.handler);
        // The key is free once there is an answer, however long a script keeps it back.
        drop(running);
        response
    };
    state.faults().around(route.name, broken, act).await
}

fn run(
    state: &State,
    work: impl Fn(&mut Call<'_>) -> Result<Value, ApiError>,
    incoming: &Incoming,
    key: Option<String>,
    request: &str,
) -> (u16, Value, bool) {
    let text = format!("{} {}\n{}", incoming.method, incoming.path, incoming.form.canonical());
    let fingerprint = hex::encode(Sha256::digest(text));
    let origin = EventRequest { id: Some(request.to_owned()), idempotency_key: key.clone() };
    let outcome = transact(state, &incoming.form, &incoming.id, origin, |call| {
        let replay_id = key.as_ref().map(|key| format!("{}{key}", Replay::PREFIX));
        if let (Some(id), Some(key)) = (&replay_id, &key)
            && let Some(replay) = call.store.get::<Replay>(id)
            && call.now - replay.created < REPLAY_SECS
        {
            if replay.fingerprint != fingerprint {
                let error = match replay.path == incoming.path {
                    true => ApiError::key_reused(key),
                    false => ApiError::key_of_other_endpoint(key, &incoming.path, &replay.path),
                };
                return (error.status, error.body(), false);
            }
            return (replay.status, replay.body.clone(), true);
        }
        let (status, body, executed) = match work(call) {
            Ok(mut body) => {
                for path in incoming.form.list("expand") {
                    expand(call.store, &mut body, path);
                }
                if body["object"] == "list" {
                    body["url"] = incoming.path.as_str().into();
                }
                (200, body, true)
            }
            Err(error) => (error.status, error.body(), error.executed),
        };
        if let (Some(id), true) = (replay_id, executed) {
            call.store.put(&Replay {
                id,
                path: incoming.path.clone(),
                fingerprint,
                status,
                body: body.clone(),
                created: call.now,
            });
        }
        (status, body, false)
    });
    outcome.unwrap_or_else(|error| {
        tracing::error!(%error, "The journal could not be written.");
        (500, ApiError::broken().body(), false)
    })
}

/// Replaces the id at `path` (`latest_charge`, `data.latest_charge`) by the object it names.
fn expand(store: &Store, at: &mut Value, path: &str) {
    let (field, rest) = path.split_once('.').map_or((path, None), |(field, rest)| (field, Some(rest)));
    match &mut at[field] {
        Value::Array(items) => {
            for item in items {
                if let Some(rest) = rest {
                    expand(store, item, rest);
                }
            }
        }
        Value::String(id) => {
            if let Some(object) = store.object(id).and_then(|object| serde_json::to_value(object).ok()) {
                at[field] = object;
                if let Some(rest) = rest {
                    expand(store, &mut at[field], rest);
                }
            }
        }
        inner => {
            if let Some(rest) = rest.filter(|_| inner.is_object()) {
                expand(store, inner, rest);
            }
        }
    }
}

fn check(state: &State, route: &Route, incoming: &Incoming) -> Result<(), ApiError> {
    let given = incoming.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = given.and_then(|given| match given.split_once(' ')? {
        (scheme, key) if scheme.eq_ignore_ascii_case("bearer") => Some(key.to_owned()),
        (scheme, pair) if scheme.eq_ignore_ascii_case("basic") => {
            let pair = String::from_utf8(STANDARD.decode(pair).ok()?).ok()?;
            Some(pair.split(':').next().unwrap_or_default().to_owned())
        }
        _ => None,
    });
    match key {
        None => return Err(ApiError::unauthorized("You did not provide an API key.")),
        Some(key) if key != state.settings().payments_key => {
            return Err(ApiError::unauthorized("Invalid API Key provided."));
        }
        Some(_) => {}
    }
    if idempotency_key(incoming).is_some_and(|key| key.len() > KEY_LENGTH) {
        let message = format!("Idempotency keys have at most {KEY_LENGTH} characters.");
        return Err(ApiError::param("parameter_invalid", "Idempotency-Key", message));
    }
    let unknown = |name: &&str| *name != "expand" && !route.params.contains(name);
    match incoming.form.names().find(unknown) {
        Some(name) => {
            Err(ApiError::param("parameter_unknown", name, format!("Received unknown parameter: {name}")))
        }
        None => Ok(()),
    }
}

/// Only POST requests have one; elsewhere the header means nothing.
fn idempotency_key(incoming: &Incoming) -> Option<&str> {
    let key = incoming.headers.get("idempotency-key").filter(|_| incoming.method == Method::POST)?;
    key.to_str().ok().filter(|key| !key.is_empty())
}

fn respond(status: u16, body: Value, request: &str, key: Option<&str>, replayed: bool) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response =
        (status, [("request-id", request), ("stripe-version", API_VERSION)], Json(body)).into_response();
    let headers = response.headers_mut();
    if let Some(key) = key.and_then(|key| key.parse().ok()) {
        headers.insert("idempotency-key", key);
    }
    if replayed {
        headers.insert("idempotent-replayed", header::HeaderValue::from_static("true"));
    }
    response
}
