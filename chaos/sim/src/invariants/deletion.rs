//! Only a block that lives at no index at or above any cluster's floor is deleted, and never an unknown one (laws 14, 17).

use crate::model::Model;
use farshore_types::{BlockKey, ClusterId, LogIndex};

/// Asked before a block is deleted from a bucket, with the committed floors of all clusters on the roster.
pub fn check(model: &Model, block: BlockKey, floors: &[(ClusterId, LogIndex)]) -> Result<(), String> {
    let Some(interval) = model.blocks.get(&block) else {
        return Err(format!("{block} is to be deleted, and no entry has ever named it"));
    };
    match floors.iter().find(|(_, floor)| interval.lives_from(*floor)) {
        None => Ok(()),
        Some((cluster, floor)) => {
            let (added, dropped) = (interval.added, interval.dropped.map_or("now".to_owned(), |at| at.to_string()));
            Err(format!("{block} is to be deleted, lives from {added} to {dropped}, and cluster {cluster} promised {floor} only"))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::invariants::fixture::{EU, US, block, model};
    use farshore_types::LogIndex;

    #[test]
    fn it_fires() {
        let mut model = model();
        let floors = |eu| [(US, LogIndex(9)), (EU, LogIndex(eu))];
        assert!(super::check(&model, block(1), &floors(9)).is_err(), "it lives");
        assert!(super::check(&model, block(2), &floors(9)).is_err(), "it is unknown");
        if let Some(interval) = model.blocks.get_mut(&block(1)) {
            interval.dropped = Some(LogIndex(5));
        }
        assert_eq!(super::check(&model, block(1), &floors(5)), Ok(()));
        assert!(super::check(&model, block(1), &floors(4)).is_err(), "one floor is below its drop");
    }
}
