//! What cannot be applied is set aside for a person, holds up nothing, and can be sent back.

use kit::ids::{EventId, PatientId};
use kit::messaging::dead_letters::{self, DeadLetter};
use prost::Name as _;
use proto::clinic::patients::v1::PatientChanged;
use testkit::until;

use crate::follower::{Follower, NAME, SOON};
use crate::{deliver, effects, make_stream};

/// Waits until exactly `count` letters have been set aside.
async fn letters(follower: &Follower, count: usize) -> Vec<DeadLetter> {
    let listed =
        || async { dead_letters::list(&follower.js).await.ok().filter(|letters| letters.len() == count) };
    until(&format!("{count} dead letters"), listed).await
}

#[tokio::test]
async fn an_event_that_always_fails_is_set_aside_and_those_behind_it_go_on() {
    let follower = Follower::start().await;
    make_stream(&follower.js).await;
    let (poison, behind, id) = (PatientId::new(), PatientId::new(), EventId::new());
    follower.effects.fail(poison, usize::MAX);
    deliver(&follower.js, id, poison).await;
    deliver(&follower.js, EventId::new(), behind).await;
    follower.applied(behind).await;

    let [letter] = letters(&follower, 1).await.try_into().expect("one letter");
    let says = (letter.consumer.as_str(), letter.subject, letter.event_id, letter.error);
    let error = format!("told to fail for {poison}");
    assert_eq!(says, (NAME, PatientChanged::full_name(), id.to_string(), error));
    assert_eq!(follower.effects.deliveries(poison) as i64, SOON.deliveries);
    assert_eq!(effects(&follower.db, poison).await, 0);
}

#[tokio::test]
async fn an_event_sent_back_too_early_is_set_aside_again_and_applied_once_it_can_be() {
    let follower = Follower::start().await;
    make_stream(&follower.js).await;
    let (patient, id) = (PatientId::new(), EventId::new());
    follower.effects.fail(patient, 2 * SOON.deliveries as usize);
    deliver(&follower.js, id, patient).await;
    for _ in 0..2 {
        let letter = &letters(&follower, 1).await[0];
        assert_eq!(letter.event_id, id.to_string());
        dead_letters::redrive(&follower.js, letter).await.unwrap();
    }
    follower.applied(patient).await;
    assert_eq!(effects(&follower.db, patient).await, 1);
    assert!(dead_letters::list(&follower.js).await.unwrap().is_empty());
}

#[tokio::test]
async fn foreign_messages_are_set_aside_each_of_them() {
    let follower = Follower::start().await;
    make_stream(&follower.js).await;
    for payload in ["one", "two"] {
        follower.js.publish(PatientChanged::full_name(), payload.into()).await.unwrap().await.unwrap();
    }
    let letters = letters(&follower, 2).await;
    assert!(letters.iter().all(|l| l.event_id.is_empty() && l.error == "no headers"), "{letters:?}");
}
