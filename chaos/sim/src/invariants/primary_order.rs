//! On the primary: trimmed <= applied <= committed.

use crate::sight::Sight;

pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    let committed = sight.model.last();
    for node in sight.primaries() {
        if node.trimmed > node.index || node.index > committed {
            let (name, trimmed, applied) = (&node.name, node.trimmed, node.index);
            return Err(format!("{name}: trimmed {trimmed}, applied {applied}, committed {committed}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::fixture::{US, bent, buckets, model};
    use farshore_types::*;

    #[test]
    fn it_fires() {
        let (model, buckets) = (model(), buckets());
        assert_eq!(super::check(&bent(&model, &buckets, US, |_| {})), Ok(()));
        assert!(super::check(&bent(&model, &buckets, US, |node| node.trimmed = LogIndex(3))).is_err());
    }
}
