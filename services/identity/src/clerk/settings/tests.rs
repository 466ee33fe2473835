//! Problems with the settings, which are reported by name.

use clap::Parser as _;
use tempfile::TempDir;

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    settings: ClerkSettings,
}

/// The key of the instance `happy-fake-01.clerk.accounts.dev`.
const KEY: &str = "pk_test_aGFwcHktZmFrZS0wMS5jbGVyay5hY2NvdW50cy5kZXYk";

fn settings(flags: &[(&str, &str)]) -> ClerkSettings {
    let flags = flags
        .iter()
        .flat_map(|(name, value)| [format!("--web-clerk-{name}"), (*value).to_owned()]);
    Line::try_parse_from(["web".to_owned()].into_iter().chain(flags))
        .unwrap()
        .settings
}

fn file(directory: &TempDir, text: &str) -> String {
    let path = directory
        .path()
        .join(std::fs::read_dir(directory).unwrap().count().to_string());
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Returns the problems with these settings besides two keys that match.
fn problems(flags: &[(&str, &str)]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let secret = file(&directory, "sk_test_secret\n");
    settings(
        &[
            &[("publishable-key", KEY), ("secret-key-file", &*secret)],
            flags,
        ]
        .concat(),
    )
    .problems(&[])
}

#[test]
fn a_publishable_key_names_its_frontend_api() {
    let read = |key: &str| publishable_key(key).map(|(kind, origin)| (kind, origin.to_string()));
    assert_eq!(
        read(KEY),
        Some((
            InstanceKind::Test,
            "https://happy-fake-01.clerk.accounts.dev".to_owned()
        ))
    );

    let key = |name: &str| format!("pk_live_{}", STANDARD.encode(name));
    let named = |name: &str| read(&key(name)).map(|(_, origin)| origin);
    assert_eq!(
        named("clerk.example.com$").as_deref(),
        Some("https://clerk.example.com"),
        "with padding or without"
    );
    assert_eq!(
        read(key("clerk.example.com$").trim_end_matches('='))
            .unwrap()
            .0,
        InstanceKind::Live
    );
    assert_eq!(
        named("clerk.example.com:8443$").as_deref(),
        Some("https://clerk.example.com:8443")
    );

    for bad in [
        "clerk.example.com",
        "clerk.example.com$$",
        "$clerk.example.com$",
        "localhost$",
        "$",
        "",
        "a.b/c$",
    ] {
        assert_eq!(named(bad), None, "{bad}");
    }

    for bad in [
        "",
        "pk_live_",
        "pk_test_~~~~",
        &KEY[3..],
        &KEY.replace("test", "prod"),
        "sk_test_abc",
        "pk_test",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn settings_that_fit_are_read() {
    assert_eq!(problems(&[]), [""; 0]);

    let directory = tempfile::tempdir().unwrap();
    let secret = file(&directory, " sk_test_secret \n");
    let webhook = file(&directory, &format!("whsec_{}\n", STANDARD.encode([7; 24])));
    let flags = [
        ("publishable-key", KEY),
        ("secret-key-file", &*secret),
        ("webhook-secret-file", &*webhook),
    ];
    let config = settings(&flags).read().unwrap();
    assert_eq!(config.secret_key.expose_secret(), "sk_test_secret");
    assert_eq!(config.webhook_secret.unwrap().expose_secret(), [7; 24]);
    assert_eq!(
        config.issuer.to_string(),
        "https://happy-fake-01.clerk.accounts.dev"
    );

    let own = [
        &flags[..2],
        &[("frontend-api-url", "https://clerk.example.com/")],
    ]
    .concat();
    assert_eq!(
        settings(&own).read().unwrap().issuer.to_string(),
        "https://clerk.example.com"
    );

    for shown in [
        format!("{:?}", settings(&flags)),
        format!("{:?}", settings(&flags).read().unwrap()),
    ] {
        assert!(!shown.contains("sk_test_secret"), "{shown}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one row for each case")]
fn what_is_wrong_is_said_of_everything_at_once_and_by_name() {
    let both = settings(&[]).problems(&[]);
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(
        both[0]
            .starts_with("VVS_WEB_CLERK_PUBLISHABLE_KEY (--web-clerk-publishable-key) is not set")
    );
    assert!(
        both[1]
            .starts_with("VVS_WEB_CLERK_SECRET_KEY_FILE (--web-clerk-secret-key-file) is not set")
    );

    let directory = tempfile::tempdir().unwrap();
    let (live, empty, other) = (
        file(&directory, "sk_live_secret"),
        file(&directory, "\n"),
        file(&directory, "something else"),
    );
    let missing = directory
        .path()
        .join("missing")
        .to_str()
        .unwrap()
        .to_owned();
    for (flag, value, setting, what) in [
        (
            "publishable-key",
            "pk_test_x",
            "PUBLISHABLE_KEY",
            "is not a publishable key",
        ),
        (
            "secret-key-file",
            &*live,
            "SECRET_KEY_FILE",
            "one is live, one is test",
        ),
        (
            "secret-key-file",
            &other,
            "SECRET_KEY_FILE",
            "holds no secret key",
        ),
        ("secret-key-file", &empty, "SECRET_KEY_FILE", "is empty"),
        (
            "secret-key-file",
            &missing,
            "SECRET_KEY_FILE",
            "cannot be read",
        ),
        (
            "webhook-secret-file",
            &missing,
            "WEBHOOK_SECRET_FILE",
            "cannot be read",
        ),
        (
            "webhook-secret-file",
            &other,
            "WEBHOOK_SECRET_FILE",
            "holds no signing secret",
        ),
        ("jwt-key-file", &other, "JWT_KEY_FILE", "public"),
        ("jwt-key-file", &missing, "JWT_KEY_FILE", "cannot be read"),
        ("js-dir", &missing, "JS_DIR", "cannot be read"),
        (
            "api-url",
            "http://api.example.com",
            "API_URL",
            "must be https",
        ),
        (
            "proxy-url",
            "http://example.com/clerk",
            "PROXY_URL",
            "must be https",
        ),
        (
            "frontend-api-url",
            "http://clerk.example.com",
            "FRONTEND_API_URL",
            "must be https",
        ),
    ] {
        let fitting = file(&directory, "sk_test_of_this_one");
        let kept = [("publishable-key", KEY), ("secret-key-file", &*fitting)];
        let kept = kept
            .into_iter()
            .filter(|(name, _)| *name != flag)
            .chain([(flag, value)])
            .collect::<Vec<_>>();
        let found = settings(&kept).problems(&[]);
        assert_eq!(found.len(), 1, "{flag} {value}: {found:?}");
        assert!(
            found[0].starts_with(&format!("VVS_WEB_CLERK_{setting} (--web-clerk-")),
            "{found:?}"
        );
        assert!(
            found[0].contains(what) && !found[0].contains("sk_live_secret"),
            "{found:?}"
        );
    }

    assert_eq!(
        problems(&[
            ("api-url", "http://127.0.0.1:1"),
            ("proxy-url", "http://localhost:2/x")
        ]),
        [""; 0]
    );
}

#[test]
fn a_rule_about_groups_fits_nobody_here() {
    let directory = tempfile::tempdir().unwrap();
    let secret = file(&directory, "sk_test_secret");
    let settings = settings(&[("publishable-key", KEY), ("secret-key-file", &*secret)]);
    let rules = |text: &str| [text.parse().unwrap()];
    assert!(
        settings.problems(&rules("group:staff"))[0]
            .starts_with("VVS_WEB_ALLOW (--web-allow) holds group:")
    );
    assert_eq!(settings.problems(&rules("organization:org_1")), [""; 0]);
}

#[test]
fn a_base_is_an_address_to_put_paths_behind() {
    let read = |text: &str| text.parse::<Base>().map(|base| base.to_string()).ok();
    assert_eq!(
        read("https://example.com/").as_deref(),
        Some("https://example.com")
    );
    assert_eq!(
        read("https://example.com/clerk/").as_deref(),
        Some("https://example.com/clerk")
    );
    assert_eq!(
        "https://example.com:8443/clerk"
            .parse::<Base>()
            .unwrap()
            .origin(),
        "https://example.com:8443"
    );

    for bad in [
        "",
        "example.com",
        "ftp://a.test",
        "https://a.test?x",
        "https://a.test#x",
        "https://u@a.test",
        "data:,",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}
