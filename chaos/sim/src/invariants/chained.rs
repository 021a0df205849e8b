//! LogIndex is dense and hash-chained on every node (law 1).

use crate::sight::Sight;

pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    for node in &sight.nodes {
        for (index, chain) in &node.fresh {
            let known = sight.model.chain(*index);
            if chain.is_none() || (known.is_some() && known != *chain) {
                return Err(format!("{}: at {index} the chain is {chain:?}, in the history it is {known:?}", node.name));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::fixture::{EU, US, bent, buckets, model};

    #[test]
    fn it_fires() {
        let (model, buckets) = (model(), buckets());
        assert_eq!(super::check(&bent(&model, &buckets, US, |_| {})), Ok(()));
        assert!(super::check(&bent(&model, &buckets, EU, |node| node.fresh[0].1 = None)).is_err());
    }
}
