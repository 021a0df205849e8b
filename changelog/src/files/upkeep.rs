//! Rare operations on the files: purging, and giving up what is not trusted.

use super::{LogFiles, lock};
use crate::batch::{Kind, Record};
use crate::error::LogError;
use farshore_types::RaftIndex;

impl LogFiles {
    /// Makes the entries up to `upto` (inclusive) unreadable for good, durably, and removes segments that hold only such.
    pub fn purge(&mut self, upto: RaftIndex) -> Result<(), LogError> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let below = upto.0 + 1;
        if below <= lock(&self.catalogue).first {
            return Ok(());
        }
        self.builder.start();
        self.builder.push(Record { kind: Kind::Purge, index: below, group: self.options.group, payload: &[] });
        self.write_batch(0, None, 0)?;
        lock(&self.catalogue).purge(below);
        self.sync()?;
        // The mark is durable before the first file goes, and each removal before the next: no crash leaves a gap.
        let removable = lock(&self.catalogue).removable();
        for _ in 0..removable {
            let Some(oldest) = lock(&self.catalogue).segments.front().cloned() else { break };
            let removed = self.disk.remove(&oldest.path).and_then(|()| self.disk.sync_dir(&self.dir));
            removed.map_err(|error| LogError::io("remove", &oldest.path, &error))?;
            lock(&self.catalogue).segments.pop_front();
        }
        Ok(())
    }

    /// Gives up what was found untrusted at open, damaged or marked by a failure: the log continues at the first such
    /// entry, in a new segment, and must be refilled from there. The bytes stay on the disk until they are purged.
    pub fn discard_untrusted(&mut self) -> Result<(), LogError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if let Some((_, void)) = self.untrusted.clone() {
            self.add_segment(Some(void))?;
            self.untrusted = None;
        }
        Ok(())
    }

    /// Forgets the recorded failure of an earlier run, once everything that was not trusted has been refilled and flushed.
    pub fn clear_failure(&mut self) -> Result<(), LogError> {
        match self.failure() {
            Some(failure) => Err(failure),
            None => self.mark.clear(),
        }
    }
}
