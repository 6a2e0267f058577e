//! What is counted for those who watch over the service.

use sqlx::PgConnection;

/// How much is open at a moment; each is counted from an index that holds nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Displaced visits.
    pub displaced: i64,
    /// Those of them that are the front desk's to settle.
    pub on_work_list: i64,
    /// Entries of the waitlist that wait or have an offer.
    pub waiting: i64,
    /// Offers to them that nobody has answered.
    pub offers: i64,
    /// Places held instead of displaced visits.
    pub alternatives: i64,
}

/// Counts.
pub async fn counts(conn: &mut PgConnection) -> sqlx::Result<Counts> {
    sqlx::query_as!(
        Counts,
        r#"select visits.displaced as "displaced!", visits.on_work_list as "on_work_list!", entries.waiting as "waiting!",
                  offers.offers as "offers!", offers.alternatives as "alternatives!"
           from (select count(*) as displaced, count(work_list_at) as on_work_list
                 from appointments.reservation where state = 'displaced') visits,
                (select count(*) as waiting from appointments.waitlist_entry where state in ('waiting', 'offered')) entries,
                (select count(entry_id) as offers, count(*) - count(entry_id) as alternatives
                 from appointments.offer where state = 'open') offers"#
    )
    .fetch_one(conn)
    .await
}
