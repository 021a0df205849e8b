//! At equal indices the digests of the shared state are equal, on all nodes of all clusters (law 2).

use crate::sight::Sight;

pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    for node in &sight.nodes {
        let Some(known) = sight.model.at(node.index) else { continue };
        if known.digest != node.digest {
            return Err(format!(
                "{}: at {} the digest is {:?}, a replay has {:?}",
                node.name, node.index, node.digest, known.digest
            ));
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
        let (model, buckets) = (model(), buckets());
        assert_eq!(super::check(&bent(&model, &buckets, US, |_| {})), Ok(()));
        assert!(super::check(&bent(&model, &buckets, EU, |node| node.digest = Digest(9))).is_err());
    }
}
