//! The paths of the identity provider. The provider answers, behind the same checks as every page
//! and every form of ours.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{
    DefaultBodyLimit, FromRequest as _, MatchedPath, RawPathParams, Request, State,
};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::Uri;
use http::header::CACHE_CONTROL;
use vvs_identity::{About, BrowserRequest, Path, PathKind, Reply};
use vvs_runtime::forwarded::REQUEST_ID;

use super::sign_in;
use crate::clock;
use crate::error::Refusal;
use crate::header;
use crate::page::Stopped;
use crate::visit::{Answer, Opening, Post, Visit, page, see};
use crate::web::Web;

pub(super) fn routes(web: &Web) -> Router<Arc<Web>> {
    let paths = web.identity.paths().into_iter();
    paths.fold(Router::new(), |router, Path { path, kind }| {
        let served = match kind {
            PathKind::Page => get(open),
            PathKind::Form => post(submit),
            PathKind::File => get(others),
            PathKind::Message(length) => post(others).layer(DefaultBodyLimit::max(length)),
        };
        router.route(path, served)
    })
}

/// Answers a browser that opens a page of the provider.
async fn open(path: MatchedPath, uri: Uri, mut visit: Visit) -> Response {
    let fields = uri.query().unwrap_or_default().as_bytes();
    let (retry, another) = (visit.is_retry(), visit.is_another());
    let answer = served(&mut visit, path.as_str(), fields, retry, another).await;
    visit.finish(answer)
}

/// Answers a browser that sends the form of the provider's part.
async fn submit(path: MatchedPath, Opening(post): Opening) -> Response {
    let Post {
        mut visit,
        fields,
        body,
    } = post;
    let answer = served(&mut visit, path.as_str(), &body, fields.is_retry(), false).await;
    visit.finish(answer)
}

async fn served(
    visit: &mut Visit,
    path: &str,
    fields: &[u8],
    retry: bool,
    another: bool,
) -> Result<Answer, Refusal> {
    let provider = visit.web.identity.clone();
    let call = BrowserRequest {
        path,
        fields,
        about: visit.about,
        retry,
        another,
        now: visit.now,
    };

    match provider.serve(call, visit).await? {
        Reply::Go(url) => Ok(see(&url)),
        Reply::Ask(part) => sign_in::show(visit, part, retry).await,
        Reply::Stopped { stop, provider } => Ok(page(&Stopped {
            shell: visit.shell(),
            stop,
            name: provider,
            again: visit.about.map(About::another),
        })),
        Reply::SignedIn {
            sign_in,
            proof,
            next,
        } => {
            // While nobody can say who was signed in here, nobody signs in again.
            visit.person()?;
            visit.sign_in(sign_in, proof).await?;
            Ok(see(&next))
        }
    }
}

/// Answers any client that fetches a file of the provider, or sends it a message.
async fn others(
    State(web): State<Arc<Web>>,
    path: MatchedPath,
    segments: RawPathParams,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let body = Bytes::from_request(request, &web).await.ok();
    let segments: Vec<_> = segments.iter().map(|(_, text)| text.to_owned()).collect();
    let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());

    let answer = web.identity.answer(vvs_identity::PlainRequest {
        path: path.as_str(),
        segments: &segments,
        headers: &headers,
        body: body.as_ref(),
        request_id: request_id.unwrap_or("unknown"),
        now: clock::now(),
    });
    let (mut parts, body) = answer.await.into_parts();

    if !parts.headers.contains_key(CACHE_CONTROL) {
        let mut headers = header::common();
        headers.extend(parts.headers);
        parts.headers = headers;
    }

    http::Response::from_parts(parts, Body::from(body)).into_response()
}
