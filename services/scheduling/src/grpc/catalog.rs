//! CatalogService.

use kit::fields::Fields;
use kit::ids::{ClinicId, ProviderId, RoomId, ServiceTypeId};
use proto::clinic::scheduling::v1 as wire;
use proto::clinic::scheduling::v1::catalog_service_server::CatalogService;
use tonic::{Request, Response, Status, async_trait};

use super::{Catalog, attribute, check, decode, encode, paging};
use crate::app::edit::Edit;
use crate::app::{catalog, compare_etag};
use crate::error::{Error, not_found};
use crate::store;
use crate::store::catalog::{Key, List};

/// Lays the fields that an update names over the resource as it stands: those of the mask, or all that are set.
macro_rules! overlay {
    ($fields:expr, $mask:expr, $given:expr => $current:expr, [$($name:ident),* $(,)?]) => {{
        let paths: Vec<&str> = $mask.iter().flat_map(|m| &m.paths).map(String::as_str).collect();
        const SETTABLE: &[&str] = &[$(stringify!($name)),*];
        if let Some(path) = paths.iter().find(|path| !SETTABLE.contains(path)) {
            $fields.refuse("update_mask", format!("{path:?} cannot be changed; only {}", SETTABLE.join(", ")));
        }
        let blank = blank(&$given);
        $(
            let set = $given.$name != blank.$name;
            if if paths.is_empty() { set } else { paths.contains(&stringify!($name)) } {
                $current.$name = $given.$name.clone();
            }
        )*
    }};
}

/// A message of the same type with nothing set.
fn blank<M: Default>(_: &M) -> M {
    M::default()
}

#[async_trait]
impl CatalogService for Catalog {
    async fn create_clinic(
        &self,
        request: Request<wire::CreateClinicRequest>,
    ) -> Result<Response<wire::Clinic>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "CreateClinic", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let id = f.optional_id("clinic_id", &body.clinic_id).unwrap_or_else(ClinicId::new);
        let clinic = decode::clinic(&mut f, id, 1, body.clinic.as_ref());
        check(f)?;
        let app = &self.0;
        let answer = app.once(&by, &body, async |tx| catalog::create_clinic(app, tx, &clinic).await).await?;
        Ok(Response::new(answer))
    }

    async fn get_clinic(
        &self,
        request: Request<wire::GetClinicRequest>,
    ) -> Result<Response<wire::Clinic>, Status> {
        let mut f = Fields::new();
        let id: ClinicId = f.id("clinic_id", &request.get_ref().clinic_id);
        check(f)?;
        let found = store::catalog::clinic(self.0.pool(), id).await.map_err(Error::from)?;
        Ok(Response::new(encode::clinic(&found.ok_or_else(|| not_found(id))?)))
    }

    async fn list_clinics(
        &self,
        request: Request<wire::ListClinicsRequest>,
    ) -> Result<Response<wire::ListClinicsResponse>, Status> {
        let body = request.into_inner();
        let mut f = Fields::new();
        let page = paging::<Key>(&mut f, body.page_size, &body.page_token);
        check(f)?;
        let list = List { after: page.after.as_ref(), limit: page.limit(), retired: body.include_retired };
        let rows = store::catalog::clinics(self.0.pool(), list).await.map_err(Error::from)?;
        let (rows, next_page_token) = page.cut(rows, |c| (c.name.clone(), c.id.uuid()));
        Ok(Response::new(wire::ListClinicsResponse {
            clinics: rows.iter().map(encode::clinic).collect(),
            next_page_token,
        }))
    }

    async fn update_clinic(
        &self,
        request: Request<wire::UpdateClinicRequest>,
    ) -> Result<Response<wire::Clinic>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "UpdateClinic", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let given = body.clinic.clone().unwrap_or_default();
        let id: ClinicId = f.id("clinic.id", &given.id);
        check(f)?;
        let (mask, app) = (&body.update_mask, &self.0);
        let answer = app.once(&by, &body, async |tx| {
            let edit = Edit::shared(app, tx).await?;
            let before = store::catalog::clinic(&mut *edit.tx, id).await?.ok_or_else(|| not_found(id))?;
            compare_etag(&given.etag, before.version, "Clinic")?;
            let (mut f, mut merged) = (Fields::new(), encode::clinic(&before));
            overlay!(f, mask, given => merged, [name, opening_hours, phone, address, retired]);
            let same_zone = given.time_zone.is_empty() || given.time_zone == merged.time_zone;
            f.ensure(same_zone, "clinic.time_zone", "is fixed at creation");
            let clinic = decode::clinic(&mut f, id, before.version + 1, Some(&merged));
            check(f)?;
            catalog::update_clinic(edit, &before, &clinic).await
        });
        Ok(Response::new(answer.await?))
    }

    async fn create_room(
        &self,
        request: Request<wire::CreateRoomRequest>,
    ) -> Result<Response<wire::Room>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "CreateRoom", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let id = f.optional_id("room_id", &body.room_id).unwrap_or_else(RoomId::new);
        let room = decode::room(&mut f, id, 1, body.room.as_ref());
        check(f)?;
        let app = &self.0;
        let answer = app.once(&by, &body, async |tx| catalog::create_room(app, tx, &room).await).await?;
        Ok(Response::new(answer))
    }

    async fn get_room(&self, request: Request<wire::GetRoomRequest>) -> Result<Response<wire::Room>, Status> {
        let mut f = Fields::new();
        let id: RoomId = f.id("room_id", &request.get_ref().room_id);
        check(f)?;
        let found = store::catalog::room(self.0.pool(), id).await.map_err(Error::from)?;
        Ok(Response::new(encode::room(&found.ok_or_else(|| not_found(id))?)))
    }

    async fn list_rooms(
        &self,
        request: Request<wire::ListRoomsRequest>,
    ) -> Result<Response<wire::ListRoomsResponse>, Status> {
        let body = request.into_inner();
        let mut f = Fields::new();
        let clinic = f.optional_id("clinic_id", &body.clinic_id);
        let page = paging::<Key>(&mut f, body.page_size, &body.page_token);
        check(f)?;
        let list = List { after: page.after.as_ref(), limit: page.limit(), retired: body.include_retired };
        let rows = store::catalog::rooms(self.0.pool(), list, clinic).await.map_err(Error::from)?;
        let (rows, next_page_token) = page.cut(rows, |r| (r.name.clone(), r.id.uuid()));
        Ok(Response::new(wire::ListRoomsResponse {
            rooms: rows.iter().map(encode::room).collect(),
            next_page_token,
        }))
    }

    async fn update_room(
        &self,
        request: Request<wire::UpdateRoomRequest>,
    ) -> Result<Response<wire::Room>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "UpdateRoom", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let given = body.room.clone().unwrap_or_default();
        let id: RoomId = f.id("room.id", &given.id);
        check(f)?;
        let (mask, app) = (&body.update_mask, &self.0);
        let answer = app.once(&by, &body, async |tx| {
            let edit = Edit::shared(app, tx).await?;
            let before = store::catalog::room(&mut *edit.tx, id).await?.ok_or_else(|| not_found(id))?;
            compare_etag(&given.etag, before.version, "Room")?;
            let (mut f, mut merged) = (Fields::new(), encode::room(&before));
            overlay!(f, mask, given => merged, [name, features, retired]);
            let same_clinic = given.clinic_id.is_empty() || given.clinic_id == merged.clinic_id;
            f.ensure(same_clinic, "room.clinic_id", "is fixed at creation");
            let room = decode::room(&mut f, id, before.version + 1, Some(&merged));
            check(f)?;
            catalog::update_room(edit, &before, &room).await
        });
        Ok(Response::new(answer.await?))
    }

    async fn create_provider(
        &self,
        request: Request<wire::CreateProviderRequest>,
    ) -> Result<Response<wire::Provider>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "CreateProvider", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let id = f.optional_id("provider_id", &body.provider_id).unwrap_or_else(ProviderId::new);
        let provider = decode::provider(&mut f, id, 1, 1, body.provider.as_ref());
        check(f)?;
        let app = &self.0;
        let answer =
            app.once(&by, &body, async |tx| catalog::create_provider(app, tx, &provider).await).await?;
        Ok(Response::new(answer))
    }

    async fn get_provider(
        &self,
        request: Request<wire::GetProviderRequest>,
    ) -> Result<Response<wire::Provider>, Status> {
        let mut f = Fields::new();
        let id: ProviderId = f.id("provider_id", &request.get_ref().provider_id);
        check(f)?;
        let found = store::catalog::provider(self.0.pool(), id).await.map_err(Error::from)?;
        Ok(Response::new(encode::provider(&found.ok_or_else(|| not_found(id))?)))
    }

    async fn list_providers(
        &self,
        request: Request<wire::ListProvidersRequest>,
    ) -> Result<Response<wire::ListProvidersResponse>, Status> {
        let body = request.into_inner();
        let mut f = Fields::new();
        let clinic = f.optional_id("clinic_id", &body.clinic_id);
        let service = f.optional_id("service_type_id", &body.service_type_id);
        let page = paging::<Key>(&mut f, body.page_size, &body.page_token);
        check(f)?;
        let list = List { after: page.after.as_ref(), limit: page.limit(), retired: body.include_retired };
        let rows =
            store::catalog::providers(self.0.pool(), list, clinic, service).await.map_err(Error::from)?;
        let (rows, next_page_token) = page.cut(rows, |p| (p.name.clone(), p.id.uuid()));
        Ok(Response::new(wire::ListProvidersResponse {
            providers: rows.iter().map(encode::provider).collect(),
            next_page_token,
        }))
    }

    async fn update_provider(
        &self,
        request: Request<wire::UpdateProviderRequest>,
    ) -> Result<Response<wire::Provider>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "UpdateProvider", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let given = body.provider.clone().unwrap_or_default();
        let id: ProviderId = f.id("provider.id", &given.id);
        check(f)?;
        let (mask, app) = (&body.update_mask, &self.0);
        let answer = app.once(&by, &body, async |tx| {
            let edit = Edit::shared(app, tx).await?;
            let before = store::catalog::provider(&mut *edit.tx, id).await?.ok_or_else(|| not_found(id))?;
            compare_etag(&given.etag, before.version, "Provider")?;
            let (mut f, mut merged) = (Fields::new(), encode::provider(&before));
            overlay!(f, mask, given => merged, [name, specialty, languages, service_type_ids, retired]);
            let version = before.version + 1;
            let provider = decode::provider(&mut f, id, version, before.calendar_version, Some(&merged));
            check(f)?;
            catalog::update_provider(edit, &before, provider).await
        });
        Ok(Response::new(answer.await?))
    }

    async fn create_service_type(
        &self,
        request: Request<wire::CreateServiceTypeRequest>,
    ) -> Result<Response<wire::ServiceType>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "CreateServiceType", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let id = f.optional_id("service_type_id", &body.service_type_id).unwrap_or_else(ServiceTypeId::new);
        let service = decode::service_type(&mut f, id, 1, body.service_type.as_ref());
        check(f)?;
        let app = &self.0;
        let answer =
            app.once(&by, &body, async |tx| catalog::create_service_type(app, tx, &service).await).await?;
        Ok(Response::new(answer))
    }

    async fn get_service_type(
        &self,
        request: Request<wire::GetServiceTypeRequest>,
    ) -> Result<Response<wire::ServiceType>, Status> {
        let mut f = Fields::new();
        let id: ServiceTypeId = f.id("service_type_id", &request.get_ref().service_type_id);
        check(f)?;
        let found = store::catalog::service_type(self.0.pool(), id).await.map_err(Error::from)?;
        Ok(Response::new(encode::service_type(&found.ok_or_else(|| not_found(id))?)))
    }

    async fn list_service_types(
        &self,
        request: Request<wire::ListServiceTypesRequest>,
    ) -> Result<Response<wire::ListServiceTypesResponse>, Status> {
        let body = request.into_inner();
        let mut f = Fields::new();
        let page = paging::<Key>(&mut f, body.page_size, &body.page_token);
        check(f)?;
        let list = List { after: page.after.as_ref(), limit: page.limit(), retired: body.include_retired };
        let rows = store::catalog::service_types(self.0.pool(), list).await.map_err(Error::from)?;
        let (rows, next_page_token) = page.cut(rows, |s| (s.name.clone(), s.id.uuid()));
        Ok(Response::new(wire::ListServiceTypesResponse {
            service_types: rows.iter().map(encode::service_type).collect(),
            next_page_token,
        }))
    }

    async fn update_service_type(
        &self,
        request: Request<wire::UpdateServiceTypeRequest>,
    ) -> Result<Response<wire::ServiceType>, Status> {
        let mut f = Fields::new();
        let by = attribute(&request, &mut f, "UpdateServiceType", &request.get_ref().request_id)?;
        let body = request.into_inner();
        let given = body.service_type.clone().unwrap_or_default();
        let id: ServiceTypeId = f.id("service_type.id", &given.id);
        check(f)?;
        let (mask, app) = (&body.update_mask, &self.0);
        let answer = app.once(&by, &body, async |tx| {
            let edit = Edit::shared(app, tx).await?;
            let before = store::catalog::service_type(&mut *edit.tx, id).await?.ok_or_else(|| not_found(id))?;
            compare_etag(&given.etag, before.version, "ServiceType")?;
            let (mut f, mut merged) = (Fields::new(), encode::service_type(&before));
            overlay!(f, mask, given => merged, [
                name, description, duration_minutes, buffer_before_minutes, buffer_after_minutes, step_minutes,
                minimum_notice_minutes, booking_horizon_days, room_features, intake_form_id, copay_required, retired,
            ]);
            let service = decode::service_type(&mut f, id, before.version + 1, Some(&merged));
            check(f)?;
            catalog::update_service_type(edit, &before, &service).await
        });
        Ok(Response::new(answer.await?))
    }
}
