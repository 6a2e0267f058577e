//! The SMS provider's adapter: Twilio's wire protocol, which the sandbox speaks too.
//!
//! Source: <https://www.twilio.com/docs/messaging/api/message-resource>. There is no idempotency key: whatever is not a clear
//! answer is [`Outcome::Unknown`].

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use proto::clinic::notify::v1::FailureReason;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;

use crate::callback;
use crate::config;
use crate::ports::{Outcome, Sms, SmsGateway};

/// How long the provider may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Bounds of `ValidityPeriod`, in seconds.
const VALIDITY_SECS: (u64, u64) = (1, 36_000);
/// Texts in a page of the list.
const PAGE_SIZE: usize = 100;
/// Pages looked through at most: more texts than this to one number since one of them was written is no clinic's business.
const MAX_PAGES: usize = 100;
/// Refusals that time or the operator mends, so that the text waits: a full queue (21611, 30001), too many requests (20429), a
/// sender that is missing, malformed or not able to text (21603, 21212, 21606).
const PASSING: [u32; 6] = [20429, 21212, 21603, 21606, 21611, 30001];

/// One account at the provider.
#[derive(Clone, Debug)]
pub struct Twilio {
    client: Client,
    messages: Url,
    config: config::Sms,
}

impl Twilio {
    /// The account that `config` names.
    pub fn new(config: &config::Sms) -> anyhow::Result<Self> {
        // Refused when the process has chosen its TLS provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            // A text is posted once; the body of a redirected post would be lost anyway.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let base = config.sms_api_base.trim_end_matches('/');
        let messages = format!("{base}/2010-04-01/Accounts/{}/Messages.json", config.sms_account_sid);
        let messages =
            messages.parse().with_context(|| format!("SMS_API_BASE must be a URL, not {base:?}"))?;
        Ok(Self { client, messages, config: config.clone() })
    }

    fn authorize(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        request.basic_auth(&self.config.sms_account_sid, Some(&self.config.sms_auth_token))
    }
}

/// What notify reads of a message.
#[derive(Deserialize)]
struct Message {
    sid: String,
    body: String,
    date_created: String,
}

#[derive(Deserialize)]
struct Created {
    sid: String,
}

#[derive(Deserialize)]
struct Received {
    from: String,
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<Message>,
    next_page_uri: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u32,
}

#[async_trait]
impl SmsGateway for Twilio {
    async fn send(&self, sms: &Sms) -> Outcome {
        let validity = sms.validity.as_secs().clamp(VALIDITY_SECS.0, VALIDITY_SECS.1).to_string();
        let callback =
            self.config.sms_public_url.as_ref().map(|origin| callback::address(origin, sms.message));
        let mut form = vec![
            ("To", sms.to.as_str()),
            ("From", &self.config.sms_from),
            ("Body", &sms.body),
            ("ValidityPeriod", &validity),
        ];
        form.extend(callback.as_deref().map(|url| ("StatusCallback", url)));
        match self.authorize(self.client.post(self.messages.clone())).form(&form).send().await {
            Ok(response) => outcome(response).await,
            // Never connected: nothing was said.
            Err(error) if error.is_connect() => Outcome::NotTaken(error.without_url().to_string()),
            Err(error) => Outcome::Unknown(error.without_url().to_string()),
        }
    }

    async fn taken(&self, to: &str, body: &str, since: DateTime<Utc>) -> anyhow::Result<Vec<String>> {
        // Not filtered by DateSent: a queued text has none. The list is newest first, so the first older one ends the search.
        let query = [("To", to), ("PageSize", &PAGE_SIZE.to_string())];
        let mut next = Some(Url::parse_with_params(self.messages.as_str(), query)?);
        let mut found = vec![];
        for _ in 0..MAX_PAGES {
            let Some(url) = next.take() else { break };
            let answer = self.authorize(self.client.get(url)).send().await;
            let answer = answer.and_then(Response::error_for_status).map_err(reqwest::Error::without_url);
            let page: Page =
                answer.context("listing texts")?.json().await.map_err(reqwest::Error::without_url)?;
            for message in page.messages {
                let created = DateTime::parse_from_rfc2822(&message.date_created).context("date_created")?;
                if created < since {
                    return Ok(found);
                }
                if message.body == body {
                    found.push(message.sid);
                }
            }
            next = page.next_page_uri.map(|uri| self.messages.join(&uri)).transpose()?;
        }
        anyhow::ensure!(
            next.is_none(),
            "the provider lists more texts to one number than can be looked through"
        );
        Ok(found)
    }

    async fn sender(&self, reference: &str) -> anyhow::Result<Option<String>> {
        let mut url = self.messages.clone();
        let file = format!("{reference}.json");
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("the provider's address has no path"))?
            .pop()
            .extend(["Messages", &file]);
        let answer =
            self.authorize(self.client.get(url)).send().await.map_err(reqwest::Error::without_url)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.error_for_status().map_err(reqwest::Error::without_url);
        let received: Received =
            answer.context("reading a text")?.json().await.map_err(reqwest::Error::without_url)?;
        Ok(Some(received.from))
    }
}

/// Reads the provider's answer to a text.
async fn outcome(response: Response) -> Outcome {
    let status = response.status();
    if status.is_success() {
        return match response.json::<Created>().await {
            Ok(created) => Outcome::Taken(created.sid),
            Err(error) => Outcome::Unknown(error.without_url().to_string()),
        };
    }
    refusal(status, response.json::<Refusal>().await.ok().map(|refusal| refusal.code))
}

/// Reads an answer that is no success.
fn refusal(status: StatusCode, code: Option<u32>) -> Outcome {
    match (status, code) {
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            Outcome::NotTaken("the provider asks us to slow down".to_owned())
        }
        // Wrong credentials or address are the operator's to mend; the text waits for it.
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, _) => {
            Outcome::NotTaken(format!("the provider answered {status}: check the account, token and address"))
        }
        (status, Some(code)) if status.is_client_error() && PASSING.contains(&code) => {
            Outcome::NotTaken(format!("the provider answered {code}: a full queue, or a sender to check"))
        }
        (status, Some(code)) if status.is_client_error() => {
            Outcome::Refused { reason: failure_reason(code), code: code.to_string() }
        }
        (status, _) => Outcome::Unknown(format!("the provider answered {status}")),
    }
}

/// The provider's error codes that mean something to a clinic (<https://www.twilio.com/docs/api/errors>).
pub fn failure_reason(code: u32) -> FailureReason {
    match code {
        21610 => FailureReason::OptedOut,
        21612 | 30003 | 30005 => FailureReason::Unreachable,
        21614 | 30006 => FailureReason::Landline,
        21211 | 21217 | 21604 => FailureReason::InvalidAddress,
        30004 | 30007 | 30034 => FailureReason::Blocked,
        30036 => FailureReason::Expired,
        _ => FailureReason::ProviderError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_with_the_recipient_or_the_text_fails_for_good() {
        for code in [20429, 21212, 21603, 21606, 21611, 30001] {
            let outcome = refusal(StatusCode::BAD_REQUEST, Some(code));
            assert!(matches!(outcome, Outcome::NotTaken(_)), "{code}: {outcome:?}");
        }
        for (code, reason) in [
            (21211, FailureReason::InvalidAddress),
            (21610, FailureReason::OptedOut),
            (21612, FailureReason::Unreachable),
            (21617, FailureReason::ProviderError),
        ] {
            let refused = Outcome::Refused { reason, code: code.to_string() };
            assert_eq!(refusal(StatusCode::BAD_REQUEST, Some(code)), refused);
        }
        for (status, code) in
            [(StatusCode::BAD_REQUEST, None), (StatusCode::INTERNAL_SERVER_ERROR, Some(20500))]
        {
            assert!(matches!(refusal(status, code), Outcome::Unknown(_)), "{status}");
        }
    }
}
