//! What an answer is while it is waited for.

use std::pin::Pin;

/// An answer that takes its time.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
