//! Adding what was planned, over the suite's own RPCs, a few calls at once.

use anyhow::{Context as _, anyhow};
use chrono_tz::Tz;
use futures::{StreamExt as _, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use kit::fields::{date, timestamp};
use proto::clinic::scheduling::v1::calendar_service_client::CalendarServiceClient;
use proto::clinic::scheduling::v1::catalog_service_client::CatalogServiceClient;
use proto::clinic::scheduling::v1::{
    AddBlackoutRequest, AddExceptionRequest, Blackout, CalendarException, DateSpan, ExceptionCause,
    ExceptionKind, GetClinicRequest, blackout,
};
use proto::google::r#type::Interval;
use tonic::Status;
use uuid::Uuid;

use super::event::When;
use super::plan::{Planned, Target};
use crate::caller::{Caller, with_retries};

/// Calls under way at once.
const AT_ONCE: usize = 8;

/// The suite behind a gateway, as a manager sees it.
pub(super) struct Service(pub(super) Caller);

/// How many were added, and how many an earlier import had.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) added: usize,
    pub(super) there: usize,
}

impl Service {
    /// The wall clock of a clinic.
    pub(super) async fn time_zone(&self, clinic: Uuid) -> anyhow::Result<Tz> {
        let asked = with_retries(|| {
            let request = GetClinicRequest { clinic_id: clinic.to_string() };
            let mut catalog = CatalogServiceClient::new(self.0.channel());
            async move { catalog.get_clinic(request).await }
        });
        let found = asked.await.map_err(|status| self.0.explained(&status)).context("--clinic")?;
        let name = found.into_inner().time_zone;
        name.parse().map_err(|_| anyhow!("the clinic's time zone {name:?} is unknown here: give --time-zone"))
    }

    /// Adds what is not there. Stops at the first that the service refuses.
    pub(super) async fn add(
        &self,
        planned: &[Planned],
        target: Target,
        cause: ExceptionCause,
    ) -> anyhow::Result<Done> {
        let progress = ProgressBar::new(planned.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len} {msg}") {
            progress.set_style(style);
        }
        let mut done = Done::default();
        let calls = planned.iter().map(|one| async move {
            let answer = with_retries(|| self.add_one(one, target, cause)).await;
            answer.map_err(|status| (one, status))
        });
        let mut running = futures::stream::iter(calls).buffer_unordered(AT_ONCE);
        let result = loop {
            match running.try_next().await {
                Ok(Some(true)) => done.added += 1,
                Ok(Some(false)) => done.there += 1,
                Ok(None) => break Ok(()),
                Err(failed) => break Err(failed),
            }
            progress.inc(1);
        };
        progress.finish_and_clear();
        let Err((one, status)) = result else { return Ok(done) };
        let there = done.added + done.there;
        let explained = self.0.explained(&status);
        Err(explained.context(format!(
            "line {}: {:?}, {}, was not added; {there} of {} are there, and the same command goes on with the rest",
            one.line,
            one.name,
            super::in_words(one.when, Tz::UTC),
            planned.len(),
        )))
    }

    /// Whether it was added now.
    async fn add_one(
        &self,
        planned: &Planned,
        target: Target,
        cause: ExceptionCause,
    ) -> Result<bool, Status> {
        let mut calendar = CalendarServiceClient::new(self.0.channel());
        // The id makes a call safe to repeat; a request id would answer a repetition as if it had added something.
        let (added, there) = match target {
            Target::Provider(provider, clinic) => {
                let exception = time_off(planned, provider, clinic, cause);
                let request = AddExceptionRequest {
                    exception_id: planned.id.to_string(),
                    exception: Some(exception),
                    ..Default::default()
                };
                (calendar.add_exception(request).await.map(drop), "EXCEPTION_EXISTS")
            }
            Target::Clinic(_) | Target::Network => {
                let blackout = closed(planned, target);
                let request = AddBlackoutRequest {
                    blackout_id: planned.id.to_string(),
                    blackout: Some(blackout),
                    ..Default::default()
                };
                (calendar.add_blackout(request).await.map(drop), "BLACKOUT_EXISTS")
            }
        };
        match added {
            Ok(()) => Ok(true),
            Err(status) if kit::status::reason(&status) == there => Ok(false),
            Err(status) => Err(status),
        }
    }
}

fn time_off(
    planned: &Planned,
    provider: Uuid,
    clinic: Option<Uuid>,
    cause: ExceptionCause,
) -> CalendarException {
    CalendarException {
        provider_id: provider.to_string(),
        clinic_id: clinic.map(|id| id.to_string()).unwrap_or_default(),
        kind: ExceptionKind::TimeOff.into(),
        interval: match planned.when {
            When::Exact(start, end) => Some(interval(start, end)),
            // A provider's whole days were made exact when they were planned.
            When::Days(..) => None,
        },
        cause: cause.into(),
        ..Default::default()
    }
}

fn closed(planned: &Planned, target: Target) -> Blackout {
    let clinic_id = match target {
        Target::Clinic(clinic) => clinic.to_string(),
        Target::Network | Target::Provider(..) => String::new(),
    };
    let span = match planned.when {
        When::Days(first, last) => {
            blackout::Span::Days(DateSpan { first_date: Some(date(first)), last_date: Some(date(last)) })
        }
        When::Exact(start, end) => blackout::Span::Interval(interval(start, end)),
    };
    Blackout { clinic_id, name: planned.name.clone(), span: Some(span), ..Default::default() }
}

fn interval(start: chrono::DateTime<chrono::Utc>, end: chrono::DateTime<chrono::Utc>) -> Interval {
    Interval { start_time: Some(timestamp(start)), end_time: Some(timestamp(end)) }
}
