//! Calls to other services: less time for each further call, and words for a service that is not there.

use std::time::Duration;

use kit::client::{self, Outbound};
use kit::status::reason;
use proto::clinic::scheduling::v1::availability_service_client::AvailabilityServiceClient;
use proto::clinic::scheduling::v1::{CheckSlotRequest, SearchAvailabilityRequest};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::stage::{Client, Stage};

#[tokio::test]
async fn a_call_made_for_a_call_has_less_time_than_it() {
    const ASKED: Duration = Duration::from_secs(5);
    let stage = Stage::open().await;
    let mut request = Request::new(SearchAvailabilityRequest::default());
    request.set_timeout(ASKED);
    stage.desk().search_availability(request).await.unwrap();
    let seen = stage.play.timeouts.lock().unwrap().clone();
    assert!(matches!(seen[..], [left] if !left.is_zero() && left < ASKED), "{seen:?}");
}

#[tokio::test]
async fn a_call_whose_caller_has_much_time_is_still_bounded() {
    let stage = Stage::open().await;
    let mut request = Request::new(SearchAvailabilityRequest::default());
    request.set_timeout(2 * client::TIMEOUT);
    stage.desk().search_availability(request).await.unwrap();
    assert_eq!(*stage.play.timeouts.lock().unwrap(), [client::TIMEOUT]);
}

/// What a caller of `url` hears, which must be that the dependency is down and when to come back.
async fn is_down(url: &str) {
    let mut client: Client = AvailabilityServiceClient::new(Outbound::anonymous(url).unwrap());
    let status = client.check_slot(CheckSlotRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DEPENDENCY_DOWN"));
    assert!(status.get_details_retry_info().is_some());
}

#[tokio::test]
async fn a_service_that_is_down_is_an_unavailable_dependency() {
    let (listener, url) = testkit::listener().await;
    drop(listener);
    is_down(&url).await;
}

#[tokio::test]
async fn a_service_that_hangs_up_is_an_unavailable_dependency() {
    let (listener, url) = testkit::listener().await;
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    is_down(&url).await;
}
