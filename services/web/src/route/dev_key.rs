//! `/dev/key`: a browser enters the key of a development installation, once.

use axum::response::Response;
use secrecy::ExposeSecret as _;
use vvs_identity::Guess;

use crate::error::Refusal;
use crate::failure::Reason;
use crate::visit::{Answer, Opening, Post, see};

/// `POST /dev/key`.
pub(crate) async fn show(Opening(mut post): Opening) -> Response {
    let answer = shown(&mut post);
    post.visit.finish(answer)
}

fn shown(post: &mut Post) -> Result<Answer, Refusal> {
    let Post { visit, fields, .. } = post;
    let (about, web) = (visit.about()?, visit.web.clone());
    let Some(key) = web.identity.key() else {
        return Err(Reason::NotFound.into());
    };

    let shown = fields.key.take().unwrap_or_default();

    match key.guess(shown.expose_secret()) {
        Guess::Right => {
            visit.jar.show_key(&web.cookies, &key.mark())?;
            Ok(see(&about.path()))
        }
        Guess::Wrong => visit.ask_key(about, true),
        Guess::TooMany => Err(Reason::TooManyGuesses.into()),
    }
}
