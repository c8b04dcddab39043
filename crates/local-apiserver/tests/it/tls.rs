//! The TLS listener and who gets in.

use base64::Engine;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
    NamedContext,
};
use kube::{Api, Client, Config};
use local_apiserver::testing::TestServer;
use tokio::net::TcpListener;

fn encoded(text: &str) -> Option<String> {
    Some(base64::engine::general_purpose::STANDARD.encode(text))
}

async fn client(server: &TestServer, auth: AuthInfo) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    server.server.serve(listener);
    let kubeconfig = Kubeconfig {
        clusters: vec![NamedCluster {
            name: "c".into(),
            cluster: Some(Cluster {
                server: Some(format!("https://{address}")),
                certificate_authority_data: encoded(&server.server.credentials().ca_pem),
                ..Cluster::default()
            }),
            ..Default::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: "u".into(),
            auth_info: Some(auth),
            ..Default::default()
        }],
        contexts: vec![NamedContext {
            name: "x".into(),
            context: Some(Context {
                cluster: "c".into(),
                user: Some("u".into()),
                ..Context::default()
            }),
            ..Default::default()
        }],
        current_context: Some("x".into()),
        ..Kubeconfig::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn a_client_certificate_and_the_admin_token_both_get_in() {
    let server = TestServer::start().await;
    let credentials = server.server.credentials();
    let by_certificate = AuthInfo {
        client_certificate_data: encoded(&credentials.admin_certificate_pem),
        client_key_data: encoded(&credentials.admin_key_pem).map(Into::into),
        ..AuthInfo::default()
    };
    let by_token = AuthInfo {
        token: Some(credentials.admin_token.clone().into()),
        ..AuthInfo::default()
    };
    for auth in [by_certificate, by_token] {
        let namespaces: Api<Namespace> = Api::all(client(&server, auth).await);
        assert_eq!(
            namespaces
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .len(),
            4
        );
    }
}

#[tokio::test]
async fn nobody_gets_no_objects_but_a_sentence_that_says_so() {
    let server = TestServer::start().await;
    let namespaces: Api<Namespace> = Api::all(client(&server, AuthInfo::default()).await);
    match namespaces.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) => assert_eq!(
            status.message,
            "namespaces is forbidden: User \"system:anonymous\" cannot list resource \"namespaces\" in API group \"\" at the cluster scope"
        ),
        other => panic!("{other:?}"),
    }
}
