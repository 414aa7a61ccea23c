//! An engine without a hub, for calls that a hub makes only after failures.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bowline::{Message, WebSocket, pair};
use bowline_hub::{
    Engine, EngineError, HistoryPage, Hub, Inbox, Lease, Member, NodeId, Position, Present, Rule, Topic,
};
use bowline_hub_nats::Nats;
use tokio::sync::mpsc;

/// The words of a hub to its engine.
enum Word {
    Inbox(Inbox),
    Topic(Topic),
    Node(NodeId),
}

/// An engine that passes on what it is told, and does nothing.
struct Listener(mpsc::UnboundedSender<Word>);

impl Listener {
    fn tell(&self, word: Word) {
        let _ = self.0.send(word);
    }
}

impl Engine for Listener {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        self.tell(Word::Inbox(inbox));
        Ok(())
    }

    async fn publish(&self, _: &Topic, _: Message, _: u64) -> Result<Position, EngineError> {
        Ok(Position::UNTRACKED)
    }

    async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        self.tell(Word::Topic(topic.clone()));
        Ok(())
    }

    async fn unwant(&self, _: &Topic) -> Result<(), EngineError> {
        Ok(())
    }

    async fn history(&self, _: &Topic, _: u64, _: usize) -> Result<HistoryPage, EngineError> {
        Err(EngineError::new("no history"))
    }

    async fn begin(&self, node: NodeId, _: Duration) -> Result<(), EngineError> {
        self.tell(Word::Node(node));
        Ok(())
    }

    async fn renew(&self, _: NodeId, _: Duration) -> Result<Lease, EngineError> {
        Ok(Lease::Held)
    }

    async fn present(&self, _: &Topic) -> Result<Vec<Present>, EngineError> {
        Ok(Vec::new())
    }
}

/// An engine that has been started, the number of a node whose lease has begun, and a topic.
pub(crate) struct Bare {
    pub(crate) engine: Arc<Nats>,
    pub(crate) node: NodeId,
    pub(crate) topic: Topic,
    /// Receives what the engine delivers.
    pub(crate) socket: WebSocket,
    _server: WebSocket,
    _member: Member,
    _hub: Hub,
}

impl Bare {
    pub(crate) async fn start(url: &str, topic: &str) -> Result<Self, Box<dyn Error>> {
        let (words, mut told) = mpsc::unbounded_channel();
        let hub = Hub::builder(Listener(words)).rule("", Rule::new().presence()).build()?;
        let (socket, server) = pair();
        let member = hub.join(server.sender())?;
        let _start = member.subscribe(topic, None).await?;
        let (mut inbox, mut topic, mut node) = (None, None, None);
        while inbox.is_none() || topic.is_none() || node.is_none() {
            match told.recv().await.ok_or("the hub has ended")? {
                Word::Inbox(found) => inbox = Some(found),
                Word::Topic(found) => topic = Some(found),
                Word::Node(found) => node = Some(found),
            }
        }
        let (Some(inbox), Some(topic), Some(node)) = (inbox, topic, node) else { unreachable!() };
        let mut engine = bowline_hub_nats::connect(url).await?;
        engine.start(inbox)?;
        engine.begin(node, Duration::from_secs(30)).await?;
        Ok(Self {
            engine: Arc::new(engine),
            node,
            topic,
            socket,
            _server: server,
            _member: member,
            _hub: hub,
        })
    }
}
