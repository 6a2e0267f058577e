//! A provider's calendar, published: what a calendar program gets at the gateway.

use proto::clinic::appointments::v1::CancelAppointmentRequest;
use proto::clinic::scheduling::v1::create_calendar_link_request::Subject;
use proto::clinic::scheduling::v1::{CreateCalendarLinkRequest, RevokeCalendarLinkRequest};
use testkit::network::in_days;
use testkit::until;

#[tokio::test]
async fn a_booking_shows_in_the_published_calendar_until_it_is_cancelled_or_the_link_revoked() {
    // The client wants a TLS provider, used or not.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (suite, network) = super::start().await;
    let (desk, mut calendar) = (suite.desk(), suite.admin().calendar());
    let subject = Some(Subject::ProviderId(network.provider.clone()));
    let request = CreateCalendarLinkRequest { subject, ..Default::default() };
    let link = calendar.create_calendar_link(request).await.unwrap().into_inner();
    assert!(link.url.starts_with(&suite.urls.gateway), "{}", link.url);
    let text =
        async || reqwest::get(&link.url).await.unwrap().error_for_status().unwrap().text().await.unwrap();
    assert!(!text().await.contains("SUMMARY:Booked\r\n"));

    let patient = network.patient(&desk, "").await;
    let start = in_days(suite.servers.clock.now(), 3);
    let request = network.booking(&patient, &network.free_visit, start);
    let booked = desk.booking().book_appointment(request).await.unwrap().into_inner();
    let shown = async || text().await.contains("SUMMARY:Booked\r\n").then_some(());
    until("the booking's event", shown).await;
    assert!(!text().await.contains(&patient));

    let request = CancelAppointmentRequest { appointment_id: booked.id, ..Default::default() };
    desk.booking().cancel_appointment(request).await.unwrap();
    until("the event's end", async || shown().await.is_none().then_some(())).await;

    let request = RevokeCalendarLinkRequest { calendar_link_id: link.id, ..Default::default() };
    calendar.revoke_calendar_link(request).await.unwrap();
    assert_eq!(reqwest::get(&link.url).await.unwrap().status(), reqwest::StatusCode::NOT_FOUND);
}
