//! What billing writes into its log: enough to see what was refused and why, and nothing that must stay secret.

use kit::ids::PatientId;
use proto::clinic::billing::v1::ChargeState;
use reqwest::StatusCode;

use crate::world::World;

/// Found in no log: it stands in every body that is sent here.
const IN_BODIES: &str = "4242424242424242";

fn body() -> String {
    format!(
        r#"{{"id":"evt_1","type":"payment_intent.succeeded","data":{{"object":{{"id":"pi_1","object":"payment_intent","number":"{IN_BODIES}"}}}}}}"#
    )
}

/// All of billing's tables that a webhook could change.
async fn books(world: &World) -> i64 {
    world
        .number(
            "select (select count(*) from billing.webhook_event) + (select count(*) from billing.journal)
             + (select coalesce(sum(revision), 0) from billing.charge)::bigint",
        )
        .await
}

#[tokio::test]
async fn refused_webhooks_are_logged_without_their_secrets_and_change_nothing() {
    let world = World::logged().await;
    let url = format!("{}/webhooks/payments", world.url);
    let before = books(&world).await;
    let now = world.today().timestamp();
    let good = world.sign(now, &body());
    let forged = format!("t={now},v1={}", "5e".repeat(32));
    let large = format!("{}{}", body(), " ".repeat(300 * 1024));
    let no_json = format!("number={IN_BODIES}");
    let refused = [
        ("unsigned", None, body(), "application/json", StatusCode::BAD_REQUEST),
        ("forged", Some(forged.clone()), body(), "application/json", StatusCode::BAD_REQUEST),
        (
            "tampered",
            Some(good.clone()),
            body().replace("evt_1", "evt_2"),
            "application/json",
            StatusCode::BAD_REQUEST,
        ),
        ("stale", Some(world.sign(now - 301, &body())), body(), "application/json", StatusCode::BAD_REQUEST),
        (
            "of tomorrow",
            Some(world.sign(now + 400, &body())),
            body(),
            "application/json",
            StatusCode::BAD_REQUEST,
        ),
        (
            "oversized",
            Some(world.sign(now, &large)),
            large,
            "application/json",
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        (
            "no JSON",
            Some(world.sign(now, &no_json)),
            no_json.clone(),
            "application/json",
            StatusCode::BAD_REQUEST,
        ),
        (
            "a form",
            Some(good.clone()),
            body(),
            "application/x-www-form-urlencoded",
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
    ];
    let mut signatures = vec![];
    for (what, signature, body, content_type, status) in refused {
        let request = world.http.post(&url).header("content-type", content_type).body(body);
        let request = signature.iter().fold(request, |request, it| request.header("stripe-signature", it));
        assert_eq!(request.send().await.unwrap().status(), status, "{what}");
        signatures.extend(signature.iter().flat_map(|it| it.rsplit('=').next()).map(str::to_owned));
    }
    assert_eq!(books(&world).await, before);

    let log = world.log();
    for reason in [
        "the signature header is missing or malformed",
        "no signature matches",
        "the signature is too old or too new",
        "it could not be read",
        "it is no event",
        "it does not call itself JSON",
    ] {
        assert!(log.contains(reason), "{reason}: {log}");
    }
    let settings = sandbox::Settings::default();
    for secret in [&settings.webhook_secret, &settings.payments_key, &IN_BODIES.to_owned()] {
        assert!(!log.contains(secret), "{log}");
    }
    for signature in signatures {
        assert!(!log.contains(&signature), "{log}");
    }
}

#[tokio::test]
async fn trouble_with_the_provider_is_logged_without_keys_tokens_and_client_secrets() {
    let world = World::logged().await;
    world.set_fees(vec![world.fee(Some(crate::world::COPAY), None)], "").await.unwrap();
    let patient = PatientId::new();
    let card = world.save_card(patient, "pm_card_authenticationRequired").await.unwrap();
    world.confirm(card.client_secret.split("_secret").next().unwrap(), true).await;
    for trouble in ["error_500", "act_then_drop", "drop"] {
        world.trouble("payment_intents.*", trouble, 0, 1).await;
    }
    let request = world.request(patient);
    let asked = testkit::until("the card check", async || world.authorize(&request).await.ok()).await;
    assert_eq!(asked.state(), ChargeState::RequiresAction);
    assert!(asked.client_secret.contains("_secret"));
    world.save_card(PatientId::new(), "pm_card_chargeDeclined").await.unwrap_err();

    let log = world.log();
    assert!(log.contains("a charge waits for the provider"), "{log}");
    let settings = sandbox::Settings::default();
    for secret in [
        settings.payments_key.as_str(),
        &settings.webhook_secret,
        &card.client_secret,
        &asked.client_secret,
        "_secret",
        "pm_card_",
        "Bearer",
    ] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}
