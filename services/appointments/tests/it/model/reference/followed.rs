//! What happens to appointments that nobody calls for: events of other services, and the workers.

use appointments::domain::{Copay, Span, State};

use super::{BLACKOUT, LEASE, Model};
use crate::model::commands::Answer;
use crate::model::neighbours::{Standing, overlap, spans};
use crate::model::values::{Appt, Event};

impl Model {
    pub(super) fn calendar_changed(&mut self, provider: usize, affected: Span, told: bool) {
        self.calendars.versions[provider] += 1;
        let event = Event::Calendar { provider, version: self.calendars.versions[provider], affected };
        self.told.push(event);
        if told {
            self.deliver(event);
        }
    }

    pub(super) fn settle(&mut self, which: usize, passed: bool) {
        let Some(i) = self.which(which) else { return };
        if let Some((_, standing @ Standing::ActionRequired)) = self.till.charges.get_mut(&i) {
            *standing = if passed { Standing::Authorized } else { Standing::Declined };
            self.told.push(if passed { Event::Authorized(i) } else { Event::Failed(i) });
        }
    }

    pub(super) fn deliver(&mut self, event: Event) {
        match event {
            Event::Calendar { provider, version, affected } => {
                self.seen[provider] = self.seen[provider].max(version);
                for a in &mut self.appts {
                    let concerned = a.provider == provider
                        && matches!(a.state, State::Held | State::Booked | State::Displaced)
                        && a.calendar_version < version
                        && a.visit().end > self.now
                        && overlap(a.visit(), affected);
                    if concerned {
                        a.judge_at = a.judge_at.max(Some(version));
                    }
                }
            }
            Event::Authorized(i) => {
                self.confirm(i, Copay::Authorized, true);
            }
            Event::Failed(i) => {
                if self.appts[i].copay == Copay::ActionRequired {
                    self.appts[i].note(Copay::Declined, false, None);
                }
            }
        }
    }

    pub(super) fn look(&mut self, answer: Answer) {
        let now = self.now;
        self.appts.iter_mut().filter(|a| a.state == State::Held && a.is_over(now)).for_each(Appt::expire);
        let mut left_open = vec![];
        for (i, a) in self.appts.iter_mut().enumerate() {
            if a.state == State::Held && a.driven_until.is_some_and(|end| end <= now) {
                a.driven_until = Some(now + LEASE);
                left_open.push(i);
            }
        }
        for a in self.appts.iter_mut().filter(|a| a.judge_at.is_some()) {
            let fits = self.calendars.allow(a.provider, spans(a.kind, a.start).0);
            (a.calendar_version, a.judge_at) = (self.calendars.versions[a.provider], None);
            match (a.state, fits) {
                (State::Displaced, true) => {
                    (a.displaced, a.reasons) = (false, vec![]);
                    a.become_(State::Booked);
                }
                (State::Held, false) => {
                    a.reasons = vec![BLACKOUT.into()];
                    a.become_(State::Released);
                }
                (State::Booked, false) => {
                    (a.displaced, a.reasons) = (true, vec![BLACKOUT.into()]);
                    a.become_(State::Displaced);
                }
                _ => {}
            }
        }
        for i in left_open {
            self.drive(i, false, answer);
        }
    }
}
