//! The nearest known name to a misspelt one.

/// Edits at most between a name and its suggestion: a third of its length, and at least two.
fn reach(name: &str) -> usize {
    (name.chars().count() / 3).max(2)
}

/// The known name with the fewest edits, if few enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (edits(name, candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= reach(name))
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and substitutions that turn `from` into `to`.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_key_and_strangers_find_none() {
        let known = ["listen", "metrics", "name", "advertise"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("metric", known), Some("metrics"));
        assert_eq!(nearest("advertize", known), Some("advertise"));
        assert_eq!(nearest("kubernetes", known), None);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
