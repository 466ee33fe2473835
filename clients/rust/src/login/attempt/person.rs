//! The person's actions on a login, here and in the browser.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use tokio::io::{AsyncRead, AsyncWrite};
use vvs_proto::frame::{EditorFrame, Method, Secret};

use super::{Attempt, Event, Next, Outcome};
use crate::hand_back::Brought;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static, F: FnMut(Event) + Send> Attempt<'_, S, F> {
    pub(super) async fn cancel(&mut self) -> Next {
        if let Some((outcome, _)) = self.stored.take() {
            return Next::Done(outcome);
        }
        self.line.send(&EditorFrame::AuthCancel).await;
        Next::Done(Outcome::Cancelled)
    }

    pub(super) async fn typed(&mut self, code: &Secret) {
        let Some(length) = self.pending else {
            (self.show)(Event::Notice(
                "No code is needed yet. Approve in the browser first.".to_owned(),
            ));
            return;
        };

        let code: String = code
            .expose()
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();

        if code.len() == usize::from(length) {
            self.complete(Secret::new(code), Method::Typed).await;
        } else {
            // It is not worth one of the few tries.
            (self.show)(Event::Notice(format!(
                "The code has {length} letters. Look again."
            )));
        }
    }

    pub(super) async fn brought(&mut self, brought: Brought) {
        let same = |a: &str, b: &str| verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok();
        let ours = self
            .login
            .as_ref()
            .is_some_and(|login| login.id == brought.connection_id)
            && self.ticket.is_some()
            && self.code.is_none()
            && same(brought.state.expose(), self.state.expose());

        // When the browser does not wait for it, nobody is there to be told.
        brought.answer.send(ours).ok();
        if !ours {
            (self.show)(Event::Stranger);
            return;
        }

        self.code = Some(brought.code);
        self.complete_by_link().await;
    }

    pub(super) async fn complete_by_link(&mut self) {
        if let (Some(code), Some(_)) = (self.code.clone(), self.pending) {
            self.complete(code, Method::Link).await;
        }
    }

    async fn complete(&mut self, code: Secret, method: Method) {
        self.line
            .send(&EditorFrame::AuthComplete { code, method })
            .await;
    }
}
