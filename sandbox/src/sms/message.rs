//! A text message: what is accepted, what becomes of it, how it looks on the wire.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The number a messaging service sends from.
const POOL_NUMBER: &str = "+15005550006";
/// Longest body, characters.
const BODY_LENGTH: usize = 1600;
/// Seconds a message may wait in the queue, at most and when nothing is said.
const VALIDITY_SECS: u32 = 36_000;
/// Septets (or UTF-16 units) of a message in one segment, and per segment of a longer one.
const GSM7: (usize, usize) = (160, 153);
const UCS2: (usize, usize) = (70, 67);
const GSM7_BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZ\
                          ÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
const GSM7_EXTENDED: &str = "\u{c}^{}\\[~]|€";

/// Recipients refused at once; the first five are the real provider's own test numbers.
const REFUSED_TO: &[(&str, u32, &str)] = &[
    ("+15005550001", 21211, "The 'To' number is not a valid phone number."),
    ("+15005550002", 21612, "The 'To' phone number is not currently reachable via SMS."),
    ("+15005550003", 21408, "Permission to send an SMS has not been enabled for the region."),
    ("+15005550004", 21610, "Attempt to send to unsubscribed recipient."),
    ("+15005550009", 21614, "'To' number is not a valid mobile number."),
];
/// Senders refused: the real provider's own test numbers.
const REFUSED_FROM: &[(&str, u32, &str)] = &[
    (
        "+15005550001",
        21212,
        "The 'From' number is not a valid phone number, shortcode, or alphanumeric sender ID.",
    ),
    ("+15005550007", 21606, "The 'From' phone number provided is not a valid message-capable phone number."),
    ("+15005550008", 21611, "This 'From' number has exceeded the maximum number of queued messages."),
];
/// Recipients accepted and never reached; the number's last four digits are those of the error code.
const UNDELIVERED: &[(&str, u32)] = &[
    ("+15005553003", 30003), // handset unreachable
    ("+15005553005", 30005), // no such handset
    ("+15005553006", 30006), // landline
    ("+15005553007", 30007), // filtered by the carrier
];
/// The message waited in the queue for longer than its validity.
const EXPIRED: u32 = 30036;

/// Where a message is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Taken by a messaging service that has yet to choose a number.
    Accepted,
    Queued,
    Sent,
    Delivered,
    Undelivered,
    Failed,
    /// From a phone.
    Received,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Undelivered => "undelivered",
            Self::Failed => "failed",
            Self::Received => "received",
        }
    }

    pub(crate) fn is_final(self) -> bool {
        match self {
            Self::Accepted | Self::Queued | Self::Sent => false,
            Self::Delivered | Self::Undelivered | Self::Failed | Self::Received => true,
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) to: String,
    pub(crate) from: Option<String>,
    pub(crate) service: Option<String>,
    body: String,
    status: Status,
    error_code: Option<u32>,
    created: DateTime<Utc>,
    pub(crate) sent: Option<DateTime<Utc>>,
    updated: DateTime<Utc>,
    pub(crate) callback: Option<String>,
    validity_secs: u32,
}

/// What a caller wants sent, as it came.
pub(crate) struct Draft<'a> {
    pub(crate) to: Option<&'a str>,
    pub(crate) from: Option<&'a str>,
    pub(crate) service: Option<&'a str>,
    pub(crate) body: Option<&'a str>,
    pub(crate) callback: Option<&'a str>,
    pub(crate) validity: Option<&'a str>,
}

/// Error code and sentence.
pub(crate) type Refusal = (u32, &'static str);

impl Message {
    /// Checks a draft as the real provider does; `id` is used only when it is good.
    pub(crate) fn new(draft: &Draft<'_>, id: String, now: DateTime<Utc>) -> Result<Self, Refusal> {
        let known = |table: &[(&str, u32, &'static str)], number: &str| {
            table.iter().find(|row| row.0 == number).map_or(Ok(()), |row| Err((row.1, row.2)))
        };
        let to = draft.to.ok_or((21604, "A 'To' phone number is required."))?;
        if !is_e164(to) {
            return Err((21211, "The 'To' number is not a valid phone number."));
        }
        known(REFUSED_TO, to)?;
        match (draft.from, draft.service) {
            (None, None) => return Err((21603, "A 'From' phone number is required.")),
            (Some(from), _) => known(REFUSED_FROM, from)?,
            (None, Some(_)) => {}
        }
        let body = draft.body.ok_or((21602, "Message body is required."))?;
        if body.chars().count() > BODY_LENGTH {
            return Err((21617, "The concatenated message body exceeds the 1600 character limit."));
        }
        let validity = draft.validity.map_or(Ok(VALIDITY_SECS), str::parse);
        let validity_secs = validity
            .ok()
            .filter(|secs| (1..=VALIDITY_SECS).contains(secs))
            .ok_or((21624, "The ValidityPeriod is an integer from 1 to 36000 seconds."))?;
        let callback = draft.callback.map(|url| match reqwest::Url::parse(url) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => Ok(url.to_owned()),
            _ => Err((21609, "The 'StatusCallback' URL is not valid.")),
        });
        Ok(Self {
            id,
            to: to.to_owned(),
            from: draft.from.map(str::to_owned),
            service: draft.service.map(str::to_owned),
            body: body.to_owned(),
            status: if draft.service.is_some() { Status::Accepted } else { Status::Queued },
            error_code: None,
            created: now,
            sent: None,
            updated: now,
            callback: callback.transpose()?,
            validity_secs,
        })
    }

    /// A text from a phone.
    pub(crate) fn received(id: String, from: &str, to: &str, body: &str, now: DateTime<Utc>) -> Self {
        Self {
            id,
            to: to.to_owned(),
            from: Some(from.to_owned()),
            service: None,
            body: body.to_owned(),
            status: Status::Received,
            error_code: None,
            created: now,
            sent: Some(now),
            updated: now,
            callback: None,
            validity_secs: VALIDITY_SECS,
        }
    }

    /// What the carrier itself says to a phone in a number's name.
    pub(crate) fn by_carrier(id: String, from: &str, to: &str, body: &str, now: DateTime<Utc>) -> Self {
        Self { status: Status::Delivered, ..Self::received(id, from, to, body, now) }
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    pub(crate) fn body(&self) -> &str {
        &self.body
    }

    pub(crate) fn created(&self) -> DateTime<Utc> {
        self.created
    }

    pub(crate) fn is_inbound(&self) -> bool {
        self.status == Status::Received
    }

    /// The number at the far end.
    pub(crate) fn phone(&self) -> &str {
        if self.is_inbound() { self.from.as_deref().unwrap_or_default() } else { &self.to }
    }

    /// One step further on its way.
    pub(crate) fn advance(&mut self, now: DateTime<Utc>) {
        self.updated = now;
        match self.status {
            Status::Accepted | Status::Queued => {
                self.from.get_or_insert_with(|| POOL_NUMBER.to_owned());
                if (now - self.created).num_seconds() > i64::from(self.validity_secs) {
                    (self.status, self.error_code) = (Status::Failed, Some(EXPIRED));
                } else {
                    (self.status, self.sent) = (Status::Sent, Some(now));
                }
            }
            Status::Sent => match UNDELIVERED.iter().find(|(number, _)| *number == self.to) {
                Some((_, code)) => (self.status, self.error_code) = (Status::Undelivered, Some(*code)),
                None => self.status = Status::Delivered,
            },
            Status::Delivered | Status::Undelivered | Status::Failed | Status::Received => {}
        }
    }

    /// The message as it travels.
    pub(crate) fn answer(&self, account: &str) -> Value {
        let uri = format!("/{}/Accounts/{account}/Messages/{}", super::API_VERSION, self.id);
        json!({
            "account_sid": account,
            "api_version": super::API_VERSION,
            "body": self.body,
            "date_created": self.created.to_rfc2822(),
            "date_sent": self.sent.map(|at| at.to_rfc2822()),
            "date_updated": self.updated.to_rfc2822(),
            "direction": if self.is_inbound() { "inbound" } else { "outbound-api" },
            "error_code": self.error_code,
            "error_message": null,
            "from": self.from,
            "messaging_service_sid": self.service,
            "num_media": "0",
            "num_segments": segments(&self.body).to_string(),
            "price": null,
            "price_unit": "USD",
            "sid": self.id,
            "status": self.status.name(),
            "subresource_uris": { "media": format!("{uri}/Media.json") },
            "to": self.to,
            "uri": format!("{uri}.json"),
        })
    }

    /// The parameters of the webhook that tells of a text from a phone.
    pub(crate) fn inbound_params(&self, account: &str) -> Vec<(String, String)> {
        let params = [
            ("AccountSid", account),
            ("ApiVersion", super::API_VERSION),
            ("Body", &self.body),
            ("From", self.from.as_deref().unwrap_or_default()),
            ("MessageSid", &self.id),
            ("NumMedia", "0"),
            ("NumSegments", &segments(&self.body).to_string()),
            ("SmsMessageSid", &self.id),
            ("SmsSid", &self.id),
            ("SmsStatus", self.status.name()),
            ("To", &self.to),
        ];
        params.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The parameters of a status callback.
    pub(crate) fn callback_params(&self, account: &str) -> Vec<(String, String)> {
        let mut params = vec![
            ("AccountSid", account.to_owned()),
            ("ApiVersion", super::API_VERSION.to_owned()),
            ("MessageSid", self.id.clone()),
            ("MessageStatus", self.status.name().to_owned()),
            ("SmsSid", self.id.clone()),
            ("SmsStatus", self.status.name().to_owned()),
            ("To", self.to.clone()),
        ];
        params.extend(self.from.clone().map(|from| ("From", from)));
        params.extend(self.service.clone().map(|service| ("MessagingServiceSid", service)));
        params.extend(self.error_code.map(|code| ("ErrorCode", code.to_string())));
        params.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// `+` and 8 to 15 digits, the first not zero (ITU-T E.164).
pub(crate) fn is_e164(number: &str) -> bool {
    let digits = number.strip_prefix('+').unwrap_or_default();
    (8..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

fn segments(body: &str) -> usize {
    let septets = |c: char| match c {
        c if GSM7_BASIC.contains(c) => Some(1),
        c if GSM7_EXTENDED.contains(c) => Some(2),
        _ => None,
    };
    let (length, (single, part)) = match body.chars().map(septets).sum::<Option<usize>>() {
        Some(length) => (length, GSM7),
        None => (body.encode_utf16().count(), UCS2),
    };
    if length <= single { 1 } else { length.div_ceil(part) }
}

#[cfg(test)]
mod tests {
    use super::segments;

    #[test]
    fn segments_are_counted_in_the_alphabet_the_text_needs() {
        for (text, expected) in [
            ("a".repeat(160), 1),
            ("a".repeat(161), 2),
            ("€".repeat(80), 1),
            ("€".repeat(81), 2),
            ("ж".repeat(70), 1),
            ("ж".repeat(71), 2),
        ] {
            assert_eq!(segments(&text), expected, "{text}");
        }
    }
}
