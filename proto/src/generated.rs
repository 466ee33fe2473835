//! The code of each package, where the code of the others expects it.

macro_rules! packages {
    ($($name:ident = $file:literal),+ $(,)?) => {$(
        pub mod $name {
            #[allow(
                clippy::all,
                clippy::pedantic,
                reason = "generated from proto/vvs"
            )]
            pub mod v1 {
                include!(concat!("gen/vvs.", $file, ".v1.rs"));
            }
        }
    )+};
}

packages!(
    internal = "internal",
    relay = "relay",
    session = "session",
    token = "token",
    r#type = "type",
);
