//! Codes that people read, compare and type.

/// Letters of a code: no vowels, so that no word appears, and no letters that look alike.
const CODE_LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// The largest multiple of 20 in a byte; larger values would make some letters more likely.
const FAIR: u8 = 240;

/// Makes the code that a person compares, `XXXX-XXXX`.
pub(crate) fn user_code() -> Result<String, vvs_auth::Error> {
    Ok(letters(vvs_auth::key::random::<32>()?))
}

/// Makes eight letters in two groups from random bytes. All 32 exceed the fair range once in 10^30
/// times; the code is then shorter, but not wrong.
pub(crate) fn letters(random: [u8; 32]) -> String {
    let fair = random
        .into_iter()
        .filter(|byte| *byte < FAIR)
        .chain(std::iter::repeat(0));
    let mut code: String = fair
        .take(8)
        .map(|byte| char::from(CODE_LETTERS[usize::from(byte % 20)]))
        .collect();
    code.insert(4, '-');
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_code_is_eight_letters_in_two_groups() {
        for _ in 0..100 {
            let code = user_code().unwrap();
            let (left, right) = code.split_once('-').unwrap();
            assert!(left.len() == 4 && right.len() == 4, "{code}");
            assert!(
                (left.to_owned() + right)
                    .bytes()
                    .all(|letter| CODE_LETTERS.contains(&letter)),
                "{code}"
            );
        }
    }
}
