//! Keeps the checked-in Rust equal to the contracts in `proto/vvs`, so that `cargo build` needs no
//! protoc.

use std::path::Path;

use prost::Message as _;

const FILES: [&str; 6] = [
    "vvs/internal/v1/backplane.proto",
    "vvs/internal/v1/sessions.proto",
    "vvs/relay/v1/relay.proto",
    "vvs/session/v1/session.proto",
    "vvs/token/v1/token.proto",
    "vvs/type/v1/type.proto",
];
const CODE: [&str; 5] = [
    "vvs.internal.v1.rs",
    "vvs.relay.v1.rs",
    "vvs.session.v1.rs",
    "vvs.token.v1.rs",
    "vvs.type.v1.rs",
];
const DESCRIPTORS: &str = "vvs.fds.bin";
/// Messages that hold a token, a code or a proof: `src/secret.rs` has their `Debug`.
const SECRET: [&str; 6] = [
    ".vvs.relay.v1.DeliverAuthRequest",
    ".vvs.relay.v1.Held",
    ".vvs.session.v1.Token",
    ".vvs.internal.v1.RefreshTokenRequest",
    ".vvs.internal.v1.EndSessionRequest",
    ".vvs.internal.v1.BackplaneSealed",
];

fn generate(out: &Path) {
    let root = env!("CARGO_MANIFEST_DIR");
    let descriptors = protox::compile(FILES, [root]).expect("the contracts compile");
    std::fs::write(out.join(DESCRIPTORS), descriptors.encode_to_vec()).unwrap();
    tonic_prost_build::configure()
        .out_dir(out)
        .skip_debug(SECRET)
        .compile_fds(descriptors)
        .unwrap();
    // `type` is a word of Rust, and prost escapes it in the name of the file too.
    std::fs::rename(out.join("vvs.r#type.v1.rs"), out.join("vvs.type.v1.rs")).unwrap();
}

/// Run `VVS_REGENERATE=1 cargo test -p vvs-proto --test generated` after a change of a `.proto`
/// file.
#[test]
fn the_checked_in_code_is_what_the_contracts_say() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    if std::env::var_os("VVS_REGENERATE").is_some() {
        std::fs::create_dir_all(&kept).unwrap();
        generate(&kept);
    }

    let fresh = tempfile::tempdir().unwrap();
    generate(fresh.path());

    for name in CODE.into_iter().chain([DESCRIPTORS]) {
        let expected = std::fs::read(fresh.path().join(name)).unwrap();
        let found = std::fs::read(kept.join(name)).unwrap_or_default();
        assert!(
            expected == found,
            "src/gen/{name} is out of date: run this test with VVS_REGENERATE=1"
        );
    }
}
