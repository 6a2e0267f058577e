//! A service of the contract that does what a test needs: waits, asks itself on, streams, refuses.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use chrono::TimeDelta;
use futures::StreamExt as _;
use kit::auth::{AUDIENCE, DEV_ISSUER, Issuer, ServiceToken, Verifier};
use kit::client::Outbound;
use kit::clock::Clock;
use kit::config::Identity;
use kit::ids::EventId;
use kit::serve::{self, Ready};
use kit::status::{Error, Violation};
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::availability_service_client::AvailabilityServiceClient;
use proto::clinic::scheduling::v1::availability_service_server::{
    AvailabilityService, AvailabilityServiceServer,
};
use proto::clinic::scheduling::v1::{
    CheckSlotRequest, CheckSlotResponse, ExplainAvailabilityRequest, ExplainAvailabilityResponse,
    SearchAvailabilityRequest, SearchAvailabilityResponse, WatchAvailabilityRequest,
    WatchAvailabilityResponse,
};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

pub(crate) type Client = AvailabilityServiceClient<Outbound>;

/// Bad fields that ExplainAvailability finds in every request.
pub(crate) const BAD_FIELDS: usize = 500;

/// The service.
pub(crate) struct Play {
    /// Rung when a CheckSlot has begun.
    pub(crate) entered: Notify,
    /// CheckSlot waits for it; closed while it has no permits.
    pub(crate) gate: Semaphore,
    /// Calls of CheckSlot that are being worked on.
    pub(crate) running: AtomicUsize,
    /// Deadlines that calls of CheckSlot had, as their header said.
    pub(crate) timeouts: Mutex<Vec<Duration>>,
    /// Itself, as another service sees it.
    upstream: Client,
}

/// Counts a call for as long as it is worked on.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl AvailabilityService for Play {
    /// Asks CheckSlot.
    async fn search_availability(
        &self,
        _: Request<SearchAvailabilityRequest>,
    ) -> Result<Response<SearchAvailabilityResponse>, Status> {
        self.upstream.clone().check_slot(CheckSlotRequest::default()).await?;
        Ok(Response::new(SearchAvailabilityResponse::default()))
    }

    /// Finds fault with hundreds of fields.
    async fn explain_availability(
        &self,
        _: Request<ExplainAvailabilityRequest>,
    ) -> Result<Response<ExplainAvailabilityResponse>, Status> {
        let bad = (0..BAD_FIELDS).map(|i| Violation {
            field: format!("query.provider_ids[{i}]"),
            description: "must be the UUID of a Provider".to_owned(),
        });
        Err(Error::Invalid(bad.collect()).into_status("scheduling.clinic"))
    }

    /// Says one thing and then nothing more.
    async fn watch_availability(
        &self,
        _: Request<WatchAvailabilityRequest>,
    ) -> Result<Response<BoxStream<WatchAvailabilityResponse>>, Status> {
        let first = futures::stream::iter([Ok(WatchAvailabilityResponse::default())]);
        Ok(Response::new(Box::pin(first.chain(futures::stream::pending()))))
    }

    /// Notes the deadline, then waits.
    async fn check_slot(
        &self,
        request: Request<CheckSlotRequest>,
    ) -> Result<Response<CheckSlotResponse>, Status> {
        let headers = request.into_parts().0.into_headers();
        self.timeouts.lock().unwrap().extend(kit::deadline::from_headers(&headers));
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(&self.running);
        self.entered.notify_one();
        let _open = self.gate.acquire().await.expect("never closed");
        Ok(Response::new(CheckSlotResponse::default()))
    }
}

/// The service behind a port.
pub(crate) struct Stage {
    pub(crate) play: Arc<Play>,
    /// The whole port, for requests that no client of ours would send.
    pub(crate) app: Router,
    /// Whether it says that it is ready.
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) url: String,
    pub(crate) stop: CancellationToken,
    /// Ends when it has stopped.
    pub(crate) served: JoinHandle<anyhow::Result<()>>,
    issuer: Issuer,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Stage {
    /// Serves with an open gate, ready.
    pub(crate) async fn open() -> Self {
        Self::with_gate(Semaphore::new(Semaphore::MAX_PERMITS)).await
    }

    /// Serves with a closed gate, ready.
    pub(crate) async fn closed() -> Self {
        Self::with_gate(Semaphore::new(0)).await
    }

    async fn with_gate(gate: Semaphore) -> Self {
        kit::telemetry::install_metrics().unwrap();
        let keys = Keys::new();
        let (listener, url) = testkit::listener().await;
        let token = ServiceToken::new(keys.issuer.clone(), "appointments");
        let play = Arc::new(Play {
            entered: Notify::new(),
            gate,
            running: AtomicUsize::new(0),
            timeouts: Mutex::default(),
            upstream: AvailabilityServiceClient::new(Outbound::new(&url, token).unwrap()),
        });
        let ready = Arc::new(AtomicBool::new(true));
        let judge: Ready = Arc::new({
            let ready = ready.clone();
            move || {
                let verdict = ready.load(Ordering::SeqCst).then_some(()).ok_or("the play is over".to_owned());
                Box::pin(async { verdict })
            }
        });
        let stop = CancellationToken::new();
        let routes = Routes::new(AvailabilityServiceServer::from_arc(play.clone()));
        let verifier = Verifier::new(&keys.identity).unwrap();
        let app = serve::app(routes, Router::new(), verifier, judge, stop.clone()).await;
        let served = tokio::spawn(serve::serve(listener, app.clone(), stop.clone()));
        Self { play, app, ready, url, stop, served, issuer: keys.issuer.clone() }
    }

    /// A token for one role.
    pub(crate) fn token(&self, role: Role) -> String {
        self.issuer.sign("somebody", &[role], Clock::System.now(), TimeDelta::hours(1)).unwrap()
    }

    /// Calls as the front desk.
    pub(crate) fn desk(&self) -> Client {
        self.client(Role::FrontDesk)
    }

    /// Calls in one role.
    pub(crate) fn client(&self, role: Role) -> Client {
        AvailabilityServiceClient::new(Outbound::bearing(&self.url, self.token(role)).unwrap())
    }
}

/// An issuer, and the files by which services know it. Removed when dropped.
pub(crate) struct Keys {
    pub(crate) issuer: Issuer,
    pub(crate) pem: String,
    pub(crate) identity: Identity,
    folder: std::path::PathBuf,
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Keys {
    pub(crate) fn new() -> Self {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(EventId::new().to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let pem = Issuer::generate_pem().unwrap();
        let issuer = Issuer::from_pem(&pem, DEV_ISSUER, AUDIENCE).unwrap();
        let (jwks_file, service_key_file) = (folder.join("jwks.json"), folder.join("service.pem"));
        std::fs::write(&jwks_file, issuer.jwks().to_string()).unwrap();
        let identity =
            Identity { jwks_file, service_key_file, issuer: DEV_ISSUER.into(), audience: AUDIENCE.into() };
        Self { issuer, pem, identity, folder }
    }
}
