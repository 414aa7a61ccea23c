//! A topic of bowline-hub, to which all connections subscribe.

use std::error::Error;

use anyhow::Result;
use bowline::{Server, WebSocket};
use bowline_hub::{Engine, Hub, HubLimits, Memory};
use tokio::net::TcpListener;

use super::Request;
use crate::servers::library::Behavior;

pub async fn serve(behavior: Behavior, listener: TcpListener, redis: Option<&str>) -> Result<()> {
    let hub = match redis {
        Some(url) => build(bowline_hub_redis::connect(url).await?)?,
        None => build(Memory::new())?,
    };
    Server::new().serve(listener, move |socket: WebSocket| attend(hub.clone(), behavior, socket)).await?;
    Ok(())
}

fn build(engine: impl Engine) -> Result<Hub, bowline_hub::Error> {
    // Payloads of 64 KiB are within the limit.
    let limits = HubLimits::default().message_size(1024 * 1024);
    Hub::builder(engine).workers(1).limits(limits).build()
}

async fn attend(
    hub: Hub,
    behavior: Behavior,
    mut socket: WebSocket,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let member = hub.join(socket.sender())?;
    let mut topic = "room".to_owned();
    if behavior != Behavior::Rooms {
        let _start = member.subscribe(&*topic, None).await?;
    }
    while let Some(message) = socket.recv().await? {
        if behavior == Behavior::Chat {
            hub.publish(&*topic, message).await?;
            continue;
        }
        match Request::parse(behavior, message.as_bytes()) {
            Some(Request::Send(payload)) => {
                for _ in 0..behavior.messages() {
                    hub.publish(&*topic, payload.clone()).await?;
                }
            }
            Some(Request::Join(number)) => {
                topic = format!("room {number}");
                let _start = member.subscribe(&*topic, None).await?;
            }
            None => {}
        }
    }
    Ok(())
}
