//! Makes text of a stranger safe to print.

/// The text without characters that a terminal obeys or that make it read differently from what it is (controls,
/// line separators, bidirectional and invisible format characters), cut after `max` characters.
pub(crate) fn plain(text: &str, max: usize) -> String {
    text.chars().filter(|&c| !is_treacherous(c)).take(max).collect()
}

fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn escape_sequences_lose_their_power() {
        assert_eq!(plain("a\u{1b}]0;title\u{7}b\u{9b}2Jc\r\nd\u{7f}", 99), "a]0;titleb2Jcd");
    }

    #[test]
    fn bidirectional_and_invisible_characters_are_removed() {
        assert_eq!(plain("ada\u{202e}gro\u{2066}x\u{200b}\u{feff}\u{e0041}", 99), "adagrox");
    }

    #[test]
    fn names_of_the_world_stay_whole_and_long_ones_are_cut() {
        assert_eq!(plain("Zoë Łuk 李 שלום", 99), "Zoë Łuk 李 שלום");
        assert_eq!(plain("äöü", 2), "äö");
    }
}
