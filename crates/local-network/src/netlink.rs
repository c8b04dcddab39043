//! A blocking rtnetlink socket. It belongs to the network namespace of the thread that opened it, for good, and all
//! requests here are answered by the kernel within microseconds, so nothing is gained by making them asynchronous.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
};

/// The kernel's dumps come in pieces of at most 32 KiB.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

pub(crate) struct NetlinkSocket {
    descriptor: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl NetlinkSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self {
            descriptor,
            sequence: 0,
            buffer: vec![0; RECEIVE_BUFFER_BYTES],
        })
    }

    /// Sends a change and waits until the kernel has made it.
    pub(crate) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .map(drop)
    }

    /// Asks for one object.
    pub(crate) fn get(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK)
    }

    /// Asks for all objects of a kind.
    pub(crate) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        send(self.descriptor.as_raw_fd(), &bytes, MsgFlags::empty())?;

        let mut answers = Vec::new();
        loop {
            let received = match recv(
                self.descriptor.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::empty(),
            ) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            if read_answers(&self.buffer[..received], self.sequence, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Collects the answers in one datagram; true when the last one has come.
fn read_answers(
    mut bytes: &[u8],
    sequence: u32,
    answers: &mut Vec<RouteNetlinkMessage>,
) -> io::Result<bool> {
    let malformed = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    while !bytes.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
            .map_err(|e| malformed(e.to_string()))?;
        let padded = (message.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(padded.max(4)..).unwrap_or_default();
        if message.header.sequence_number != sequence {
            continue;
        }
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            NetlinkPayload::Overrun(_) => {
                return Err(malformed("the kernel's answer was cut off".to_owned()));
            }
            _ => {}
        }
    }
    Ok(false)
}
