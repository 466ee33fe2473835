//! Makes text from strangers safe to show: one rule for all text in which people, programs and
//! servers describe themselves. Knows nothing of pages, terminals and logs, and cannot distinguish
//! letters that look alike.

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Marks that one letter may carry. Scripts and languages in use need four; floods of marks cover
/// the lines around them.
const MARKS: usize = 4;

/// Returns the text as it shows, cut after `max` characters; `None` if nothing of it shows.
///
/// Removes characters that are invisible or deceive: control and format characters (including those
/// of bidirectional text, joiners and tags), characters that Unicode lets a font ignore, characters
/// without a standard shape, blank letters, and marks without a letter or beyond the fourth. White
/// space of any kind, including line and paragraph separators, becomes one space. An emoji that is
/// joined from several falls apart into them.
#[must_use]
pub fn plain(text: &str, max: usize) -> Option<String> {
    let mut plain = String::new();
    let (mut count, mut marks, mut is_after_space) = (0, 0, true);

    for c in text.chars() {
        if c.is_whitespace() {
            is_after_space = true;
            continue;
        }

        let category = CodePointMapData::<GeneralCategory>::new().get(c);
        if is_hidden(c, category) {
            continue;
        }

        if !stacks(category) {
            marks = 0;
        } else if is_after_space || marks == MARKS {
            continue;
        } else {
            marks += 1;
        }

        let has_space = is_after_space && !plain.is_empty();
        count += 1 + usize::from(has_space);
        if count > max {
            break;
        }

        plain.extend(has_space.then_some(' '));
        plain.push(c);
        is_after_space = false;
    }

    Some(plain).filter(|plain| !plain.is_empty())
}

/// Returns whether a character shows nothing, changes how others show, or has no standard shape.
fn is_hidden(c: char, category: GeneralCategory) -> bool {
    GeneralCategoryGroup::Other.contains(category)
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
        || is_blank(c)
}

/// Returns whether a character is drawn as nothing although no property says so.
fn is_blank(c: char) -> bool {
    matches!(
        c,
        '\u{2800}' // Braille pattern blank
            | '\u{fffc}' // object replacement character
            | '\u{13441}' | '\u{13442}' // Egyptian hieroglyph full and half blank
            | '\u{16fe4}' // Khitan small script filler
            | '\u{1d159}' // musical symbol null notehead
    )
}

/// Returns whether a mark is drawn above, below or around the letter before it.
fn stacks(category: GeneralCategory) -> bool {
    matches!(
        category,
        GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_loses_what_is_invisible_or_deceives() {
        for (text, shown) in [
            // Controls, escape sequences of terminals, and what ends a line.
            ("A\u{0}d\u{7f}a\u{9b}2J", "Ada2J"),
            ("\u{1b}]0;title\u{7}Ada", "]0;titleAda"),
            (
                "Ada\r\nLovelace\u{2028}of\u{2029}London\u{85}",
                "Ada Lovelace of London",
            ),
            // What turns the text around it: UAX #9, section 2.
            ("Ada\u{202e}gro\u{2066}x\u{61c}\u{200e}\u{200f}", "Adagrox"),
            (
                "\u{2067}\u{2068}\u{2069}\u{202a}\u{202b}\u{202c}\u{202d}a",
                "a",
            ),
            // What a font may ignore.
            ("A\u{ad}d\u{200b}\u{200c}a\u{2060}\u{feff}", "Ada"),
            (
                "A\u{34f}d\u{fe0f}a\u{180e}\u{e0041}\u{e0100}\u{fff0}",
                "Ada",
            ),
            (
                "A\u{2061}d\u{2064}a\u{206a}\u{206f}\u{1d173}\u{1bca0}",
                "Ada",
            ),
            // Letters without a shape.
            ("A\u{3164}d\u{ffa0}a\u{115f}\u{1160}\u{17b4}\u{2800}", "Ada"),
            ("A\u{1d159}d\u{fffc}a\u{13441}\u{16fe4}", "Ada"),
            // Other formats, private use, and what is assigned to nothing.
            ("A\u{fff9}d\u{fffb}a\u{600}\u{6dd}\u{110bd}\u{13430}", "Ada"),
            (
                "A\u{e000}d\u{f8ff}a\u{f0000}\u{10fffd}\u{fffe}\u{1ffff}\u{378}",
                "Ada",
            ),
            // Spaces of all widths push nothing out of sight.
            (
                "  Ada\u{a0}\u{2003}\u{3000}\u{1680}\t Lovelace  ",
                "Ada Lovelace",
            ),
            // A family is its members.
            ("\u{1f469}\u{200d}\u{1f467}", "\u{1f469}\u{1f467}"),
        ] {
            assert_eq!(plain(text, 99).as_deref(), Some(shown), "{text:?}");
        }
    }

    #[test]
    fn names_of_the_world_stay_as_they_are() {
        for name in [
            "Ada Lovelace",
            "O'Brien-Łukasz, Jr. (she/her)",
            "Größe 東京 \u{1f600}\u{1f3fd}",
            "שלום עליכם",
            "מֹשֶׁה",
            "محمّد",
            "देवनागरी",
            "ကြွှေ့",
            "བསྒྲུབས",
            // Vietnamese with every mark by itself.
            "Nguye\u{302}\u{303}n",
            "#1!",
        ] {
            assert_eq!(plain(name, 99).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_letter_carries_four_marks_and_a_mark_needs_a_letter() {
        let flood = format!("a{}b", "\u{301}\u{200d}\u{489}".repeat(50));
        assert_eq!(
            plain(&flood, 99).as_deref(),
            Some("a\u{301}\u{489}\u{301}\u{489}b")
        );
        assert_eq!(
            plain("\u{301}\u{20dd}Ada \u{301}L", 99).as_deref(),
            Some("Ada L")
        );
    }

    #[test]
    fn a_text_of_which_nothing_shows_is_none() {
        for blank in [
            "",
            " ",
            "\u{3164}",
            "\u{2800}\u{2800}",
            "\u{202e}\u{a0}\u{feff}",
            "\u{301}\u{fe0f}",
            "\u{e000}",
        ] {
            assert_eq!(plain(blank, 99), None, "{blank:?}");
        }

        assert_eq!(plain("Ada", 0), None);
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_ends_with_none_that_is_blank() {
        assert_eq!(plain("äöü", 2).as_deref(), Some("äö"));
        assert_eq!(plain("a b", 2).as_deref(), Some("a"));
        assert_eq!(plain(&"x".repeat(100), 64).map(|text| text.len()), Some(64));
    }

    /// Returns whether a text is safe everywhere, judged without the code above.
    fn is_plain(text: &str) -> bool {
        let hidden = |c: char| {
            let category = CodePointMapData::<GeneralCategory>::new().get(c);
            let separates = matches!(
                category,
                GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator
            );
            let spaces = c.is_whitespace() && c != ' ';
            separates || spaces || is_hidden(c, category)
        };
        !text.contains(hidden) && !text.contains("  ") && text.trim() == text
    }

    /// Text in which the characters that matter are as frequent as others.
    fn text() -> impl Strategy<Value = String> {
        let hidden = prop::sample::select(vec![
            ' ',
            '\n',
            '\u{a0}',
            '\u{301}',
            '\u{489}',
            '\u{200d}',
            '\u{202e}',
            '\u{2800}',
            '\u{3164}',
            '\u{e0001}',
        ]);
        prop::collection::vec(
            prop_oneof![any::<char>(), hidden, prop::char::range('a', 'c')],
            0..40,
        )
        .prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn whatever_comes_in_what_goes_out_is_plain_and_stays_so(text in text(), max in 1_usize..50) {
            if let Some(shown) = plain(&text, max) {
                prop_assert!(is_plain(&shown), "{shown:?}");
                prop_assert!(shown.chars().count() <= max);
                prop_assert_eq!(plain(&shown, max), Some(shown.clone()), "not idempotent");
            }
        }

        #[test]
        fn a_plain_text_is_not_changed(words in prop::collection::vec("[a-zA-Zäéß東京שл0-9.'-]{1,8}", 1..6)) {
            let text = words.join(" ");
            prop_assert_eq!(plain(&text, 99), Some(text));
        }
    }
}
