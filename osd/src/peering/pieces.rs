//! A log that travels in pieces: put together only if all of them have come, in order, of one transfer.
//!
//! A session that drops takes some pieces with it, and what is sent again may mingle with what was sent before. A log put
//! together of such would lack entries in its middle, and nobody would miss the changes they made.

use nacre_types::mutant;
use nacre_wire::messages::{LogEntry, MissingObject, Piece};

/// Most records taken from one peer: a log's and its dups' bounds, and an object each in the missing set.
const RECORDS_MAX: usize = 1 << 20;

/// What has come of one transfer, from its first piece on without a gap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    transfer: u64,
    next: u32,
    entries: Vec<LogEntry>,
    missing: Vec<MissingObject>,
}

impl Pieces {
    /// Takes the next piece; what they all hold, with the last one. A first piece begins anew; one that does not follow is
    /// dropped: its transfer will not be whole, and the sender starts another.
    pub fn take(
        &mut self,
        piece: Piece,
        entries: Vec<LogEntry>,
        missing: Vec<MissingObject>,
    ) -> Option<(Vec<LogEntry>, Vec<MissingObject>)> {
        if piece.index == 0 {
            *self = Pieces { transfer: piece.transfer, ..Pieces::default() };
        }
        if (piece.transfer, piece.index) != (self.transfer, self.next) && !mutant!(PieceMissed) {
            return None;
        }
        if self.entries.len() + self.missing.len() + entries.len() + missing.len() > RECORDS_MAX {
            *self = Pieces::default();
            return None;
        }
        self.next = self.next.saturating_add(1);
        self.entries.extend(entries);
        self.missing.extend(missing);
        if !piece.last {
            return None;
        }
        let whole = std::mem::take(self);
        // Nothing follows the last one.
        self.next = u32::MAX;
        Some((whole.entries, whole.missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(transfer: u64, index: u32, last: bool) -> (Piece, Vec<LogEntry>) {
        let entry = LogEntry { request: transfer * 10 + u64::from(index), ..LogEntry::default() };
        (Piece { transfer, index, last }, vec![entry])
    }

    fn take(pieces: &mut Pieces, order: &[(u64, u32, bool)]) -> Vec<Vec<u64>> {
        let whole = order.iter().filter_map(|&(transfer, index, last)| {
            let (piece, entries) = piece(transfer, index, last);
            pieces.take(piece, entries, Vec::new())
        });
        whole.map(|(entries, _)| entries.iter().map(|entry| entry.request).collect()).collect()
    }

    #[test]
    fn only_whole_transfers_count() {
        let mut pieces = Pieces::default();
        assert_eq!(take(&mut pieces, &[(1, 0, true)]), [[10]]);
        assert_eq!(take(&mut pieces, &[(1, 0, false), (1, 1, false), (1, 2, true)]), [[10, 11, 12]]);
        // One is lost: none of the rest helps.
        assert!(take(&mut pieces, &[(2, 0, false), (2, 2, false), (2, 3, true)]).is_empty());
        assert!(take(&mut pieces, &[(3, 1, true)]).is_empty());
        // The end of one that was cut off, after the beginning of the next.
        assert_eq!(
            take(&mut pieces, &[(4, 0, false), (5, 0, false), (4, 1, true), (5, 1, true)]),
            [[50, 51]]
        );
        // The last one twice, and the whole twice.
        assert_eq!(take(&mut pieces, &[(6, 0, false), (6, 1, true), (6, 1, true)]), [[60, 61]]);
        assert_eq!(take(&mut pieces, &[(6, 0, false), (6, 1, true)]), [[60, 61]]);
    }
}
