//! What billing and the provider have written down, side by side.

use serde_json::Value;
use sqlx::PgConnection;

use crate::world::World;

/// One charge as billing keeps it. Amounts in cents.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    pub(super) id: String,
    pub(super) appointment: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) amount: i64,
    pub(super) authorized: i64,
    pub(super) captured: i64,
    pub(super) drawn: i64,
    pub(super) refunded: i64,
    pub(super) owed: i64,
    /// Why the card gave nothing; empty = it was not refused.
    pub(super) decline: String,
}

/// One line of the ledger.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) charge: String,
    pub(super) entry: String,
    pub(super) account: String,
    /// Above zero = debit.
    pub(super) amount: i64,
}

/// One payment as the provider keeps it.
#[derive(Clone, Debug)]
pub(super) struct Payment {
    pub(super) id: String,
    pub(super) appointment: String,
    pub(super) charge: String,
    pub(super) status: String,
    pub(super) received: i64,
    pub(super) refunded: i64,
}

/// Everything written down.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub(super) charges: Vec<Charge>,
    pub(super) lines: Vec<Line>,
    pub(super) payments: Vec<Payment>,
    /// Types of the events told, each with its charge, in any order.
    pub(super) told: Vec<(String, String)>,
}

impl Books {
    /// What is written of the visits that `wanted` names.
    pub(super) fn of_visits(mut self, wanted: impl Fn(&str) -> bool) -> Self {
        self.charges.retain(|charge| wanted(&charge.appointment));
        self.payments.retain(|payment| wanted(&payment.appointment));
        let charges: Vec<_> = self.charges.iter().map(|charge| &charge.id).collect();
        self.lines.retain(|line| charges.contains(&&line.charge));
        self.told.retain(|(_, charge)| charges.contains(&charge));
        self
    }
}

/// What billing has heard of each visit, and how much it has not yet.
pub(super) async fn heard(world: &World) -> Vec<String> {
    let visits = "select visit::text from billing.visit";
    let mut heard: Vec<String> =
        sqlx::query_scalar(visits).fetch_all(&mut world.servers.admin().await).await.unwrap();
    heard.push(testkit::behind(&world.servers.broker().await, "appointments", billing::NAME).await);
    heard
}

/// Reads both sides.
pub(super) async fn read(world: &World) -> Books {
    let payments = payments(world).await;
    let mut admin = world.servers.admin().await;
    Books {
        charges: charges(&mut admin).await,
        lines: lines(&mut admin).await,
        payments,
        told: sqlx::query_as("select subject, aggregate_id::text from billing.outbox")
            .fetch_all(&mut admin)
            .await
            .unwrap(),
    }
}

type ChargeRow = (String, String, String, String, i64, i64, i64, i64, i64, i64, String);

async fn charges(admin: &mut PgConnection) -> Vec<Charge> {
    let rows: Vec<ChargeRow> = sqlx::query_as(
        "select id::text, appointment_id::text, kind, state, amount, authorized_amount, captured_amount,
             drawn_from_copay_amount, refunded_amount, owed_amount, coalesce(decline_code, '') from billing.charge",
    )
    .fetch_all(admin)
    .await
    .unwrap();
    rows.into_iter()
        .map(
            |(id, appointment, kind, state, amount, authorized, captured, drawn, refunded, owed, decline)| {
                Charge {
                    id,
                    appointment,
                    kind,
                    state,
                    amount,
                    authorized,
                    captured,
                    drawn,
                    refunded,
                    owed,
                    decline,
                }
            },
        )
        .collect()
}

async fn lines(admin: &mut PgConnection) -> Vec<Line> {
    let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
        "select charge_id::text, entry_id::text, account, posting.amount
             from billing.posting join billing.journal on journal.id = posting.entry_id",
    )
    .fetch_all(admin)
    .await
    .unwrap();
    rows.into_iter().map(|(charge, entry, account, amount)| Line { charge, entry, account, amount }).collect()
}

/// The provider's own store, past the protocol, and its refunds.
async fn payments(world: &World) -> Vec<Payment> {
    let url = format!("{}/sandbox/payment_intents", world.provider);
    let payments: Vec<Value> = world.http.get(url).send().await.unwrap().json().await.unwrap();
    let refunds = world.all_provider_lists("refunds").await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let payment = |payment: &Value| {
        let given_back = |refund: &&Value| {
            refund["payment_intent"] == payment["id"]
                && matches!(refund["status"].as_str(), Some("succeeded" | "pending"))
        };
        Payment {
            id: text(&payment["id"]),
            appointment: text(&payment["metadata"]["appointment_id"]),
            charge: text(&payment["metadata"]["charge_id"]),
            status: text(&payment["status"]),
            received: payment["amount_received"].as_i64().unwrap(),
            refunded: refunds.iter().filter(given_back).filter_map(|r| r["amount"].as_i64()).sum(),
        }
    };
    payments.iter().map(payment).collect()
}
