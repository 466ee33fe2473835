//! A person's name as it can be shown, whoever says it.

/// The longest name, in bytes.
const MAX: usize = 200;

/// The name without what has no shape of its own; empty when nothing is left.
pub(crate) fn clean(name: &str) -> String {
    let mut name: String = name.trim().chars().filter(|c| !c.is_control() && !is_directional(*c)).collect();
    name.truncate(name.floor_char_boundary(MAX));
    name
}

/// Bidirectional formatting characters (UAX #9, section 2) turn the text around them.
fn is_directional(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_nothing_that_cannot_be_shown() {
        assert_eq!(clean(" A\u{202e}d\u{0}a\n "), "Ada");
        assert_eq!(clean("\u{2067}\t"), "");
        assert_eq!(clean(&"é".repeat(300)).len(), MAX);
    }
}
