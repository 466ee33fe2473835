//! Scratch
use vvs_tests::{Chromium, Stack};
macro_rules! s { ($($n:ident)*) => { $(#[tokio::test] async fn $n(){ let stack=Stack::start().await; for _ in 0..6 { let t=std::time::Instant::now(); let c=Chromium::start(&stack,"red").await; let a=t.elapsed(); drop(c); eprintln!("{a:?} {:?}", t.elapsed()); } })* } }
s!(a b c d e f);
