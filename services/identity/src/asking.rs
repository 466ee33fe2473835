//! The future of an answer.

use std::pin::Pin;

/// An answer that is awaited.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
