//! What an editor sends before anybody knows it, and what a relay sends to an editor. What is taken
//! means the same when it is written anew.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use vvs_proto::frame::{EditorFrame, RelayFrame};

fuzz_target!(|text: &str| {
    if let Ok(mut frame) = EditorFrame::parse(text) {
        if let EditorFrame::Hello { device_key, .. } = &mut frame {
            // Any JSON, and a fraction need not come back to the last digit.
            *device_key = Value::Null;
        }
        assert_eq!(EditorFrame::parse(&frame.to_json()), Ok(frame));
    }
    if let Ok(frame) = serde_json::from_str::<RelayFrame>(text) {
        assert_eq!(
            serde_json::from_str::<RelayFrame>(&frame.to_json()).ok(),
            Some(frame)
        );
    }
});
