//! Protocols on top of WebSockets.

use bowline::http::request::Parts;
use bowline::{Acceptor, CloseCode, MessageKind, Server, WebSocket};
use futures_util::{SinkExt, StreamExt};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Codec, ConnAck, ConnectReturnCode, Packet, Publish};
use serde::{Deserialize, Serialize};
use tarpc::context;
use tokio_util::codec::Framed;

use crate::programs;
use crate::support::{Failure, soon, start};

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Point {
    x: i32,
    y: i32,
}

#[tokio::test]
async fn messagepack() {
    let (client, mut server) = bowline::pair();
    programs::messagepack::send(&client, &Point { x: -1, y: 2 }).await.unwrap();
    let received: Option<Point> = soon(programs::messagepack::recv(&mut server)).await.unwrap();
    assert_eq!(received, Some(Point { x: -1, y: 2 }));

    client.send("text").await.unwrap();
    let reading =
        tokio::spawn(async move { programs::messagepack::recv::<Point>(&mut server).await.unwrap() });
    soon(client.closed()).await;
    assert_eq!(client.close_frame().unwrap().code(), CloseCode::UNSUPPORTED_DATA);
    assert_eq!(soon(reading).await.unwrap(), None);
}

#[tokio::test]
async fn tarpc() {
    let url = format!("ws://{}/", start(programs::tarpc::serve).await);
    let client = programs::tarpc::connect(&url).await.unwrap();
    // Larger than a message of the default limits.
    let name = "n".repeat(2 << 20);
    let (short, long) = tokio::join!(
        client.greet(context::current(), "Ann".to_owned()),
        client.greet(context::current(), name.clone()),
    );
    assert_eq!(short.unwrap(), "hello, Ann");
    assert_eq!(long.unwrap(), format!("hello, {name}"));
}

/// A broker with one topic, which each client has subscribed to.
async fn broker(socket: WebSocket) -> Result<(), Failure> {
    let codec = Codec { max_incoming_size: 256 * 1024, max_outgoing_size: 256 * 1024 };
    let mut packets = Framed::new(socket.into_io(MessageKind::Binary), codec);
    while let Some(packet) = packets.next().await.transpose()? {
        match packet {
            Packet::Connect(_) => {
                packets.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await?;
            }
            Packet::Publish(message) => packets.send(Packet::Publish(message)).await?,
            other => return Err(format!("a packet of another kind: {other:?}").into()),
        }
    }
    Ok(())
}

#[tokio::test]
async fn mqtt() {
    let server = Server::new().acceptor(Acceptor::new().subprotocols(["mqtt"]));
    let url = format!("ws://{}/", start(|listener| server.serve(listener, broker)).await);
    let mut packets = soon(programs::mqtt::connect(&url, "a client")).await.unwrap();
    let message = Publish::new("greetings", QoS::AtMostOnce, vec![1; 100_000]);
    packets.send(Packet::Publish(message.clone())).await.unwrap();
    assert_eq!(soon(packets.next()).await.unwrap().unwrap(), Packet::Publish(message));

    let other = format!("ws://{}/", start(|listener| bowline::serve(listener, broker)).await);
    let error = soon(programs::mqtt::connect(&other, "a client")).await.unwrap_err();
    assert_eq!(error.to_string(), "the server does not speak MQTT");
}

#[tokio::test]
async fn opentelemetry() {
    programs::opentelemetry::install();
    let tell = async |head: Parts, socket: WebSocket| {
        let parent = programs::opentelemetry::parent(&head);
        let span = parent.span().span_context().clone();
        socket.send(format!("{} {}", span.trace_id(), span.span_id())).await?;
        Ok(())
    };
    let url = format!("ws://{}/", start(|listener| bowline::serve(listener, tell)).await);
    let span = SpanContext::new(
        TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
        SpanId::from(0xb7ad_6b71_6920_3331),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    );
    let context = opentelemetry::Context::new().with_remote_span_context(span);
    let mut socket = soon(programs::opentelemetry::connect(&url, &context)).await.unwrap();
    let told = soon(socket.recv()).await.unwrap();
    assert_eq!(told, Some("0af7651916cd43dd8448eb211c80319c b7ad6b7169203331".into()));
}
