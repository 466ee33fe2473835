//! The files that pages load: their paths and their headers. Knows no page.

use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};

pub(crate) struct Asset {
    pub(crate) path: &'static str,
    pub(crate) text: &'static str,
    content_type: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

pub(crate) const ASSETS: [Asset; 10] = [
    Asset {
        path: "/assets/style.css",
        text: include_str!("../assets/style.css"),
        content_type: "text/css; charset=utf-8",
    },
    Asset {
        path: "/assets/mark.svg",
        text: include_str!("../assets/mark.svg"),
        content_type: "image/svg+xml",
    },
    Asset {
        path: "/assets/state.js",
        text: include_str!("../assets/state.js"),
        content_type: SCRIPT,
    },
    Asset {
        path: "/assets/wait.js",
        text: include_str!("../assets/wait.js"),
        content_type: SCRIPT,
    },
    Asset {
        path: "/assets/hand-back.js",
        text: include_str!("../assets/hand-back.js"),
        content_type: SCRIPT,
    },
    Asset {
        path: "/assets/resume.js",
        text: include_str!("../assets/resume.js"),
        content_type: SCRIPT,
    },
    Asset {
        path: "/assets/retry.js",
        text: include_str!("../assets/retry.js"),
        content_type: SCRIPT,
    },
    Asset {
        path: "/assets/clerk.js",
        text: include_str!("../assets/clerk.js"),
        content_type: SCRIPT,
    },
    Asset {
        path: "/assets/oidc.js",
        text: include_str!("../assets/oidc.js"),
        content_type: SCRIPT,
    },
    Asset {
        path: "/assets/deliver.js",
        text: include_str!("../assets/deliver.js"),
        content_type: SCRIPT,
    },
];

impl Asset {
    /// Five minutes: the path contains no version, and with a longer time a new page could meet an
    /// old style.
    pub(crate) fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static(self.content_type)),
            (
                CACHE_CONTROL,
                HeaderValue::from_static("public, max-age=300"),
            ),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text needs a contrast of 4.5 to its background (WCAG 2.2, 1.4.3), an edge or a sign 3
    /// (1.4.11).
    const PAIRS: [(&str, &str, f64); 21] = [
        ("ink", "page", 4.5),
        ("ink", "card", 4.5),
        ("ink", "well", 4.5),
        ("soft", "page", 4.5),
        ("soft", "card", 4.5),
        ("soft", "well", 4.5),
        ("warning-ink", "warning", 4.5),
        ("bad", "card", 4.5),
        ("on-solid", "accent", 4.5),
        ("on-solid", "accent-hover", 4.5),
        ("on-solid", "deny", 4.5),
        ("on-solid", "deny-hover", 4.5),
        ("accent", "card", 3.0),
        ("accent", "page", 3.0),
        ("deny", "card", 3.0),
        ("deny", "page", 3.0),
        ("edge", "card", 3.0),
        ("edge", "page", 3.0),
        ("edge", "well", 3.0),
        ("good", "card", 3.0),
        ("good", "page", 3.0),
    ];

    fn style() -> &'static str {
        ASSETS[0].text
    }

    /// Returns the relative luminance of a `--name: #rrggbb;` (WCAG 2.2, definitions).
    fn luminance(theme: &str, name: &str) -> f64 {
        let (_, value) = theme.split_once(&format!("--{name}: #")).unwrap();
        let channel = |at: usize| {
            let level = f64::from(u8::from_str_radix(&value[at..at + 2], 16).unwrap()) / 255.0;
            if level <= 0.04045 {
                level / 12.92
            } else {
                ((level + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
    }

    #[test]
    fn every_colour_is_readable_on_its_ground_in_light_and_dark() {
        let (light, rest) = style()
            .split_once("@media (prefers-color-scheme: dark)")
            .unwrap();
        let (dark, _) = rest.split_once("*, ::before").unwrap();

        for (theme, name) in [(light, "light"), (dark, "dark")] {
            for (ink, ground, least) in PAIRS {
                let (one, other) = (luminance(theme, ink), luminance(theme, ground));
                let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                assert!(
                    contrast >= least,
                    "{name}: {ink} on {ground} has {contrast:.2}"
                );
            }
        }
    }

    #[test]
    fn a_file_is_served_as_what_it_is_and_kept_for_minutes_only() {
        for asset in ASSETS {
            let headers = asset.headers();
            let content_type = match asset.path.rsplit_once('.').unwrap().1 {
                "css" => "text/css; charset=utf-8",
                "svg" => "image/svg+xml",
                _ => "text/javascript; charset=utf-8",
            };

            assert_eq!(headers[CONTENT_TYPE], content_type, "{}", asset.path);
            assert_eq!(
                headers[CACHE_CONTROL], "public, max-age=300",
                "{}",
                asset.path
            );
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{}", asset.path);
        }
    }

    #[test]
    fn the_style_is_small() {
        assert!(style().len() < 12 * 1024);
    }
}
