//! E-mail over SMTP, by way of a relay.
//!
//! SMTP cannot tell whether a message whose answer was lost was taken, nor be asked later. It is sent again under the same Message-ID,
//! which mail programs show once; a calendar entry has its own identity besides.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use lettre::message::header::ContentType;
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use proto::clinic::notify::v1::FailureReason;

use crate::config;
use crate::ports::{Email, Mailer, Outcome};

/// How long the relay may take for one command.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What the attachment is called.
const FILE_NAME: &str = "visit.ics";

/// A relay, and who we are to it.
#[derive(Clone)]
pub struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Smtp {
    /// The relay that `config` names; `None` = it names none, and nothing goes by e-mail.
    pub fn new(config: &config::Mail) -> anyhow::Result<Option<Self>> {
        let Some(url) = &config.smtp_url else { return Ok(None) };
        // The URL may carry a password: errors do not repeat it.
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            .map_err(|_| {
                anyhow::anyhow!("SMTP_URL must be a URL such as smtps://user:password@mail.example")
            })?
            .timeout(Some(TIMEOUT))
            .build();
        let from = config.mail_from.parse().context("MAIL_FROM must be an e-mail address")?;
        Ok(Some(Self { transport, from }))
    }

    fn message(&self, email: &Email, to: Address) -> anyhow::Result<Message> {
        let domain = self.from.email.domain();
        let draft = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&email.subject)
            .message_id(Some(format!("<{}@{domain}>", email.id)))
            .date(email.date.into());
        let text = SinglePart::plain(email.body.clone());
        let Some(invite) = &email.invite else { return Ok(draft.singlepart(text)?) };
        let kind = format!("text/calendar; method={}; charset=UTF-8", invite.method.name());
        let kind = ContentType::parse(&kind).context("a content type of ours")?;
        let file = Attachment::new(FILE_NAME.to_owned()).body(invite.file.clone(), kind);
        Ok(draft.multipart(MultiPart::mixed().singlepart(text).singlepart(file))?)
    }
}

#[async_trait]
impl Mailer for Smtp {
    fn from(&self) -> String {
        self.from.email.to_string()
    }

    async fn send(&self, email: &Email) -> Outcome {
        let invalid = || Outcome::Refused { reason: FailureReason::InvalidAddress, code: String::new() };
        let Ok(to) = email.to.parse::<Address>() else { return invalid() };
        let message = match self.message(email, to) {
            Ok(message) => message,
            Err(error) => return Outcome::NotTaken(format!("an e-mail could not be written: {error:#}")),
        };
        match self.transport.send(message).await {
            Ok(response) => Outcome::Taken(response.code().to_string()),
            Err(error) if error.is_permanent() => {
                let code = error.status().map(|code| code.to_string()).unwrap_or_default();
                Outcome::Refused { reason: failure_reason(&code), code }
            }
            // The relay's words may repeat the address.
            Err(error) => Outcome::NotTaken(match error.status() {
                Some(code) => format!("the relay answered {code}"),
                None => "the relay does not answer".to_owned(),
            }),
        }
    }
}

/// SMTP statuses that mean something to a clinic (RFC 5321, section 4.2.3).
fn failure_reason(code: &str) -> FailureReason {
    match code {
        "550" | "551" | "553" => FailureReason::InvalidAddress,
        "552" | "554" => FailureReason::Blocked,
        _ => FailureReason::ProviderError,
    }
}
