//! What the program and a shim say to each other over the sandbox's Unix socket.
//!
//! A message is a 32-bit little-endian length and that many bytes of JSON; file descriptors travel beside it.
//! One connection carries one request. Refuses messages above [`MESSAGE_BYTES_MAX`].

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use jiff::Timestamp;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::id::ContainerId;
use crate::spec::{ContainerSpec, ExecSpec, SandboxSpec};
use crate::status::ContainerStatus;

/// More than any container specification needs: Kubernetes objects end at 1.5 MiB.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Standard input, output and error.
const DESCRIPTORS_MAX: usize = 3;
/// One read from a socket.
const READ_BYTES: usize = 16 << 10;

/// A sandbox as its directory remembers it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) spec: SandboxSpec,
    pub(crate) cluster_id: String,
    pub(crate) created_at: Timestamp,
}

/// A container with everything decided: image defaults merged, layers resolved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) spec: ContainerSpec,
    pub(crate) image_id: String,
    pub(crate) arguments: Vec<String>,
    /// `NAME=value`.
    pub(crate) environment: Vec<String>,
    pub(crate) working_directory: String,
    /// `user[:group]`.
    pub(crate) user: String,
    /// Holds the layers.
    pub(crate) layers_root: PathBuf,
    /// Names below `layers_root`, topmost first.
    pub(crate) layers: Vec<String>,
    pub(crate) stop_signal: i32,
    /// One bit a capability number.
    pub(crate) capabilities: u64,
    pub(crate) log_path: PathBuf,
    pub(crate) created_at: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Is anyone there?
    Ping,
    Create(Box<ContainerRecord>),
    Start(ContainerId),
    Stop {
        id: ContainerId,
        grace_ms: u64,
    },
    Remove(ContainerId),
    StopAll {
        grace_ms: u64,
    },
    /// Kills and removes everything; the shim ends after the answer.
    RemoveSandbox,
    Containers,
    Exec {
        id: ContainerId,
        spec: ExecSpec,
    },
    Attach {
        id: ContainerId,
        stdin: bool,
    },
    /// A [`Response::Changed`] now and after every change.
    Watch,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Done,
    Alive {
        pid: i32,
    },
    Containers(Vec<ContainerStatus>),
    /// Descriptors come with it in this order.
    Streams(StreamSet),
    Exit {
        code: i32,
    },
    Changed,
    Failed {
        kind: Failure,
        reason: String,
    },
}

/// Which descriptors come with a [`Response::Streams`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamSet {
    /// The controlling side of a terminal: input, size, and output unless that comes separately.
    pub(crate) terminal: bool,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    NotFound,
    WrongState,
    Start,
    Other,
}

/// A socket that carries messages and descriptors.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            descriptors: VecDeque::new(),
        }
    }

    pub(crate) async fn send<T: Serialize>(&self, message: &T) -> io::Result<()> {
        self.send_with(message, &[]).await
    }

    /// Sends a message; the descriptors ride on its first bytes.
    pub(crate) async fn send_with<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(too_long(body.len()));
        }
        let mut bytes = u32::try_from(body.len())
            .map_err(|_| too_long(body.len()))?
            .to_le_bytes()
            .to_vec();
        bytes.extend_from_slice(&body);
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let mut sent = 0;
        while sent < bytes.len() {
            let rest = &bytes[sent..];
            sent += self
                .stream
                .async_io(Interest::WRITABLE, || {
                    let rights = [ControlMessage::ScmRights(&raw)];
                    let control = if sent == 0 && !raw.is_empty() {
                        &rights[..]
                    } else {
                        &[]
                    };
                    let slices = [IoSlice::new(rest)];
                    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                    Ok(sendmsg::<UnixAddr>(
                        self.stream.as_raw_fd(),
                        &slices,
                        control,
                        flags,
                        None,
                    )?)
                })
                .await?;
        }
        Ok(())
    }

    /// The next message; `None` when the other side closed.
    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(body) = self.take_message()? {
                return Ok(Some(serde_json::from_slice(&body)?));
            }
            if self.read_more().await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next descriptor that has come.
    pub(crate) fn take_descriptor(&mut self) -> io::Result<OwnedFd> {
        self.descriptors
            .pop_front()
            .ok_or_else(|| io::Error::other("a descriptor is missing"))
    }

    /// Resolves when the other side closes or says something out of turn.
    pub(crate) async fn closed(&mut self) {
        // Data here would be a breach of the protocol; both end the conversation.
        let _ = self.read_more().await;
    }

    fn take_message(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(header) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(too_long(length));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        let rest = self.buffer.split_off(4 + length);
        let mut message = std::mem::replace(&mut self.buffer, rest);
        message.drain(..4);
        Ok(Some(message))
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        let mut chunk = vec![0_u8; READ_BYTES];
        let stream = &self.stream;
        let (count, descriptors) = stream
            .async_io(Interest::READABLE, || {
                receive_once(stream.as_raw_fd(), &mut chunk)
            })
            .await?;
        self.buffer.extend_from_slice(&chunk[..count]);
        self.descriptors.extend(descriptors);
        Ok(count)
    }
}

fn too_long(length: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a message of {length} bytes is above {MESSAGE_BYTES_MAX}"),
    )
}

/// One `recvmsg`: bytes and any descriptors that came with them.
pub(crate) fn receive_once(socket: RawFd, chunk: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut slices = [IoSliceMut::new(chunk)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<UnixAddr>(socket, &mut slices, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just installed these descriptors for us; nobody else owns them.
            descriptors.extend(
                raw.into_iter()
                    .map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }),
            );
        }
    }
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn messages_and_descriptors_arrive_in_order() {
        let (left, right) = UnixStream::pair().unwrap();
        let (sender, mut receiver) = (Connection::new(left), Connection::new(right));
        let (reader, mut writer) = io::pipe().unwrap();
        sender.send(&Request::Ping).await.unwrap();
        sender
            .send_with(
                &Response::Streams(StreamSet {
                    stdout: true,
                    ..StreamSet::default()
                }),
                &[reader.as_fd()],
            )
            .await
            .unwrap();
        drop((sender, reader));
        assert!(matches!(
            receiver.receive().await.unwrap(),
            Some(Request::Ping)
        ));
        assert!(matches!(
            receiver.receive().await.unwrap(),
            Some(Response::Streams(_))
        ));
        let mut passed = std::fs::File::from(receiver.take_descriptor().unwrap());
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        passed.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert!(receiver.receive::<Request>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_overlong_message_is_refused_unread() {
        let (left, right) = UnixStream::pair().unwrap();
        left.try_write(&u32::MAX.to_le_bytes()).unwrap();
        assert!(Connection::new(right).receive::<Request>().await.is_err());
    }
}
