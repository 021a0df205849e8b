//! Tear or damage? What lies where the log's last segment stops making sense (law 24).
//!
//! What can be told apart, and how. Before a batch is written its place holds zeros only: segments are zeroed when
//! they are made, and a torn tail is zeroed before the next append. So a write that never finished leaves zeros:
//! 1. only zeros to the end: the log ends here;
//! 2. a later batch that was written when this one was flushed already: damage;
//! 3. the batch's last byte is zero, which it never is when whole: the write broke off, a tear;
//! 4. a whole sector inside the batch is zero: that sector was never written, a tear;
//! 5. its first byte is zero, which no batch's is, and something follows: its header was never written, as 4;
//! 6. anything else is bytes that were written and have changed since: damage.
//!
//! What cannot be told apart: a whole sector of the last batch that went back to zeros after it was flushed looks like
//! a tear; so does a flipped bit in a last batch that carries 512 aligned zeros in its payload; and a last batch
//! that vanished as a whole leaves no trace. Only what others know shows these: the committed index in the hard state, the
//! state's applied index, the peers. A disk that tears inside sectors and leaves rubbish, not zeros, is taken for
//! damage: the safe side, since damage only takes a vote away.

use crate::disk::DiskFile;
use crate::format::{BATCH_HEADER, BatchHeader, SECTOR, sealed};
use crate::reader::Window;
use std::io;

/// How the last segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Clean,
    /// The last write did not finish; so many bytes from its start on hold something.
    Torn {
        bytes: u64,
    },
    Damage,
}

/// What follows an offset.
struct Rest {
    /// One past the last byte that is not zero; the offset itself if there is none.
    end: u64,
    /// A later batch proves that the one at the offset was flushed.
    proof: bool,
}

fn survey(file: &dyn DiskFile, offset: u64, length: u64, sequence: u64) -> io::Result<Rest> {
    let mut window = Window::new(file, length);
    let mut rest = Rest { end: offset, proof: false };
    let mut at = offset;
    loop {
        let sector = window.at(at, SECTOR)?;
        if sector.is_empty() {
            return Ok(rest);
        }
        if let Some(last) = sector.iter().rposition(|byte| *byte != 0) {
            rest.end = at + last as u64 + 1;
            let header = BatchHeader::decode(sector);
            rest.proof |= header.is_some_and(|later| later.sequence > sequence && later.flushed > sequence);
        }
        at += sector.len() as u64;
    }
}

/// Classifies what is at `offset`, where the batch `sequence` would have to be and is not.
pub(crate) fn classify(file: &dyn DiskFile, offset: u64, length: u64, sequence: u64) -> io::Result<Ending> {
    let rest = survey(file, offset, length, sequence)?;
    if rest.end == offset {
        return Ok(Ending::Clean);
    }
    if rest.proof {
        return Ok(Ending::Damage);
    }
    let torn = Ending::Torn { bytes: rest.end - offset };
    let mut window = Window::new(file, length);
    let first = window.at(offset, SECTOR)?;
    if first.first() == Some(&0) {
        return Ok(torn);
    }
    let Some(header) = BatchHeader::decode(first) else {
        // Broken off inside the header: nothing of its last byte, nor of anything after it, arrived.
        let broken_off = rest.end < offset + BATCH_HEADER as u64;
        return Ok(if broken_off { torn } else { Ending::Damage });
    };
    let batch = window.at(offset, header.length as usize)?;
    if batch.len() < header.length as usize || batch.last() == Some(&0) {
        return Ok(torn);
    }
    if sealed(batch).is_some() {
        // Whole, and yet not what belongs here.
        return Ok(Ending::Damage);
    }
    let unwritten = batch.chunks(SECTOR).any(|sector| sector.iter().all(|byte| *byte == 0));
    Ok(if unwritten { torn } else { Ending::Damage })
}
