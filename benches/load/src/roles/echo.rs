//! A bare WebSocket server that says what it hears: what a socket costs by itself.

use std::io::{self, Write as _};

use actix::{Actor, StreamHandler};
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, web};
use actix_web_actors::ws;

use crate::error::LoadError;

const WORKERS: usize = 2;

/// Serves until the process is ended.
pub(crate) fn run() -> Result<(), LoadError> {
    actix_web::rt::System::new().block_on(serve())
}

async fn serve() -> Result<(), LoadError> {
    let server = HttpServer::new(|| App::new().default_service(web::to(open)))
        .workers(WORKERS)
        .backlog(4096)
        .tcp_nodelay(true)
        .bind(("127.0.0.1", 0))
        .map_err(LoadError::io("a listening socket"))?;
    for address in server.addrs() {
        writeln!(io::stdout(), "listening on http://{address}").map_err(LoadError::io("stdout"))?;
    }
    server.run().await.map_err(LoadError::io("the echo"))
}

async fn open(request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Error> {
    ws::start(Echo, &request, payload)
}

struct Echo;

impl Actor for Echo {
    type Context = ws::WebsocketContext<Self>;
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Echo {
    fn handle(
        &mut self,
        item: Result<ws::Message, ws::ProtocolError>,
        context: &mut Self::Context,
    ) {
        match item {
            Ok(ws::Message::Text(text)) => context.text(text),
            Ok(ws::Message::Ping(bytes)) => context.pong(&bytes),
            Ok(ws::Message::Close(reason)) => context.close(reason),
            Ok(_) | Err(_) => {}
        }
    }
}
