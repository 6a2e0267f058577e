//! What the SMS provider tells of its own accord: what became of a text, and texts received
//! (<https://www.twilio.com/docs/messaging/guides/webhook-request>).
//!
//! A delivery is believed as far as its signature goes, written down, and answered; what it asks for is done afterwards. Logs name
//! messages by id, never a number or a word.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State as Extract};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use chrono::{DateTime, SubsecRound as _, Utc};
use kit::clock::Clock;
use kit::config::Origin;
use kit::db::Db;
use kit::ids::MessageId;
use kit::messaging::outbox::Event;
use proto::clinic::notify::v1::{FailureReason, MessageState};
use tokio::sync::Notify;

use crate::handover::Handover;
use crate::replies::receive::{self, Received};
use crate::signature::{self, Posted};
use crate::store::{bulk, status};
use crate::{config, events, twilio};

const STATUS: &str = "/webhooks/sms/status";
const INBOUND: &str = "/webhooks/sms/inbound";
/// Parameter of a callback's URL: our id of the message.
const MESSAGE: &str = "message";
/// The largest delivery that is read, in bytes. The provider sends a few kilobytes.
const MAX_BODY: usize = 64 * 1024;
/// Longest id of the provider's that is believed, in bytes; they have 34.
const LONGEST_ID: usize = 64;
/// How the request came to the gateway, which believes nobody else's word for it.
const PROTO: &str = "x-forwarded-proto";
const FORWARDED_HOST: &str = "x-forwarded-host";
/// To a text received: the answer comes by itself, not by this way.
const NO_ANSWER: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";

/// Where the provider tells what became of `message`, if it reaches us at `origin`.
pub fn address(origin: &Origin, message: MessageId) -> String {
    format!("{}://{}{STATUS}?{MESSAGE}={message}", origin.scheme, origin.authority)
}

/// What hears the provider.
#[derive(Clone)]
pub struct Webhooks {
    db: Db,
    clock: Clock,
    handover: Handover,
    token: Arc<str>,
    origin: Option<Origin>,
    /// Rings when a text came in.
    bell: Arc<Notify>,
}

impl Webhooks {
    /// On `db`, for the account of `config`; rings `bell` when a text came in.
    pub fn new(db: Db, clock: Clock, handover: Handover, config: &config::Sms, bell: Arc<Notify>) -> Self {
        let (token, origin) = (config.sms_auth_token.as_str().into(), config.sms_public_url.clone());
        Self { db, clock, handover, token, origin, bell }
    }

    /// The routes, for the service's port.
    pub fn router(self) -> Router {
        Router::new()
            .route(STATUS, post(on_status))
            .route(INBOUND, post(on_inbound))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self)
    }

    /// The parameters of a delivery whose signature is right.
    fn open(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Parameters, StatusCode> {
        let refuse = |status, reason: &str, bytes| {
            tracing::warn!(path = uri.path(), reason, bytes, "an SMS webhook was refused");
            metrics::counter!("notify_webhooks_refused_total").increment(1);
            status
        };
        let body = body.map_err(|error| refuse(error.status(), "it could not be read", None))?;
        let bytes = Some(body.len());
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(url) = self.url(uri, header) else {
            return Err(refuse(StatusCode::BAD_REQUEST, "it names no host", bytes));
        };
        let form =
            header(CONTENT_TYPE.as_str()).is_some_and(|t| t.starts_with("application/x-www-form-urlencoded"));
        let parameters = if form { Parameters::form(&body) } else { Parameters::json(&body) };
        let posted = if form { Posted::Form(&parameters.0) } else { Posted::Raw(&body) };
        let signature = header(signature::HEADER).unwrap_or_default();
        signature::verify(&self.token, &url, posted, signature)
            .map_err(|refusal| refuse(StatusCode::FORBIDDEN, &refusal.to_string(), bytes))?;
        Ok(parameters)
    }

    /// The URL as the provider called it.
    fn url<'a>(&self, uri: &Uri, header: impl Fn(&str) -> Option<&'a str>) -> Option<Uri> {
        let (scheme, host) = match &self.origin {
            Some(origin) => (origin.scheme.as_str(), origin.authority.as_str()),
            None => {
                (header(PROTO).unwrap_or("http"), header(FORWARDED_HOST).or_else(|| header(HOST.as_str()))?)
            }
        };
        let rest = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        format!("{scheme}://{host}{rest}").parse().ok()
    }

    async fn hear_status(&self, told: &Told<'_>) -> sqlx::Result<Heard> {
        let now = self.now();
        let mut tx = self.db.begin().await?;
        let Some(mut message) = status::find(&mut tx, told.reference, told.message).await? else {
            return Ok(Heard::Unknown);
        };
        if message.provider_reference.is_none() {
            // Quicker than the answer to our own call, or all that is left of it.
            let taken = [(message.id, told.reference.to_owned())];
            if let Some(version) = bulk::taken(&mut tx, &taken, now).await?.remove(&message.id) {
                let event = Event::new(&events::message_sent(&message, version, now));
                bulk::tell(&mut tx, &[(message.id, version, event)]).await?;
                message.version = version;
            }
        }
        match told.news {
            News::OnItsWay => {}
            News::Delivered => {
                if let Some(message) = status::delivered(&mut tx, &message, now).await? {
                    events::message_delivered(&mut tx, &message, now).await?;
                }
            }
            News::Lost(state) => {
                let code = told.code;
                let reason = code.parse().map_or(FailureReason::ProviderError, twilio::failure_reason);
                let lost = status::not_delivered(&mut tx, &message, state, (reason, code), now).await?;
                if let Some(message) = lost {
                    events::message_failed(&mut tx, &message).await?;
                }
            }
        }
        tx.commit().await?;
        Ok(Heard::Known(message.id))
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(6)
    }
}

/// What a status says.
#[derive(Clone, Copy, Debug)]
enum News {
    OnItsWay,
    Delivered,
    /// Did not arrive: UNDELIVERED or FAILED.
    Lost(MessageState),
}

impl News {
    fn of(status: &str) -> Option<Self> {
        match status {
            "accepted" | "scheduled" | "queued" | "sending" | "sent" => Some(Self::OnItsWay),
            "delivered" | "read" => Some(Self::Delivered),
            "undelivered" => Some(Self::Lost(MessageState::Undelivered)),
            "failed" | "canceled" => Some(Self::Lost(MessageState::Failed)),
            _ => None,
        }
    }
}

struct Told<'a> {
    /// The provider's id.
    reference: &'a str,
    /// Ours, as the URL has it.
    message: Option<MessageId>,
    news: News,
    /// The provider's error code; empty = none.
    code: &'a str,
}

enum Heard {
    Known(MessageId),
    Unknown,
}

/// Names and values of a delivery, in the order they came.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn form(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    /// Of a JSON object, the members that are text; of anything else, nothing.
    fn json(body: &[u8]) -> Self {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(body).unwrap_or_default();
        let text = |(name, value): (String, serde_json::Value)| Some((name, value.as_str()?.to_owned()));
        Self(object.into_iter().filter_map(text).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The provider's id of the message.
    fn reference(&self) -> Option<&str> {
        let id = self.get("MessageSid").or_else(|| self.get("SmsSid"))?;
        ((1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(id)
    }
}

fn malformed(what: &str) -> StatusCode {
    tracing::warn!(what, "an SMS webhook makes no sense");
    StatusCode::BAD_REQUEST
}

async fn on_status(
    Extract(webhooks): Extract<Webhooks>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> StatusCode {
    let parameters = match webhooks.open(&uri, &headers, body) {
        Ok(parameters) => parameters,
        Err(status) => return status,
    };
    let Some(reference) = parameters.reference() else { return malformed("MessageSid") };
    let status = parameters.get("MessageStatus").or_else(|| parameters.get("SmsStatus"));
    let Some(news) = status.and_then(News::of) else { return malformed("MessageStatus") };
    let query = uri.query().unwrap_or_default().as_bytes();
    let named = form_urlencoded::parse(query).find(|(name, _)| name == MESSAGE);
    let message = named.and_then(|(_, id)| id.parse().ok());
    let told = Told { reference, message, news, code: parameters.get("ErrorCode").unwrap_or_default() };
    match webhooks.hear_status(&told).await {
        Ok(Heard::Known(message)) => {
            tracing::debug!(%message, status, "the provider told a status");
            StatusCode::NO_CONTENT
        }
        Ok(Heard::Unknown) => {
            tracing::info!(reference, status, "the provider told a status of a message that is not ours");
            StatusCode::NOT_FOUND
        }
        Err(error) => {
            tracing::warn!(reference, %error, "a status could not be kept");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

async fn on_inbound(
    Extract(webhooks): Extract<Webhooks>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let parameters = match webhooks.open(&uri, &headers, body) {
        Ok(parameters) => parameters,
        Err(status) => return status.into_response(),
    };
    let Some(reference) = parameters.reference() else { return malformed("MessageSid").into_response() };
    let Some(from) = parameters.get("From") else { return malformed("From").into_response() };
    let kept = async {
        let number = webhooks.handover.number(from).await?;
        let text = Received {
            reference,
            number,
            body: parameters.get("Body").unwrap_or_default(),
            // The provider has answered carrier words by itself where it says so.
            answered: parameters.get("OptOutType").is_some(),
            at: webhooks.now(),
        };
        receive::keep(&webhooks.db, &text).await
    };
    match kept.await {
        Ok(news) => {
            if let Some(message) = news {
                tracing::info!(%message, "a text came in");
                webhooks.bell.notify_one();
            }
            ([(CONTENT_TYPE, "text/xml")], NO_ANSWER).into_response()
        }
        Err(error) => {
            tracing::warn!(reference, %error, "a text received could not be kept");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}
