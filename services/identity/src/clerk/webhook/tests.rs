//! Deliveries: which are genuine, and their content.

use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;
const SECRET: [u8; 24] = [7; 24];

fn inbox(end_with_session: bool) -> Inbox {
    Inbox::new(&SECRET.to_vec().into(), end_with_session)
}

fn signature(secret: &[u8], id: &str, at: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!(
        "v1,{}",
        STANDARD.encode(hmac::sign(&key, format!("{id}.{at}.{body}").as_bytes()))
    )
}

fn headers(id: &str, at: &str, signature: &str) -> HeaderMap {
    let pairs = [
        ("svix-id", id),
        ("svix-timestamp", at),
        ("svix-signature", signature),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

fn read(inbox: &Inbox, body: &str) -> Result<Option<Ended>, BadWebhook> {
    let at = NOW.to_string();
    let headers = headers("msg_1", &at, &signature(&SECRET, "msg_1", &at, body));
    inbox
        .read(&headers, body.as_bytes(), NOW)
        .map(|delivery| delivery.ended)
}

#[test]
fn a_signature_is_computed_as_svix_does() {
    // Computed with Python's hmac: base64(HMAC-SHA256(bytes of 7, "msg_1.1800000000.{}")).
    assert_eq!(
        signature(&SECRET, "msg_1", "1800000000", "{}"),
        "v1,sIPOs7tM6nBg/fB6T34G1vrw6zwrgMgui2ArF91ybxQ="
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one row for each case")]
fn a_delivery_is_taken_only_if_it_is_genuine_whole_and_of_now() {
    let body =
        json!({"type": "user.deleted", "data": {"id": "user_1", "deleted": true}}).to_string();
    let right = |at: i64| signature(&SECRET, "msg_1", &at.to_string(), &body);
    let (good, forged) = (
        right(NOW),
        signature(&[8; 24], "msg_1", &NOW.to_string(), &body),
    );
    let now = NOW.to_string();
    let cases = [
        ("valid", headers("msg_1", &now, &good), None),
        (
            "one of several",
            headers(
                "msg_1",
                &now,
                &format!("v1a,x {forged} v2,{} {good}", &good[3..]),
            ),
            None,
        ),
        (
            "five minutes old",
            headers("msg_1", &(NOW - 300).to_string(), &right(NOW - 300)),
            None,
        ),
        (
            "five minutes ahead",
            headers("msg_1", &(NOW + 300).to_string(), &right(NOW + 300)),
            None,
        ),
        (
            "forged",
            headers("msg_1", &now, &forged),
            Some(BadWebhook::Forged),
        ),
        (
            "two forged",
            headers("msg_1", &now, &format!("{forged} {forged}")),
            Some(BadWebhook::Forged),
        ),
        (
            "another version",
            headers("msg_1", &now, &good.replace("v1,", "v2,")),
            Some(BadWebhook::Forged),
        ),
        (
            "no version",
            headers("msg_1", &now, &good[3..]),
            Some(BadWebhook::Forged),
        ),
        (
            "truncated",
            headers("msg_1", &now, &good[..good.len() - 4]),
            Some(BadWebhook::Forged),
        ),
        (
            "empty",
            headers("msg_1", &now, "v1,"),
            Some(BadWebhook::Forged),
        ),
        (
            "no base64",
            headers("msg_1", &now, "v1,~~~~"),
            Some(BadWebhook::Forged),
        ),
        (
            "another id",
            headers("msg_2", &now, &good),
            Some(BadWebhook::Forged),
        ),
        (
            "another time",
            headers("msg_1", &(NOW + 1).to_string(), &good),
            Some(BadWebhook::Forged),
        ),
        (
            "late",
            headers("msg_1", &(NOW - 301).to_string(), &right(NOW - 301)),
            Some(BadWebhook::Late),
        ),
        (
            "early",
            headers("msg_1", &(NOW + 301).to_string(), &right(NOW + 301)),
            Some(BadWebhook::Late),
        ),
        (
            "at no time",
            headers("msg_1", "now", &signature(&SECRET, "msg_1", "now", &body)),
            Some(BadWebhook::Malformed),
        ),
        (
            "no id",
            headers("", &now, &signature(&SECRET, "", &now, &body)),
            Some(BadWebhook::Malformed),
        ),
    ];
    for (case, headers, refused) in cases {
        let read = inbox(false).read(&headers, body.as_bytes(), NOW);
        assert_eq!(read.as_ref().err().copied(), refused, "{case}");
        assert_eq!(
            read.is_ok_and(|it| it.ended.is_some_and(|ended| ended.subject == "user_1")),
            refused.is_none()
        );
    }

    for missing in ["svix-id", "svix-timestamp", "svix-signature"] {
        let mut headers = headers("msg_1", &now, &good);
        headers.remove(missing);
        assert_eq!(
            inbox(false).read(&headers, body.as_bytes(), NOW),
            Err(BadWebhook::Malformed),
            "{missing}"
        );
    }

    let changed = body.replace("user_1", "user_2");

    for body in [&changed, &body[..body.len() - 1], &format!("{body} "), ""] {
        let read = inbox(false).read(&headers("msg_1", &now, &good), body.as_bytes(), NOW);
        assert_eq!(read, Err(BadWebhook::Forged), "{body}");
    }
}

#[test]
fn a_forged_delivery_is_not_even_parsed() {
    let headers = headers("msg_1", &NOW.to_string(), "v1,AAAA");
    assert_eq!(
        inbox(false).read(&headers, b"{", NOW),
        Err(BadWebhook::Forged)
    );
    assert_eq!(read(&inbox(false), "{"), Err(BadWebhook::Malformed));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one row for each case")]
fn each_event_ends_what_it_must_and_no_more() {
    let told = |subject: &str, provider_session: &str, reason, editors| {
        let (subject, provider_session) = (subject.to_owned(), provider_session.to_owned());
        Ok(Some(Ended {
            subject,
            provider_session,
            reason,
            editors,
        }))
    };
    let ended = |subject: &str, provider_session: &str, reason| {
        told(subject, provider_session, reason, true)
    };
    let session = json!({"id": "sess_1", "user_id": "user_1", "status": "whatever"});
    let user =
        |banned: bool, locked: bool| json!({"id": "user_1", "banned": banned, "locked": locked});
    let cases = [
        (
            false,
            "user.deleted",
            json!({"id": "user_1", "deleted": true}),
            ended("user_1", "", DELETED),
        ),
        (
            false,
            "user.updated",
            user(true, false),
            ended("user_1", "", BANNED),
        ),
        (false, "user.updated", user(false, true), Ok(None)),
        (false, "user.updated", user(false, false), Ok(None)),
        (false, "user.updated", json!({"id": "user_1"}), Ok(None)),
        (false, "user.created", user(true, true), Ok(None)),
        (
            false,
            "session.revoked",
            session.clone(),
            ended("user_1", "sess_1", REVOKED),
        ),
        (
            false,
            "session.ended",
            session.clone(),
            told("user_1", "sess_1", ENDED, false),
        ),
        (
            false,
            "session.removed",
            session.clone(),
            told("user_1", "sess_1", ENDED, false),
        ),
        (
            true,
            "session.ended",
            session.clone(),
            ended("user_1", "sess_1", ENDED),
        ),
        (
            true,
            "session.removed",
            session.clone(),
            ended("user_1", "sess_1", ENDED),
        ),
        (true, "session.created", session.clone(), Ok(None)),
        (true, "session.pending", session, Ok(None)),
        (
            true,
            "organization.deleted",
            json!({"id": "org_1"}),
            Ok(None),
        ),
        // Without an id it would be more than one user's, or more than one session's.
        (
            false,
            "user.deleted",
            json!({"deleted": true}),
            Err(BadWebhook::Malformed),
        ),
        (
            false,
            "user.deleted",
            json!({"id": ""}),
            Err(BadWebhook::Malformed),
        ),
        (
            false,
            "user.deleted",
            json!({"id": null}),
            Err(BadWebhook::Malformed),
        ),
        (
            false,
            "session.revoked",
            json!({"id": "", "user_id": "user_1"}),
            Err(BadWebhook::Malformed),
        ),
        (
            false,
            "session.revoked",
            json!({"user_id": "user_1"}),
            Err(BadWebhook::Malformed),
        ),
        (
            false,
            "session.revoked",
            json!({"id": "sess_1"}),
            Err(BadWebhook::Malformed),
        ),
        (
            false,
            "user.deleted",
            json!(null),
            Err(BadWebhook::Malformed),
        ),
    ];
    for (end_with_session, kind, data, expected) in cases {
        let body =
            json!({"object": "event", "type": kind, "data": data, "timestamp": 1}).to_string();
        assert_eq!(
            read(&inbox(end_with_session), &body),
            expected,
            "{end_with_session} {body}"
        );
    }

    assert_eq!(read(&inbox(true), "{}"), Err(BadWebhook::Malformed));
    assert_eq!(read(&inbox(true), r#"{"type":"email.created"}"#), Ok(None));
}

#[test]
fn what_is_done_is_remembered_and_the_oldest_is_forgotten() {
    let inbox = inbox(false);
    assert!(!inbox.has_seen("msg_0"));
    for number in 0..MAX_SEEN {
        inbox.remember(format!("msg_{number}"));
    }
    assert!(inbox.has_seen("msg_0"));
    inbox.remember("msg_new".to_owned());
    assert!(!inbox.has_seen("msg_0") && inbox.has_seen("msg_1") && inbox.has_seen("msg_new"));
}
