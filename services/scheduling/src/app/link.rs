//! Publishing calendars under links, and what readers of a link get.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use kit::config::Origin;
use kit::ids::CalendarLinkId;
use proto::clinic::scheduling::v1 as wire;
use sqlx::PgConnection;
use tokio::sync::OnceCell;

use super::App;
use crate::domain::link::{Key, Subject};
use crate::error::{Error, not_found};
use crate::grpc::encode;
use crate::ical::contents;
use crate::store;

/// What signs links and where they lead.
#[derive(Clone, Debug)]
pub struct Signer {
    /// How the world reaches the gateway.
    pub public_url: Origin,
    /// Read at first use and kept: a forged token is refused without the database.
    key: Arc<OnceCell<Key>>,
}

impl Signer {
    /// For links at this address.
    pub fn new(public_url: Origin) -> Self {
        Self { public_url, key: Arc::default() }
    }
}

/// Publishes a calendar.
pub async fn create(
    tx: &mut PgConnection,
    subject: Subject,
    now: DateTime<Utc>,
) -> Result<wire::CalendarLink, Error> {
    match subject {
        Subject::Provider(id) => {
            store::catalog::provider(&mut *tx, id).await?.ok_or_else(|| not_found(id))?;
        }
        Subject::Clinic(id) => {
            store::catalog::clinic(&mut *tx, id).await?.ok_or_else(|| not_found(id))?;
        }
    }
    let link = store::link::insert(tx, CalendarLinkId::new(), subject, now).await?;
    Ok(encode::calendar_link(&link))
}

/// Revokes a link.
pub async fn revoke(
    tx: &mut PgConnection,
    id: CalendarLinkId,
    now: DateTime<Utc>,
) -> Result<wire::CalendarLink, Error> {
    let link = store::link::revoke(tx, id, now).await?.ok_or_else(|| not_found(id))?;
    Ok(encode::calendar_link(&link))
}

impl App {
    /// Where the feed of a link is. Made when asked for and never stored.
    pub async fn address(&self, id: CalendarLinkId) -> Result<String, Error> {
        Ok(format!("{}/calendars/{}.ics", self.signer.public_url, self.key().await?.token(id)))
    }

    /// The calendar that a token opens now; `None` = the token is forged, or its link unknown or revoked.
    pub async fn published(&self, token: &str) -> Result<Option<String>, Error> {
        let Some(id) = self.key().await?.open(token) else { return Ok(None) };
        let link = store::link::link(self.pool(), id).await?;
        let Some(link) = link.filter(|link| link.revoke_time.is_none()) else { return Ok(None) };
        let (network, now) = (self.view().network, self.now());
        let feed = match link.subject {
            Subject::Provider(id) => contents::of_provider(&network, id, now),
            Subject::Clinic(id) => contents::of_clinic(&network, id, now),
        };
        Ok(feed.map(|feed| feed.text(now)))
    }

    async fn key(&self) -> sqlx::Result<&Key> {
        self.signer.key.get_or_try_init(|| store::link::key(self.pool())).await
    }
}
