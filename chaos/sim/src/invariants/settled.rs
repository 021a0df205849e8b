//! Once everything is healed and quiet: all nodes are at one index, nothing is owed or waits to be deleted,
//! and recoverable is committed.

use crate::sight::Sight;

/// Why the world is not settled yet; asked until it is, within a bound of virtual time.
pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    let last = sight.model.last();
    for node in &sight.nodes {
        let settled = node.running && node.index == last && node.data_synced == Some(last) && node.floor == last;
        if !settled || node.blocks_behind > 0 || node.deletions_held > 0 {
            return Err(format!("{node:?}, the history ends at {last}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::fixture::{EU, US, bent, buckets, model};
    use farshore_types::LogIndex;

    #[test]
    fn it_fires() {
        let (model, buckets) = (model(), buckets());
        let settled = |owed, held| {
            let mut sight = bent(&model, &buckets, EU, |_| {});
            sight.nodes.iter_mut().for_each(|node| node.floor = LogIndex(2));
            (sight.nodes[1].blocks_behind, sight.nodes[0].deletions_held) = (owed, held);
            super::check(&sight)
        };
        assert_eq!(settled(0, 0), Ok(()));
        assert!(settled(1, 0).is_err());
        assert!(settled(0, 1).is_err());
        assert!(super::check(&bent(&model, &buckets, US, |node| node.index = LogIndex(1))).is_err());
    }
}
