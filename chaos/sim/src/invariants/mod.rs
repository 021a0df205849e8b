//! What must hold after every step: one property, one file, one sentence, and a test in which it fires.

pub mod answered_once;
pub mod answers_kept;
pub mod chained;
pub mod deletion;
pub mod digest;
pub mod directories;
pub mod flushed;
pub mod mirror_order;
pub mod prefix;
pub mod primary_order;
pub mod promised;
pub mod resurrection;
pub mod settled;
pub mod synced;

use crate::sight::Sight;

/// A property of the world at one instant.
pub type Check = fn(&Sight<'_>) -> Result<(), String>;

/// All properties that are checked after every step, with their names.
pub const ALL: [(&str, Check); 10] = [
    ("primary_order", primary_order::check),
    ("mirror_order", mirror_order::check),
    ("chained", chained::check),
    ("prefix", prefix::check),
    ("digest", digest::check),
    ("flushed", flushed::check),
    ("synced", synced::check),
    ("promised", promised::check),
    ("answered_once", answered_once::check),
    ("answers_kept", answers_kept::check),
];

/// The first property that does not hold.
pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    ALL.iter().try_for_each(|(name, check)| check(sight).map_err(|what| format!("{name}: {what}")))
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A small world in which everything is well: one primary and one mirror node at index 2 of a formatted volume.

    use crate::bucket::Bucket;
    use crate::model::{BLOCK_SIZE, Interval, Known, Model};
    use crate::sight::{NodeSight, Sight};
    use farshore_types::{BlockKey, Chain, ClusterId, Digest, LogIndex, RaftIndex, SliceId};
    use std::collections::BTreeMap;

    pub const US: ClusterId = ClusterId(0);
    pub const EU: ClusterId = ClusterId(1);

    pub fn block(slice: u64) -> BlockKey {
        BlockKey { slice: SliceId(slice), index: 0, size: BLOCK_SIZE }
    }

    pub fn model() -> Model {
        let known = |byte| Known { canonical: vec![byte], chain: Chain([byte; 32]), digest: Digest(u128::from(byte)) };
        let mut model = Model { history: vec![known(1), known(2)], ..Model::default() };
        let interval = Interval { added: LogIndex(2), dropped: None, origin: None, crc32c: 7 };
        model.blocks.insert(block(1), interval);
        model
    }

    pub fn buckets() -> BTreeMap<ClusterId, Bucket> {
        let object = crate::bucket::Object { length: BLOCK_SIZE, crc32c: 7 };
        let full = || Bucket { objects: BTreeMap::from([(block(1), object)]), ..Bucket::default() };
        BTreeMap::from([(US, full()), (EU, full())])
    }

    fn node(name: &str, cluster: ClusterId) -> NodeSight {
        let (index, chain) = (LogIndex(2), Chain([2; 32]));
        NodeSight {
            name: name.to_owned(),
            cluster,
            running: true,
            index,
            chain,
            digest: Digest(2),
            fresh: vec![(LogIndex(1), Some(Chain([1; 32]))), (index, Some(chain))],
            data_synced: Some(index),
            floor: LogIndex(1),
            applied: RaftIndex(5),
            durable: RaftIndex(6),
            ..NodeSight::default()
        }
    }

    /// The sight, with one node bent by `bend`.
    pub fn bent<'a>(
        model: &'a Model,
        buckets: &'a BTreeMap<ClusterId, Bucket>,
        which: ClusterId,
        bend: impl Fn(&mut NodeSight),
    ) -> Sight<'a> {
        let mut nodes = vec![node("us-1", US), node("eu-1", EU)];
        nodes.iter_mut().filter(|node| node.cluster == which).for_each(bend);
        Sight { primary: US, nodes, model, buckets, answers: vec![], promised: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{EU, US, bent, buckets, model};

    #[test]
    fn a_sound_world_passes_all() {
        let (model, buckets) = (model(), buckets());
        for which in [US, EU] {
            assert_eq!(super::check(&bent(&model, &buckets, which, |_| {})), Ok(()));
        }
    }
}
