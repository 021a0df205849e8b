//! Every block that lives at a committed floor is in that region's bucket, and no cluster believes another one to have
//! promised more than it has (law 14).

use crate::sight::Sight;
use farshore_types::{BlockKey, ClusterId, LogIndex};
use std::collections::BTreeSet;

/// A block that lives at an index and is not in the region's bucket as it should be; damage does not count (law 15).
pub fn first_absent(sight: &Sight<'_>, region: ClusterId, index: LogIndex) -> Option<BlockKey> {
    let bucket = sight.buckets.get(&region);
    let holds = |block: &BlockKey, crc: u32| {
        bucket
            .is_some_and(|bucket| bucket.damaged.contains(block) || bucket.objects.get(block).is_some_and(|it| it.crc32c == crc))
    };
    let mut living = sight.model.blocks.iter().filter(|(_, interval)| interval.lives_at(index));
    living.find(|(block, interval)| !holds(block, interval.crc32c)).map(|(block, _)| *block)
}

pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for node in &sight.nodes {
        // A node that lags names an older floor of its cluster; what counts is the newest one.
        let newest = node.floor == sight.floor(node.cluster) && seen.insert((node.cluster, node.floor));
        if let Some(block) = newest.then(|| first_absent(sight, node.cluster, node.floor)).flatten() {
            return Err(format!("{}: the floor is {}, where {block} lives, which its bucket lacks", node.name, node.floor));
        }
        for (other, known) in &node.known_floors {
            let floor = sight.promised.get(other).copied().unwrap_or_default().max(sight.floor(*other));
            if *known > floor {
                return Err(format!("{}: believes that cluster {other} promised {known}, which has promised {floor}", node.name));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::fixture::{EU, US, bent, buckets, model};
    use farshore_types::*;

    #[test]
    fn it_fires() {
        let (model, mut buckets) = (model(), buckets());
        assert_eq!(super::check(&bent(&model, &buckets, EU, |_| {})), Ok(()));
        assert!(super::check(&bent(&model, &buckets, EU, |node| node.known_floors.push((US, LogIndex(2))))).is_err());
        if let Some(bucket) = buckets.get_mut(&EU) {
            bucket.objects.clear();
        }
        assert!(super::check(&bent(&model, &buckets, EU, |node| node.floor = LogIndex(2))).is_err());
    }
}
