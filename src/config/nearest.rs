//! Which valid word was probably meant?

/// The candidate nearest to `word`, if any is near enough to be worth saying.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase().replace('-', "_");
    let limit = (word.chars().count() / 2).max(2);
    candidates
        .into_iter()
        .map(|candidate| (score(&word, &candidate.replace('-', "_")), candidate))
        .min_by_key(|(score, _)| *score)
        .filter(|(score, _)| *score <= limit)
        .map(|(_, candidate)| candidate)
}

// A shared part between underscores (`pool_size` for `size`) counts as near as two typing errors.
fn score(word: &str, candidate: &str) -> usize {
    let distance = edit_distance(word, candidate);
    let shares =
        word.split('_').any(|part| part.len() > 3 && candidate.split('_').any(|other| other == part));
    if shares { distance.min(2) } else { distance }
}

/// Insertions, deletions, replacements and swaps of neighbours that make `b` of `a`.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_far_ones_are_not() {
        let keys = ["name", "host", "port", "weight", "zone", "tags"];
        for (typed, meant) in [("prot", Some("port")), ("Host", Some("host")), ("wieght", Some("weight"))] {
            assert_eq!(nearest(typed, keys), meant, "{typed}");
        }
        assert_eq!(nearest("pool_size", ["mode", "size"]), Some("size"));
        assert_eq!(nearest("xyzzyxyzzy", keys), None);
    }

    #[test]
    fn a_swap_is_one_error() {
        assert_eq!(edit_distance("prot", "port"), 1);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
