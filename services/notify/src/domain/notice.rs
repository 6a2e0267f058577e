//! Notices: messages that tell of a change, beside reminders. Which kinds there are rules for, how long they are worth sending, how
//! many a patient may get.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use kit::ids::{AppointmentId, ProviderId};
use proto::clinic::notify::v1::{DropReason, MessageKind};
use serde::{Deserialize, Serialize};

use super::{Judgement, is_quiet, next_morning};

/// A change is told for this long, unless its kind says otherwise; what is older is no news.
const NEWS: TimeDelta = TimeDelta::hours(24);
/// A problem with money stays one for this long.
const MONEY: TimeDelta = TimeDelta::days(7);
/// What somebody at the clinic asked for is for now.
const ASKED: TimeDelta = TimeDelta::hours(1);
/// How long before the visit its form is asked for.
pub const INTAKE_LEAD: TimeDelta = TimeDelta::hours(72);
/// A form that is not open so long after its visit changed is filled in: it was opened by the same event.
pub const FORM_GRACE: TimeDelta = TimeDelta::minutes(1);
/// A reservation that ended is told of only if it was not renewed within this: billing renews it by itself.
pub const LAPSE_GRACE: TimeDelta = TimeDelta::hours(1);
/// Texts that one patient gets within a day and within a week at most, reminders included.
pub const CAPS: [(TimeDelta, i64); 2] = [(TimeDelta::days(1), 6), (TimeDelta::days(7), 20)];

/// What a message says beyond clinic, date and time. Kept with it until it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// When the visit was to start before it moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_start: Option<DateTime<Utc>>,
    /// What could be had instead, at most 3.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
    /// When an offer ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer_ends: Option<DateTime<Utc>>,
    /// A fee is due for a late cancellation.
    pub late_fee: bool,
    /// The patient has asked for it by text just now, and is not answered otherwise.
    pub asked: bool,
    /// The offer of freed time that led to it.
    #[serde(skip)]
    pub from_offer: Option<AppointmentId>,
    /// Values that are said as they are, by placeholder.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub given: BTreeMap<String, String>,
    /// The answer to a text, which waits for nothing.
    #[serde(skip)]
    pub answer: Option<Answer>,
}

/// A time that a displaced visit can have instead, at its clinic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// With whom.
    pub provider: ProviderId,
    /// From when.
    pub start: DateTime<Utc>,
}

/// What a text received is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The visit is confirmed.
    Confirmed,
    /// The visit is cancelled.
    Cancelled,
    /// The visit has the time that was chosen.
    Moved,
    /// The time that was chosen is not to be had any more.
    Taken,
    /// The visit was moved or ended before.
    Gone,
    /// Something else was noted.
    Noted,
    /// The time that was offered is not to be had any more.
    Missed,
    /// It is, but no card paid for it.
    Unpaid,
    /// It is, but for another visit of the patient's.
    Clashes,
    /// Which of these visits is meant? Their starts and zones, in the order of the digits.
    Which(Vec<(DateTime<Utc>, Tz)>),
    /// What this number is for.
    Help,
    /// Texts come again.
    OptedIn,
}

impl Answer {
    /// The kind of its message.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Confirmed | Self::Cancelled | Self::Moved => MessageKind::ReplyOutcome,
            Self::Taken | Self::Gone | Self::Noted => MessageKind::ReplyOutcome,
            Self::Missed | Self::Unpaid | Self::Clashes => MessageKind::ReplyOutcome,
            Self::Which(_) => MessageKind::ReplyChoice,
            Self::Help => MessageKind::Help,
            Self::OptedIn => MessageKind::OptIn,
        }
    }
}

/// Whether a patient who has not agreed to texts may get it: what answers the patient's own act.
pub fn needs_consent(kind: MessageKind) -> bool {
    !answers(kind)
}

/// Whether it waits for the recipient's morning, and counts towards the caps.
pub fn is_unasked(kind: MessageKind) -> bool {
    !answers(kind)
}

/// Whether it answers what the patient just did, a text or a sign-in.
fn answers(kind: MessageKind) -> bool {
    use MessageKind as K;
    match kind {
        K::SignInCode | K::ReplyOutcome | K::ReplyChoice | K::Help | K::OptIn | K::OptOut => true,
        K::Reminder24h | K::Reminder2h | K::Booked | K::Rescheduled | K::Cancelled | K::Displaced => false,
        K::PaymentProblem | K::IntakeOpen | K::WaitlistOffer | K::LateVisit | K::CallClinic => false,
        K::Inbound | K::Unspecified => false,
    }
}

/// Until when a notice of something that happened at `at`, about a visit that starts at `start`, is worth sending.
pub fn expires(kind: MessageKind, at: DateTime<Utc>, start: Option<DateTime<Utc>>) -> DateTime<Utc> {
    use MessageKind as K;
    let news = match kind {
        K::PaymentProblem => return at + MONEY,
        K::LateVisit | K::CallClinic => return at + ASKED,
        K::IntakeOpen => return start.unwrap_or(at),
        K::SignInCode | K::ReplyOutcome | K::ReplyChoice | K::Help | K::OptIn | K::OptOut => {
            return at + ASKED;
        }
        K::Reminder24h | K::Reminder2h | K::Booked | K::Rescheduled | K::Cancelled | K::Displaced => {
            at + NEWS
        }
        K::WaitlistOffer | K::Inbound | K::Unspecified => at + NEWS,
    };
    start.map_or(news, |start| start.min(news))
}

/// Judges a text of a kind at `now`, that is worth sending until `expires`, for a recipient in `zone`. What was asked for waits for no
/// morning, and an offer is for now.
pub fn judge(
    (kind, asked): (MessageKind, bool),
    expires: DateTime<Utc>,
    now: DateTime<Utc>,
    zone: Tz,
) -> Judgement {
    if now >= expires {
        return Judgement::Drop(DropReason::TooLate);
    }
    if asked || !is_unasked(kind) || !is_quiet(now, zone) {
        return Judgement::Send;
    }
    let morning = next_morning(now, zone);
    if morning < expires && kind != MessageKind::WaitlistOffer {
        Judgement::Wait(morning)
    } else {
        Judgement::Drop(DropReason::QuietHours)
    }
}

/// How long until a patient who got texts at `sent`, newest first, may get another; `None` = now.
pub fn capped(sent: &[DateTime<Utc>], now: DateTime<Utc>) -> Option<TimeDelta> {
    let wait = |(window, most): (TimeDelta, i64)| {
        // The oldest of the last `most` must leave the window first.
        let oldest = *sent.get(usize::try_from(most).ok()?.checked_sub(1)?)?;
        Some(oldest + window - now).filter(|wait| *wait > TimeDelta::zero())
    };
    CAPS.into_iter().filter_map(wait).max()
}

#[cfg(test)]
mod tests {
    use chrono_tz::America::New_York;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("an instant")
    }

    #[test]
    fn a_notice_waits_for_the_morning_while_it_is_news() {
        let night = at("2026-06-10T22:00:00-04:00");
        let judged = |kind, expires| judge((kind, false), expires, night, New_York);
        let morning = at("2026-06-11T08:00:00-04:00");
        assert_eq!(judged(MessageKind::Booked, night + NEWS), Judgement::Wait(morning));
        assert_eq!(judged(MessageKind::Booked, morning), Judgement::Drop(DropReason::QuietHours));
        assert_eq!(judged(MessageKind::Booked, night), Judgement::Drop(DropReason::TooLate));
        assert_eq!(judged(MessageKind::SignInCode, night + ASKED), Judgement::Send);
    }

    #[test]
    fn an_offer_waits_for_no_morning_and_neither_does_what_a_patient_asked_for() {
        let night = at("2026-06-10T22:00:00-04:00");
        let judged = |kind, asked| judge((kind, asked), night + NEWS, night, New_York);
        let dropped = Judgement::Drop(DropReason::QuietHours);
        assert_eq!(judged(MessageKind::WaitlistOffer, false), dropped);
        assert_eq!(judged(MessageKind::Booked, true), Judgement::Send);
    }

    #[test]
    fn news_of_a_visit_end_with_its_start() {
        let now = at("2026-06-10T12:00:00Z");
        assert_eq!(
            expires(MessageKind::Booked, now, Some(now + TimeDelta::hours(3))),
            now + TimeDelta::hours(3)
        );
        assert_eq!(expires(MessageKind::Booked, now, Some(now + TimeDelta::days(30))), now + NEWS);
        assert_eq!(expires(MessageKind::PaymentProblem, now, Some(now)), now + MONEY);
    }

    #[test]
    fn caps_count_the_last_day_and_the_last_week() {
        let now = at("2026-06-10T12:00:00Z");
        let every = |gap: TimeDelta, count: i32| (1..=count).map(|n| now - gap * n).collect::<Vec<_>>();
        assert_eq!(capped(&every(TimeDelta::hours(1), 5), now), None);
        assert_eq!(capped(&every(TimeDelta::hours(1), 6), now), Some(TimeDelta::hours(18)));
        assert_eq!(capped(&every(TimeDelta::hours(8), 19), now), None);
        assert_eq!(capped(&every(TimeDelta::hours(8), 20), now), Some(TimeDelta::hours(8)));
        assert_eq!(capped(&[], now), None);
    }
}
