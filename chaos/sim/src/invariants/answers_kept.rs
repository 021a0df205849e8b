//! What was acknowledged to a client is in the history (law 24).

use crate::sight::Sight;

pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    for answer in &sight.answers {
        let (session, sequence) = (answer.session, answer.sequence);
        if !sight.model.outcomes.contains_key(&(session, sequence)) {
            return Err(format!("request {sequence} of {session} was answered, and the history does not hold it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::board::Answered;
    use crate::invariants::fixture::{US, bent, buckets, model};
    use farshore_types::*;

    #[test]
    fn it_fires() {
        let (model, buckets) = (model(), buckets());
        let mut sight = bent(&model, &buckets, US, |_| {});
        assert_eq!(super::check(&sight), Ok(()));
        sight.answers.push(Answered { session: SessionId([1; 16]), sequence: Sequence(1), outcome: Ok(Reply::Done) });
        assert!(super::check(&sight).is_err());
    }
}
