//! A service that is told to stop finishes what it has begun and begins nothing new.

use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::CheckSlotRequest;
use testkit::until;
use tokio::net::TcpStream;

use crate::stage::Stage;

#[tokio::test]
async fn a_stop_lets_a_running_call_finish_and_refuses_new_connections() {
    let mut stage = Stage::closed().await;
    let mut service = stage.client(Role::Service);
    let call = tokio::spawn(async move { service.check_slot(CheckSlotRequest::default()).await });
    stage.play.entered.notified().await;
    stage.stop.cancel();
    let address = stage.url.strip_prefix("http://").unwrap().to_owned();
    until("a refused connection", || async { TcpStream::connect(&address).await.is_err().then_some(()) })
        .await;
    assert!(!stage.served.is_finished(), "a call is still running");
    stage.play.gate.add_permits(1);
    call.await.unwrap().unwrap();
    (&mut stage.served).await.unwrap().unwrap();
}
