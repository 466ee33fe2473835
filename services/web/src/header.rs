//! The security headers of every page, as a function of what the page contains. Knows no page and
//! no route.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use vvs_identity::{Nonce, Sources};

const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");
pub(crate) const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// The properties of a page that its headers depend on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    /// Holds a form. Without a referrer policy of `same-origin` a browser would send its POST with
    /// `Origin: null`.
    Form,
    /// Holds text and links.
    Text,
}

pub(crate) fn page(kind: PageKind, nonce: &Nonce, sources: &Sources) -> HeaderMap {
    let referrer = match kind {
        PageKind::Form => "same-origin",
        PageKind::Text => "no-referrer",
    };

    let mut headers = common();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(CONTENT_SECURITY_POLICY, policy(nonce, sources));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static(referrer));
    headers.insert(
        PERMISSIONS_POLICY,
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    );

    headers
}

/// Returns the headers of answers that are not pages: redirects, JSON and bare statuses.
pub(crate) fn common() -> HeaderMap {
    HeaderMap::from_iter([
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        ),
    ])
}

/// Isolates every answer: no other site's page may embed it, or keep hold of the window that shows
/// it. Redirects too, because a browser that goes back over one without this policy changes
/// processes twice.
pub(crate) fn isolate(headers: &mut HeaderMap) {
    for name in [CROSS_ORIGIN_OPENER_POLICY, CROSS_ORIGIN_RESOURCE_POLICY] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static("same-origin"));
    }
}

fn policy(nonce: &Nonce, sources: &Sources) -> HeaderValue {
    let Sources {
        script,
        style,
        connect,
        img,
        frame,
        worker,
    } = sources;
    let ours = [
        ("script-src", format!("'nonce-{nonce}' {script}")),
        ("style-src", format!("'self' {style}")),
        ("img-src", format!("'self' {img}")),
        ("connect-src", format!("'self' {connect}")),
        ("frame-src", frame.clone()),
        ("worker-src", worker.clone()),
    ];
    let used = ours
        .iter()
        .map(|(directive, list)| (directive, list.trim()))
        .filter(|(_, list)| !list.is_empty());
    let mut policy =
        "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            .to_owned();
    for (directive, list) in used {
        policy.extend(["; ", directive, " ", list]);
    }

    // A nonce is base64url and always fits; if it ever did not, no script at all is the safe page.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(
        "default-src 'none'; frame-ancestors 'none'",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: PageKind) -> HeaderMap {
        page(kind, &Nonce::new([0xfb; 16]), &Sources::default())
    }

    #[test]
    fn a_page_is_never_stored_sniffed_or_framed() {
        for kind in [PageKind::Form, PageKind::Text] {
            let headers = headers(kind);
            assert_eq!(headers[CACHE_CONTROL], "no-store");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert!(
                headers[CONTENT_SECURITY_POLICY]
                    .to_str()
                    .unwrap()
                    .contains("frame-ancestors 'none'")
            );
        }
    }

    #[test]
    fn only_scripts_with_this_responses_nonce_run() {
        let policy = headers(PageKind::Form)[CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap()
            .to_owned();
        let scripts = policy
            .split("; ")
            .find(|directive| directive.starts_with("script-src"))
            .unwrap();
        assert_eq!(scripts, "script-src 'nonce--_v7-_v7-_v7-_v7-_v7-w'");
        assert!(policy.starts_with("default-src 'none'; "));
        assert!(!policy.contains("unsafe"));
    }

    #[test]
    fn a_form_is_sent_with_our_origin_and_a_text_page_tells_nobody_where_one_was() {
        assert_eq!(headers(PageKind::Form)[REFERRER_POLICY], "same-origin");
        assert_eq!(headers(PageKind::Text)[REFERRER_POLICY], "no-referrer");
    }
}
