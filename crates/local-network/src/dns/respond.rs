//! Turns questions into answers, the same for both transports: from the zone at once, or with what a resolver says.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicUsize, Ordering},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};

use super::{
    upstream::Upstreams,
    zone::{Answer, Zone},
};

/// The most a message can have; over TCP the length is given in two bytes.
pub(super) const MESSAGE_MAX_BYTES: usize = 65_535;
/// What every client takes over UDP, and the most we send when it offers more.
const UDP_PLAIN_BYTES: u16 = 512;
const UDP_MOST_BYTES: u16 = 1232;
const HEADER_BYTES: usize = 12;

/// Answers from one zone, which can be replaced, and its upstreams.
pub(super) struct Responder {
    zone: RwLock<Arc<Zone>>,
    upstreams: Upstreams,
    turn: AtomicUsize,
}

pub(super) enum Response {
    Ready(Vec<u8>),
    Ask(Box<Pending>),
    Nothing,
}

/// A question somebody else has to answer: as it came, or the name an alias stands for.
pub(super) struct Pending {
    question: Vec<u8>,
    request: Message,
    alias: Option<Message>,
}

impl Responder {
    pub(super) fn new(zone: Zone, upstreams: Upstreams) -> Self {
        Self {
            zone: RwLock::new(Arc::new(zone)),
            upstreams,
            turn: AtomicUsize::new(0),
        }
    }

    pub(super) fn use_zone(&self, zone: Zone) {
        *self.zone.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(zone);
    }

    pub(super) fn respond(&self, bytes: &[u8], over_tcp: bool) -> Response {
        let Ok(request) = Message::from_vec(bytes) else {
            return malformed(bytes);
        };
        if request.metadata.message_type != MessageType::Query {
            return Response::Nothing;
        }
        let [query] = request.queries.as_slice() else {
            return refuse(&request, ResponseCode::FormErr, over_tcp);
        };
        if request.metadata.op_code != OpCode::Query {
            return refuse(&request, ResponseCode::NotImp, over_tcp);
        }
        if query.query_class() != DNSClass::IN {
            return refuse(&request, ResponseCode::Refused, over_tcp);
        }
        let zone = self
            .zone
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut answer = reply(&request);
        answer.metadata.authoritative = true;
        match zone.answer(query.name(), query.query_type()) {
            Answer::Found {
                mut records,
                additional,
            } => {
                if records.is_empty() {
                    answer.add_authority(zone.authority());
                } else {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed) % records.len();
                    records.rotate_left(turn);
                }
                answer.add_answers(records).add_additionals(additional);
            }
            Answer::Alias { record, target } => {
                answer.add_answer(*record);
                return self.follow_alias(request, answer, target, over_tcp);
            }
            Answer::NoSuchName => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.add_authority(zone.authority());
            }
            Answer::Elsewhere => {
                return Response::Ask(Box::new(Pending {
                    question: bytes.to_vec(),
                    request,
                    alias: None,
                }));
            }
        }
        Response::Ready(encode(answer, limit(&request, over_tcp)))
    }

    fn follow_alias(
        &self,
        request: Message,
        answer: Message,
        target: Name,
        over_tcp: bool,
    ) -> Response {
        let kind = request
            .queries
            .first()
            .map_or(RecordType::CNAME, |query| query.query_type());
        let mut onward = Message::new(request.metadata.id, MessageType::Query, OpCode::Query);
        onward.metadata.recursion_desired = true;
        onward.add_query(Query::query(target, kind));
        match onward.to_vec() {
            Ok(question) if kind != RecordType::CNAME => Response::Ask(Box::new(Pending {
                question,
                request,
                alias: Some(answer),
            })),
            _ => Response::Ready(encode(answer, limit(&request, over_tcp))),
        }
    }

    pub(super) async fn finish(&self, pending: Box<Pending>, over_tcp: bool) -> Vec<u8> {
        let asked = self.upstreams.ask(&pending.question, over_tcp).await;
        let limit = limit(&pending.request, over_tcp);
        match (asked, pending.alias) {
            (Ok(answer), None) => answer,
            (Ok(onward), Some(mut alias)) => {
                if let Ok(onward) = Message::from_vec(&onward) {
                    alias.add_answers(onward.answers);
                }
                encode(alias, limit)
            }
            // The alias itself is known; the client may have other means to follow it.
            (Err(_), Some(alias)) => encode(alias, limit),
            (Err(error), None) => {
                tracing::debug!(%error, "question could not be passed on");
                let mut failure = reply(&pending.request);
                failure.metadata.response_code = ResponseCode::ServFail;
                encode(failure, limit)
            }
        }
    }
}

fn reply(request: &Message) -> Message {
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_MOST_BYTES);
        reply.set_edns(edns);
    }
    reply
}

fn refuse(request: &Message, code: ResponseCode, over_tcp: bool) -> Response {
    let mut answer = reply(request);
    answer.metadata.response_code = code;
    Response::Ready(encode(answer, limit(request, over_tcp)))
}

/// A question that cannot be read still gets an answer when it is long enough to have an id.
fn malformed(bytes: &[u8]) -> Response {
    let (Some(id), true) = (bytes.first_chunk::<2>(), bytes.len() >= HEADER_BYTES) else {
        return Response::Nothing;
    };
    if bytes[2] & 0x80 != 0 {
        // An answer, not a question: answering it could go on for ever.
        return Response::Nothing;
    }
    let failure = Message::error_msg(
        u16::from_be_bytes(*id),
        OpCode::Query,
        ResponseCode::FormErr,
    );
    Response::Ready(encode(failure, UDP_PLAIN_BYTES.into()))
}

fn limit(request: &Message, over_tcp: bool) -> usize {
    match &request.edns {
        _ if over_tcp => MESSAGE_MAX_BYTES,
        Some(edns) => edns
            .max_payload()
            .clamp(UDP_PLAIN_BYTES, UDP_MOST_BYTES)
            .into(),
        None => UDP_PLAIN_BYTES.into(),
    }
}

/// Leaves out what does not fit, additional records first. Some clients never ask again over TCP, so a part of the
/// addresses is better than none.
fn encode(mut message: Message, limit: usize) -> Vec<u8> {
    loop {
        let bytes = message.to_vec().unwrap_or_default();
        if bytes.len() <= limit {
            return bytes;
        }
        if !message.additionals.is_empty() {
            message.additionals.clear();
            continue;
        }
        message.metadata.truncation = true;
        let kept = message.answers.len() / 2;
        if message.answers.is_empty() {
            return message.truncate().to_vec().unwrap_or_default();
        }
        message.answers.truncate(kept);
    }
}
