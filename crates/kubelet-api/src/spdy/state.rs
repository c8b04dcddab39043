//! Which streams are open and what each side may still send. Plain data under one lock; nothing here waits.
//!
//! Clients built on Go's SPDY library do no flow control: they neither honour windows nor give credit. So windows are
//! counted from the beginning but enforced only once the peer has shown that it knows them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::reset;

/// Streams open at the same time on one connection: two for each forwarded connection.
pub(crate) const STREAMS_MAX: usize = 512;
/// Bytes of one stream that wait for their reader; the connection is not read further when they are used up.
pub(crate) const STREAM_BUFFER_BYTES: usize = 256 * 1024;
/// What a stream may carry before the first credit.
const INITIAL_WINDOW_BYTES: i64 = 64 * 1024;
/// A window never grows beyond this.
const WINDOW_BYTES_MAX: i64 = i32::MAX as i64;
const SETTINGS_INITIAL_WINDOW: u32 = 7;

/// Received bytes on their way to a stream's reader.
#[derive(Clone)]
pub(crate) struct Inbox {
    pub sender: mpsc::UnboundedSender<Received>,
    /// Room in bytes; closed when nobody reads any more.
    pub room: Arc<Semaphore>,
}

/// A piece of data and what it took of the room.
pub(crate) struct Received {
    pub bytes: Bytes,
    pub charge: usize,
}

struct Entry {
    /// `None` after the peer's last byte.
    inbox: Option<Inbox>,
    /// Our last byte is sent.
    finished: bool,
    /// Nobody reads what comes.
    unread: bool,
    window: i64,
    ended: CancellationToken,
}

/// All streams of one connection.
pub(crate) struct Streams {
    open: HashMap<u32, Entry>,
    newest: u32,
    /// No further streams.
    closing: bool,
    /// The peer counts windows of streams.
    counts: bool,
    initial_window: i64,
    /// What the connection may carry; known after its first credit.
    session_window: Option<i64>,
    session_sent: i64,
}

/// What to do with data that has arrived.
pub(crate) enum Arrival {
    /// For this reader; `true` = it is the last.
    Deliver(Inbox),
    /// Nobody wants it any more.
    Discard,
    /// The peer is told so.
    Reset(u32),
}

impl Streams {
    pub(crate) fn new() -> Self {
        Self {
            open: HashMap::new(),
            newest: 0,
            closing: false,
            counts: false,
            initial_window: INITIAL_WINDOW_BYTES,
            session_window: None,
            session_sent: 0,
        }
    }

    /// The peer opens a stream; `Err` is the number of the refusal.
    pub(crate) fn open(
        &mut self,
        stream: u32,
        inbox: Option<Inbox>,
        ended: CancellationToken,
    ) -> Result<(), u32> {
        // Clients use odd numbers, each once, in rising order.
        if stream.is_multiple_of(2) || stream <= self.newest {
            return Err(reset::PROTOCOL_ERROR);
        }
        self.newest = stream;
        if self.closing || self.open.len() >= STREAMS_MAX {
            return Err(reset::REFUSED_STREAM);
        }
        let entry = Entry {
            inbox,
            finished: false,
            unread: false,
            window: self.initial_window,
            ended,
        };
        self.open.insert(stream, entry);
        Ok(())
    }

    pub(crate) fn arrival(&self, stream: u32) -> Arrival {
        match self.open.get(&stream) {
            Some(Entry { unread: true, .. }) => Arrival::Discard,
            Some(Entry {
                inbox: Some(inbox), ..
            }) => Arrival::Deliver(inbox.clone()),
            Some(_) => Arrival::Reset(reset::STREAM_ALREADY_CLOSED),
            None if stream <= self.newest && !stream.is_multiple_of(2) => Arrival::Discard,
            None => Arrival::Reset(reset::INVALID_STREAM),
        }
    }

    /// The peer has sent its last byte.
    pub(crate) fn peer_finished(&mut self, stream: u32) {
        if let Some(entry) = self.open.get_mut(&stream) {
            entry.inbox = None;
            if entry.finished {
                self.open.remove(&stream);
            }
        }
    }

    /// We have sent our last byte; false when the stream is gone.
    pub(crate) fn finish(&mut self, stream: u32) -> bool {
        let Some(entry) = self.open.get_mut(&stream) else {
            return false;
        };
        entry.finished = true;
        if entry.inbox.is_none() || entry.unread {
            self.open.remove(&stream);
        }
        true
    }

    /// Nobody reads this stream any more.
    pub(crate) fn unread(&mut self, stream: u32) {
        if let Some(entry) = self.open.get_mut(&stream) {
            entry.unread = true;
            if entry.finished {
                self.open.remove(&stream);
            }
        }
    }

    /// Forgets a stream and wakes who uses it; false when it was gone already.
    pub(crate) fn end(&mut self, stream: u32) -> bool {
        match self.open.remove(&stream) {
            Some(entry) => {
                entry.ended.cancel();
                true
            }
            None => false,
        }
    }

    pub(crate) fn end_all(&mut self) {
        self.closing = true;
        for (_, entry) in self.open.drain() {
            entry.ended.cancel();
        }
    }

    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    pub(crate) fn newest(&self) -> u32 {
        self.newest
    }

    /// Takes leave to send up to `wanted` bytes: 0 = wait for credit, `None` = the stream is gone.
    pub(crate) fn take_window(&mut self, stream: u32, wanted: usize) -> Option<usize> {
        let entry = self.open.get_mut(&stream).filter(|entry| !entry.finished)?;
        // Frames are far shorter than 2^63.
        let mut granted = wanted as i64;
        if self.counts {
            granted = granted.min(entry.window);
        }
        if let Some(session) = self.session_window {
            granted = granted.min(session - self.session_sent);
        }
        let granted = granted.max(0);
        entry.window -= granted;
        self.session_sent += granted;
        usize::try_from(granted).ok()
    }

    /// The peer gives credit; `Err` = more than a window can hold.
    pub(crate) fn credit(&mut self, stream: u32, delta: u32) -> Result<(), u32> {
        let delta = i64::from(delta);
        if stream == 0 {
            let window = self.session_window.unwrap_or(INITIAL_WINDOW_BYTES) + delta;
            if window - self.session_sent > WINDOW_BYTES_MAX {
                return Err(reset::FLOW_CONTROL_ERROR);
            }
            self.session_window = Some(window);
            return Ok(());
        }
        self.counts = true;
        if let Some(entry) = self.open.get_mut(&stream) {
            if entry.window + delta > WINDOW_BYTES_MAX {
                return Err(reset::FLOW_CONTROL_ERROR);
            }
            entry.window += delta;
        }
        Ok(())
    }

    /// Settings of the peer; a new initial window changes the windows of open streams by the difference.
    pub(crate) fn settings(&mut self, entries: &[(u32, u32)]) {
        for (id, value) in entries {
            if *id == SETTINGS_INITIAL_WINDOW {
                self.counts = true;
                let wanted = i64::from(*value).min(WINDOW_BYTES_MAX);
                let change = wanted - self.initial_window;
                self.initial_window = wanted;
                for entry in self.open.values_mut() {
                    entry.window += change;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> Inbox {
        Inbox {
            sender: mpsc::unbounded_channel().0,
            room: Arc::new(Semaphore::new(STREAM_BUFFER_BYTES)),
        }
    }

    fn opened(numbers: &[u32]) -> Streams {
        let mut streams = Streams::new();
        for number in numbers {
            streams
                .open(*number, Some(inbox()), CancellationToken::new())
                .unwrap();
        }
        streams
    }

    #[test]
    fn numbers_are_odd_rise_and_are_used_once() {
        let mut streams = opened(&[1, 5]);
        for wrong in [0, 2, 3, 5] {
            let refused = streams.open(wrong, None, CancellationToken::new());
            assert_eq!(refused, Err(reset::PROTOCOL_ERROR), "{wrong}");
        }
        streams.close();
        let refused = streams.open(7, None, CancellationToken::new());
        assert_eq!(refused, Err(reset::REFUSED_STREAM));
    }

    #[test]
    fn one_stream_more_than_the_bound_is_refused_until_another_ends() {
        let numbers: Vec<u32> = (0..STREAMS_MAX as u32).map(|index| index * 2 + 1).collect();
        let mut streams = opened(&numbers);
        let next = streams.newest() + 2;
        let refused = streams.open(next, None, CancellationToken::new());
        assert_eq!(refused, Err(reset::REFUSED_STREAM));
        streams.end(1);
        assert_eq!(
            streams.open(next + 2, None, CancellationToken::new()),
            Ok(())
        );
    }

    #[test]
    fn data_for_a_stream_that_ended_is_discarded_and_for_one_that_never_was_is_reset() {
        let mut streams = opened(&[1, 3]);
        assert!(matches!(streams.arrival(1), Arrival::Deliver(_)));
        streams.end(1);
        assert!(matches!(streams.arrival(1), Arrival::Discard));
        assert!(matches!(
            streams.arrival(5),
            Arrival::Reset(reset::INVALID_STREAM)
        ));
        streams.peer_finished(3);
        assert!(matches!(
            streams.arrival(3),
            Arrival::Reset(reset::STREAM_ALREADY_CLOSED)
        ));
    }

    #[test]
    fn a_stream_is_forgotten_when_both_sides_have_finished() {
        let mut streams = opened(&[1, 3]);
        streams.peer_finished(1);
        assert!(streams.finish(1) && !streams.finish(1));
        assert!(streams.finish(3));
        streams.unread(3);
        assert!(streams.open.is_empty());
    }

    #[test]
    fn a_peer_without_flow_control_gets_everything_at_once() {
        let mut streams = opened(&[1]);
        for _ in 0..100 {
            assert_eq!(streams.take_window(1, 32 * 1024), Some(32 * 1024));
        }
        assert_eq!(streams.take_window(3, 1), None);
    }

    #[test]
    fn a_peer_with_flow_control_gets_what_it_gave_credit_for() {
        let mut streams = opened(&[1]);
        streams.settings(&[(SETTINGS_INITIAL_WINDOW, 10)]);
        assert_eq!(streams.take_window(1, 7), Some(7));
        assert_eq!(streams.take_window(1, 7), Some(3));
        assert_eq!(streams.take_window(1, 7), Some(0));
        streams.credit(1, 5).unwrap();
        assert_eq!(streams.take_window(1, 7), Some(5));
        // Smaller again: the stream owes.
        streams.settings(&[(SETTINGS_INITIAL_WINDOW, 4)]);
        streams.credit(1, 6).unwrap();
        assert_eq!(streams.take_window(1, 7), Some(0));
        streams.credit(1, 1).unwrap();
        assert_eq!(
            streams.credit(1, i32::MAX as u32),
            Err(reset::FLOW_CONTROL_ERROR)
        );
    }

    #[test]
    fn the_connections_window_counts_from_its_first_credit() {
        let mut streams = opened(&[1, 3]);
        let all = INITIAL_WINDOW_BYTES as usize;
        assert_eq!(streams.take_window(1, all), Some(all));
        streams.credit(0, 8).unwrap();
        assert_eq!(streams.take_window(3, 20), Some(8));
        assert_eq!(streams.take_window(3, 20), Some(0));
    }
}
