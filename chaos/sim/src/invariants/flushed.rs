//! No node has applied what its own log has not flushed (law 5).

use crate::sight::Sight;

pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    for node in &sight.nodes {
        if node.applied > node.durable {
            return Err(format!("{}: applied {}, durable {}", node.name, node.applied, node.durable));
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
        assert!(super::check(&bent(&model, &buckets, US, |node| node.applied = RaftIndex(7))).is_err());
    }
}
