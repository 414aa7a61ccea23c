//! The checks of what clients and publishers have noted.

use std::collections::{HashMap, HashSet};

use bowline_hub::Position;
use bowline_hub_testing::notes::{END, Note};

use crate::chaos::world::Data;
use crate::support::node::ONCE;

/// Everything that a schedule has produced.
pub(crate) struct Record {
    pub(crate) data: Data,
    /// The notes of each client.
    pub(crate) notes: Vec<Vec<Note>>,
    pub(crate) acknowledged: HashMap<Position, String>,
}

/// The messages that anybody has seen: their texts, and the tags of the messages before.
#[derive(Default)]
struct Truth {
    texts: HashMap<Position, String>,
    before: HashMap<Position, u64>,
}

impl Truth {
    fn message(&mut self, position: Position, text: &str) -> Result<(), String> {
        let known = self.texts.entry(position).or_insert_with(|| text.to_owned());
        if known == text { Ok(()) } else { Err(format!("{position} is both {known:.20} and {text:.20}")) }
    }

    /// Checks the notes of a client. Returns the number of losses.
    fn check(&mut self, notes: &[Note]) -> Result<usize, String> {
        let (mut last, mut texts, mut losses) = (None::<Position>, HashSet::new(), 0);
        for note in notes {
            match note {
                Note::Start(position) => last = Some(*position),
                Note::Lost(position) => {
                    losses += 1;
                    last = Some(*position);
                    texts.clear();
                }
                Note::Message(position, text) => {
                    self.message(*position, text)?;
                    if text != END && !texts.insert(text) {
                        return Err(format!("{text:.20} was received twice"));
                    }
                    if let Some(last) = last.replace(*position) {
                        let next = (last.epoch(), last.offset() + 1);
                        if (position.epoch(), position.offset()) != next {
                            return Err(format!("{position:?} came after {last:?}"));
                        }
                        let before = self.before.entry(*position).or_insert(last.tag());
                        if *before != last.tag() {
                            return Err(format!("two messages were seen before {position:?}"));
                        }
                    }
                }
            }
        }
        Ok(losses)
    }
}

/// Checks that a client has seen everything that was acknowledged after it had come.
fn check_complete(notes: &[Note], acknowledged: &HashMap<Position, String>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for note in notes {
        let Note::Message(position, _) = note else { continue };
        seen.insert(*position);
    }
    let first = seen.iter().map(|position| position.offset()).min().ok_or("a client has seen nothing")?;
    let missing =
        acknowledged.iter().find(|(position, _)| position.offset() >= first && !seen.contains(position));
    match missing {
        Some((_, text)) => Err(format!("{text:.20} was acknowledged and not received")),
        None => Ok(()),
    }
}

/// Checks a record, and returns the number of losses.
pub(crate) fn check(record: &Record) -> Result<usize, String> {
    let (mut truth, mut losses) = (Truth::default(), 0);
    for (position, text) in &record.acknowledged {
        truth.message(*position, text)?;
    }
    for notes in &record.notes {
        losses += truth.check(notes)?;
    }
    if record.data == Data::Kept {
        if losses > 0 {
            return Err(format!("{losses} losses were told, and nothing is lost"));
        }
        for notes in &record.notes {
            check_complete(notes, &record.acknowledged)?;
        }
        let once: Vec<_> = truth.texts.values().filter(|text| text.starts_with(ONCE)).collect();
        if once.iter().collect::<HashSet<_>>().len() < once.len() {
            return Err("a message with a key was stored twice".to_owned());
        }
    }
    Ok(losses)
}
