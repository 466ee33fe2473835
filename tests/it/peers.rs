//! Who may call whom: mutual TLS, SPIFFE names, the method table, and certificates that change.

use rcgen::KeyUsagePurpose;
use tonic::Code;
use tonic_types::StatusExt as _;
use vvs_auth::peer::Role;
use vvs_proto::relay::{DeliverAuthRequest, GetLoginRequest};
use vvs_proto::session::CreateSessionRequest;
use vvs_proto::token::GetSigningKeysRequest;
use vvs_tests::{Authority, Caller, Stack};

fn look(id: &str) -> GetLoginRequest {
    GetLoginRequest {
        connection_id: id.to_owned(),
        known_state: 0,
    }
}

fn reason(status: &tonic::Status) -> String {
    vvs_runtime::rpc::reason(status)
}

#[tokio::test]
async fn web_may_look_at_a_login_and_nobody_else_may() {
    let stack = Stack::start().await;
    let editor = stack.editor().await;
    let address = stack.addresses().relay_rpc;
    let login = stack
        .caller(Role::Web)
        .relay(address)
        .get_login(look(editor.id()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(login.user_code, editor.user_code());
    assert_eq!(login.client_address, "127.0.0.1");

    for role in [Role::Gateway, Role::Relay, Role::Sessions, Role::Backend] {
        let mut relay = stack.caller(role).relay(address);
        let refused = relay.get_login(look(editor.id())).await.unwrap_err();
        assert_eq!(
            (refused.code(), &*reason(&refused)),
            (Code::PermissionDenied, "PEER_NOT_ALLOWED"),
            "{role}"
        );

        let refused = relay
            .deliver_auth(DeliverAuthRequest::default())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{role}");
    }
}

#[tokio::test]
async fn the_sessions_role_serves_each_peer_its_own_methods() {
    let stack = Stack::start().await;
    let address = stack.addresses().sessions_rpc;

    for role in Role::ALL {
        let mut tokens = stack.caller(role).tokens(address);
        let keys = tokens.get_signing_keys(GetSigningKeysRequest {}).await;
        assert_eq!(
            keys.is_ok(),
            matches!(role, Role::Web | Role::Relay | Role::Backend),
            "{role}"
        );

        let created = stack
            .caller(role)
            .sessions(address)
            .create_session(CreateSessionRequest::default())
            .await
            .unwrap_err();
        let expected = if role == Role::Web {
            Code::InvalidArgument
        } else {
            Code::PermissionDenied
        };

        assert_eq!(created.code(), expected, "{role}");
    }
}

#[tokio::test]
async fn a_malformed_request_names_the_field() {
    let stack = Stack::start().await;
    let mut relay = stack.caller(Role::Web).relay(stack.addresses().relay_rpc);
    for id in ["", "nonsense", "00000000-0000-0000-0000-000000000000"] {
        let refused = relay.get_login(look(id)).await.unwrap_err();
        assert_eq!(
            (refused.code(), &*reason(&refused)),
            (Code::InvalidArgument, "MALFORMED")
        );
        assert_eq!(
            refused.get_details_bad_request().unwrap().field_violations[0].field,
            "connection_id"
        );
    }

    let unknown = relay
        .get_login(look("6f1f2f4e-3c62-4d1a-8f5b-0d9c5a1b2c3d"))
        .await
        .unwrap_err();
    assert_eq!(
        (unknown.code(), &*reason(&unknown)),
        (Code::NotFound, "LOGIN_UNKNOWN")
    );
}

#[tokio::test]
async fn a_certificate_of_another_ca_does_not_get_in_and_is_counted() {
    let stack = Stack::start().await;
    let data = stack.data();
    let folder = tempfile::tempdir().unwrap();
    let trusted = data.path().join("pki/ca.crt");
    let files = Authority::foreign().certify(
        folder.path(),
        &["spiffe://vvs.internal/web"],
        Some(&trusted),
    );
    let mut relay = Caller::new(files).relay(stack.addresses().relay_rpc);
    let refused = relay
        .get_login(look("6f1f2f4e-3c62-4d1a-8f5b-0d9c5a1b2c3d"))
        .await
        .unwrap_err();

    // The connection is gone before anyone could answer the call.
    assert!(
        matches!(
            refused.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled
        ),
        "{refused:?}"
    );

    stack
        .until_metric("vvs_handshakes_refused_total{reason=\"tls\"}", |count| {
            count >= 1.0
        })
        .await;
}

#[tokio::test]
async fn a_certificate_must_name_exactly_one_known_peer() {
    let stack = Stack::start().await;
    let data = stack.data();
    let authority = Authority::of(data.path());
    let web = "spiffe://vvs.internal/web";

    for (uris, allowed) in [
        (vec![web], true),
        (vec![web, "spiffe://vvs.internal/gateway"], false),
        (vec![], false),
        (vec!["spiffe://vvs.internal/web/x"], false),
        (vec!["spiffe://other.internal/web"], false),
        (vec!["https://vvs.internal/web"], false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut relay = Caller::new(authority.certify(folder.path(), &uris, None))
            .relay(stack.addresses().relay_rpc);
        let refused = relay
            .get_login(look("6f1f2f4e-3c62-4d1a-8f5b-0d9c5a1b2c3d"))
            .await
            .unwrap_err();
        let expected = if allowed {
            "LOGIN_UNKNOWN"
        } else {
            "PEER_NOT_ALLOWED"
        };

        assert_eq!(reason(&refused), expected, "{uris:?}");
    }
}

#[tokio::test]
async fn a_leaf_that_may_sign_certificates_or_revocation_lists_is_no_peer_on_either_side() {
    let stack = Stack::start().await;
    let data = stack.data();
    let authority = Authority::of(data.path());
    let id = "6f1f2f4e-3c62-4d1a-8f5b-0d9c5a1b2c3d";
    let peers =
        std::sync::Arc::new(vvs_auth::peer::Peers::new(Vec::new(), "vvs.internal").unwrap());

    for (usages, allowed) in [
        (&[][..], true),
        (&[KeyUsagePurpose::DigitalSignature], true),
        (
            &[
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyCertSign,
            ],
            false,
        ),
        (&[KeyUsagePurpose::CrlSign], false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let files = |uri: &str| {
            authority.certify_for(&folder.path().join(&uri[22..]), &[uri], usages, None)
        };

        let mut relay =
            Caller::new(files("spiffe://vvs.internal/web")).relay(stack.addresses().relay_rpc);
        let refused = relay.get_login(look(id)).await.unwrap_err();
        let expected = if allowed {
            "LOGIN_UNKNOWN"
        } else {
            "PEER_NOT_ALLOWED"
        };

        assert_eq!(reason(&refused), expected, "as a client: {usages:?}");

        let server =
            vvs_runtime::tls::Identity::load(files("spiffe://vvs.internal/relay")).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connector = vvs_runtime::http::Connector {
            identity: vvs_runtime::tls::Identity::load(vvs_mesh::pki::files(
                data.path(),
                Role::Web,
            ))
            .unwrap(),
            check: vvs_auth::peer::check(&peers, Role::Relay),
            alpn: b"h2",
            timeout: std::time::Duration::from_secs(5),
        };
        let accept = async {
            vvs_runtime::tls::stream::accept(server.server(), listener.accept().await?.0).await
        };

        let (connected, _accepted) = tokio::join!(connector.connect(&address), accept);
        assert_eq!(connected.is_ok(), allowed, "as a server: {usages:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_who_we_called_is_not_spoken_to() {
    let stack = Stack::start().await;
    let data = stack.data();
    let identity =
        vvs_runtime::tls::Identity::load(vvs_mesh::pki::files(data.path(), Role::Web)).unwrap();
    let peers =
        std::sync::Arc::new(vvs_auth::peer::Peers::new(Vec::new(), "vvs.internal").unwrap());

    for (role, reached) in [(Role::Relay, true), (Role::Sessions, false)] {
        let connector = vvs_runtime::http::Connector {
            identity: identity.clone(),
            check: vvs_auth::peer::check(&peers, role),
            alpn: b"h2",
            timeout: std::time::Duration::from_secs(5),
        };
        let connected = connector
            .connect(&stack.addresses().relay_rpc.to_string())
            .await;
        assert_eq!(connected.is_ok(), reached, "{role}");
    }
}

#[tokio::test]
async fn nobody_but_the_gateway_may_say_where_a_client_is() {
    let stack = Stack::start_with(&["--relay-ws-addr", "127.0.0.1:0"]).await;
    // The hop's address is nobody's business, so it is taken from the log.
    let editor = stack.editor().await;
    drop(editor);
    let data = stack.data();
    let log = stack.log();
    let address = log
        .split("relay_ws=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap()
        .to_owned();
    let identity =
        vvs_runtime::tls::Identity::load(vvs_mesh::pki::files(data.path(), Role::Web)).unwrap();
    let connector = vvs_runtime::http::Connector {
        identity,
        check: std::sync::Arc::new(|_certificate| Ok(())),
        alpn: b"http/1.1",
        timeout: std::time::Duration::from_secs(5),
    };
    let stream = connector.connect(&address).await.unwrap();
    let request = "ws://localhost/ws";
    let refused = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = refused else {
        panic!("{refused:?}")
    };

    assert_eq!(response.status(), http::StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn certificates_key_and_ca_are_taken_up_while_running() {
    let stack = Stack::start().await;
    let data = stack.data();
    let address = stack.addresses().relay_rpc;
    let id = "6f1f2f4e-3c62-4d1a-8f5b-0d9c5a1b2c3d";
    let old = stack.caller(Role::Web).relay(address);
    assert_eq!(
        reason(&old.clone().get_login(look(id)).await.unwrap_err()),
        "LOGIN_UNKNOWN"
    );

    // A new CA, and new leaves of it, while everything runs.
    std::fs::remove_file(data.path().join("pki/ca.crt")).unwrap();
    vvs_mesh::pki::ensure(data.path(), "vvs.internal", time::OffsetDateTime::now_utc()).unwrap();
    let new = || stack.caller(Role::Web).relay(address);
    let taken_up =
        async { while reason(&new().get_login(look(id)).await.unwrap_err()) != "LOGIN_UNKNOWN" {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), taken_up)
        .await
        .unwrap();

    // Old connections live on, and a whole sign-in works with the new certificates between all
    // roles.
    assert_eq!(
        reason(&old.clone().get_login(look(id)).await.unwrap_err()),
        "LOGIN_UNKNOWN"
    );

    let log = || stack.log().matches("certificate files reloaded").count();
    let all = async {
        while log() < 4 {
            tokio::task::yield_now().await;
        }
    };

    tokio::time::timeout(std::time::Duration::from_secs(30), all)
        .await
        .unwrap();
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (approved, ()) = tokio::join!(browser.approve(&approval), async {
        assert_eq!(editor.next().await["type"], "auth:success");
        editor.read_on().await;
    });
    assert_eq!(approved.status, http::StatusCode::SEE_OTHER);
}
