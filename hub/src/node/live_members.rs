//! The members that are live in a topic.
//!
//! Most topics have few members, and a service may have one topic for each of its users. So a single member
//! takes no memory of its own.
//!
//! The members of a large topic are in the order of their addresses, which is mostly the order in which their
//! connections were opened. Sending to all of them then walks through memory in one direction, that of the
//! kernel included. In the order of a hash table, a message to 10,000 members takes 4 % more time.
//!
//! ```text
//!   members, ascending    [ 1 3 4 7 ]   [ 9 ]   [ 12 20 21 ]
//!                              a chunk of at most 512
//! ```

use std::cmp::Ordering;
use std::sync::Arc;

use crate::node::membership::MemberKey;

/// The largest number of members in a chunk: inserting moves half of them, which is 2 KiB.
const CHUNK: usize = 512;

/// The live members of a topic, each once.
#[derive(Default)]
pub(crate) enum LiveMembers {
    #[default]
    Nobody,
    One(MemberKey),
    /// In a box, so that this type is two words.
    More(Box<Crowd>),
}

/// Members in the order of their addresses.
#[derive(Default)]
pub(crate) struct Crowd {
    /// No chunk is empty.
    chunks: Vec<Vec<MemberKey>>,
    len: usize,
}

impl LiveMembers {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Nobody => 0,
            Self::One(_) => 1,
            Self::More(crowd) => crowd.len,
        }
    }

    pub(crate) fn contains(&self, member: &MemberKey) -> bool {
        match self {
            Self::Nobody => false,
            Self::One(only) => only == member,
            Self::More(crowd) => crowd.find(member).1.is_ok(),
        }
    }

    /// Adds a member. Returns `false` if it was there.
    pub(crate) fn insert(&mut self, member: MemberKey) -> bool {
        match self {
            Self::Nobody => *self = Self::One(member),
            Self::One(only) if *only == member => return false,
            Self::One(only) => {
                let mut crowd = Crowd::default();
                crowd.insert(only.clone());
                crowd.insert(member);
                *self = Self::More(Box::new(crowd));
            }
            Self::More(crowd) => return crowd.insert(member),
        }
        true
    }

    /// Removes a member. Returns `false` if it was not there.
    pub(crate) fn remove(&mut self, member: &MemberKey) -> bool {
        let was_there = match self {
            Self::Nobody => false,
            Self::One(only) => only == member,
            Self::More(crowd) => crowd.remove(member),
        };
        if was_there && self.len() <= 1 {
            // Of two members, one is left; of one, nobody.
            let left = self.iter().find(|left| *left != member).cloned();
            *self = left.map_or(Self::Nobody, Self::One);
        }
        was_there
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &MemberKey> {
        let (one, chunks) = match self {
            Self::Nobody => (None, &[][..]),
            Self::One(only) => (Some(only), &[][..]),
            Self::More(crowd) => (None, &crowd.chunks[..]),
        };
        one.into_iter().chain(chunks.iter().flatten())
    }
}

impl Crowd {
    /// Returns the index of the chunk in which a member is or would be, and the place in the chunk.
    fn find(&self, member: &MemberKey) -> (usize, Result<usize, usize>) {
        let after = self.chunks.partition_point(|chunk| order(&chunk[0], member).is_le());
        let chunk = after.saturating_sub(1);
        let place = self.chunks.get(chunk).map(|members| members.binary_search_by(|it| order(it, member)));
        (chunk, place.unwrap_or(Err(0)))
    }

    fn insert(&mut self, member: MemberKey) -> bool {
        let (index, Err(place)) = self.find(&member) else { return false };
        self.len += 1;
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(vec![member]);
            return true;
        };
        if chunk.len() < CHUNK {
            chunk.insert(place, member);
        } else if place == CHUNK {
            // Members that come in order fill their chunks.
            self.chunks.insert(index + 1, vec![member]);
        } else {
            let mut upper = chunk.split_off(CHUNK / 2);
            match place.checked_sub(CHUNK / 2) {
                Some(place) => upper.insert(place, member),
                None => chunk.insert(place, member),
            }
            self.chunks.insert(index + 1, upper);
        }
        true
    }

    fn remove(&mut self, member: &MemberKey) -> bool {
        let (index, Ok(place)) = self.find(member) else { return false };
        self.len -= 1;
        self.chunks[index].remove(place);
        self.tidy(index);
        true
    }

    /// Returns the memory of a chunk that has lost a member, if there is enough of it.
    fn tidy(&mut self, index: usize) {
        let len = self.chunks[index].len();
        if len == 0 {
            self.chunks.remove(index);
            return;
        }
        let next = self.chunks.get(index + 1).map_or(CHUNK, Vec::len);
        if len + next <= CHUNK / 2 {
            let mut upper = self.chunks.remove(index + 1);
            self.chunks[index].append(&mut upper);
        } else if len <= self.chunks[index].capacity() / 4 {
            self.chunks[index].shrink_to(len * 2);
        }
    }
}

/// Compares two members by their addresses.
fn order(one: &MemberKey, other: &MemberKey) -> Ordering {
    Arc::as_ptr(&one.0).cmp(&Arc::as_ptr(&other.0))
}

#[cfg(test)]
mod tests {
    use bowline::pair;

    use super::*;
    use crate::node::membership::Membership;

    fn members(count: usize) -> Vec<MemberKey> {
        let (_client, server) = pair();
        (0..count).map(|_| MemberKey(Membership::new(server.sender()).into())).collect()
    }

    fn check(live: &LiveMembers, expected: &[MemberKey]) {
        assert_eq!((live.len(), live.is_empty()), (expected.len(), expected.is_empty()));
        let mut expected: Vec<_> = expected.iter().collect();
        expected.sort_by(|one, other| order(one, other));
        assert!(live.iter().eq(expected));
        if let LiveMembers::More(crowd) = live {
            assert!(crowd.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
        }
    }

    /// Walks up and down through all forms, in several orders.
    #[tokio::test]
    async fn every_form_has_each_member_once() {
        let mut keys = members(4 * CHUNK);
        for step in [1, 7, 997] {
            let mut live = LiveMembers::default();
            for count in 0..keys.len() {
                if count % 61 == 0 || count < 4 {
                    check(&live, &keys[..count]);
                }
                assert!(!live.remove(&keys[count]) && !live.contains(&keys[count]));
                assert!(live.insert(keys[count].clone()) && !live.insert(keys[count].clone()));
            }
            for count in 0..keys.len() {
                if count % 61 == 0 || count + 4 > keys.len() {
                    check(&live, &keys[count..]);
                }
                assert!(live.contains(&keys[count]));
                assert!(live.remove(&keys[count]) && !live.remove(&keys[count]));
            }
            assert!(matches!(live, LiveMembers::Nobody));
            // Steps that have no divisor in common with the number lead through all members.
            keys = (0..keys.len()).map(|index| keys[index * (step + 2) % keys.len()].clone()).collect();
        }
    }

    #[tokio::test]
    async fn members_that_come_in_order_fill_their_chunks() {
        let mut keys = members(4 * CHUNK);
        keys.sort_by(order);
        let mut live = LiveMembers::default();
        for key in keys {
            live.insert(key);
        }
        let LiveMembers::More(crowd) = &live else { panic!("there are many") };
        assert_eq!(crowd.chunks.len(), 4);
    }
}
