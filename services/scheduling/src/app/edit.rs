//! A change to the network in the making: who must wait meanwhile, and what it does to whose working time.
//!
//! What a change affects is not guessed from what was asked for. The network is compared with itself before the change, as the
//! same transaction sees both, so a range is told if and only if working time differs in it.

use std::collections::{BTreeSet, HashMap};

use kit::ids::{ClinicId, ProviderId, ServiceTypeId};
use sqlx::PgConnection;

use super::App;
use crate::domain::network::Network;
use crate::domain::span::{Minute, Span, Spans, minute};
use crate::error::{Error, not_found};
use crate::events::{self, CalendarChange};
use crate::mirror::View;
use crate::store;

/// A transaction that changes something.
pub struct Edit<'a> {
    /// The transaction.
    pub tx: &'a mut PgConnection,
    app: &'a App,
}

impl<'a> Edit<'a> {
    /// Of something that several providers share: nothing else in the network changes until the end of the transaction.
    pub async fn shared(app: &'a App, tx: &'a mut PgConnection) -> Result<Self, Error> {
        store::lock_catalog(tx).await?;
        Ok(Self { tx, app })
    }

    /// Of one provider's calendar: nothing shared and nothing of this provider changes until the end of the transaction. Also
    /// tells the calendar's version after the change.
    pub async fn calendar(
        app: &'a App,
        tx: &'a mut PgConnection,
        provider: ProviderId,
    ) -> Result<(Self, i64), Error> {
        store::share_catalog(tx).await?;
        let version = store::lock_calendar(tx, provider).await?.ok_or_else(|| not_found(provider))?;
        Ok((Self { tx, app }, version + 1))
    }

    /// The network as it is before the change, to compare it with afterwards.
    pub async fn look(&mut self) -> Result<View, Error> {
        Ok(self.app.view().within(self.tx).await?)
    }

    /// Refuses a clinic that does not exist.
    pub async fn know(&mut self, clinic: Option<ClinicId>) -> Result<(), Error> {
        let Some(id) = clinic else { return Ok(()) };
        store::catalog::clinic(&mut *self.tx, id).await?.map(drop).ok_or_else(|| not_found(id))
    }

    /// One provider's rules have been changed: raises the calendar version, tells it, and answers the network after the change.
    /// `reach` is the time that the rules before and after are about.
    pub async fn tell_calendar(
        self,
        before: &View,
        provider: ProviderId,
        change: CalendarChange,
        reach: &[Span],
    ) -> Result<View, Error> {
        let raised = store::raise_calendars(self.tx, &[provider]).await?;
        let after = before.within(self.tx).await?;
        let affected = affected(&before.network, &after.network, provider, reach);
        for raised in raised {
            events::calendar_changed(self.tx, raised, change, &affected).await?;
        }
        Ok(after)
    }

    /// Opening hours or blackouts have been changed: raises and tells the calendars of all whose working time it changes. `reach`
    /// is the time that the change is about; what comes back every week and changes nothing over two years never does.
    pub async fn tell_hours(
        self,
        before: &View,
        change: CalendarChange,
        reach: &[Span],
    ) -> Result<(), Error> {
        store::raise_catalog(self.tx).await?;
        let after = before.within(self.tx).await?.network;
        let before = &before.network;
        let posts = before.posts().filter(|(clinic, _)| change.clinic.is_none_or(|id| id == *clinic));
        let providers: BTreeSet<_> = posts.map(|(_, post)| post.member.provider.id).collect();
        let later = reach.iter().any(|span| span.end < Minute::MAX && !after.beyond(*span).is_empty());
        let touched = |id: &ProviderId| later || !before.difference(&after, *id).is_empty();
        let concerned = providers.into_iter().filter(touched);
        let concerned = concerned.map(|id| (id, affected(before, &after, id, reach))).collect();
        self.tell(change, concerned).await
    }

    /// Something else has been changed that the calendars of those who work at `clinic`, or offer `service`, depend on: raises
    /// and tells them, from now on.
    pub async fn tell_all(
        self,
        change: CalendarChange,
        clinic: Option<ClinicId>,
        service: Option<ServiceTypeId>,
    ) -> Result<(), Error> {
        store::raise_catalog(self.tx).await?;
        let providers = store::working(self.tx, clinic, service).await?;
        let concerned = providers.into_iter().map(|id| (id, self.rest_of_time())).collect();
        self.tell(change, concerned).await
    }

    /// A provider's catalog entry has been changed: raises and tells its calendar, from now on.
    pub async fn tell_one(self, provider: ProviderId, change: CalendarChange) -> Result<(), Error> {
        store::raise_catalog(self.tx).await?;
        let concerned = vec![(provider, self.rest_of_time())];
        self.tell(change, concerned).await
    }

    /// A provider has been added, with a calendar of this version: tells it.
    pub async fn tell_new(
        self,
        provider: ProviderId,
        version: i64,
        change: CalendarChange,
    ) -> Result<(), Error> {
        store::raise_catalog(self.tx).await?;
        let affected = self.rest_of_time();
        Ok(events::calendar_changed(self.tx, (provider, version), change, &affected).await?)
    }

    /// Something that no calendar depends on has been changed.
    pub async fn tell_nobody(self) -> Result<(), Error> {
        Ok(store::raise_catalog(self.tx).await?)
    }

    fn rest_of_time(&self) -> Spans {
        [Span::new(minute(self.app.now()), Minute::MAX)].into_iter().collect()
    }

    async fn tell(self, change: CalendarChange, concerned: Vec<(ProviderId, Spans)>) -> Result<(), Error> {
        let ids: Vec<_> = concerned.iter().map(|(id, _)| *id).collect();
        let raised: HashMap<_, _> = store::raise_calendars(self.tx, &ids).await?.into_iter().collect();
        for (id, affected) in &concerned {
            if let Some(version) = raised.get(id) {
                events::calendar_changed(self.tx, (*id, *version), change, affected).await?;
            }
        }
        Ok(())
    }
}

/// When a provider's working time differs; beyond what is expanded, all that the change is about.
fn affected(before: &Network, after: &Network, provider: ProviderId, reach: &[Span]) -> Spans {
    let beyond: Spans = reach.iter().map(|span| after.beyond(*span)).collect();
    before.difference(after, provider).union(&beyond)
}
