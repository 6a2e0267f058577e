//! The journal: balanced, append-only, and what statements are read from.

use proto::clinic::billing::v1 as pb;
use sqlx::{Connection as _, PgConnection};

use crate::world::{COPAY, World, usd};

const ENTRY: &str = "insert into billing.journal select 'eeeeeeee-0000-7000-8000-000000000000', id, 'COPAY', 'USD', clock.now()
                     from billing.charge limit 1";

#[tokio::test]
async fn the_journal_takes_no_correction_but_another_entry_whoever_asks() {
    let world = World::start().await;
    world.captured("pm_card_visa").await;
    let admin = world.servers.admin().await;
    let owner = PgConnection::connect(&world.servers.database_url(billing::NAME)).await.unwrap();
    for (mut conn, words) in [(admin, "append-only"), (owner, "permission denied")] {
        for sql in [
            "update billing.journal set kind = 'REFUND'",
            "delete from billing.journal",
            "truncate billing.journal",
            "update billing.posting set amount = 1",
            "delete from billing.posting",
            "truncate billing.posting",
        ] {
            let refused = sqlx::query(sql).execute(&mut conn).await.unwrap_err();
            assert!(refused.to_string().contains(words), "{sql}: {refused}");
        }
    }
    assert_eq!(world.number("select count(*) from billing.journal").await, 2);
}

#[tokio::test]
async fn an_entry_that_does_not_balance_is_not_committed() {
    let world = World::start().await;
    world.captured("pm_card_visa").await;
    let one_side =
        "insert into billing.posting values ('eeeeeeee-0000-7000-8000-000000000000', 'PROVIDER', 100)";
    let uneven =
        "insert into billing.posting values ('eeeeeeee-0000-7000-8000-000000000000', 'PROVIDER', 100),
                  ('eeeeeeee-0000-7000-8000-000000000000', 'RECEIVABLE', -99)";
    let even = "insert into billing.posting values ('eeeeeeee-0000-7000-8000-000000000000', 'PROVIDER', 100),
                ('eeeeeeee-0000-7000-8000-000000000000', 'RECEIVABLE', -100)";
    let whole: [(&[&'static str], bool); 6] = [
        (&[ENTRY], false),
        (&[one_side], false),
        (&[even], false),
        (&[ENTRY, one_side], false),
        (&[ENTRY, uneven], false),
        (&[ENTRY, even], true),
    ];
    let mut conn = PgConnection::connect(&world.servers.database_url(billing::NAME)).await.unwrap();
    for (statements, balanced) in whole {
        let mut tx = conn.begin().await.unwrap();
        for sql in statements {
            sqlx::query(*sql).execute(&mut *tx).await.unwrap();
        }
        let committed = tx.commit().await;
        assert_eq!(committed.is_ok(), balanced, "{statements:?}: {committed:?}");
        if let Err(refused) = committed {
            assert_eq!(refused.as_database_error().unwrap().constraint(), Some("journal_balanced"));
        }
    }
}

#[tokio::test]
async fn a_statement_is_read_page_by_page_and_each_line_tells_the_balance_after_it() {
    let world = World::start().await;
    let (request, charge) = world.captured("pm_card_visa").await;
    let refund = pb::RefundChargeRequest {
        charge_id: charge.id.clone(),
        reason: "the doctor was ill".into(),
        etag: charge.etag.clone(),
        ..Default::default()
    };
    world.desk().refund_charge(refund).await.unwrap();
    world.until_charge(&charge.id, "the refund", |c| c.state() == pb::ChargeState::Refunded).await;

    let mut page = pb::GetPatientAccountRequest {
        patient_id: request.patient_id.clone(),
        page_size: 1,
        ..Default::default()
    };
    let mut lines = vec![];
    loop {
        let account = world.service().get_patient_account(page.clone()).await.unwrap().into_inner();
        assert_eq!(account.balance, Some(usd(0)));
        lines.extend(
            account.entries.into_iter().map(|e| (e.kind(), e.amount.unwrap(), e.balance_after.unwrap())),
        );
        if account.next_page_token.is_empty() {
            break;
        }
        page.page_token = account.next_page_token;
    }
    use pb::StatementEntryKind::{Copay, Payment, Refund, Reversal};
    let expected = [
        (Refund, usd(COPAY), usd(0)),
        (Reversal, usd(-COPAY), usd(-COPAY)),
        (Payment, usd(-COPAY), usd(0)),
        (Copay, usd(COPAY), usd(COPAY)),
    ];
    assert_eq!(lines, expected);
}
