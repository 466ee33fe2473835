//! Makes text from strangers safe to print.

/// Returns the text without characters that a terminal interprets or that make it deceptive, cut
/// after `max` characters; empty if nothing of it shows.
pub(crate) fn plain(text: &str, max: usize) -> String {
    vvs_proto::text::plain(text, max).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn escape_sequences_lose_their_power() {
        assert_eq!(
            plain("a\u{1b}]0;title\u{7}b\u{9b}2Jc\r\nd\u{7f}", 99),
            "a]0;titleb2Jc d"
        );
    }

    #[test]
    fn what_is_invisible_is_removed_and_what_is_blank_is_empty() {
        assert_eq!(
            plain(
                "ada\u{202e}gro\u{2066}x\u{200b}\u{feff}\u{e0041}\u{2800}\u{3164}",
                99
            ),
            "adagrox"
        );
        assert_eq!(plain("\u{3164}\u{202e}", 99), "");
    }

    #[test]
    fn names_of_the_world_stay_whole_and_long_ones_are_cut() {
        assert_eq!(plain("Zoë Łuk 李 שלום", 99), "Zoë Łuk 李 שלום");
        assert_eq!(plain("äöü", 2), "äö");
    }
}
