//! Everything that leaves the services or stays behind them: answers, errors, log, spans, metrics, events, rows, files, texts.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::TryStreamExt as _;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use sqlx::{AssertSqlSafe, PgConnection};
use testkit::Servers;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Something that came out, and where.
pub(super) struct Output {
    /// Such as `table patients.patient.given_name` or `answer GetPatient to front_desk`.
    pub(super) place: String,
    pub(super) bytes: Vec<u8>,
}

impl Output {
    pub(super) fn new(place: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { place: place.into(), bytes: bytes.into() }
    }

    /// Whatever an error tells its caller.
    pub(super) fn of_error(place: impl Into<String>, status: &Status) -> Self {
        let mut bytes = format!("{:?} {}\n", status.code(), status.message()).into_bytes();
        bytes.extend_from_slice(status.details());
        bytes.extend_from_slice(format!("{:?}", status.metadata()).as_bytes());
        Self::new(place, bytes)
    }
}

/// An OpenTelemetry collector that keeps what it is sent.
#[derive(Clone)]
pub(super) struct Collector {
    pub(super) url: String,
    spans: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    pub(super) async fn start(stop: CancellationToken) -> Self {
        let (listener, url) = testkit::listener().await;
        let collector = Self { url, spans: Arc::default() };
        let routes =
            tonic::service::Routes::new(TraceServiceServer::new(collector.clone())).into_axum_router();
        tokio::spawn(kit::serve::serve(listener, routes, stop));
        collector
    }

    pub(super) fn output(&self) -> Output {
        Output::new("spans", self.spans.lock().expect("no panic while the lock is held").clone())
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.spans.lock().expect("no panic while the lock is held");
        spans.extend(request.into_inner().encode_to_vec());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Every value of every column of every table.
pub(super) async fn rows(database: &mut PgConnection) -> Vec<Output> {
    let columns: Vec<(String, String, String, String)> = sqlx::query_as(
        "select c.table_schema::text, c.table_name::text, c.column_name::text, c.data_type::text
         from information_schema.columns c
         join information_schema.tables t using (table_schema, table_name)
         where t.table_type = 'BASE TABLE' and c.table_schema not in ('pg_catalog', 'information_schema')
         order by 1, 2, c.ordinal_position",
    )
    .fetch_all(&mut *database)
    .await
    .expect("the columns");
    let mut outputs = vec![];
    for (schema, table, column, kind) in columns {
        // Bytes as they are: in their text form nothing but hexadecimal digits would be seen.
        let value = if kind == "bytea" { r#""$""# } else { r#"convert_to("$"::text, 'UTF8')"# };
        let value = value.replace('$', &column);
        let sql = format!(r#"select {value} from "{schema}"."{table}" where "{column}" is not null"#);
        let values: Vec<Vec<u8>> =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut *database).await.expect("its values");
        outputs.push(Output::new(format!("table {schema}.{table}.{column}"), values.join(&b'\n')));
    }
    outputs
}

/// Every message of every stream, with its subject and headers.
pub(super) async fn events(servers: &Servers) -> Vec<Output> {
    let js = async_nats::jetstream::new(servers.broker().await);
    let names: Vec<String> = js.stream_names().try_collect().await.expect("the streams");
    let mut outputs = vec![];
    for name in names {
        let mut stream = js.get_stream(&name).await.expect("a stream");
        let state = stream.info().await.expect("its state").state.clone();
        for sequence in state.first_sequence..=state.last_sequence {
            // A deleted one has left.
            let Ok(message) = stream.get_raw_message(sequence).await else { continue };
            let mut bytes = format!("{}\n{:?}\n", message.subject, message.headers).into_bytes();
            bytes.extend_from_slice(&message.payload);
            outputs.push(Output::new(format!("stream {name}"), bytes));
        }
    }
    outputs
}

/// Every file below `folder`, as its bytes are.
pub(super) fn files(name: &str, folder: &Path) -> Vec<Output> {
    let mut outputs = vec![];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        // One that goes away meanwhile, or a socket, holds nothing.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => outputs.extend(files(&name, &entry.path())),
            Ok(kind) if kind.is_file() => {
                outputs.extend(fs::read(entry.path()).ok().map(|bytes| Output::new(name, bytes)));
            }
            Ok(_) | Err(_) => {}
        }
    }
    outputs
}
