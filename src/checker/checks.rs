//! The comparisons: what must be shown, and what was.

use crate::checker::operation::{Evidence, Level, Operation};

/// The newest number up to `version` that stands in `cell`; 0 where there is none.
pub(super) fn expected(version: u64, cell: u64, cells: u64) -> u64 {
    let past = (version % cells + cells - cell % cells) % cells;
    version.saturating_sub(past)
}

/// The newest that is known of an item, by whomever, and by a primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Known {
    newest: Option<Evidence>,
    on_primary: Option<Evidence>,
}

impl Known {
    /// One proof more.
    pub(super) fn learn(&mut self, evidence: Evidence) {
        raise(&mut self.newest, evidence);
        if evidence.served.is_none_or(|served| !served.replica) {
            raise(&mut self.on_primary, evidence);
        }
    }

    /// What a read by `reader` has to show, if `is_shown` says that it does not.
    pub(super) fn missing(
        &self,
        reader: &Operation,
        level: Level,
        is_shown: impl Fn(u64) -> bool,
    ) -> Missing {
        match self.newest {
            Some(newest) if !is_shown(newest.version) => {
                if !is_overtaken(&newest, reader, level) {
                    return Missing::Proven(newest);
                }
                match self.on_primary {
                    Some(shown) if !is_shown(shown.version) => Missing::Proven(shown),
                    _ => Missing::Overtaken,
                }
            }
            _ => Missing::Nothing,
        }
    }
}

fn raise(slot: &mut Option<Evidence>, evidence: Evidence) {
    if slot.is_none_or(|known| known.version < evidence.version) {
        *slot = Some(evidence);
    }
}

/// What a comparison says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Missing {
    /// All is there.
    Nothing,
    /// A primary does not show yet what a replica has shown: below `strict` nobody promises it. (A
    /// commit is in the WAL before it becomes visible on the primary.)
    Overtaken,
    /// This is not.
    Proven(Evidence),
}

/// May `reader` miss what `evidence` has shown?
pub(super) fn is_overtaken(evidence: &Evidence, reader: &Operation, level: Level) -> bool {
    let replica = |operation: &Operation| operation.served.map(|served| served.replica);
    level == Level::Session && replica(evidence) == Some(true) && replica(reader) == Some(false)
}
