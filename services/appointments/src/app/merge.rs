//! Appointments of a patient whose record was merged pass to the survivor, past ones too.
//!
//! The event notes the merge and nothing else, so that it always succeeds. From then on new bookings for the merged patient are the
//! survivor's, and a worker of any replica hands over what there is, one appointment in each transaction. It looks again for a
//! while, for holds end later and a booking may not have seen the merge.
//!
//! Entries of the waitlist pass likewise. An open offer is left alone: all ids of the person answer it, and it ends soon.
//!
//! The survivor's own visits may leave no room for one: at the same time, or within 7 days with the same provider. No constraint
//! is bent and no visit is lost: it stays with the merged id, which names the same person, and is displaced, so that the front desk
//! has it on its list. When the visit in the way is gone, it passes and stands again.

use kit::ids::{AppointmentId, PatientId, WaitlistEntryId};
use kit::merges;
use sqlx::PgConnection;

use super::alternatives;
use super::{App, step, waitlist};
use crate::domain::waitlist::EntryState;
use crate::domain::{Clash, Conflict, NewReservation, Reservation, State};
use crate::error::Error;
use crate::store::By;
use crate::{events, store};

/// Merged patients that one look takes.
const BATCH: i64 = 20;

impl App {
    /// Hands over what is due.
    pub(super) async fn hand_over_due(&self) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        for merged in store::claim_handovers(&mut conn, BATCH).await? {
            let survivor = merges::survivor(&mut conn, merged).await?;
            let mut left = false;
            for id in store::naming(&mut conn, merged).await? {
                left |= !self.hand_over(id, merged, survivor).await?;
            }
            for id in store::entries_naming(&mut conn, merged).await? {
                left |= !self.hand_over_entry(id, merged, survivor).await?;
            }
            if !left {
                store::handed_over(&mut conn, merged).await?;
            }
        }
        Ok(())
    }

    /// Hands one appointment over; false when it has to stay for now.
    async fn hand_over(
        &self,
        id: AppointmentId,
        merged: PatientId,
        survivor: PatientId,
    ) -> Result<bool, Error> {
        let mut tx = self.db.begin().await?;
        let row = store::lock(&mut tx, id).await?.filter(|row| row.patient_id == merged);
        let Some(before) = row else { return Ok(true) };
        // Its booking may be under way with that name; it ends soon, or becomes a visit.
        if matches!(before.state, State::Held | State::Offered) {
            return Ok(false);
        }
        let clashes = own_clashes(&mut tx, &before, survivor).await?;
        if !clashes.is_empty() {
            drop(tx);
            if before.state == State::Booked {
                self.displace(before, &clashes).await?;
            }
            return Ok(false);
        }
        let mut row = Reservation { patient_id: survivor, ..before.clone() };
        if row.waits_for_survivor() {
            row.displaced_reasons.retain(|reason| !Conflict::is_own_rule(reason));
            if row.displaced_reasons.is_empty() {
                row.displaced_at = None;
                alternatives::release(&mut tx, row.id, By::default()).await?;
                step(&mut row, State::Booked)?;
            }
        }
        let tell = |row: &Reservation| match row.state == before.state {
            true => events::reassigned(row, before.patient_id),
            false => events::rescheduled(row, &before, None),
        };
        match store::save(&mut tx, &mut row, By::default(), tell).await {
            Ok(()) => tx.commit().await?,
            // The survivor has booked something meanwhile.
            Err(error) if store::is_taken(&error) || store::is_deadlock(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Hands an entry of the waitlist over; false when it has to stay for now. Of two for one thing the survivor's goes on, from the
    /// better of both places.
    async fn hand_over_entry(
        &self,
        id: WaitlistEntryId,
        merged: PatientId,
        survivor: PatientId,
    ) -> Result<bool, Error> {
        let mut tx = self.db.begin().await?;
        let own = store::lock_open_entries(&mut tx, survivor).await?;
        let Some(entry) = store::entry(&mut tx, id).await?.filter(|entry| entry.patient_id == merged) else {
            return Ok(true);
        };
        match own.iter().find(|own| own.service_type_id == entry.service_type_id) {
            Some(own) => {
                store::promote(&mut tx, own.id, &entry).await?;
                if !waitlist::end_entry(&mut tx, id, EntryState::Left, By::default()).await? {
                    return Ok(false);
                }
            }
            // Its offer is answered first, for the survivor may have one as well.
            None if entry.state == EntryState::Offered => return Ok(false),
            None => store::pass_entry(&mut tx, id, survivor).await?,
        }
        tx.commit().await?;
        self.freed.notify_one();
        Ok(true)
    }

    /// Puts a booking that cannot pass on the front desk's list.
    async fn displace(&self, seen: Reservation, clashes: &[Clash]) -> Result<(), Error> {
        self.hold_alternatives(&seen).await;
        let displaced = self.try_displace(&seen, clashes).await;
        if !matches!(displaced, Ok(true)) {
            self.give_back(seen.id).await?;
        }
        displaced.map(drop)
    }

    /// False when it moved on; the next look sees how it stands.
    async fn try_displace(&self, seen: &Reservation, clashes: &[Clash]) -> Result<bool, Error> {
        let mut tx = self.db.begin().await?;
        let Some(mut row) = store::lock(&mut tx, seen.id).await? else { return Ok(false) };
        if row.version != seen.version {
            return Ok(false);
        }
        row.displaced_at = Some(self.now());
        row.displaced_reasons = clashes.iter().map(|clash| clash.rule.reason().to_owned()).collect();
        step(&mut row, State::Displaced)?;
        let held = alternatives::held(&mut tx, row.id).await?;
        let tell = |row: &Reservation| events::displaced(row, held);
        store::save(&mut tx, &mut row, By::default(), tell).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// The patient's own rules that an appointment would break if it were `survivor`'s.
async fn own_clashes(
    tx: &mut PgConnection,
    row: &Reservation,
    survivor: PatientId,
) -> Result<Vec<Clash>, Error> {
    if !row.state.occupies() {
        return Ok(vec![]);
    }
    let as_survivors = NewReservation { patient_id: survivor, ..row.again() };
    let mut clashes = store::conflicts(tx, &as_survivors, row.provider_id, &[]).await?;
    clashes.retain(|clash| Conflict::is_own_rule(clash.rule.reason()));
    Ok(clashes)
}
