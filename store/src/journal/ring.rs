//! Where journal positions lie on the device.

use bytes::Bytes;
use nacre_types::checksum::BLOCK_U64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ring {
    pub offset: u64,
    pub bytes: u64,
}

impl Ring {
    /// (device offset, bytes until the ring wraps).
    pub fn place(&self, position: u64) -> (u64, u64) {
        let at = position % self.bytes;
        (self.offset + at, self.bytes - at)
    }

    /// Lays `segments` out from `position`: one device write, or two where the ring wraps.
    pub fn writes(&self, position: u64, segments: Vec<Bytes>) -> Vec<(u64, Vec<Bytes>)> {
        let total: u64 = segments.iter().map(|s| s.len() as u64).sum();
        assert!(total <= self.bytes && total.is_multiple_of(BLOCK_U64));
        let (offset, room) = self.place(position);
        if total <= room {
            return vec![(offset, segments)];
        }
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        let mut room = room as usize;
        for mut segment in segments {
            if room == 0 {
                tail.push(segment);
            } else if segment.len() <= room {
                room -= segment.len();
                head.push(segment);
            } else {
                head.push(segment.split_to(room));
                tail.push(segment);
                room = 0;
            }
        }
        vec![(offset, head), (self.offset, tail)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_inside_a_segment() {
        let ring = Ring { offset: 1 << 20, bytes: 4 * 4096 };
        let segments = vec![Bytes::from(vec![1; 8192]), Bytes::from(vec![2; 4096])];
        let writes = ring.writes(7 * 4096, segments.clone());
        assert_eq!(writes.len(), 2);
        assert_eq!(writes[0].0, (1 << 20) + 3 * 4096);
        assert_eq!((writes[0].1[0].len(), writes[1].0), (4096, 1 << 20));
        assert_eq!(writes[1].1.iter().map(Bytes::len).collect::<Vec<_>>(), [4096, 4096]);
        assert_eq!(ring.writes(4096, segments).len(), 1);
    }
}
