//! A change to the network in the making: who must wait meanwhile, and what it does to whose working time.
//!
//! What a change affects is not guessed from what was asked for. The network is compared with itself before the change, as the
//! same transaction sees both, so a range is told if and only if working time differs in it.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use kit::ids::{ClinicId, ProviderId};
use sqlx::PgConnection;

use super::App;
use crate::domain::network::{Network, Post};
use crate::domain::span::{Minute, Span, Spans, minute};
use crate::error::{Error, not_found};
use crate::events::{self, CalendarChange};
use crate::mirror::View;
use crate::store;

/// A transaction that changes something, and the network before it.
pub struct Edit<'a> {
    /// The transaction.
    pub tx: &'a mut PgConnection,
    now: DateTime<Utc>,
    before: View,
}

impl<'a> Edit<'a> {
    /// Of something that several providers share: nothing else in the network changes until the end of the transaction.
    pub async fn shared(app: &App, tx: &'a mut PgConnection) -> Result<Self, Error> {
        store::lock_catalog(tx).await?;
        Self::begin(app, tx).await
    }

    /// Of one provider's calendar: nothing shared and nothing of this provider changes until the end of the transaction. Also
    /// tells the calendar's version after the change.
    pub async fn calendar(
        app: &App,
        tx: &'a mut PgConnection,
        provider: ProviderId,
    ) -> Result<(Self, i64), Error> {
        store::share_catalog(tx).await?;
        let version = store::lock_calendar(tx, provider).await?.ok_or_else(|| not_found(provider))?;
        Ok((Self::begin(app, tx).await?, version + 1))
    }

    async fn begin(app: &App, tx: &'a mut PgConnection) -> Result<Self, Error> {
        let before = app.view().within(tx).await?;
        Ok(Self { tx, now: app.now(), before })
    }

    /// The network before the change.
    pub fn network(&self) -> &Network {
        &self.before.network
    }

    /// Refuses a clinic that does not exist.
    pub fn know(&self, clinic: Option<ClinicId>) -> Result<(), Error> {
        clinic.map_or(Ok(()), |id| self.network().site(id).map(drop).ok_or_else(|| not_found(id)))
    }

    /// One provider's rules have been changed: raises the calendar version, tells it, and answers the network after the change.
    /// `reach` is the time that the rules before and after are about.
    pub async fn tell_calendar(
        self,
        provider: ProviderId,
        change: CalendarChange,
        reach: &[Span],
    ) -> Result<View, Error> {
        let raised = store::raise_calendars(self.tx, &[provider]).await?;
        let after = self.before.within(self.tx).await?;
        let affected = self.affected(&after.network, provider, reach);
        for raised in raised {
            events::calendar_changed(self.tx, raised, change, &affected).await?;
        }
        Ok(after)
    }

    /// Opening hours or blackouts have been changed: raises and tells the calendars of all whose working time it changes. `reach`
    /// is the time that the change is about; what comes back every week and changes nothing over two years never does.
    pub async fn tell_hours(self, change: CalendarChange, reach: &[Span]) -> Result<(), Error> {
        store::raise_catalog(self.tx).await?;
        let after = self.before.within(self.tx).await?.network;
        let mut concerned = vec![];
        for provider in self.posted(|clinic, _| change.clinic.is_none_or(|id| id == clinic)) {
            let affected = self.network().difference(&after, provider);
            if !affected.is_empty()
                || reach.iter().any(|s| s.end < Minute::MAX && !after.beyond(*s).is_empty())
            {
                let beyond = reach.iter().map(|span| after.beyond(*span)).collect();
                concerned.push((provider, affected.union(&beyond)));
            }
        }
        self.tell(change, concerned).await
    }

    /// Something else that `whose` calendars depend on has been changed: raises and tells them, from now on.
    pub async fn tell_all(
        self,
        change: CalendarChange,
        whose: impl Fn(ClinicId, &Post) -> bool,
    ) -> Result<(), Error> {
        store::raise_catalog(self.tx).await?;
        let from_now_on = self.rest_of_time();
        let concerned = self.posted(whose).into_iter().map(|id| (id, from_now_on.clone())).collect();
        self.tell(change, concerned).await
    }

    /// A provider's catalog entry has been changed: raises and tells its calendar, from now on.
    pub async fn tell_one(self, provider: ProviderId, change: CalendarChange) -> Result<(), Error> {
        store::raise_catalog(self.tx).await?;
        let from_now_on = self.rest_of_time();
        self.tell(change, vec![(provider, from_now_on)]).await
    }

    /// A provider has been added, with a calendar of this version: tells it.
    pub async fn tell_new(
        self,
        provider: ProviderId,
        version: i64,
        change: CalendarChange,
    ) -> Result<(), Error> {
        store::raise_catalog(self.tx).await?;
        let from_now_on = self.rest_of_time();
        Ok(events::calendar_changed(self.tx, (provider, version), change, &from_now_on).await?)
    }

    fn rest_of_time(&self) -> Spans {
        [Span::new(minute(self.now), Minute::MAX)].into_iter().collect()
    }

    /// Something that no calendar depends on has been changed.
    pub async fn tell_nobody(self) -> Result<(), Error> {
        Ok(store::raise_catalog(self.tx).await?)
    }

    fn posted(&self, whose: impl Fn(ClinicId, &Post) -> bool) -> BTreeSet<ProviderId> {
        let posts = self.network().posts().filter(|(clinic, post)| whose(*clinic, post));
        posts.map(|(_, post)| post.member.provider.id).collect()
    }

    fn affected(&self, after: &Network, provider: ProviderId, reach: &[Span]) -> Spans {
        let beyond: Spans = reach.iter().map(|span| after.beyond(*span)).collect();
        self.network().difference(after, provider).union(&beyond)
    }

    async fn tell(self, change: CalendarChange, concerned: Vec<(ProviderId, Spans)>) -> Result<(), Error> {
        let ids: Vec<_> = concerned.iter().map(|(id, _)| *id).collect();
        let raised: std::collections::HashMap<_, _> =
            store::raise_calendars(self.tx, &ids).await?.into_iter().collect();
        for (id, affected) in &concerned {
            if let Some(version) = raised.get(id) {
                events::calendar_changed(self.tx, (*id, *version), change, affected).await?;
            }
        }
        Ok(())
    }
}
