//! Every block that lives at a region's data_synced is in its bucket with the right bytes (law 13).

use crate::sight::Sight;
use std::collections::BTreeSet;

pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for node in &sight.nodes {
        // A node that lags behind its cluster's own floor names a point that the cluster has left for good.
        let floor = sight.floor(node.cluster);
        let Some(index) = node.data_synced.filter(|index| *index >= floor) else { continue };
        if !seen.insert((node.cluster, index)) {
            continue;
        }
        if let Some(block) = super::promised::first_absent(sight, node.cluster, index) {
            return Err(format!("{}: data_synced is {index}, where {block} lives, which its bucket lacks", node.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::fixture::{EU, bent, buckets, model};
    use farshore_types::*;

    #[test]
    fn it_fires() {
        let (model, mut buckets) = (model(), buckets());
        assert_eq!(super::check(&bent(&model, &buckets, EU, |_| {})), Ok(()));
        if let Some(bucket) = buckets.get_mut(&EU) {
            bucket.objects.clear();
        }
        assert!(super::check(&bent(&model, &buckets, EU, |_| {})).is_err());
        assert_eq!(super::check(&bent(&model, &buckets, EU, |node| node.data_synced = Some(LogIndex(1)))), Ok(()));
    }
}
