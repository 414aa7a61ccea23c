//! The presence of a member in its topics.

use std::mem;

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind};
use crate::hub::member::{Appeared, Member};
use crate::node::roster::Appearance;
use crate::node::roster::entry::EntryKey;
use crate::presence::Present;
use crate::topic::Topic;

impl Member {
    /// Makes the member present in a topic with [`Rule::presence`](crate::Rule::presence) to which it has
    /// subscribed, for everybody on all nodes.
    ///
    /// The key says who it is, such as a user. Several members with one key, on any nodes, count as one: the
    /// first is a join, and the last that goes is a leave. The information is that of the last call.
    ///
    /// - [`disappear`](Self::disappear) and [`unsubscribe`](Self::unsubscribe) leave at once. The member
    ///   stays present if it [subscribes](Self::subscribe) again, whatever the outcome.
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
    /// let _ = member.subscribe("room/1", None).await?;
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
    /// - Returns [`ErrorKind::Limit`] if the key or the information is too large, or if the member is present
    ///   in too many topics: see [`HubLimits`](crate::HubLimits).
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
        let call = self.node.core.ticket();
        let outcome = self.note(&key, present.info, call)?;
        let undo = Undo { member: self, call };
        self.node.core.engine.outcome("enter a presence", outcome).await?;
        mem::forget(undo);
        let mut appearances = self.appearances();
        // Otherwise, the member has disappeared meanwhile.
        let appeared = appearances.iter_mut().find(|appeared| appeared.entry == key);
        let appeared = appeared.ok_or_else(Error::left)?;
        appeared.awaited = appeared.awaited.filter(|awaited| *awaited != call);
        Ok(())
    }

    /// Makes the member absent from a topic, at once. The subscription stays.
    ///
    /// The method does nothing if the member has not appeared in the topic. While the broker is away, the
    /// hub tries again.
    pub fn disappear(&self, topic: &str) {
        self.retract(|appeared| appeared.entry.topic.name() == topic);
    }

    fn subscribed(&self, topic: &str) -> Result<Topic, Error> {
        let subscriptions = self.subscriptions();
        let found = subscriptions.find(topic);
        found.cloned().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("the member has not subscribed to {topic:?}"))
        })
    }

    /// Notes an appearance, here and in the roster, and returns a receiver of the outcome.
    fn note(
        &self,
        key: &EntryKey,
        info: String,
        call: u64,
    ) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let core = &self.node.core;
        let mut appearances = self.appearances();
        // Under the lock: whoever leaves the topic from here on finds the appearance.
        self.subscribed(key.topic.name())?;
        let count = appearances.len();
        let earlier = appearances.iter_mut().find(|earlier| earlier.entry.topic == key.topic);
        let appearance = match earlier {
            None if count >= core.limits.topics_per_member => {
                let text = format!(
                    "the member is present in {count} topics already (raise the limit with \
                     HubLimits::topics_per_member)"
                );
                return Err(Error::new(ErrorKind::Limit, text));
            }
            None => {
                appearances.push(Appeared { entry: key.clone(), awaited: Some(call) });
                Appearance::First
            }
            Some(Appeared { entry, awaited }) if entry.key == key.key => {
                // This call takes the place of the one that is awaited.
                *awaited = awaited.map(|_| call);
                Appearance::Update
            }
            Some(Appeared { entry, .. }) => {
                let text = format!(
                    "the member has appeared in {:?} as {:?} (Member::disappear comes first)",
                    key.topic.name(),
                    entry.key
                );
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
        };
        // Under the lock, so that the roster is not told of the end before the beginning.
        let (afterwards, outcome) = core.roster.appear(core, key, info, appearance);
        drop(appearances);
        afterwards.run(core);
        Ok(outcome)
    }

    /// Removes an appearance, here and in the roster.
    fn retract(&self, is_meant: impl Fn(&Appeared) -> bool) {
        let mut appearances = self.appearances();
        let Some(index) = appearances.iter().position(is_meant) else { return };
        let Appeared { entry, .. } = appearances.swap_remove(index);
        drop(appearances);
        self.node.core.roster.disappear(&self.node.core, &entry);
    }
}

/// A call of `appear` under way. Dropping it takes back the appearance that nothing but this call stands for.
struct Undo<'a> {
    member: &'a Member,
    call: u64,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.member.retract(|appeared| appeared.awaited == Some(self.call));
    }
}
