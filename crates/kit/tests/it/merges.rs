//! Merged patients: links of a chain arrive in any order, again and at once, and every id of a person finds the others.

use std::collections::BTreeSet;

use kit::auth::Caller;
use kit::db::Db;
use kit::ids::PatientId;
use kit::merges;
use proto::clinic::auth::v1::Role;
use testkit::Servers;
use uuid::Uuid;

use crate::{TELLER, schema};

async fn note(db: &Db, merged: PatientId, survivor: PatientId) {
    let mut tx = db.begin().await.unwrap();
    merges::note(&mut tx, merged, survivor).await.unwrap();
    tx.commit().await.unwrap();
}

async fn ids_of(db: &Db, patient: PatientId) -> BTreeSet<PatientId> {
    let ids: Vec<Uuid> =
        sqlx::query_scalar("select ids_of($1)").bind(patient).fetch_one(db.pool()).await.unwrap();
    ids.into_iter().map(PatientId::from).collect()
}

async fn survivor(db: &Db, patient: PatientId) -> PatientId {
    merges::survivor(&mut db.pool().acquire().await.unwrap(), patient).await.unwrap()
}

#[tokio::test]
async fn a_chain_ends_at_its_survivor_in_whatever_order_it_is_told_and_again() {
    let servers = Servers::start().await;
    let db = schema(&servers, TELLER).await;
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let people: Vec<PatientId> = (0..4).map(|_| PatientId::new()).collect();
        for link in order.into_iter().chain([0, 1, 2]) {
            note(&db, people[link], people[link + 1]).await;
        }
        for person in &people {
            assert_eq!(survivor(&db, *person).await, people[3], "{order:?}");
            assert_eq!(ids_of(&db, *person).await, people.iter().copied().collect(), "{order:?}");
        }
    }
    let stranger = PatientId::new();
    assert_eq!(ids_of(&db, stranger).await, BTreeSet::from([stranger]));
}

#[tokio::test]
async fn links_noted_at_once_see_each_other() {
    let servers = Servers::start().await;
    let db = schema(&servers, TELLER).await;
    for _ in 0..10 {
        let people: Vec<PatientId> = (0..4).map(|_| PatientId::new()).collect();
        tokio::join!(
            note(&db, people[0], people[1]),
            note(&db, people[1], people[2]),
            note(&db, people[2], people[3])
        );
        for person in &people {
            assert_eq!(survivor(&db, *person).await, people[3]);
        }
    }
}

#[tokio::test]
async fn a_patient_sees_what_any_of_its_own_ids_has_and_nothing_else() {
    let servers = Servers::start().await;
    let db = schema(&servers, TELLER).await;
    let (merged, kept, other) = (PatientId::new(), PatientId::new(), PatientId::new());
    note(&db, merged, kept).await;
    let sees = async |own: PatientId, patient: PatientId| {
        let caller = Caller { subject: own.to_string(), roles: vec![Role::Patient] };
        merges::see(&mut db.pool().acquire().await.unwrap(), &caller, patient, patient).await.is_ok()
    };
    for own in [merged, kept] {
        assert!(sees(own, merged).await && sees(own, kept).await && !sees(own, other).await);
        assert!(!sees(other, own).await);
    }
}
