//! What a digit means: an answer to the newest question, else to the reminder of a visit.

use chrono::TimeDelta;
use kit::ids::PatientId;
use proto::clinic::notify::v1::ReplyMeaning;
use sqlx::PgConnection;

use super::ports::Holder;
use super::understand::{Word, understand};
use super::worker::{Replies, Reply};
use crate::store::inbound::{self, Claimed, Decision, Question};
use crate::store::offers;

/// A question asked so long ago is not what a digit answers.
const QUESTION: TimeDelta = TimeDelta::hours(24);
/// Who has answered a question answers it again within this, and means no visit that was spoken of earlier.
const AGAIN: TimeDelta = TimeDelta::hours(1);

impl Replies {
    /// What a text means; and the question to ask back, where that is not clear.
    pub(super) async fn decide(
        &self,
        claimed: &Claimed,
        holders: &[Holder],
    ) -> anyhow::Result<(Decision, Option<Reply>)> {
        if let Some(mut decision) = claimed.decision {
            if let [only] = holders {
                decision.patient.get_or_insert(only.patient);
            }
            return Ok((decision, None));
        }
        let Word::Digit(digit) = understand(&claimed.body) else {
            anyhow::bail!("a word whose meaning was not decided when it came");
        };
        let (decision, reply) = self.read_digit(claimed, digit, holders).await?;
        if reply.is_none() {
            // What is done for it must not be decided anew when the visits have changed by it.
            let now = self.now();
            let decided =
                async |tx: &mut PgConnection| inbound::decide(tx, claimed.message, &decision, now).await;
            anyhow::ensure!(self.holding(claimed, decided).await?, "another replica has this text by now");
        }
        Ok((decision, reply))
    }

    async fn read_digit(
        &self,
        claimed: &Claimed,
        digit: u8,
        holders: &[Holder],
    ) -> anyhow::Result<(Decision, Option<Reply>)> {
        let patients: Vec<PatientId> = holders.iter().map(|holder| holder.patient).collect();
        let unknown = Decision {
            patient: if let [only] = patients[..] { Some(only) } else { None },
            ..Decision::plain(ReplyMeaning::Unknown)
        };
        let asked = inbound::asked(self.db.pool(), &patients, claimed.receive_time).await?;
        let since = claimed.receive_time - QUESTION;
        let question = inbound::question(self.db.pool(), claimed.number, &patients, since).await?;
        // A reminder that came after a question is what was read last.
        let newest = asked.iter().map(|visit| visit.at).max();
        if let Some(question) = question.filter(|question| newest.is_none_or(|newest| newest <= question.at))
            && let Some((decision, reply)) = self.answers(claimed, digit, &question, &patients).await?
        {
            return Ok((decision.unwrap_or(unknown), reply));
        }
        let meaning = match digit {
            1 => ReplyMeaning::Confirm,
            2 => ReplyMeaning::Cancel,
            _ => return Ok((unknown, None)),
        };
        match &asked[..] {
            [] => Ok((unknown, None)),
            [visit] => {
                let about = Decision {
                    patient: Some(visit.patient),
                    appointment: Some(visit.appointment),
                    in_reply_to: Some(visit.message),
                    ..Decision::plain(meaning)
                };
                Ok((about, None))
            }
            several => {
                let about = Decision { patient: unknown.patient, ..Decision::plain(meaning) };
                Ok((about, Some(Reply::which(several))))
            }
        }
    }

    /// What a digit says to the newest question; `None` = it says nothing to that, for it is settled. The decision is `None` where the
    /// digit was not offered.
    async fn answers(
        &self,
        claimed: &Claimed,
        digit: u8,
        question: &Question,
        patients: &[PatientId],
    ) -> anyhow::Result<Option<(Option<Decision>, Option<Reply>)>> {
        let pool = self.db.pool();
        if question.answered.is_some_and(|at| at < claimed.receive_time - AGAIN) {
            return Ok(None);
        }
        let settled = question.asks_which && question.answered.is_some();
        // Of several offers at one phone the newest was read last, but the others stand.
        if question.about_offers && (settled || !question.asks_which) {
            let open = offers::unanswered(pool, claimed.number, patients).await?;
            match &open[..] {
                [] => {}
                [only] => return Ok(Some((inbound::choice(pool, only.message, digit).await?, None))),
                several => {
                    let meaning = match digit {
                        1 => ReplyMeaning::AcceptOffer,
                        2 => ReplyMeaning::DeclineOffer,
                        _ => return Ok(Some((None, None))),
                    };
                    return Ok(Some((Some(Decision::plain(meaning)), Some(Reply::which(several)))));
                }
            }
        } else if settled {
            return Ok(None);
        }
        Ok(Some((inbound::choice(pool, question.message, digit).await?, None)))
    }
}
