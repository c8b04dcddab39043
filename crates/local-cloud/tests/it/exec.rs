//! Exec over the WebSocket.

use crate::support::{TestCloud, request, start};
use bytes::Bytes;
use cloud_api::exec::{Frame, connect};
use cloud_api::model::GroupStatus;
use cloud_api::model::manage::ExecContainerCommandRequest;

async fn uri(test: &TestCloud) -> String {
    let id = test.create(&request("shell")).await;
    test.until(&id, GroupStatus::Running).await;
    let exec = ExecContainerCommandRequest {
        container_group_id: id,
        container_name: "main".to_owned(),
        command: vec!["sh".to_owned()],
        tty: Some(false),
        ..Default::default()
    };
    test.client
        .call(&exec)
        .await
        .unwrap()
        .web_socket_uri
        .unwrap()
}

#[tokio::test]
async fn output_and_exit_code_arrive_and_the_socket_closes() {
    let test = start().await;
    let (mut sender, mut receiver) = connect(&uri(&test).await).await.unwrap();
    sender
        .send(Frame::Stdin(Bytes::from_static(b"hello")))
        .await
        .unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = receiver.next().await {
        frames.push(frame.unwrap());
    }
    assert_eq!(
        frames,
        [
            Frame::Stdout(Bytes::from_static(b"simulated: sh\n")),
            Frame::Exit(0)
        ]
    );
}

#[tokio::test]
async fn an_address_is_good_once() {
    let test = start().await;
    let uri = uri(&test).await;
    connect(&uri).await.unwrap();
    let error = connect(&uri).await.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "cannot connect to 127.0.0.1");
}
