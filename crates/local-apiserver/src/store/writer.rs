//! The one writer: takes what waits, makes it durable in one transaction, then shows and acknowledges it.

use super::disk::Disk;
use super::history::{Event, EventKind};
use super::index::Index;
use super::{Change, StoredObject, Write, WriteError};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Writes in one transaction.
const BATCH: usize = 512;
/// History reaches this far back, like etcd's under the usual compaction: a list that is paged on later than this has
/// to begin anew.
const HISTORY: Duration = Duration::from_secs(5 * 60);
/// Old history is looked for this often at most, by the first write after it.
const UPKEEP: Duration = Duration::from_secs(15);

pub(super) enum Pending {
    Write(
        Write,
        oneshot::Sender<Result<Arc<StoredObject>, WriteError>>,
    ),
    Close,
}

type Answer = (
    oneshot::Sender<Result<Arc<StoredObject>, WriteError>>,
    Arc<StoredObject>,
);

/// Runs until closed; owns the database.
pub(super) fn run(
    mut disk: Disk,
    index: Arc<Index>,
    mut queue: mpsc::Receiver<Pending>,
    closing: Arc<AtomicBool>,
) {
    let mut waiting = Vec::with_capacity(BATCH);
    let mut upkept = Instant::now();
    loop {
        waiting.clear();
        if queue.blocking_recv_many(&mut waiting, BATCH) == 0 {
            break;
        }
        let close = waiting.iter().any(|one| matches!(one, Pending::Close));
        commit(&mut disk, &index, waiting.drain(..));
        if upkept.elapsed() >= UPKEEP {
            upkept = Instant::now();
            if let Some(moment) = upkept.checked_sub(HISTORY) {
                index.forget_before(moment);
            }
        }
        if close && closing.load(Ordering::Acquire) {
            break;
        }
    }
}

/// What earlier writes of the same batch did to a key: its object, or gone.
type Overlay = HashMap<(Arc<str>, Arc<str>), Option<Arc<StoredObject>>>;

fn commit(disk: &mut Disk, index: &Index, waiting: impl Iterator<Item = Pending>) {
    let mut overlay: Overlay = HashMap::new();
    let mut events = Vec::new();
    let mut answers: Vec<Answer> = Vec::new();
    let mut revision = index.revision();
    for pending in waiting {
        let Pending::Write(write, answer) = pending else {
            continue;
        };
        match stage(index, &mut overlay, write, revision + 1) {
            Ok((resource, event)) => {
                revision += 1;
                answers.push((answer, event.object.clone()));
                events.push((resource, event));
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }
    if events.is_empty() {
        return;
    }
    match disk.commit(revision, &events) {
        Ok(()) => {
            index.apply(revision, events, Instant::now());
            for (answer, object) in answers {
                let _ = answer.send(Ok(object));
            }
        }
        Err(error) => {
            tracing::error!(%error, writes = answers.len(), "a batch of writes did not reach the disk");
            for (answer, _) in answers {
                let _ = answer.send(Err(WriteError::Unavailable(error.to_string())));
            }
        }
    }
}

fn stage(
    index: &Index,
    overlay: &mut Overlay,
    write: Write,
    revision: u64,
) -> Result<(Arc<str>, Event), WriteError> {
    let place = (write.resource.clone(), write.key.clone());
    let current = match overlay.get(&place) {
        Some(staged) => staged.as_ref().map(|object| object.revision),
        None => index.current(&write.resource, &write.key),
    };
    match (write.expected, current) {
        (None, Some(_)) => return Err(WriteError::Exists),
        (Some(expected), Some(found)) if expected == found => {}
        (None, None) => {}
        _ => return Err(WriteError::Conflict),
    }
    let previous = match overlay.get(&place) {
        Some(staged) => staged.clone(),
        None => index.get(&write.resource, &write.key),
    };
    let (kind, prepared) = match write.change {
        Change::Put(prepared) if previous.is_none() => (EventKind::Added, prepared),
        Change::Put(prepared) => (EventKind::Modified, prepared),
        Change::Delete(prepared) => (EventKind::Deleted, prepared),
    };
    let object = Arc::new(prepared.finish(revision));
    overlay.insert(place, (kind != EventKind::Deleted).then(|| object.clone()));
    let event = Event::new(write.key, kind, object, previous);
    Ok((write.resource, event))
}
