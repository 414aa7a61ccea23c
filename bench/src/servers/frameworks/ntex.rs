//! ntex: a service that returns each frame, as in its tests of WebSockets. Frames of more than 64 KiB are
//! refused, and fragments are sent back one by one. Text is validated, since sending it takes a string.

use std::io;
use std::net::TcpListener;

use ntex::service::{fn_factory_with_config, fn_service};
use ntex::util::ByteString;
use ntex::web::{self, App, HttpRequest, HttpServer, ws};
use ntex::ws::{Frame, Message};

pub fn serve(listener: TcpListener) -> io::Result<()> {
    ntex::rt::System::new("bench", ntex::rt::DefaultRuntime).block_on(async move {
        HttpServer::new(async || {
            App::new().service(web::resource("/").route(web::to(|request: HttpRequest| async move {
                let service =
                    fn_factory_with_config(|_: ws::WsSink| async { Ok::<_, web::Error>(fn_service(echo)) });
                ws::start::<_, _, &str, web::Error>(request, None, service).await
            })))
        })
        .workers(1)
        .listen(listener)?
        .run()
        .await
    })
}

async fn echo(frame: Frame) -> Result<Option<Message>, io::Error> {
    let invalid = |()| io::Error::from(io::ErrorKind::InvalidData);
    Ok(match frame {
        Frame::Text(text) => Some(Message::Text(ByteString::try_from(text).map_err(invalid)?)),
        Frame::Binary(bytes) => Some(Message::Binary(bytes)),
        Frame::Continuation(item) => Some(Message::Continuation(item)),
        Frame::Ping(bytes) => Some(Message::Pong(bytes)),
        Frame::Pong(_) => None,
        Frame::Close(reason) => Some(Message::Close(reason)),
    })
}
