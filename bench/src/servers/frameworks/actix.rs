//! actix-ws: `recv` of aggregated messages, and `text` or `binary` of the session, as in its example `chat`.

use std::io;
use std::net::TcpListener;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt, web};
use actix_ws::AggregatedMessage;

use crate::servers::echo::MESSAGE_SIZE;

pub fn serve(listener: TcpListener) -> io::Result<()> {
    rt::System::new().block_on(
        HttpServer::new(|| App::new().route("/", web::get().to(accept)))
            .workers(1)
            .tcp_nodelay(true)
            .listen(listener)?
            .run(),
    )
}

async fn accept(request: HttpRequest, body: web::Payload) -> actix_web::Result<HttpResponse> {
    let (response, mut session, messages) = actix_ws::handle(&request, body)?;
    let mut messages =
        messages.max_frame_size(MESSAGE_SIZE).aggregate_continuations().max_continuation_size(MESSAGE_SIZE);
    rt::spawn(async move {
        while let Some(Ok(message)) = messages.recv().await {
            let sent = match message {
                AggregatedMessage::Text(text) => session.text(text).await,
                AggregatedMessage::Binary(bytes) => session.binary(bytes).await,
                AggregatedMessage::Close(_) => break,
                AggregatedMessage::Ping(_) | AggregatedMessage::Pong(_) => Ok(()),
            };
            if sent.is_err() {
                break;
            }
        }
    });
    Ok(response)
}
