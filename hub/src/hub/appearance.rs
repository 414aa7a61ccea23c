//! The presence of a member in its topics.

use std::mem;

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind};
use crate::hub::member::Member;
use crate::node::roster::{Appearance, EntryKey};
use crate::presence::Present;
use crate::topic::Topic;

impl Member {
    /// Makes the member present in a topic with [`Rule::presence`](crate::Rule::presence) to which it has
    /// subscribed, for everybody on all nodes.
    ///
    /// The key says who it is, such as a user. Several members with one key, on any nodes, count as one: the
    /// first is a join, and the last that goes is a leave. The information is that of the last call.
    ///
    /// - [`disappear`](Self::disappear) and [`unsubscribe`](Self::unsubscribe) leave at once.
    /// - A member that is dropped has perhaps lost its connection only, and leaves after 15 s
    ///   ([`HubLimits::presence_linger`](crate::HubLimits::presence_linger)). If somebody with the same key
    ///   appears before, on this node or on another one, nobody is told of anything.
    /// - If the node dies or can't reach the broker, its members have left after 30 s
    ///   ([`HubLimits::presence_lease`](crate::HubLimits::presence_lease)).
    ///
    /// A further call with the same key changes the information.
    ///
    /// # Examples
    ///
    /// ```
    /// use bowline_hub::{Hub, Memory, Present, Rule};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline_hub::Error> {
    /// let hub = Hub::builder(Memory::new()).rule("room/", Rule::new().presence()).build()?;
    /// let (_client, server) = bowline::pair();
    /// let member = hub.join(server.sender())?;
    /// member.subscribe("room/1", None).await?;
    /// member.appear("room/1", Present::new("user-17").info(r#"{"name":"Alice"}"#)).await?;
    /// assert_eq!(hub.present("room/1").await?[0].key, "user-17");
    ///
    /// member.disappear("room/1");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the member has not subscribed to the topic, or has appeared
    ///   there with another key; if the key is empty; or if the rule of the topic has no presence.
    /// - Returns [`ErrorKind::Limit`] if the key or the information is too large: see
    ///   [`HubLimits`](crate::HubLimits).
    /// - Returns [`ErrorKind::Unavailable`] if the engine failed or did not answer in time.
    /// - Returns [`ErrorKind::Closed`] if the member has left the topic meanwhile, or the runtime of the hub
    ///   has ended.
    ///
    /// After an error, the member is not present, unless it was before.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready leaves the member as after an error.
    pub async fn appear(&self, topic: &str, present: impl Into<Present>) -> Result<(), Error> {
        let (topic, present) = (self.subscribed(topic)?, present.into());
        topic.require_presence()?;
        self.node.core.limits.check(&present)?;
        if self.node.inbox.is_closed() {
            return Err(Error::ended());
        }
        let key = EntryKey { topic, key: present.key.into() };
        let (appearance, outcome) = self.note(&key, present.info)?;
        let undo = (appearance == Appearance::First).then(|| Undo { member: self, key: &key });
        self.node.core.engine.outcome("enter a presence", outcome).await?;
        mem::forget(undo);
        // Otherwise, the member has disappeared meanwhile.
        if self.appearances().contains(&key) { Ok(()) } else { Err(Error::left()) }
    }

    /// Makes the member absent from a topic, at once. The subscription stays.
    ///
    /// The method does nothing if the member has not appeared in the topic. While the broker is away, the
    /// hub tries again.
    pub fn disappear(&self, topic: &str) {
        self.retract(|appearance| appearance.topic.name() == topic);
    }

    fn subscribed(&self, topic: &str) -> Result<Topic, Error> {
        let topics = self.topics();
        let found = topics.iter().find(|subscribed| subscribed.name() == topic);
        found.cloned().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("the member has not subscribed to {topic:?}"))
        })
    }

    /// Notes an appearance, here and in the roster, and returns a receiver of the outcome.
    fn note(
        &self,
        key: &EntryKey,
        info: String,
    ) -> Result<(Appearance, oneshot::Receiver<Result<(), Error>>), Error> {
        let core = &self.node.core;
        let mut appearances = self.appearances();
        let appearance = match appearances.iter().find(|earlier| earlier.topic == key.topic) {
            None => Appearance::First,
            Some(earlier) if earlier.key == key.key => Appearance::Update,
            Some(earlier) => {
                let text = format!(
                    "the member has appeared in {:?} as {:?} (Member::disappear comes first)",
                    key.topic.name(),
                    earlier.key
                );
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
        };
        if appearance == Appearance::First {
            appearances.push(key.clone());
        }
        // Under the lock, so that the roster is not told of the end before the beginning.
        let (afterwards, outcome) = core.roster.appear(core, key, info, appearance);
        drop(appearances);
        afterwards.run(core);
        Ok((appearance, outcome))
    }

    /// Removes an appearance, here and in the roster.
    fn retract(&self, is_meant: impl Fn(&EntryKey) -> bool) {
        let mut appearances = self.appearances();
        let Some(index) = appearances.iter().position(is_meant) else { return };
        let key = appearances.swap_remove(index);
        drop(appearances);
        self.node.core.roster.disappear(&self.node.core, &key);
    }
}

/// An appearance under way. Dropping it takes the appearance back.
struct Undo<'a> {
    member: &'a Member,
    key: &'a EntryKey,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.member.retract(|appearance| appearance == self.key);
    }
}
