//! A gateway on a free port, and two upstreams behind it.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use ::http::{HeaderMap, Request, Response};
use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use futures::StreamExt as _;
use gateway::{Config, Origin, Origins};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kit::ids::AppointmentId;
use kit::serve;
use kit::status::Error;
use proto::clinic::appointments::v1::booking_service_server::{BookingService, BookingServiceServer};
use proto::clinic::appointments::v1::{
    Appointment, GetAppointmentRequest, WatchAppointmentsRequest, WatchAppointmentsResponse,
};
use proto::clinic::billing::v1::billing_service_server::{BillingService, BillingServiceServer};
use proto::clinic::billing::v1::{Charge, GetChargeRequest};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Nothing here takes this long unless it hangs.
const BOUND: Duration = Duration::from_secs(20);
/// Metrics are the process's, the tests' too.
static METRICS: Once = Once::new();
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 64;
/// The origin whose pages may call.
pub(crate) const PORTAL: &str = "https://portal.example";
/// Asking for this appointment answers NOT_FOUND.
pub(crate) const MISSING: &str = "missing";
/// Asking for this appointment is never answered.
pub(crate) const STUCK: &str = "stuck";
/// A method whose answer ends without a status.
const ENDS: &str = "/clinic.notify.v1.NotifyService/GetMessage";
/// A method whose answer begins and then breaks off.
const BREAKS: &str = "/clinic.notify.v1.NotifyService/ListMessages";

type Changes = mpsc::Receiver<Result<WatchAppointmentsResponse, Status>>;

/// An upstream that remembers how it was asked.
#[derive(Clone, Default)]
pub(crate) struct Bookings {
    asked: Arc<Mutex<HeaderMap>>,
    changes: Arc<Mutex<Option<Changes>>>,
}

impl Bookings {
    /// Headers of the latest call.
    pub(crate) fn asked(&self) -> HeaderMap {
        self.asked.lock().unwrap().clone()
    }

    /// What the next watcher will be sent. Closed once that watcher has left.
    pub(crate) fn feed(&self) -> mpsc::Sender<Result<WatchAppointmentsResponse, Status>> {
        let (sender, receiver) = mpsc::channel(1);
        *self.changes.lock().unwrap() = Some(receiver);
        sender
    }
}

#[tonic::async_trait]
impl BookingService for Bookings {
    async fn get_appointment(
        &self,
        request: tonic::Request<GetAppointmentRequest>,
    ) -> Result<tonic::Response<Appointment>, Status> {
        *self.asked.lock().unwrap() = request.metadata().clone().into_headers();
        let id = request.into_inner().appointment_id;
        match id.as_str() {
            MISSING => Err(Error::not_found(AppointmentId::new()).into_status("appointments.clinic")),
            STUCK => std::future::pending().await,
            _ => {
                let mut response = tonic::Response::new(Appointment { id, ..Default::default() });
                response.metadata_mut().insert("x-answer", "from appointments".parse().unwrap());
                Ok(response)
            }
        }
    }

    async fn watch_appointments(
        &self,
        request: tonic::Request<WatchAppointmentsRequest>,
    ) -> Result<
        tonic::Response<
            Pin<Box<dyn tokio_stream::Stream<Item = Result<WatchAppointmentsResponse, Status>> + Send>>,
        >,
        Status,
    > {
        *self.asked.lock().unwrap() = request.metadata().clone().into_headers();
        let changes = self.changes.lock().unwrap().take().expect("the test feeds before it watches");
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(changes))))
    }
}

/// An upstream that shows who answered.
#[derive(Clone, Copy)]
struct Charges;

#[tonic::async_trait]
impl BillingService for Charges {
    async fn get_charge(
        &self,
        request: tonic::Request<GetChargeRequest>,
    ) -> Result<tonic::Response<Charge>, Status> {
        let id = request.into_inner().charge_id;
        Ok(tonic::Response::new(Charge { id, ..Default::default() }))
    }
}

/// Answers a webhook with its own body and headers.
async fn echo(headers: HeaderMap, body: Bytes) -> (HeaderMap, Bytes) {
    (headers, body)
}

/// Answers with the path asked for, unless the asker has it.
async fn calendar(request: axum::extract::Request) -> Response<Body> {
    let seen = request.headers().get("if-none-match").is_some_and(|tag| tag == "W/\"a\"");
    let response = Response::builder().status(if seen { 304 } else { 200 }).header("etag", "W/\"a\"");
    response.body(if seen { Body::empty() } else { Body::from(request.uri().path().to_owned()) }).unwrap()
}

async fn breaks() -> Response<Body> {
    let frames = [Ok(Bytes::from_static(&[0, 0, 0, 0, 0])), Err(std::io::Error::other("gone"))];
    // One at a time, so that the first is sent before the second fails.
    let frames = futures::stream::iter(frames).then(|frame| async {
        tokio::task::yield_now().await;
        frame
    });
    Response::builder().header("content-type", "application/grpc").body(Body::from_stream(frames)).unwrap()
}

/// A running gateway: appointments has an upstream of its own, billing and notify share one, scheduling and patients are down.
pub(crate) struct Suite {
    /// Where the gateway listens.
    pub(crate) address: SocketAddr,
    /// The upstream of appointments.
    pub(crate) bookings: Bookings,
    down: Option<TcpSocket>,
    stop: DropGuard,
}

impl Suite {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Started with a changed configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        METRICS.call_once(|| kit::telemetry::install_metrics().unwrap());
        let stop = CancellationToken::new();
        let bookings = Bookings::default();
        let routes = Routes::new(BookingServiceServer::new(bookings.clone()));
        let (socket, appointments) = reserve();
        upstream(socket, routes, Router::new(), &stop).await;
        let http = Router::new()
            .route("/webhooks/payments", post(echo))
            .route("/webhooks/sms/status", post(echo))
            .route("/webhooks/sms/inbound", post(echo))
            .route("/calendars/{file}", get(calendar))
            .route(ENDS, post(async || [("content-type", "application/grpc")]))
            .route(BREAKS, post(breaks));
        let (socket, billing) = reserve();
        upstream(socket, Routes::new(BillingServiceServer::new(Charges)), http, &stop).await;
        let (down, nowhere) = reserve();
        let mut config = Config {
            scheduling_url: nowhere.clone(),
            appointments_url: appointments,
            patients_url: nowhere,
            billing_url: billing.clone(),
            notify_url: billing,
            reflection: true,
            cors_origins: Origins(vec![PORTAL.parse::<Origin>().unwrap()]),
            public_url: None,
        };
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(gateway::run(listener, config, stop.clone()));
        Self { address, bookings, down: Some(down), stop: stop.drop_guard() }
    }

    /// Starts an upstream where scheduling and patients should be.
    pub(crate) async fn revive(&mut self) {
        let socket = self.down.take().expect("revived once");
        upstream(socket, Routes::default(), Router::new(), self.stop.token()).await;
    }

    /// A channel to the gateway for generated clients.
    pub(crate) fn channel(&self) -> Channel {
        kit::client::channel(&format!("http://{}", self.address)).unwrap()
    }

    /// One request over HTTP/1.1, as browsers and providers send it without TLS.
    pub(crate) async fn http1(&self, request: Request<impl Into<Bytes>>) -> Response<Incoming> {
        let stream = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request.map(|body| Full::new(body.into()))).await.unwrap()
    }

    /// One request over HTTP/2 by a client that adds nothing of its own.
    pub(crate) async fn http2(&self, request: Request<impl Into<Bytes>>) -> Response<Incoming> {
        let stream = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request.map(|body| Full::new(body.into()))).await.unwrap()
    }
}

/// A port of ours at which nothing listens yet.
fn reserve() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}

/// Serves `routes`, health and `http` at `socket`.
async fn upstream(socket: TcpSocket, routes: Routes, http: Router, stop: &CancellationToken) {
    let health = serve::health(Arc::new(|| Box::pin(async { Ok(()) })), stop.clone()).await;
    let app = routes.add_service(health).into_axum_router().merge(http);
    tokio::spawn(serve::serve(socket.listen(BACKLOG).unwrap(), app, stop.clone()));
}

/// A message as gRPC frames it.
pub(crate) fn framed(message: &impl prost::Message) -> Bytes {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &body].concat().into()
}

/// Awaits `work`, which must not hang.
pub(crate) async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work).await.expect("it ends in time")
}

/// The next message of a stream.
pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> T {
    bounded(stream.message()).await.unwrap().expect("a message")
}
