//! An answer is that of the request's first and only application (law 10).

use crate::sight::Sight;

pub fn check(sight: &Sight<'_>) -> Result<(), String> {
    for answer in &sight.answers {
        let (session, sequence) = (answer.session, answer.sequence);
        let Some(known) = sight.model.outcomes.get(&(session, sequence)) else { continue };
        if *known != answer.outcome {
            let got = &answer.outcome;
            return Err(format!("request {sequence} of {session} was answered {got:?}, its application was {known:?}"));
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
        let (mut model, buckets) = (model(), buckets());
        let (session, sequence) = (SessionId([1; 16]), Sequence(1));
        model.outcomes.insert((session, sequence), Ok(Reply::Done));
        let mut sight = bent(&model, &buckets, US, |_| {});
        sight.answers.push(Answered { session, sequence, outcome: Ok(Reply::Done) });
        assert_eq!(super::check(&sight), Ok(()));
        sight.answers.push(Answered { session, sequence, outcome: Err(ErrorKind::Exists) });
        assert!(super::check(&sight).is_err());
    }
}
