//! What goes wrong meanwhile, drawn from the seed: a payment provider that is slow, silent or confused, a database clock that jumps,
//! calendars that change under holds and bookings. The killings are `run`'s.

use std::time::Duration;

use anyhow::Context as _;
use chrono::TimeDelta;
use kit::client::Outbound;
use kit::clock::Clock;
use kit::fields::timestamp;
use proto::clinic::scheduling::v1::calendar_service_client::CalendarServiceClient;
use proto::clinic::scheduling::v1::{
    AddBlackoutRequest, AddExceptionRequest, Blackout, CalendarException, ExceptionKind,
    RemoveBlackoutRequest, RemoveExceptionRequest, blackout,
};
use proto::google::r#type::Interval;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::{Connection as _, PgConnection};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::ask::{fresh_id, start};
use crate::network::Network;

/// Pauses between two troubles of a kind, in milliseconds.
const FAULTS_MS: std::ops::Range<u64> = 800..2_500;
const JUMPS_MS: std::ops::Range<u64> = 8_000..16_000;
const CALENDARS_MS: std::ops::Range<u64> = 2_000..5_000;
/// How long a calendar stays changed.
const CHANGED_MS: std::ops::Range<u64> = 300..3_000;
/// A jump of the database's clock: just longer than a hold lasts.
const JUMP: TimeDelta = TimeDelta::seconds(301);
/// A change of a calendar that is not answered is asked again this often.
const TRIES: usize = 200;
/// Pause before it is.
const AGAIN: Duration = Duration::from_millis(250);

/// Faults of the payment provider: where, what, for how long, how often.
const FAULTS: [(&str, &str, u64, u32); 11] = [
    ("payment_intents.create", "latency", 700, 3),
    ("payment_intents.create", "act_then_timeout", 4_000, 1),
    ("payment_intents.create", "act_then_drop", 0, 2),
    ("payment_intents.create", "error_500", 0, 2),
    ("payment_intents.create", "drop", 200, 1),
    ("payment_intents.cancel", "act_then_timeout", 4_000, 1),
    ("payment_intents.capture", "act_then_drop", 0, 1),
    ("payment_intent.*", "duplicate_webhook", 0, 5),
    ("payment_intent.*", "delay_webhook", 1_500, 4),
    ("payment_intent.*", "reorder_webhook", 1_000, 4),
    ("payment_intent.*", "drop_webhook", 0, 2),
];

/// A pause out of `range`; `None` = it is over.
async fn pause(rng: &mut StdRng, range: std::ops::Range<u64>, over: &CancellationToken) -> Option<()> {
    let pause = Duration::from_millis(rng.random_range(range));
    over.run_until_cancelled(tokio::time::sleep(pause)).await
}

/// Lets the payment provider fail until `over`, then takes back what has not struck.
pub async fn faults(sandbox: String, seed: u64, over: CancellationToken) -> anyhow::Result<()> {
    let (mut rng, url) = (StdRng::seed_from_u64(seed), format!("{sandbox}/sandbox/faults"));
    let http = reqwest::Client::new();
    while pause(&mut rng, FAULTS_MS, &over).await.is_some() {
        let (route, kind, ms, times) = FAULTS.choose(&mut rng).context("a fault")?;
        let fault = serde_json::json!({ "route": route, "kind": kind, "ms": ms, "times": times });
        http.post(&url).json(&fault).send().await?.error_for_status()?;
    }
    http.delete(&url).send().await?.error_for_status()?;
    Ok(())
}

/// Lets the database's clock jump until `over`, so that every hold, lease and claim of that moment ends at once.
pub async fn clock(admin_url: String, seed: u64, over: CancellationToken) -> anyhow::Result<()> {
    let (mut rng, mut ahead) = (StdRng::seed_from_u64(seed), TimeDelta::zero());
    let mut admin = PgConnection::connect(&admin_url).await?;
    while pause(&mut rng, JUMPS_MS, &over).await.is_some() {
        ahead += JUMP;
        kit::bootstrap::set_clock(&mut admin, ahead).await?;
    }
    Ok(())
}

/// Changes calendars and takes each change back, until `over`.
pub async fn calendars(
    manager: Outbound,
    network: Network,
    seed: u64,
    over: CancellationToken,
) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    while pause(&mut rng, CALENDARS_MS, &over).await.is_some() {
        let begins = start(&mut rng, Clock::System.now(), false);
        let interval = Interval {
            start_time: Some(timestamp(begins)),
            end_time: Some(timestamp(begins + TimeDelta::minutes(rng.random_range(1..9) * 15))),
        };
        let id = fresh_id(&mut rng).to_string();
        let whole_clinic = rng.random_bool(0.3);
        if whole_clinic {
            let site = network.clinics.choose(&mut rng).context("a clinic")?;
            let blackout = Blackout {
                clinic_id: site.id.to_string(),
                name: "Fire drill".into(),
                span: Some(blackout::Span::Interval(interval)),
                ..Default::default()
            };
            let request = AddBlackoutRequest {
                request_id: fresh_id(&mut rng).to_string(),
                blackout_id: id.clone(),
                blackout: Some(blackout),
            };
            insist(|| {
                let (mut api, request) = (CalendarServiceClient::new(manager.clone()), request.clone());
                async move { api.add_blackout(request).await.map(drop) }
            })
            .await?;
        } else {
            let provider = network.providers.choose(&mut rng).context("a provider")?;
            let exception = CalendarException {
                provider_id: provider.to_string(),
                kind: ExceptionKind::TimeOff as i32,
                interval: Some(interval),
                ..Default::default()
            };
            let request = AddExceptionRequest {
                request_id: fresh_id(&mut rng).to_string(),
                exception_id: id.clone(),
                exception: Some(exception),
            };
            insist(|| {
                let (mut api, request) = (CalendarServiceClient::new(manager.clone()), request.clone());
                async move { api.add_exception(request).await.map(drop) }
            })
            .await?;
        }
        pause(&mut rng, CHANGED_MS, &over).await;
        let request_id = fresh_id(&mut rng).to_string();
        insist(|| {
            let (mut api, request_id, id) =
                (CalendarServiceClient::new(manager.clone()), request_id.clone(), id.clone());
            async move {
                if whole_clinic {
                    api.remove_blackout(RemoveBlackoutRequest { request_id, blackout_id: id }).await.map(drop)
                } else {
                    api.remove_exception(RemoveExceptionRequest { request_id, exception_id: id })
                        .await
                        .map(drop)
                }
            }
        })
        .await?;
    }
    Ok(())
}

/// Asks under one request id until it is answered: the gateway is killed now and then.
async fn insist<F: Future<Output = Result<(), Status>>>(mut ask: impl FnMut() -> F) -> anyhow::Result<()> {
    for _ in 0..TRIES {
        match ask().await {
            Ok(()) => return Ok(()),
            Err(status) if crate::client::may_be_asked_again(&status) => tokio::time::sleep(AGAIN).await,
            Err(status) => return Err(status.into()),
        }
    }
    anyhow::bail!("scheduling did not answer a change of its calendars")
}
