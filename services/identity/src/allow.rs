//! Which of the people that the provider signs in may sign in here.

use std::str::FromStr;

/// One entry of `VVS_WEB_ALLOW`; a person who matches one of them may sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    Everyone,
    /// Everybody with a verified email address at exactly this domain, in lower case.
    Domain(String),
    /// Everybody in this group.
    Group(String),
    /// Everybody who acts for this organization.
    Organization(String),
}

/// The text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not one of `everyone`, `domain:example.com`, `group:NAME` and `organization:ID`; \
     several are separated by commas, and one that fits is enough"
)]
pub struct NotARule(String);

impl FromStr for Rule {
    type Err = NotARule;

    fn from_str(text: &str) -> Result<Self, NotARule> {
        let text = text.trim();
        match text
            .split_once(':')
            .map(|(kind, value)| (kind, value.trim()))
        {
            None if text == "everyone" => Ok(Self::Everyone),
            Some(("domain", value)) if value.contains('.') && !value.contains('@') => {
                Ok(Self::Domain(value.to_ascii_lowercase()))
            }
            Some(("group", value)) if !value.is_empty() => Ok(Self::Group(value.to_owned())),
            Some(("organization", value)) if !value.is_empty() => {
                Ok(Self::Organization(value.to_owned()))
            }
            _ => Err(NotARule(text.chars().take(200).collect())),
        }
    }
}

/// The facts about a person that rules need.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleFacts<'a> {
    pub(crate) verified_email: Option<&'a str>,
    pub(crate) groups: &'a [String],
    pub(crate) organization: Option<&'a str>,
}

/// Returns whether one of the rules matches; an empty list matches nobody.
pub(crate) fn admits(rules: &[Rule], facts: &RuleFacts<'_>) -> bool {
    let domain = facts
        .verified_email
        .and_then(|email| email.rsplit_once('@'))
        .map(|(_, domain)| domain);
    rules.iter().any(|rule| match rule {
        Rule::Everyone => true,
        Rule::Domain(allowed) => domain.is_some_and(|domain| domain.eq_ignore_ascii_case(allowed)),
        Rule::Group(allowed) => facts.groups.contains(allowed),
        Rule::Organization(allowed) => facts.organization == Some(allowed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_domain_is_the_whole_domain_of_a_verified_address() {
        let rules = rules(&["domain:Example.com"]);
        let admits = |email| {
            admits(
                &rules,
                &RuleFacts {
                    verified_email: email,
                    ..RuleFacts::default()
                },
            )
        };
        assert!(admits(Some("ada@example.com")) && admits(Some("ada@EXAMPLE.com")));

        for stranger in [
            "ada@evil-example.com",
            "ada@sub.example.com",
            "ada@example.com.evil.test",
            "example.com",
            "",
        ] {
            assert!(!admits(Some(stranger)), "{stranger}");
        }

        assert!(!admits(None));
    }

    #[test]
    fn one_rule_that_fits_is_enough_and_none_fits_nobody() {
        let ada = RuleFacts {
            verified_email: Some("ada@example.com"),
            groups: &["staff".to_owned()],
            organization: Some("org_1"),
        };
        assert!(admits(&rules(&["group:other", "group:staff"]), &ada));
        assert!(admits(&rules(&["organization:org_1"]), &ada));
        assert!(!admits(
            &rules(&["group:Staff", "organization:org_2", "domain:other.example"]),
            &ada
        ));
        assert!(!admits(&[], &ada));
        assert!(admits(&rules(&["everyone"]), &RuleFacts::default()));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for bad in [
            "",
            "all",
            "everyone:",
            "domain:",
            "domain:localhost",
            "domain:a@b.c",
            "group:",
            "organization:",
            "x:y",
        ] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }
}
