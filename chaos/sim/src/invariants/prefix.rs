//! Every cluster is a prefix of the primary: equal chains at equal indices (laws 2, 3).

use crate::sight::Sight;

pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    for node in &sight.nodes {
        let known = sight.model.chain(node.index);
        if known != Some(node.chain) {
            return Err(format!(
                "{}: at {} the chain is {:?}, in the history it is {known:?}",
                node.name, node.index, node.chain
            ));
        }
        if node.diverged {
            return Err(format!("{}: says itself that it has diverged", node.name));
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
        assert!(super::check(&bent(&model, &buckets, EU, |node| node.chain = Chain([9; 32]))).is_err());
    }
}
