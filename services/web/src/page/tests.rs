//! Every page with sample data: its text compared with `snapshots/`, and the properties that all
//! pages share.

use std::{fs, path::Path};

use vvs_identity::dev::{self, DevForm};
use vvs_identity::{About, Part};

use super::*;
use crate::account::{Install, Notice};
use crate::asset::ASSETS;
use crate::editor::{App, Device};
use crate::failure::Reason;
use crate::handback::Handback;

const CONNECTION: &str = "6f1f2f4e-2f0c-4a53-9d0e-8f4f3f0a9b11";
const LISTENER: &str = "http://127.0.0.1:50000/done";
const HOSTILE: &str = r#"</bdi><script>alert("1")</script> ' onload=x"#;

fn shell() -> Shell {
    Shell {
        nonce: Nonce::new([0; 16]),
        development: true,
    }
}

fn csrf() -> SecretString {
    "csrf-of-this-page".into()
}

fn ada() -> Account {
    Account {
        name: Some("Ada Lovelace".to_owned()),
        email: Some("ada@example.com".to_owned()),
        email_verified: true,
    }
}

fn laptop() -> Editor {
    Editor {
        app: Some(App {
            name: "VVS Editor".to_owned(),
            version: "1.4.0".to_owned(),
        }),
        device: Some(Device {
            name: "Ada’s laptop".to_owned(),
            os: "Debian 13".to_owned(),
        }),
    }
}

fn bare() -> Editor {
    Editor {
        app: None,
        device: None,
    }
}

fn form(about: About, said: &str, problem: Option<&'static str>, retry: bool) -> Part {
    dev::form(&DevForm {
        about,
        csrf: &csrf(),
        email: said.to_owned(),
        name: String::new(),
        problem,
        retry,
    })
}

fn about_login() -> About {
    About::Login(CONNECTION.parse().unwrap())
}

fn login() -> LoginPage {
    LoginPage {
        shell: shell(),
        part: form(about_login(), "", None, false),
        user_code: UserCode("WXBK-RTQH".to_owned()),
        expires_in: Duration::seconds(595),
        retry: false,
    }
}

fn approval() -> ApprovalPage {
    let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::seconds(34_872);
    ApprovalPage {
        shell: shell(),
        connection_id: CONNECTION.to_owned(),
        csrf: csrf(),
        account: ada(),
        user_code: UserCode("WXBK-RTQH".to_owned()),
        editor: laptop(),
        return_uri: Some(LISTENER.parse().unwrap()),
        address: IpAddr::from([203, 0, 113, 7]),
        place: Nearness::SameNetwork,
        created_at: now - Duration::seconds(12),
        now,
        unconfirmed: false,
    }
}

fn delivery() -> Delivery {
    Delivery {
        shell: shell(),
        connection_id: CONNECTION.to_owned(),
        csrf: csrf(),
        trouble: Trouble::EditorAway,
        request_id: "4bf92f3577b34da6".to_owned(),
    }
}

fn denial(trouble: Trouble) -> Denial {
    Denial {
        shell: shell(),
        connection_id: CONNECTION.to_owned(),
        csrf: csrf(),
        trouble,
    }
}

fn hand_back(return_uri: Option<&str>, may_show: bool) -> HandBackPage {
    let return_uri = return_uri.map(|uri| uri.parse().unwrap());
    let handback = Handback::new("BCDFGHJK".into(), return_uri, may_show).unwrap();
    HandBackPage {
        shell: shell(),
        connection_id: CONNECTION.to_owned(),
        csrf: csrf(),
        handback,
    }
}

fn installs() -> AccountSessions {
    let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::seconds(34_872);
    let device = |name: &str, os: &str| Device {
        name: name.to_owned(),
        os: os.to_owned(),
    };
    let laptop = Install {
        id: "ses_1".to_owned(),
        user_id: "usr_1".to_owned(),
        device: device("Ada’s laptop", "Debian 13"),
        app: "VVS Editor 1.4.0".to_owned(),
        is_confirmed: true,
        approved_at: now - Duration::days(40),
        seen_at: now - Duration::minutes(12),
        address: "203.0.113.7".to_owned(),
    };
    let bare = Install {
        id: "ses_2".to_owned(),
        device: device("", ""),
        app: String::new(),
        is_confirmed: false,
        address: String::new(),
        ..laptop.clone()
    };

    AccountSessions {
        shell: shell(),
        csrf: csrf(),
        account: ada(),
        installs: vec![laptop, bare],
        notice: None,
        now,
    }
}

fn account_sign_in() -> AccountSignIn {
    let part = form(About::Account, "", None, false);
    AccountSignIn {
        shell: shell(),
        part,
        notice: Some(Notice::SignedOut),
        retry: false,
    }
}

fn dev_key(about: About, is_wrong: bool) -> DevKeyPage {
    DevKeyPage {
        shell: shell(),
        about,
        csrf: csrf(),
        is_wrong,
    }
}

fn failure(reason: Reason) -> FailurePage {
    let again = (reason == Reason::Unavailable || reason.row().leads_to_editors())
        .then(|| format!("/login?connection_id={CONNECTION}"));
    FailurePage {
        shell: shell(),
        row: reason.row(),
        again,
        request_id: "4bf92f3577b34da6".to_owned(),
    }
}

const REASONS: [(&str, Reason); 31] = [
    ("malformed-link", Reason::MalformedLink),
    ("malformed-form", Reason::MalformedForm),
    ("login-over", Reason::LoginOver),
    ("login-denied", Reason::Denied),
    ("login-cancelled", Reason::Cancelled),
    ("login-expired", Reason::Expired),
    ("login-burned", Reason::Burned),
    ("editor-refused", Reason::EditorRefused),
    ("editor-cannot-bind", Reason::EditorCannotBind),
    ("unsafe-return", Reason::UnsafeReturn),
    ("claimed", Reason::Claimed),
    ("cross-site", Reason::CrossSite),
    ("stale-form", Reason::StaleForm),
    ("other-browser", Reason::OtherBrowser),
    ("not-signed-in", Reason::NotSignedIn),
    ("development-only", Reason::DevelopmentOnly),
    ("development-through", Reason::DevelopmentThrough),
    ("too-many-guesses", Reason::TooManyGuesses),
    ("not-found", Reason::NotFound),
    ("wrong-method", Reason::WrongMethod),
    ("unavailable", Reason::Unavailable),
    ("not-believed", Reason::NotBelieved),
    ("not-allowed", Reason::NotAllowed),
    ("sign-in-over", Reason::SignInOver),
    ("sign-in-unchecked", Reason::Unchecked),
    ("sign-out-unfinished", Reason::NotEnded),
    ("sessions-full", Reason::SessionsFull),
    ("pending-full", Reason::PendingFull),
    ("too-often", Reason::TooOften),
    ("provider-unavailable", Reason::ProviderUnavailable),
    ("broken", Reason::Broken),
];

const PROBLEM: &str = "Enter a whole email address.";

/// Returns every page, by the name of its snapshot.
#[expect(clippy::too_many_lines, reason = "one row for each case")]
fn gallery() -> Vec<(String, Response<String>)> {
    let mut pages = vec![
        ("login", answer(&login())),
        (
            "login-problem",
            answer(&LoginPage {
                part: form(about_login(), "ada@", Some(PROBLEM), false),
                ..login()
            }),
        ),
        (
            "login-retry",
            answer(&LoginPage {
                part: form(about_login(), "", None, true),
                retry: true,
                ..login()
            }),
        ),
        ("approval", answer(&approval())),
        (
            "approval-unconfirmed",
            answer(&ApprovalPage {
                unconfirmed: true,
                place: Nearness::OtherNetwork,
                ..approval()
            }),
        ),
        (
            "approval-bare",
            answer(&ApprovalPage {
                editor: bare(),
                place: Nearness::ThisMachine,
                return_uri: None,
                ..approval()
            }),
        ),
        ("delivery", answer(&delivery())),
        (
            "delivery-unacknowledged",
            answer(&Delivery {
                trouble: Trouble::Unacknowledged,
                ..delivery()
            }),
        ),
        (
            "delivery-unavailable",
            answer(&Delivery {
                trouble: Trouble::Unavailable,
                ..delivery()
            }),
        ),
        (
            "held",
            answer(&HeldPage {
                shell: shell(),
                connection_id: CONNECTION.to_owned(),
                csrf: csrf(),
            }),
        ),
        ("hand-back-link", answer(&hand_back(Some(LISTENER), true))),
        (
            "hand-back-link-only",
            answer(&hand_back(Some("vvs://auth/complete"), false)),
        ),
        ("hand-back-typed", answer(&hand_back(None, true))),
        ("account-sessions", answer(&installs())),
        (
            "account-sessions-none",
            answer(&AccountSessions {
                installs: Vec::new(),
                notice: Some(Notice::EndedAll(2)),
                ..installs()
            }),
        ),
        ("account-sign-in", answer(&account_sign_in())),
        (
            "account-sign-in-problem",
            answer(&AccountSignIn {
                part: form(About::Account, "", Some(PROBLEM), false),
                ..account_sign_in()
            }),
        ),
        ("dev-key", answer(&dev_key(about_login(), false))),
        ("dev-key-problem", answer(&dev_key(about_login(), true))),
        ("account-dev-key", answer(&dev_key(About::Account, false))),
        (
            "waiting",
            answer(&WaitingPage {
                shell: shell(),
                connection_id: CONNECTION.to_owned(),
            }),
        ),
        ("denial", answer(&denial(Trouble::EditorAway))),
        ("denial-unavailable", answer(&denial(Trouble::Unavailable))),
        ("denied", answer(&Denied { shell: shell() })),
        (
            "success-bare",
            answer(&Success {
                shell: shell(),
                account: None,
                editor: bare(),
            }),
        ),
        (
            "success",
            answer(&Success {
                shell: shell(),
                account: Some(ada()),
                editor: laptop(),
            }),
        ),
    ];
    pages.extend(REASONS.map(|(name, reason)| (name, answer(&failure(reason)))));

    pages
        .into_iter()
        .map(|(name, page)| (name.to_owned(), page))
        .collect()
}

/// Returns the tags of a page, each from its `<` to its `>`.
fn tags(html: &str) -> impl Iterator<Item = &str> {
    html.split('<')
        .skip(1)
        .filter_map(|rest| rest.split('>').next())
}

/// Run with `VVS_REGENERATE=1` after a change of a page, and review the difference.
#[test]
fn every_page_is_its_snapshot() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots");
    for (name, page) in gallery() {
        let file = folder.join(format!("{name}.html"));
        if std::env::var_os("VVS_REGENERATE").is_some() {
            fs::write(&file, page.body()).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            expected == *page.body(),
            "{name} differs from its snapshot: run this test with VVS_REGENERATE=1"
        );
    }
}

#[test]
fn no_snapshot_is_left_of_a_page_that_is_gone() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots");
    assert_eq!(fs::read_dir(folder).unwrap().count(), gallery().len());
}

#[test]
fn every_page_has_a_title_one_heading_and_a_main_part() {
    for (name, page) in gallery() {
        let count = |text: &str| page.body().matches(text).count();
        assert_eq!(
            (count("<h1>"), count("<main "), count("<title>")),
            (1, 1, 1),
            "{name}"
        );
        assert!(
            page.body()
                .starts_with("<!doctype html>\n<html lang=\"en\">"),
            "{name}"
        );
    }
}

#[test]
fn no_page_holds_an_inline_script_style_or_handler() {
    for (name, page) in gallery() {
        for tag in tags(page.body()) {
            let script = tag.starts_with("script");
            assert!(
                !script
                    || tag.contains(" src=\"/assets/")
                        && tag.contains(" nonce=\"AAAAAAAAAAAAAAAAAAAAAA\"")
            );
            assert!(
                !tag.starts_with("style") && !tag.contains(" style=") && !tag.contains(" on"),
                "{name}: {tag}"
            );
        }
    }
}

#[test]
fn the_state_leaves_the_address_before_a_page_loads_anything_else() {
    for (name, page) in gallery() {
        let first = tags(page.body())
            .find(|tag| tag.contains("src=") || tag.contains("href="))
            .unwrap();
        assert!(
            first.starts_with("script src=\"/assets/state.js\"") && !first.contains("defer"),
            "{name}: {first}"
        );
    }
}

#[test]
fn every_file_that_a_page_loads_is_served() {
    for (name, page) in gallery() {
        for path in page
            .body()
            .split('"')
            .filter(|value| value.starts_with("/assets/"))
        {
            assert!(
                ASSETS.iter().any(|asset| asset.path == path),
                "{name} loads {path}"
            );
        }

        // The one place outside that a page knows is where its script may lead back to.
        let elsewhere = tags(page.body()).filter(|tag| tag.contains("://"));
        for tag in elsewhere {
            assert!(
                tag.starts_with("form ") && name.starts_with("hand-back"),
                "{name} names another host: {tag}"
            );
        }

        assert!(
            !page.body().contains("href=\"http") && !page.body().contains("href=\"vvs"),
            "{name}"
        );
    }
}

#[test]
fn every_form_is_a_post_with_a_csrf_value_from_a_page_that_sends_its_origin() {
    for (name, page) in gallery() {
        let forms = page.body().split("<form ").skip(1).collect::<Vec<_>>();
        for form in &forms {
            assert!(form.starts_with("method=\"post\" action=\"/"), "{name}");
            assert!(
                form.contains("name=\"csrf\" value=\"csrf-of-this-page\""),
                "{name}"
            );
            let is_account = name.starts_with("account");
            let names_login =
                form.contains(&format!("name=\"connection_id\" value=\"{CONNECTION}\""));
            assert!(names_login != is_account, "{name}");
        }

        let policy = if forms.is_empty() {
            "no-referrer"
        } else {
            "same-origin"
        };

        assert_eq!(page.headers()["referrer-policy"], policy, "{name}");
    }
}

#[test]
fn a_script_may_run_only_with_the_nonce_of_its_page() {
    for (name, page) in gallery() {
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("script-src 'nonce-AAAAAAAAAAAAAAAAAAAAAA';"),
            "{name}"
        );
    }
}

#[test]
fn development_sign_in_is_announced_exactly_while_it_is_active() {
    let announces = |page: &Response<String>| page.body().contains("Never for production.");
    for (name, page) in gallery() {
        assert!(announces(&page), "{name}");
    }
    let quiet = Shell {
        development: false,
        ..shell()
    };
    assert!(!announces(&answer(&Denied { shell: quiet })));
}

#[test]
fn what_an_app_or_a_person_calls_itself_is_never_markup() {
    let page = ApprovalPage {
        account: Account {
            name: Some(HOSTILE.to_owned()),
            email: Some(HOSTILE.to_owned()),
            email_verified: true,
        },
        editor: Editor {
            app: Some(App {
                name: HOSTILE.to_owned(),
                version: HOSTILE.to_owned(),
            }),
            device: Some(Device {
                name: HOSTILE.to_owned(),
                os: HOSTILE.to_owned(),
            }),
        },
        ..approval()
    };
    let mut list = installs();
    list.installs[0].device.name = HOSTILE.to_owned();
    list.installs[0].app = HOSTILE.to_owned();
    list.installs[0].id = HOSTILE.to_owned();
    let login = LoginPage {
        part: form(about_login(), HOSTILE, None, false),
        ..login()
    };

    for html in [
        answer(&page).into_body(),
        answer(&login).into_body(),
        answer(&list).into_body(),
    ] {
        assert!(
            !html.contains("<script>") && !html.contains("\"1\"") && !html.contains("' onload"),
            "{html}"
        );
    }
}

#[test]
fn a_status_says_what_the_page_says() {
    let statuses = gallery()
        .into_iter()
        .map(|(name, page)| (name, page.status().as_u16()))
        .collect::<Vec<_>>();
    let of = |name: &str| {
        statuses
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, status)| *status)
    };
    for name in [
        "login",
        "login-retry",
        "approval",
        "approval-bare",
        "waiting",
        "denied",
        "success",
        "success-bare",
    ] {
        assert_eq!(of(name), Some(200), "{name}");
    }

    for (name, status) in [
        ("login-problem", 400),
        ("approval-unconfirmed", 400),
        ("malformed-link", 400),
        ("cross-site", 403),
        ("unsafe-return", 403),
        ("dev-key", 403),
        ("development-through", 403),
        ("too-many-guesses", 429),
        ("claimed", 409),
        ("login-over", 410),
        ("login-burned", 410),
        ("login-expired", 410),
        ("hand-back-link", 200),
        ("hand-back-typed", 200),
        ("held", 200),
        ("account-sessions", 200),
        ("account-sign-in-problem", 400),
        ("delivery", 503),
        ("denial", 503),
        ("unavailable", 503),
    ] {
        assert_eq!(of(name), Some(status), "{name}");
    }
}

#[test]
fn no_page_claims_to_know_that_nobody_is_signed_in_once_a_sign_in_was_under_way() {
    for (name, reason) in REASONS {
        let page = answer(&failure(reason)).into_body();
        assert!(
            !page.to_lowercase().contains("nobody was signed in"),
            "{name}"
        );

        let doubts = ["login-", "editor-refused", "claimed"]
            .iter()
            .any(|under_way| name.starts_with(under_way));
        assert_eq!(
            page.contains("<a href=\"/account/sessions\">Your editors</a>"),
            doubts,
            "{name}"
        );
    }

    assert!(
        !answer(&Denied { shell: shell() })
            .into_body()
            .contains("Nobody was signed in")
    );
}

#[test]
fn an_approval_says_where_the_code_will_go() {
    let said = |uri: Option<&str>| {
        let return_uri = uri.map(|uri| uri.parse().unwrap());
        answer(&ApprovalPage {
            return_uri,
            ..approval()
        })
        .into_body()
    };
    for (uri, place) in [
        (LISTENER, "to a program on this computer, port 50000"),
        (
            "http://[::1]:41873",
            "to a program on this computer, port 41873",
        ),
        ("vvs://auth/complete", "to VVS<br>"),
        (
            "com.example.vvs:/done",
            "to the app that opens com.example.vvs: links on this computer",
        ),
    ] {
        let html = said(Some(uri));
        assert!(
            html.contains(&format!("<dt>Code goes</dt><dd>{place}")),
            "{uri}: {html}"
        );
    }

    assert!(!said(None).contains("Code goes"));
}

#[test]
fn a_code_is_read_out_letter_by_letter() {
    assert_eq!(
        UserCode("WXBK-RTQH".to_owned()).spelled(),
        "W X B K, R T Q H"
    );
}

#[test]
fn a_one_time_code_stands_where_it_may_and_never_in_a_title_or_an_address() {
    for (page, shown, carried) in [
        (hand_back(Some(LISTENER), true), 1, 1),
        (hand_back(Some(LISTENER), false), 0, 1),
        (hand_back(None, true), 1, 0),
    ] {
        let html = answer(&page).into_body();
        let count = |text: &str| html.matches(text).count();
        assert_eq!(
            (count(">BCDF-GHJK<"), count("data-code=\"BCDFGHJK\"")),
            (shown, carried),
            "{html}"
        );
        assert_eq!(count("BCDF"), shown + carried, "{html}");

        // Everybody who sees a code is told what it is worth.
        assert_eq!(count("Never give this code to anyone."), shown, "{html}");

        // Without the script, which knows the editor's state, nothing leads to the editor.
        assert!(
            !html.contains(" href=\"http") && (carried == 0 || html.contains("id=\"back\" hidden")),
            "{html}"
        );
    }
}

#[test]
fn initials_come_from_the_first_and_last_name_or_from_the_email() {
    let initials = |name: Option<&str>, email: Option<&str>| {
        Account {
            name: name.map(str::to_owned),
            email: email.map(str::to_owned),
            email_verified: true,
        }
        .initials()
    };
    assert_eq!(initials(Some("ada king lovelace"), None), "AL");
    assert_eq!(initials(Some("Ada"), Some("x@example.com")), "A");
    assert_eq!(initials(Some("(émile)"), None), "É");
    assert_eq!(initials(None, Some("ada@example.com")), "A");
    assert_eq!(initials(None, None), "A");
}

#[test]
fn networks_are_the_same_by_ipv4_address_or_ipv6_half() {
    let compare = |editor: &str, browser: &str| {
        Nearness::compare(editor.parse().unwrap(), browser.parse().unwrap())
    };
    assert_eq!(compare("127.0.0.1", "::1"), Nearness::ThisMachine);
    assert_eq!(
        compare("203.0.113.7", "::ffff:203.0.113.7"),
        Nearness::SameNetwork
    );
    assert_eq!(
        compare("203.0.113.7", "203.0.113.8"),
        Nearness::OtherNetwork
    );
    assert_eq!(
        compare("2001:db8:1:2::a", "2001:db8:1:2:ffff::b"),
        Nearness::SameNetwork
    );
    assert_eq!(
        compare("2001:db8:1:2::a", "2001:db8:1:3::a"),
        Nearness::OtherNetwork
    );
    assert_eq!(
        compare("203.0.113.7", "2001:db8::1"),
        Nearness::Incomparable
    );
    assert_eq!(compare("127.0.0.1", "203.0.113.7"), Nearness::OtherNetwork);
}

#[test]
fn spans_are_said_in_whole_units() {
    let words = |seconds| in_words(Duration::seconds(seconds));
    assert_eq!(
        [words(0), words(1), words(59)],
        ["0 seconds", "1 second", "59 seconds"]
    );
    assert_eq!(
        [words(60), words(179), words(7200)],
        ["1 minute", "2 minutes", "2 hours"]
    );
    assert_eq!(
        [words(86_399), words(86_400), words(300_000)],
        ["23 hours", "1 day", "3 days"]
    );
}
