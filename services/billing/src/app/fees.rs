//! Fee schedules.

use chrono::NaiveDate;
use kit::auth::Caller;
use kit::idempotency::{self, Attempt};
use kit::ids::{ClinicId, RequestId, ServiceTypeId};
use proto::clinic::billing::v1 as pb;

use super::App;
use crate::domain::fee::{self, Fee, Schedule};
use crate::error::Error;
use crate::store::fees::{self, Span};
use crate::wire;

impl App {
    /// Adds or replaces `fees`, all or none, if the schedule still is the one `etag` names.
    pub async fn set_fees(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        request: &pb::SetFeeScheduleRequest,
        clinic: ClinicId,
        fees: &[Fee],
    ) -> Result<pb::FeeSchedule, Error> {
        let mut fresh =
            match idempotency::begin(&self.db, caller, "SetFeeSchedule", request_id, request).await? {
                Attempt::Replayed(answer) => return Ok(answer),
                Attempt::Fresh(fresh) => fresh,
            };
        let now = self.clock.now();
        let open = fee::earliest_open_date(now);
        if let Some(passed) = fees.iter().map(|fee| fee.effective_from).find(|from| *from < open) {
            return Err(Error::EffectiveDatePassed(passed));
        }
        let version = fees::lock_version(&mut fresh.tx, clinic, now).await?;
        let known = Schedule { clinic, fees: vec![], version, updated_at: None }.etag();
        if request.etag != known {
            return Err(kit::status::Error::EtagMismatch { kind: "FeeSchedule" }.into());
        }
        for fee in fees {
            fees::put(&mut fresh.tx, clinic, fee, self.currency).await?;
        }
        if fees::count(&mut fresh.tx, clinic).await? > fee::MOST_PER_CLINIC as i64 {
            let most = format!("a clinic has at most {} fees", fee::MOST_PER_CLINIC);
            return Err(kit::status::Error::invalid("fees", most).into());
        }
        fees::touch(&mut fresh.tx, clinic, now).await?;
        let schedule = fees::schedule(&mut fresh.tx, clinic, None, Span::From(open)).await?;
        let answer = wire::fee_schedule(&schedule, self.currency);
        fresh.finish(&answer).await?;
        Ok(answer)
    }

    /// A clinic's fees: those in force on `visit_date`, or all current and coming ones.
    pub async fn fees(
        &self,
        clinic: ClinicId,
        service_type: Option<ServiceTypeId>,
        visit_date: Option<NaiveDate>,
    ) -> Result<Schedule, Error> {
        let span = visit_date.map_or_else(|| Span::From(fee::earliest_open_date(self.clock.now())), Span::On);
        let mut conn = self.db.pool().acquire().await?;
        Ok(fees::schedule(&mut conn, clinic, service_type, span).await?)
    }
}
