//! The HTTP server: its socket, its workers and what each of them is given.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    sync::Arc,
};

use actix_cors::Cors;
use actix_web::{
    App, HttpServer,
    dev::Server as HttpRunning,
    http::{Method, header},
    middleware::from_fn,
    web,
};
use idol_actors::{
    engine::Engine,
    json_text::JsonText,
    log::sqlite::SqliteLog,
    mirror::{json_files::MirrorState, supabase_mirror::SupabaseState},
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::{BACKLOG, CLOSE_SECS, StartError, cores};
use crate::{
    claims::Claims,
    config::{AllowedOrigins, Config},
    request_id::name_request,
    routes,
    server::{Limits, OpenAdmin, Server},
    sockets::Sockets,
    voices::VoiceParts,
    wire::chat::{BUILT_IN_SYSTEM_PROMPT, Defaults, Dialect},
};

pub(super) fn listen(host: &str, port: u16) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen {
        address: format!("{host}:{port}"),
        source,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs().map_err(failed)? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What every worker is given.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) engine: Engine,
    pub(super) log: Arc<SqliteLog>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) claims: Claims,
    pub(super) mirror: watch::Receiver<MirrorState>,
    pub(super) supabase: Option<watch::Receiver<SupabaseState>>,
    pub(super) registry: Arc<Registry>,
    pub(super) voices: VoiceParts,
}

pub(super) fn serve(
    config: &Config,
    listener: TcpListener,
    parts: &Parts,
) -> Result<HttpRunning, StartError> {
    let conversations = &config.conversations;
    let defaults = Arc::new(Defaults {
        model: conversations.default_model.clone(),
        fallbacks: config.openrouter.fallback_models.clone(),
        system_prompt: JsonText::escape(
            conversations
                .system_prompt
                .as_deref()
                .unwrap_or(BUILT_IN_SYSTEM_PROMPT),
        ),
        dialect: Dialect::of(config.openrouter.base_url.as_str()),
    });
    let mode = config.mode();
    let server_config = config.server.clone();
    let parts = parts.clone();
    let user_timeout = conversations.stall_deadline * 4;
    // Names what is wrong before anything is served.
    parts.voices.start()?;
    let factory = move || {
        let voices = parts.voices.start().unwrap_or_else(|error| {
            // The same settings made voices just now.
            tracing::error!(%error, "this worker has no voice");
            parts.voices.silent()
        });
        let home = parts.engine.home_here().unwrap_or_else(|error| {
            // The same settings made a provider when the engine started.
            tracing::error!(%error, "this worker has no provider");
            None
        });
        let server = web::Data::new(Server {
            engine: parts.engine.clone(),
            home,
            voices,
            voice_parts: parts.voices.clone(),
            defaults: defaults.clone(),
            sockets: parts.sockets.clone(),
            claims: parts.claims.clone(),
            log: parts.log.clone(),
            mirror: parts.mirror.clone(),
            supabase: parts.supabase.clone(),
            registry: parts.registry.clone(),
            mode,
            timestamps: server_config.timestamps,
            ws_ping: server_config.ws_ping,
            limits: Limits {
                body_bytes: server_config.max_body_bytes,
                frame_bytes: server_config.max_body_bytes,
            },
            open_admin: match server_config.open_admin {
                true => OpenAdmin::Everybody,
                false => OpenAdmin::LoopbackOnly,
            },
        });
        App::new()
            .app_data(server)
            .configure(routes::configure)
            .wrap(cors(&server_config.allowed_origins))
            .wrap(from_fn(name_request))
    };
    let workers = config.server.workers.unwrap_or_else(cores);
    let http = HttpServer::new(factory)
        .workers(workers)
        .tcp_nodelay(true)
        .on_connect(move |connection, _| {
            if let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() {
                // Four stall deadlines: probes of a closed window count, too, and a shorter time
                // would end live clients that read slowly.
                let socket = socket2::SockRef::from(stream);
                if let Err(error) = socket.set_tcp_user_timeout(Some(user_timeout)) {
                    tracing::debug!(%error, "TCP_USER_TIMEOUT is not set");
                }
            }
        })
        // The limit is each worker's, the operator's is the process's.
        .max_connections(config.server.max_connections.div_ceil(workers))
        .backlog(u32::try_from(BACKLOG).unwrap_or(u32::MAX))
        .shutdown_timeout(CLOSE_SECS)
        .disable_signals()
        .listen(listener)
        .map_err(StartError::Http)?;
    Ok(http.run())
}

/// Every answer, errors included, carries the headers; a preflight is answered before anything else.
fn cors(origins: &AllowedOrigins) -> Cors {
    let cors = Cors::default()
        .supports_credentials()
        .allow_any_header()
        .allowed_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ])
        .expose_headers([
            header::HeaderName::from_static("x-conversation-id"),
            header::CONTENT_DISPOSITION,
            header::ETAG,
            header::RETRY_AFTER,
            header::HeaderName::from_static("x-request-id"),
            header::HeaderName::from_static("x-turn-id"),
            header::HeaderName::from_static("x-speech-model"),
            header::HeaderName::from_static("x-message-id"),
        ])
        .max_age(600)
        // The browser judges; a page of another origin still gets its answer, without the headers.
        .block_on_origin_mismatch(false);
    match origins {
        AllowedOrigins::Any => cors.allowed_origin_fn(|_, _| true),
        AllowedOrigins::Only(origins) => origins
            .iter()
            .fold(cors, |cors, origin| cors.allowed_origin(origin)),
    }
}
