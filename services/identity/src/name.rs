//! A person's name, made safe to show.

use vvs_proto::text::plain;

/// The longest name, in characters.
const MAX: usize = 100;

/// Returns the name without characters that are invisible or deceive; `None` if nothing is left.
pub(crate) fn clean(name: &str) -> Option<String> {
    plain(name, MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_nothing_that_cannot_be_shown() {
        assert_eq!(
            clean(" A\u{202e}d\u{0}a\u{e0041}\n ").as_deref(),
            Some("Ada")
        );
        assert_eq!(clean("\u{2067}\t\u{3164}\u{2800}"), None);
        assert_eq!(clean(&"é".repeat(300)), Some("é".repeat(MAX)));
    }
}
