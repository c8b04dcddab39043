use proptest::prelude::*;

use super::*;

fn text_headers() -> impl Strategy<Value = Headers> {
    prop::collection::vec(("[a-z]{1,10}", "[ -~]{0,30}"), 0..5)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let stream = 1..=STREAM_MASK;
    let opening = (stream.clone(), any::<bool>(), text_headers().boxed());
    let two = (stream.clone(), any::<u32>());
    prop_oneof![
        opening
            .clone()
            .prop_map(|(stream, finished, headers)| Frame::SynStream {
                stream,
                finished,
                headers
            }),
        opening
            .clone()
            .prop_map(|(stream, finished, headers)| Frame::SynReply {
                stream,
                finished,
                headers
            }),
        opening.prop_map(|(stream, finished, headers)| Frame::Headers {
            stream,
            finished,
            headers
        }),
        two.clone()
            .prop_map(|(stream, status)| Frame::RstStream { stream, status }),
        two.clone().prop_map(|(last_stream, status)| Frame::GoAway {
            last_stream,
            status
        }),
        two.prop_map(|(stream, delta)| Frame::WindowUpdate {
            stream,
            delta: delta & STREAM_MASK
        }),
        any::<u32>().prop_map(Frame::Ping),
        prop::collection::vec((0..0x00ff_ffffu32, any::<u32>()), 0..5).prop_map(Frame::Settings),
        (
            stream,
            any::<bool>(),
            prop::collection::vec(any::<u8>(), 0..300)
        )
            .prop_map(|(stream, finished, bytes)| {
                Frame::Data {
                    stream,
                    finished,
                    bytes: bytes.into(),
                }
            }),
    ]
}

/// Everything a decoder makes of bytes that arrive in pieces; data of one stream in a row is put together again.
fn decode_in_pieces(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, ProtocolError> {
    let mut decoder = Decoder::default();
    let mut input = BytesMut::new();
    let mut frames: Vec<Frame> = Vec::new();
    let mut open = false;
    for chunk in bytes.chunks(piece.max(1)) {
        input.extend_from_slice(chunk);
        while let Some(frame) = decoder.decode(&mut input)? {
            let more = decoder.partial.is_some();
            match (frames.last_mut(), &frame) {
                (
                    Some(Frame::Data {
                        finished, bytes, ..
                    }),
                    Frame::Data {
                        finished: last,
                        bytes: next,
                        ..
                    },
                ) if open => {
                    *bytes = [bytes.as_ref(), next.as_ref()].concat().into();
                    *finished = *last;
                }
                _ => frames.push(frame),
            }
            open = more;
        }
        assert!(
            input.len() <= CONTROL_FRAME_BYTES_MAX + HEAD_BYTES + piece,
            "{} bytes are kept",
            input.len()
        );
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_come_back_however_the_bytes_are_cut(frames in prop::collection::vec(any_frame(), 0..12), piece in 1..64usize) {
        let mut encoder = Encoder::default();
        let mut bytes = BytesMut::new();
        for frame in &frames {
            encoder.encode(frame, &mut bytes).unwrap();
        }
        prop_assert_eq!(decode_in_pieces(&bytes, piece).unwrap(), frames);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_loop_or_keep_much(bytes in prop::collection::vec(any::<u8>(), 0..2_000), piece in 1..200usize) {
        let _ = decode_in_pieces(&bytes, piece);
    }

    #[test]
    fn damaged_frames_end_in_an_error_or_in_frames(
        frames in prop::collection::vec(any_frame(), 1..8), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), piece in 1..100usize
    ) {
        let mut encoder = Encoder::default();
        let mut bytes = BytesMut::new();
        for frame in &frames {
            encoder.encode(frame, &mut bytes).unwrap();
        }
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let _ = decode_in_pieces(&bytes, piece);
    }

    #[test]
    fn control_frames_with_any_body_end_in_an_error_or_in_a_frame(kind in 0..12u16, flags in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut bytes = BytesMut::new();
        head(kind, flags, body.len(), &mut bytes);
        bytes.extend_from_slice(&body);
        let _ = decode_in_pieces(&bytes, 16);
    }
}

fn decode(bytes: &[u8]) -> Result<Vec<Frame>, ProtocolError> {
    decode_in_pieces(bytes, bytes.len())
}

#[test]
fn frames_are_the_bytes_that_the_protocol_asks_for() {
    let mut bytes = BytesMut::new();
    let frames = [
        Frame::Ping(1),
        Frame::RstStream {
            stream: 3,
            status: 5,
        },
        Frame::GoAway {
            last_stream: 7,
            status: 0,
        },
        Frame::WindowUpdate {
            stream: 5,
            delta: 0x1_0000,
        },
        Frame::Data {
            stream: 5,
            finished: true,
            bytes: Bytes::from_static(b"hi"),
        },
    ];
    let mut encoder = Encoder::default();
    for frame in &frames {
        encoder.encode(frame, &mut bytes).unwrap();
    }
    let wanted = [
        &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1][..],
        &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5],
        &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 0],
        &[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 5, 0, 1, 0, 0],
        &[0, 0, 0, 5, 1, 0, 0, 2, b'h', b'i'],
    ]
    .concat();
    assert_eq!(bytes.as_ref(), wanted.as_slice());
    assert_eq!(decode(&bytes).unwrap(), frames);
}

/// What kubectl 1.32 sent for the first connection of `port-forward :80`: error stream 1, then data stream 3.
const RECORDED: &str = include_str!("recorded_port_forward.hex");

#[test]
fn the_streams_that_kubectl_opens_for_port_forward_are_understood() {
    let digits: Vec<u8> = RECORDED.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let bytes: Vec<u8> = digits.as_chunks::<2>().0.iter().map(byte).collect();
    for piece in [1, 2, 7, bytes.len()] {
        let frames = decode_in_pieces(&bytes, piece).unwrap();
        let opened: Vec<(u32, Vec<(&str, &str)>)> = frames
            .iter()
            .filter_map(|frame| match frame {
                Frame::SynStream {
                    stream, headers, ..
                } => {
                    let pair =
                        |(name, value): &'static (String, String)| (name.as_str(), value.as_str());
                    let headers: &'static Headers = Box::leak(Box::new(headers.clone()));
                    let mut pairs: Vec<_> = headers.iter().map(pair).collect();
                    pairs.sort_unstable();
                    Some((*stream, pairs))
                }
                _ => None,
            })
            .collect();
        let wanted = |kind| vec![("port", "80"), ("requestid", "0"), ("streamtype", kind)];
        assert_eq!(opened, [(1, wanted("error")), (3, wanted("data"))]);
    }
}

#[test]
fn types_that_are_not_known_are_passed_over() {
    let mut bytes = BytesMut::new();
    head(5, 0, 3, &mut bytes);
    bytes.extend_from_slice(b"abc");
    Encoder::default()
        .encode(&Frame::Ping(9), &mut bytes)
        .unwrap();
    assert_eq!(decode(&bytes).unwrap(), [Frame::Ping(9)]);
}

#[test]
fn what_is_not_spdy_is_told_apart() {
    assert_eq!(
        decode(b"\x80\x02\x00\x01\0\0\0\0"),
        Err(ProtocolError::Version(2))
    );
    assert_eq!(
        decode(b"\x80\x03\x00\x01\0\xff\xff\xff"),
        Err(ProtocolError::TooLong {
            kind: SYN_STREAM,
            length: 0x00ff_ffff
        })
    );
    assert_eq!(
        decode(b"\x80\x03\x00\x06\0\0\0\x05hello"),
        Err(ProtocolError::Length {
            kind: PING,
            length: 5
        })
    );
    assert_eq!(
        decode(b"\0\0\0\0\0\0\0\x01a"),
        Err(ProtocolError::StreamZero)
    );
    // Two settings announced, one there.
    let settings = b"\x80\x03\x00\x04\0\0\0\x0c\0\0\0\x02\0\0\0\x07\0\0\0\x01";
    assert_eq!(
        decode(settings),
        Err(ProtocolError::Length {
            kind: SETTINGS,
            length: 12
        })
    );
}

#[test]
fn a_long_data_frame_is_passed_on_as_it_arrives() {
    let mut decoder = Decoder::default();
    let mut input = BytesMut::from(&b"\0\0\0\x01\x01\0\0\x04ab"[..]);
    let piece = |finished, bytes: &'static [u8]| {
        Some(Frame::Data {
            stream: 1,
            finished,
            bytes: Bytes::from_static(bytes),
        })
    };
    assert_eq!(decoder.decode(&mut input).unwrap(), piece(false, b"ab"));
    assert_eq!(decoder.decode(&mut input).unwrap(), None);
    input.extend_from_slice(b"cd");
    assert_eq!(decoder.decode(&mut input).unwrap(), piece(true, b"cd"));
}
