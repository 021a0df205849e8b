//! In every region: floor <= data_synced <= applied <= committed of the primary.

use crate::sight::Sight;

pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    let committed = sight.model.last();
    for node in &sight.nodes {
        let synced = node.data_synced.unwrap_or(node.index);
        let ordered = synced <= node.index && node.index <= committed && node.data_synced.is_none_or(|at| node.floor <= at);
        if !ordered {
            let (floor, applied) = (node.floor, node.index);
            let synced = node.data_synced.map_or("null".to_owned(), |at| at.to_string());
            let name = &node.name;
            return Err(format!("{name}: floor {floor}, data_synced {synced}, applied {applied}, committed {committed}"));
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
        assert!(super::check(&bent(&model, &buckets, EU, |node| node.floor = LogIndex(2 + 1))).is_err());
    }
}
