//! What is known of one append-only list: the last positions, who put what there, and who saw it first.

use crate::checker::operation::{ListView, Operation};

/// Positions remembered; reads far behind are compared by length only.
const POSITIONS: usize = 256;

/// The end of one list.
#[derive(Clone, Debug)]
pub(super) struct ListEnd {
    /// By position modulo its length.
    slots: Vec<Option<Slot>>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    position: u64,
    element: u64,
    known_by: Operation,
}

impl Default for ListEnd {
    fn default() -> ListEnd {
        ListEnd { slots: vec![None; POSITIONS] }
    }
}

impl ListEnd {
    /// `by` has shown `element` at `position` (from 1). Who showed another one there, and which.
    pub(super) fn note(&mut self, position: u64, element: u64, by: Operation) -> Option<(Operation, u64)> {
        let index = usize::try_from(position).ok()?.checked_rem(self.slots.len())?;
        let slot = self.slots.get_mut(index)?;
        match slot {
            Some(known) if known.position > position => None,
            Some(known) if known.position == position => {
                (known.element != element).then_some((known.known_by, known.element))
            }
            _ => {
                *slot = Some(Slot { position, element, known_by: by });
                None
            }
        }
    }
}

impl ListView {
    /// Its elements with their positions, from 1.
    pub(super) fn elements(&self) -> impl Iterator<Item = (u64, u64)> {
        let first = (self.length + 1).saturating_sub(self.tail.len() as u64);
        (first..).zip(self.tail.iter().copied())
    }

    /// Can there be such a list at all?
    pub(super) fn is_whole(&self) -> bool {
        self.tail.len() as u64 <= self.length && (self.length == 0 || !self.tail.is_empty())
    }
}
