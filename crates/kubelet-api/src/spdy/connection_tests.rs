use proptest::prelude::*;

use super::*;

/// Longer than serving a few frames takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Writing that makes no progress for so long has been stopped, not delayed.
const STANDSTILL: Duration = Duration::from_secs(3);

/// Streams near each other, so that frames meet.
fn any_frame() -> impl Strategy<Value = Frame> {
    let stream = 0..14u32;
    let bytes = prop::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        4 => (stream.clone(), any::<bool>()).prop_map(|(stream, finished)| Frame::SynStream {
            stream: stream.max(1),
            finished,
            headers: vec![("streamtype".to_string(), "data".to_string())],
        }),
        4 => (stream.clone(), any::<bool>(), bytes).prop_map(|(stream, finished, bytes)| Frame::Data {
            stream: stream.max(1),
            finished,
            bytes: bytes.into(),
        }),
        1 => (stream.clone(), 1..12u32).prop_map(|(stream, status)| Frame::RstStream { stream: stream.max(1), status }),
        1 => (stream.clone(), any::<u32>()).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta: delta >> 1 }),
        1 => prop::collection::vec((0..9u32, 0..100u32), 0..3).prop_map(Frame::Settings),
        1 => any::<u32>().prop_map(Frame::Ping),
        1 => stream.prop_map(|last_stream| Frame::GoAway { last_stream, status: 0 }),
    ]
}

/// Echoes every stream, refusing each third.
async fn echo(mut opened: mpsc::Receiver<Stream>) -> Close {
    let mut echoes = tokio::task::JoinSet::new();
    let mut count = 0;
    while let Some(stream) = opened.recv().await {
        count += 1;
        if count % 3 == 0 {
            stream.refuse().await;
            continue;
        }
        echoes.spawn(async move {
            let Ok((mut reader, mut writer)) = stream.accept().await else {
                return;
            };
            while let Some(bytes) = reader.next().await {
                if writer.send(bytes).await.is_err() {
                    return;
                }
            }
            writer.finish().await;
        });
    }
    Close::Now
}

/// Serves what a peer sends that then leaves; gives the answers.
fn serve_bytes(bytes: Vec<u8>) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async move {
        let (mut near, far) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(far);
        let serving = serve(reader, writer, echo);
        let (mut answers, mut sender) = tokio::io::split(&mut near);
        let sending = async move {
            let _ = sender.write_all(&bytes).await;
            let _ = sender.shutdown().await;
        };
        let mut received = Vec::new();
        let reading = answers.read_to_end(&mut received);
        let all = async { tokio::join!(serving, sending, reading) };
        let ended = tokio::time::timeout(DEADLINE, all).await;
        assert!(ended.is_ok(), "the connection did not end");
        received
    })
}

/// Every byte that the server writes is SPDY again.
fn understood(received: &[u8]) {
    let (mut decoder, mut input) = (Decoder::default(), BytesMut::from(received));
    while decoder.decode(&mut input).unwrap().is_some() {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn connections_end_whatever_frames_come(frames in prop::collection::vec(any_frame(), 0..40)) {
        let mut encoder = Encoder::default();
        let mut bytes = BytesMut::new();
        for frame in &frames {
            encoder.encode(frame, &mut bytes).unwrap();
        }
        understood(&serve_bytes(bytes.to_vec()));
    }

    #[test]
    fn connections_end_whatever_bytes_come(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        understood(&serve_bytes(bytes));
    }
}

#[tokio::test]
async fn a_stream_nobody_reads_holds_no_more_than_its_room() {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let (reader, writer) = tokio::io::split(far);
    // Takes the stream and never reads it.
    let holding = |mut opened: mpsc::Receiver<Stream>| async move {
        let _stream = opened.recv().await;
        std::future::pending::<Close>().await
    };
    let serving = serve(reader, writer, holding);
    let (mut answers, mut sender) = tokio::io::split(near);
    let mut accepted = 0usize;
    let flooding = async {
        let mut encoder = Encoder::default();
        let mut bytes = BytesMut::new();
        let opening = Frame::SynStream {
            stream: 1,
            finished: false,
            headers: Headers::new(),
        };
        encoder.encode(&opening, &mut bytes).unwrap();
        let data = Frame::Data {
            stream: 1,
            finished: false,
            bytes: Bytes::from(vec![0; 8 * 1024]),
        };
        loop {
            encoder.encode(&data, &mut bytes).unwrap();
            let writing = sender.write_all(&bytes);
            // With nobody reading, writing stops; that it stops is what is waited for.
            if tokio::time::timeout(STANDSTILL, writing).await.is_err() {
                return;
            }
            accepted += bytes.len();
            bytes.clear();
        }
    };
    let mut sink = Vec::new();
    tokio::select! {
        () = serving => panic!("the connection ended"),
        read = answers.read_to_end(&mut sink) => panic!("it was closed: {read:?}"),
        () = flooding => {}
    }
    // The room, the pipe and what is read at once.
    assert!(
        accepted <= STREAM_BUFFER_BYTES + 64 * 1024,
        "{accepted} bytes were taken"
    );
    assert!(
        accepted >= STREAM_BUFFER_BYTES / 2,
        "{accepted} bytes were taken"
    );
}
