//! The payment provider: Stripe's wire protocol over the store.
//!
//! `api` is what all calls share, `objects` their data, and one file per noun holds the rules.

pub(crate) mod api;
mod cards;
mod customers;
pub(crate) mod disputes;
pub(crate) mod error;
pub(crate) mod intents;
pub(crate) mod objects;
mod refunds;
pub(crate) mod setup_intents;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, RawQuery, State as Extract},
    http::{HeaderMap, Method, Uri},
    routing::{MethodFilter, on},
};

use crate::{State, faults, form::Form};
use api::{Incoming, Route};

macro_rules! routes {
    ($($method:ident $path:literal $name:literal $handler:path [$($param:literal)*];)*) => {
        &[$(Route {
            method: MethodFilter::$method,
            path: $path,
            name: $name,
            params: &[$($param),*],
            handler: $handler,
        }),*]
    };
}

const ROUTES: &[Route] = routes! {
    POST "/v1/customers" "customers.create" customers::create
        ["email" "name" "phone" "description" "metadata" "payment_method"];
    GET "/v1/customers/{id}" "customers.retrieve" customers::retrieve [];
    POST "/v1/payment_methods" "payment_methods.create" customers::create_method
        ["type" "card" "billing_details" "metadata"];
    GET "/v1/payment_methods" "payment_methods.list" customers::list_methods
        ["customer" "type" "limit" "starting_after" "ending_before" "created"];
    GET "/v1/payment_methods/{id}" "payment_methods.retrieve" customers::retrieve_method [];
    POST "/v1/payment_methods/{id}/attach" "payment_methods.attach" customers::attach_method ["customer"];
    POST "/v1/payment_methods/{id}/detach" "payment_methods.detach" customers::detach_method [];
    POST "/v1/setup_intents" "setup_intents.create" setup_intents::create
        ["customer" "payment_method" "confirm" "usage" "metadata" "description" "return_url" "payment_method_types"
         "automatic_payment_methods"];
    GET "/v1/setup_intents" "setup_intents.list" setup_intents::list
        ["customer" "payment_method" "limit" "starting_after" "ending_before" "created"];
    GET "/v1/setup_intents/{id}" "setup_intents.retrieve" setup_intents::retrieve [];
    POST "/v1/setup_intents/{id}/confirm" "setup_intents.confirm" setup_intents::confirm
        ["payment_method" "return_url"];
    POST "/v1/payment_intents" "payment_intents.create" intents::create
        ["amount" "currency" "customer" "payment_method" "confirm" "off_session" "capture_method"
         "confirmation_method" "metadata" "description" "setup_future_usage" "return_url" "receipt_email"
         "payment_method_types" "payment_method_options" "automatic_payment_methods" "statement_descriptor_suffix"];
    GET "/v1/payment_intents" "payment_intents.list" intents::list
        ["customer" "limit" "starting_after" "ending_before" "created"];
    GET "/v1/payment_intents/{id}" "payment_intents.retrieve" intents::retrieve ["client_secret"];
    POST "/v1/payment_intents/{id}/confirm" "payment_intents.confirm" intents::confirm
        ["payment_method" "off_session" "return_url" "setup_future_usage"];
    POST "/v1/payment_intents/{id}/capture" "payment_intents.capture" intents::capture
        ["amount_to_capture" "metadata"];
    POST "/v1/payment_intents/{id}/cancel" "payment_intents.cancel" intents::cancel ["cancellation_reason"];
    GET "/v1/charges" "charges.list" refunds::list_charges
        ["payment_intent" "customer" "limit" "starting_after" "ending_before" "created"];
    GET "/v1/charges/{id}" "charges.retrieve" refunds::retrieve_charge [];
    POST "/v1/refunds" "refunds.create" refunds::create ["payment_intent" "charge" "amount" "reason" "metadata"];
    GET "/v1/refunds" "refunds.list" refunds::list
        ["payment_intent" "charge" "limit" "starting_after" "ending_before" "created"];
    GET "/v1/refunds/{id}" "refunds.retrieve" refunds::retrieve [];
    GET "/v1/disputes" "disputes.list" disputes::list
        ["payment_intent" "charge" "limit" "starting_after" "ending_before" "created"];
    GET "/v1/disputes/{id}" "disputes.retrieve" disputes::retrieve [];
    GET "/v1/events" "events.list" refunds::list_events
        ["type" "types" "limit" "starting_after" "ending_before" "created"];
    GET "/v1/events/{id}" "events.retrieve" refunds::retrieve_event [];
};

/// Every path of the payment API.
pub(crate) fn router() -> Router<State> {
    ROUTES.iter().fold(Router::new(), |router, route| {
        let answer = move |Extract(state): Extract<State>,
                           id: Option<Path<String>>,
                           method: Method,
                           uri: Uri,
                           RawQuery(query): RawQuery,
                           headers: HeaderMap,
                           body: Bytes| async move {
            let form = match method {
                Method::POST => Form::parse(&body),
                _ => Form::parse(query.unwrap_or_default().as_bytes()),
            };
            let id = id.map(|Path(id)| id).unwrap_or_default();
            let incoming = Incoming { method, path: uri.path().to_owned(), id, headers, form };
            // In a task of its own: the provider does not stop because its caller hung up.
            state
                .spawn(api::execute(state.clone(), route, incoming))
                .await
                .ok()
                .flatten()
                .unwrap_or_else(faults::hang_up)
        };
        router.route(route.path, on(route.method, answer))
    })
}
