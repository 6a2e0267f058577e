//! What the provider's record of a payment should say by our books, what differs, and the report for people.

use chrono::{DateTime, SecondsFormat, Utc};
use kit::ids::{AppointmentId, ChargeId};
use uuid::Uuid;

use super::charge::{Charge, Kind, Standing, State};
use super::money;
use super::words;

/// Differences that a report names; it counts them all.
pub const MOST_NAMED: usize = 1_000;
/// Bytes of a report's text.
const MOST_TEXT: usize = 64 * 1024;

words! {
    /// What differs.
    Differs {
        /// The provider's state of a payment is another than ours.
        State = "STATE",
        /// The amounts differ.
        Amount = "AMOUNT",
        /// The provider has a payment that no charge knows.
        UnknownPayment = "UNKNOWN_PAYMENT",
        /// A charge names a payment that the provider does not have.
        MissingPayment = "MISSING_PAYMENT",
        /// An authorization lives without a booked visit.
        OrphanAuthorization = "ORPHAN_AUTHORIZATION",
        /// A refund is known to one side only.
        Refund = "REFUND",
        /// The bank took a payment back.
        Dispute = "DISPUTE",
    }
}

/// One difference. Amounts in minor units of the network's currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discrepancy {
    /// What differs.
    pub kind: Differs,
    /// Our charge.
    pub charge: Option<ChargeId>,
    /// The visit.
    pub appointment: Option<AppointmentId>,
    /// The provider's id.
    pub reference: String,
    /// By our books.
    pub ours: Option<i64>,
    /// By the provider's.
    pub theirs: Option<i64>,
    /// It was put right.
    pub repaired: bool,
    /// What was done or is to be done, one sentence.
    pub remark: &'static str,
}

/// What a charge's newest payment should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It changes just now, and a worker sees to it.
    OnItsWay,
    /// This much is reserved.
    Reserved(i64),
    /// This much was taken.
    Taken(i64),
    /// Neither.
    Nothing,
}

/// What the newest payment of `charge` should be; `drawn` = what the visit's fee took of it.
pub fn expected(charge: &Charge, drawn: i64) -> Expected {
    let taken = |amount| if amount > 0 { Expected::Taken(amount) } else { Expected::Nothing };
    match (charge.kind, charge.state) {
        (_, State::Authorizing | State::RequiresAction | State::Capturing | State::Voiding) => {
            Expected::OnItsWay
        }
        (_, State::Authorized) => Expected::Reserved(charge.authorized),
        (Kind::NoShowFee, _) => taken(charge.captured - charge.drawn_from_copay),
        (Kind::Copay, State::Captured | State::Refunded) => taken(charge.captured),
        (Kind::Copay, State::Declined | State::Voided | State::Lapsed) => taken(drawn),
    }
}

/// How a payment differs from what is expected: what differs, our amount, the provider's.
pub fn compare(expected: Expected, standing: &Standing) -> Option<(Differs, Option<i64>, Option<i64>)> {
    let theirs = match standing {
        Standing::Reserved { amount, .. } | Standing::Taken { amount } => Some(*amount),
        Standing::ActionRequired { .. } | Standing::Refused { .. } | Standing::Released => None,
    };
    match (expected, standing) {
        (Expected::OnItsWay, _) => None,
        (Expected::Reserved(ours), Standing::Reserved { amount, .. })
        | (Expected::Taken(ours), Standing::Taken { amount }) => {
            (ours != *amount).then_some((Differs::Amount, Some(ours), theirs))
        }
        (Expected::Reserved(ours) | Expected::Taken(ours), _) => Some((Differs::State, Some(ours), theirs)),
        (Expected::Nothing, Standing::Reserved { .. }) => Some((Differs::OrphanAuthorization, None, theirs)),
        (Expected::Nothing, Standing::Taken { .. }) => Some((Differs::State, None, theirs)),
        (
            Expected::Nothing,
            Standing::ActionRequired { .. } | Standing::Refused { .. } | Standing::Released,
        ) => None,
    }
}

/// What one comparison found and did.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which.
    pub id: Uuid,
    /// Payments made from then on were compared.
    pub from: DateTime<Utc>,
    /// And before then.
    pub until: DateTime<Utc>,
    /// It only looked.
    pub dry_run: bool,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// Charges of ours.
    pub charges: i64,
    /// The provider's records.
    pub records: i64,
    /// Differences.
    pub found: i64,
    /// Those put right.
    pub repaired: i64,
    open: Vec<Discrepancy>,
    done: Vec<Discrepancy>,
}

impl Report {
    /// Of a comparison that begins.
    pub fn new(from: DateTime<Utc>, until: DateTime<Utc>, dry_run: bool, now: DateTime<Utc>) -> Self {
        Self {
            id: Uuid::now_v7(),
            from,
            until,
            dry_run,
            started_at: now,
            charges: 0,
            records: 0,
            found: 0,
            repaired: 0,
            open: vec![],
            done: vec![],
        }
    }

    /// Counts a difference, and names it while there is room.
    pub fn add(&mut self, discrepancy: Discrepancy) {
        self.found += 1;
        self.repaired += i64::from(discrepancy.repaired);
        let list = if discrepancy.repaired { &mut self.done } else { &mut self.open };
        if list.len() < MOST_NAMED {
            list.push(discrepancy);
        }
    }

    /// Those that are named: unrepaired first. The provider lists newest first, people read oldest first.
    pub fn named(&self) -> impl Iterator<Item = &Discrepancy> {
        self.open.iter().rev().chain(self.done.iter().rev()).take(MOST_NAMED)
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let instant = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut text = format!(
            "Payments made from {} to {}, compared at {}{}.\n{} charges and {} of the provider's records; {} differences, {} of \
             them put right.\n",
            instant(self.from),
            instant(self.until),
            instant(self.started_at),
            if self.dry_run { " without putting anything right" } else { "" },
            self.charges,
            self.records,
            self.found,
            self.repaired,
        );
        for one in self.named() {
            let line = line(one);
            if text.len() + line.len() > MOST_TEXT {
                break;
            }
            text += &line;
        }
        text
    }
}

fn line(one: &Discrepancy) -> String {
    let amount = |minor: Option<i64>| minor.map_or_else(|| "nothing".to_owned(), money::text);
    let id = |id: Option<String>| id.unwrap_or_else(|| "unknown".to_owned());
    format!(
        "\n{} {}: payment {}, charge {}, visit {}; ours {}, the provider's {}. {}\n",
        if one.repaired { "[put right]" } else { "[open]" },
        one.kind.word(),
        if one.reference.is_empty() { "unknown" } else { &one.reference },
        id(one.charge.map(|id| id.to_string())),
        id(one.appointment.map(|id| id.to_string())),
        amount(one.ours),
        amount(one.theirs),
        one.remark,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_an_orphan_only_where_nothing_is_expected() {
        let reserved = Standing::Reserved { amount: 2_500, capture_before: None };
        assert_eq!(compare(Expected::Reserved(2_500), &reserved), None);
        assert_eq!(compare(Expected::OnItsWay, &reserved), None);
        let orphan = Some((Differs::OrphanAuthorization, None, Some(2_500)));
        assert_eq!(compare(Expected::Nothing, &reserved), orphan);
        let other = Some((Differs::Amount, Some(2_000), Some(2_500)));
        assert_eq!(compare(Expected::Reserved(2_000), &reserved), other);
        let taken = Some((Differs::State, Some(2_500), None));
        assert_eq!(compare(Expected::Taken(2_500), &Standing::Released), taken);
    }

    #[test]
    fn a_report_counts_all_names_a_thousand_and_stays_within_its_bytes() {
        let now = DateTime::UNIX_EPOCH;
        let mut report = Report::new(now, now, false, now);
        for n in 0..3 * MOST_NAMED {
            report.add(Discrepancy {
                kind: Differs::State,
                charge: Some(ChargeId::new()),
                appointment: Some(AppointmentId::new()),
                reference: format!("pi_{n}"),
                ours: Some(1),
                theirs: None,
                repaired: n % 2 == 0,
                remark: "It is to be looked at.",
            });
        }
        assert_eq!((report.found, report.repaired), (3 * MOST_NAMED as i64, 3 * MOST_NAMED as i64 / 2));
        assert_eq!(report.named().count(), MOST_NAMED);
        assert!(report.named().all(|one| !one.repaired));
        assert!(report.text().len() <= MOST_TEXT);
    }
}
