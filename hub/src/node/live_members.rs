//! The members that are live in a topic.
//!
//! Most topics have few members, and a service may have one topic for each of its users. So a single member
//! takes no memory of its own, a few are a list, and only many are a set with hashes.

use std::collections::HashSet;
use std::mem;

use crate::node::membership::MemberKey;

/// The number of members up to which they are a list.
const FEW: usize = 16;

/// The live members of a topic, each once, in no order.
#[derive(Default)]
pub(crate) enum LiveMembers {
    #[default]
    Nobody,
    One(MemberKey),
    /// In a box, so that this type is two words.
    More(Box<Crowd>),
}

/// Two members or more, or those that are left of them.
pub(crate) enum Crowd {
    Few(Vec<MemberKey>),
    Many(HashSet<MemberKey>),
}

impl LiveMembers {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Nobody => 0,
            Self::One(_) => 1,
            Self::More(crowd) => match &**crowd {
                Crowd::Few(members) => members.len(),
                Crowd::Many(members) => members.len(),
            },
        }
    }

    /// Adds a member. Returns `false` if it was there.
    pub(crate) fn insert(&mut self, member: MemberKey) -> bool {
        match self {
            Self::Nobody => *self = Self::One(member),
            Self::One(only) if *only == member => return false,
            Self::One(only) => *self = Self::More(Box::new(Crowd::Few(vec![only.clone(), member]))),
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
        let (few, many) = match self {
            Self::Nobody => (&[][..], None),
            Self::One(only) => (std::slice::from_ref(only), None),
            Self::More(crowd) => match &**crowd {
                Crowd::Few(members) => (&members[..], None),
                Crowd::Many(members) => (&[][..], Some(members)),
            },
        };
        few.iter().chain(many.into_iter().flatten())
    }
}

impl Crowd {
    fn insert(&mut self, member: MemberKey) -> bool {
        match self {
            Self::Few(members) if members.contains(&member) => return false,
            Self::Few(members) if members.len() < FEW => members.push(member),
            Self::Few(members) => {
                *self = Self::Many(mem::take(members).into_iter().chain([member]).collect());
            }
            Self::Many(members) => return members.insert(member),
        }
        true
    }

    fn remove(&mut self, member: &MemberKey) -> bool {
        match self {
            Self::Few(members) => {
                let Some(index) = members.iter().position(|other| other == member) else { return false };
                members.swap_remove(index);
            }
            Self::Many(members) => {
                if !members.remove(member) {
                    return false;
                }
                // Half of a list, so that a member that comes and goes doesn't change the form each time.
                if members.len() <= FEW / 2 {
                    *self = Self::Few(members.drain().collect());
                } else if members.len() < members.capacity() / 8 {
                    members.shrink_to(members.len() * 2);
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use bowline::pair;

    use super::*;
    use crate::node::membership::Membership;

    /// Walks up and down through all forms, and compares each with a plain set.
    #[tokio::test]
    async fn every_form_has_the_members_of_a_set() {
        let (_client, server) = pair();
        let member = || MemberKey(Membership::new(server.sender()).into());
        let keys: Vec<_> = (0..4 * FEW).map(|_| member()).collect();
        let mut live = LiveMembers::default();
        let check = |live: &LiveMembers, expected: &[MemberKey]| {
            assert_eq!(live.len(), expected.len());
            assert_eq!(live.is_empty(), expected.is_empty());
            let found: Vec<_> = live.iter().collect();
            assert!(found.len() == expected.len() && expected.iter().all(|key| found.contains(&key)));
        };
        for count in 0..keys.len() {
            check(&live, &keys[..count]);
            assert!(!live.remove(&keys[count]));
            assert!(live.insert(keys[count].clone()) && !live.insert(keys[count].clone()));
        }
        assert!(matches!(&live, LiveMembers::More(crowd) if matches!(**crowd, Crowd::Many(_))));
        for count in 0..keys.len() {
            check(&live, &keys[count..]);
            assert!(live.remove(&keys[count]) && !live.remove(&keys[count]));
        }
        assert!(matches!(live, LiveMembers::Nobody));
    }
}
