//! Which words are in force: those that somebody set, in the recipient's language or its base, else the built-in ones.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kit::db::Db;
use proto::clinic::notify::v1::{Channel, MessageKind};

use crate::store::templates::{self as store, Stored};
use crate::words::template::{Pattern, Values};
use crate::words::{self, Language, Text};

/// Words that another replica was told are in force here after this.
const FRESH: Duration = Duration::from_secs(1);

/// The words in force of one kind in one channel and language.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The language they are in, BCP 47.
    pub language: String,
    /// Subject of an e-mail; empty for texts.
    pub subject: String,
    /// The pattern.
    pub body: String,
    /// The template they come from; `None` = they are built in, and nobody ever set others in this language.
    pub stored: Option<Stored>,
}

/// What was read, and when.
type Read = Option<(Instant, Arc<[Stored]>)>;

/// Every template, as read a moment ago; clones share it.
#[derive(Clone, Debug)]
pub struct Templates {
    db: Db,
    default: Language,
    read: Arc<Mutex<Read>>,
}

impl Templates {
    /// Those of `db`; where a language has no words, `default` speaks.
    pub fn new(db: Db, default: Language) -> Self {
        Self { db, default, read: Arc::default() }
    }

    /// The language of those who named none, or one without words.
    pub fn default_language(&self) -> Language {
        self.default
    }

    /// Reads them anew next time.
    pub fn forget(&self) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The words for a recipient of the language `tag`; `None` = there are none of this kind in this channel.
    pub async fn in_force(
        &self,
        kind: MessageKind,
        channel: Channel,
        tag: &str,
    ) -> sqlx::Result<Option<InForce>> {
        let all = self.all().await?;
        let tag = normal(tag);
        let candidates = [tag.clone(), words::base(&tag), self.default.tag().to_owned()];
        let found = candidates.into_iter().find_map(|language| exactly(&all, kind, channel, &language));
        Ok(found)
    }

    /// The words of a kind filled in for a recipient of the language `tag`, and their own language.
    pub async fn write(
        &self,
        kind: MessageKind,
        channel: Channel,
        tag: &str,
        values: impl FnOnce(&str) -> Values,
    ) -> anyhow::Result<(Text, String)> {
        let found = self.in_force(kind, channel, tag).await?;
        let found = found.ok_or_else(|| {
            anyhow::anyhow!("there are no words for {} by {}", kind.as_str_name(), channel.as_str_name())
        })?;
        let values = values(&found.language);
        let text = fill(channel, &found.subject, &found.body, values)
            .map_err(|faults| anyhow::anyhow!("a template cannot be read: {}", faults.join("; ")))?;
        Ok((text, found.language))
    }

    async fn all(&self) -> sqlx::Result<Arc<[Stored]>> {
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((read, all)) = known
            && read.elapsed() < FRESH
        {
            return Ok(all);
        }
        let asked = Instant::now();
        let all: Arc<[Stored]> = store::all(&mut *self.db.pool().acquire().await?).await?.into();
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, all.clone()));
        Ok(all)
    }
}

/// The words in force in exactly one language.
fn exactly(all: &[Stored], kind: MessageKind, channel: Channel, language: &str) -> Option<InForce> {
    let stored = all.iter().find(|s| s.kind == kind && s.channel == channel && s.language == language);
    let (subject, body) = match stored {
        Some(stored) if !stored.body.is_empty() => (stored.subject.clone(), stored.body.clone()),
        Some(_) | None => {
            // Only a language itself has built-in words: "es-MX" is looked for as "es" next.
            let spoken = Language::of(language).filter(|known| known.tag() == language)?;
            let (subject, body) = spoken.builtin(kind, channel)?;
            (subject.to_owned(), body.to_owned())
        }
    };
    Some(InForce { language: language.to_owned(), subject, body, stored: stored.cloned() })
}

/// A message from patterns; otherwise what is wrong with them.
pub fn fill(channel: Channel, subject: &str, body: &str, values: Values) -> Result<Text, Vec<String>> {
    let body = Pattern::parse(body)?;
    Ok(match channel {
        Channel::Email => words::email(&Pattern::parse(subject)?, &body, &values),
        Channel::Sms | Channel::Unspecified => words::sms(&body, values),
    })
}

/// A BCP 47 tag with its language in lower case, as templates are kept.
pub fn normal(tag: &str) -> String {
    match tag.split_once('-') {
        Some((language, rest)) => format!("{}-{rest}", language.to_ascii_lowercase()),
        None => tag.to_ascii_lowercase(),
    }
}
