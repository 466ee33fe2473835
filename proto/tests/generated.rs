//! Keeps the checked-in Rust equal to the contracts in `proto/vvs`, so that `cargo build` needs no
//! protoc.

use std::path::Path;

use prost::Message as _;

const FILES: [&str; 3] = [
    "vvs/relay/v1/backplane.proto",
    "vvs/relay/v1/relay.proto",
    "vvs/session/v1/session.proto",
];
const DESCRIPTORS: &str = "vvs.fds.bin";
/// Messages that hold a token, a code or a proof: `src/secret.rs` has their `Debug`.
const SECRET: [&str; 5] = [
    ".vvs.relay.v1.DeliverAuthRequest",
    ".vvs.relay.v1.DeliverAuthResponse",
    ".vvs.session.v1.Token",
    ".vvs.session.v1.RefreshTokenRequest",
    ".vvs.session.v1.RevokeSessionRequest",
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

    for name in ["vvs.relay.v1.rs", "vvs.session.v1.rs", DESCRIPTORS] {
        let expected = std::fs::read(fresh.path().join(name)).unwrap();
        let found = std::fs::read(kept.join(name)).unwrap_or_default();
        assert!(
            expected == found,
            "src/gen/{name} is out of date: run this test with VVS_REGENERATE=1"
        );
    }
}
