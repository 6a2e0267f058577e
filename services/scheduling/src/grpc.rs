//! The edge: requests are decoded once, with all their bad fields named, and answers encoded.

mod availability;
mod calendar;
mod catalog;
mod decode;
pub(crate) mod encode;
mod watch;

use kit::fields::Fields;
use kit::page::Page;
use kit::status::Error as Common;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Request, Status};

use crate::app::{App, Attribution};
use crate::error::Error;

/// CatalogService.
pub(crate) struct Catalog(pub(crate) App);
/// CalendarService.
pub(crate) struct Calendar(pub(crate) App);
/// AvailabilityService.
pub(crate) struct Availability {
    app: App,
    seats: kit::watch::Seats,
}

impl Availability {
    /// The service, with nobody watching.
    pub(crate) fn new(app: App) -> Self {
        Self { app, seats: kit::watch::Seats::default() }
    }
}

/// Who asks for the change, with the request's name for this attempt.
fn attribute<T>(
    request: &Request<T>,
    fields: &mut Fields,
    method: &'static str,
    request_id: &str,
) -> Result<Attribution, Status> {
    Ok(Attribution { caller: kit::auth::caller(request)?, method, request_id: fields.request_id(request_id) })
}

/// All fields were good, or the status that names those that were not.
fn check(fields: Fields) -> Result<(), Error> {
    fields.check().map_err(Error::from)
}

/// A page asked for, by its two fields.
fn paging<K: Serialize + DeserializeOwned>(fields: &mut Fields, size: i32, token: &str) -> Page<K> {
    let mut parse = |size, token| match Page::parse(size, token) {
        Ok(page) => page,
        Err(error) => {
            if let Common::Invalid(violations) = error {
                violations.into_iter().for_each(|v| fields.refuse(v.field, v.description));
            }
            Page { size: 1, after: None }
        }
    };
    Page { size: parse(size, "").size, after: parse(0, token).after }
}
