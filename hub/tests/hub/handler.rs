//! The handler of an application, as short as it gets.

use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Hub, Memory, Position, Rule, Slow, Start};
use bowline_hub_testing::{Outcome, TestResult};

async fn load_from_database(_room: &str) -> String {
    tokio::task::yield_now().await;
    "state".to_owned()
}

fn build() -> Result<Hub, bowline_hub::Error> {
    Hub::builder(Memory::new())
        .rule("chat/", Rule::new().history(100, Duration::from_secs(300)).presence())
        .rule("price/", Rule::new().history(1, Duration::from_secs(60)).slow(Slow::Skip))
        .frame(|m| format!("{} {} {:?}", m.topic(), m.position(), m.text()).into())
        .build()
}

async fn handle(
    hub: Hub,
    mut socket: WebSocket,
    topic: String,
    user: String,
    since: Option<Position>,
) -> Outcome<()> {
    let mut since = since;
    let member = hub.join(&socket)?;
    while let Start::Lost(now) = member.subscribe(&topic, since).await? {
        socket.send(load_from_database(&topic).await).await?;
        since = Some(now);
    }
    member.appear(&topic, &user).await?;
    while let Some(message) = socket.recv().await? {
        hub.publish(&topic, message).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_a_few_lines() -> TestResult {
    let hub = build()?;
    let (mut client, server) = pair();
    let unknown = Position::new(1, 2, 3);
    tokio::spawn(handle(hub.clone(), server, "chat/a".into(), "alice".into(), Some(unknown)));
    assert_eq!(client.recv().await?, Some("state".into()));
    client.send("hello").await?;
    let frame = client.recv().await?.ok_or("the end")?.into_text()?;
    assert!(frame.starts_with("chat/a ") && frame.ends_with(r#" Some("hello")"#), "{frame}");
    assert_eq!(hub.present("chat/a").await?[0].key, "alice");
    Ok(())
}
