//! A running sandbox on a simulated clock, a receiver of its webhooks, and short ways to call it.

use std::{
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Client, Method, RequestBuilder};
use sandbox::{Config, Settings};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Where every test's clock starts: 2 November 2026, noon.
pub(crate) const START: i64 = 1_793_620_800;
/// How long a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Sandbox {
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    shutdown: CancellationToken,
    server: JoinHandle<anyhow::Result<()>>,
}

impl Sandbox {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let elapsed = Arc::new(AtomicI64::new(0));
        let now = |elapsed: &AtomicI64| instant(START + elapsed.load(Ordering::SeqCst));
        let told = elapsed.clone();
        let config = Config {
            settings: settings.clone(),
            clock: Arc::new(move || now(&told)),
            advance: Some(Arc::new(move |secs| {
                elapsed.fetch_add(secs, Ordering::SeqCst);
                let present = now(&elapsed);
                Box::pin(async move { Ok(present) })
            })),
        };
        Self::serve(config).await
    }

    pub(crate) async fn serve(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let settings = config.settings.clone();
        let server = tokio::spawn(sandbox::serve(listener, config, shutdown.clone()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { url, client: Client::new(), settings, shutdown, server }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// A POST to the payment API; `form` as `a=1&b=2`.
    pub(crate) fn pay(&self, path: &str, form: &str) -> RequestBuilder {
        self.request(Method::POST, path)
            .bearer_auth(&self.settings.payments_key)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_owned())
    }

    /// A GET from the payment API.
    pub(crate) fn look(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path).basic_auth(&self.settings.payments_key, Some(""))
    }

    /// An authorized intent of 40 dollars.
    pub(crate) async fn authorize(&self) -> Value {
        let (status, intent) = send(self.pay("/v1/payment_intents", AUTHORIZE)).await;
        assert_eq!((status, intent["status"].as_str()), (200, Some("requires_capture")), "{intent}");
        intent
    }

    pub(crate) async fn fault(&self, fault: Value) {
        let (status, body) = send(self.request(Method::POST, "/sandbox/faults").json(&fault)).await;
        assert_eq!(status, 200, "{body}");
    }

    pub(crate) async fn advance(&self, secs: i64) -> Value {
        let wish = json!({ "advance_secs": secs });
        let (status, body) = send(self.request(Method::POST, "/sandbox/clock").json(&wish)).await;
        assert_eq!(status, 200, "{body}");
        body
    }
}

pub(crate) const AUTHORIZE: &str = "amount=4000&currency=usd&payment_method=pm_card_visa&confirm=true\
     &capture_method=manual&metadata[appointment_id]=a1&expand[]=latest_charge";

/// Status and JSON body of an answer.
pub(crate) async fn send(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

/// Asks again until the answer is a `Some`, for as long as patience lasts.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it happens in time")
}

/// A fresh folder for one test.
pub(crate) fn folder(test: &str) -> PathBuf {
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("sandbox-{test}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

pub(crate) fn instant(secs: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(secs)
}

/// One request a receiver got.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// An address that takes deliveries, after refusing the first few.
pub(crate) struct Receiver {
    pub(crate) url: String,
    received: watch::Receiver<Vec<Received>>,
}

impl Receiver {
    pub(crate) async fn start(refuse_first: u32) -> Self {
        let (keep, received) = watch::channel(Vec::new());
        let shared = Arc::new((keep, AtomicU32::new(refuse_first)));
        let take = |State(shared): State<Arc<(watch::Sender<Vec<Received>>, AtomicU32)>>,
                    headers: HeaderMap,
                    body: Bytes| async move {
            let one_less = |left: u32| left.checked_sub(1);
            if shared.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            let body = String::from_utf8(body.to_vec()).unwrap();
            shared.0.send_modify(|all| all.push(Received { headers, body }));
            StatusCode::OK
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new().fallback(take).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, received }
    }

    /// Waits until what was received satisfies `enough`, and gives it.
    pub(crate) async fn until(&self, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let mut received = self.received.clone();
        let waiting = received.wait_for(|all| enough(all));
        tokio::time::timeout(PATIENCE, waiting).await.expect("deliveries come in time").unwrap().clone()
    }
}
