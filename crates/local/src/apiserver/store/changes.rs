//! The recent changes of one kind, for the watches that follow it and those that resume.
//!
//! The newest are values, which the watches that follow read; what is older, or was there for the time between two settlings, is text, a
//! tenth in size.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Object;
use super::held::{Text, weight};
use super::state::revision_of;

/// Changes kept for watches that resume; older ones get 410. A kind has its own, so a busy kind ages no other.
const KEPT: usize = 512;
/// Of these, the newest are kept as values, since the watches that follow read them; the others as text, a tenth in size.
const LIVE: usize = 16;
/// The most that the values of one kind's changes weigh together, in [`weight`]'s bytes; a larger one is text at once.
const LIVE_WEIGHT: usize = 128 << 10;
/// The most that one kind's changes take as text, in bytes.
const PACKED_BYTES: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Added, Self::Modified, Self::Deleted]
            .into_iter()
            .find(|t| t.name() == name)
    }
}

/// One committed change.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) event_type: EventType,
    /// The object after the change; of a deletion the last state, at the deletion's revision.
    pub(crate) object: Object,
    /// The object before the change.
    pub(crate) before: Option<Object>,
}

/// The revision asked for is older than what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOld {
    /// The oldest revision that could have been resumed from.
    pub(crate) oldest: u64,
}

/// The changes of one kind that are kept, in the order of their revisions.
pub(super) struct Changes {
    /// Each with its weight, which is found once.
    live: VecDeque<(Event, usize)>,
    live_weight: usize,
    /// What is older than `live`.
    packed: VecDeque<Packed>,
    packed_bytes: usize,
    /// The newest revision whose event is no longer kept.
    floor: u64,
}

impl Changes {
    pub(super) fn new(floor: u64) -> Self {
        Self {
            live: VecDeque::new(),
            live_weight: 0,
            packed: VecDeque::new(),
            packed_bytes: 0,
            floor,
        }
    }

    /// Nothing before this revision can be resumed.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Keeps a change whose object weighs this much.
    pub(super) fn keep(&mut self, event: Event, weighs: usize) {
        let weighs = weighs + event.before.as_deref().map_or(0, weight);
        self.live_weight += weighs;
        self.live.push_back((event, weighs));
        while (self.live.len() > LIVE || self.live_weight > LIVE_WEIGHT)
            && let Some((old, weighs)) = self.live.pop_front()
        {
            self.live_weight -= weighs;
            self.keep_packed(self.pack(&old));
        }
    }

    /// Packs what came up to a revision: every watch has read it.
    pub(super) fn settle(&mut self, until: u64) {
        while self.live.front().is_some_and(|(event, _)| event.revision <= until)
            && let Some((old, weighs)) = self.live.pop_front()
        {
            self.live_weight -= weighs;
            self.keep_packed(self.pack(&old));
        }
    }

    /// The object before a change is mostly what an earlier change led to, which is kept already.
    fn pack(&self, event: &Event) -> Packed {
        let before = event.before.as_ref().map(|before| {
            let revision = revision_of(before);
            let at = self.packed.binary_search_by_key(&revision, |packed| packed.revision);
            let kept = at.ok().and_then(|at| self.packed.get(at));
            kept.map_or_else(|| Text::new(before), |packed| packed.object.clone())
        });
        Packed {
            revision: event.revision,
            event_type: event.event_type,
            object: Text::new(&event.object),
            before,
        }
    }

    pub(super) fn keep_packed(&mut self, packed: Packed) {
        self.packed_bytes += packed.bytes();
        self.packed.push_back(packed);
        while (self.packed.len() > KEPT - LIVE || self.packed_bytes > PACKED_BYTES)
            && let Some(old) = self.packed.pop_front()
        {
            self.packed_bytes -= old.bytes();
            self.floor = old.revision;
        }
    }

    pub(super) fn since(&self, revision: u64) -> Vec<Event> {
        let packed = self.packed.partition_point(|event| event.revision <= revision);
        let live = self.live.partition_point(|(event, _)| event.revision <= revision);
        let old = self.packed.range(packed..).map(Packed::unpack);
        let live = self.live.range(live..).map(|(event, _)| event.clone());
        old.chain(live).collect()
    }
}

/// A change as text.
pub(super) struct Packed {
    pub(super) revision: u64,
    pub(super) event_type: EventType,
    pub(super) object: Text,
    pub(super) before: Option<Text>,
}

impl Packed {
    fn bytes(&self) -> usize {
        self.object.bytes().len() + self.before.as_ref().map_or(0, |text| text.bytes().len())
    }

    fn unpack(&self) -> Event {
        Event {
            revision: self.revision,
            event_type: self.event_type,
            object: Arc::new(self.object.value()),
            before: self.before.as_ref().map(|text| Arc::new(text.value())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Changes, Event, EventType};

    fn event(revision: u64) -> Event {
        let object = |revision: u64| json!({"metadata": {"name": "n", "resourceVersion": revision.to_string()}}).into();
        Event {
            revision,
            event_type: EventType::Modified,
            object: object(revision),
            before: Some(object(revision - 1)),
        }
    }

    #[test]
    fn what_is_settled_is_text_and_reads_the_same() {
        let mut changes = Changes::new(0);
        (1..=4).for_each(|revision| changes.keep(event(revision), 100));
        let whole = format!("{:?}", changes.since(0));
        changes.settle(3);
        assert_eq!(
            (changes.packed.len(), changes.live.len(), changes.live_weight),
            (3, 1, changes.live[0].1)
        );
        assert_eq!(format!("{:?}", changes.since(0)), whole);
    }

    #[test]
    fn a_change_and_the_one_after_it_share_the_text_between_them() {
        let mut changes = Changes::new(0);
        (1..=2).for_each(|revision| changes.keep(event(revision), 100));
        changes.settle(2);
        let before = changes.packed[1].before.as_ref().unwrap();
        assert_eq!(before.bytes().as_ptr(), changes.packed[0].object.bytes().as_ptr());
    }
}
