//! The shim's loop: connections, dead children, signals, and its own end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::setup::Prepared;
use super::state::{Refusal, Shim};
use crate::protocol::{Connection, Request, Response};

/// How often the shim looks whether its directory is still there.
const DIRECTORY_CHECK: Duration = Duration::from_secs(5);
/// Requests, sessions and watchers at a time.
const CONVERSATIONS_MAX: usize = 512;
/// After a failed accept, which is mostly a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A client that has got its last answer closes at once.
const LAST_ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// Serves until the sandbox is removed; gives the exit code.
pub(super) fn run(prepared: Prepared, announce: impl FnOnce() -> std::io::Result<()>) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            super::report(&format!("start the event loop: {error}"));
            return 1;
        }
    };
    let (shim, listener) = Shim::new(prepared);
    let outcome = LocalSet::new().block_on(&runtime, serve(Rc::new(shim), listener, announce));
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            super::report(&format!("serve the sandbox: {error}"));
            1
        }
    }
}

async fn serve(
    shim: Rc<Shim>,
    listener: std::os::unix::net::UnixListener,
    announce: impl FnOnce() -> std::io::Result<()>,
) -> std::io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let mut children = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // The starting terminal's end is not ours.
    let mut ignored = [
        signal(SignalKind::hangup())?,
        signal(SignalKind::interrupt())?,
    ];
    let [hangup, interrupt] = &mut ignored;
    let mut check = interval(DIRECTORY_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let done = Rc::new(Notify::new());
    let places = Arc::new(Semaphore::new(CONVERSATIONS_MAX));
    announce()?;
    // Children that ended before the signal handler was there.
    shim.reap();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Above the limit the client sees its connection closed and may come again.
                    if let Ok(permit) = places.clone().try_acquire_owned() {
                        let conversation = converse(shim.clone(), Connection::new(stream), done.clone());
                        spawn_local(async move {
                            conversation.await;
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = children.recv() => shim.reap(),
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {
                close_alone(&shim, done.clone());
            }
            _ = check.tick() => {
                if !shim.directory.record().exists() && !shim.closing.get() {
                    close_alone(&shim, done.clone());
                }
            }
            () = done.notified() => return Ok(()),
        }
    }
}

/// Ends the sandbox without anyone having asked over the socket.
fn close_alone(shim: &Rc<Shim>, done: Rc<Notify>) {
    let shim = shim.clone();
    spawn_local(async move {
        if let Err(refusal) = shim.close().await {
            tracing::warn!(reason = %refusal.reason, "close the sandbox");
        }
        done.notify_one();
    });
}

async fn converse(shim: Rc<Shim>, mut connection: Connection, done: Rc<Notify>) {
    let request = match connection.receive::<Request>().await {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(error) => {
            return answer(
                &connection,
                Err(Refusal::other(format!("read the request: {error}"))),
            )
            .await;
        }
    };
    match request {
        Request::Watch => watch(&shim, &mut connection).await,
        Request::Ping => {
            let alive = Response::Alive {
                pid: std::process::id().cast_signed(),
            };
            answer(&connection, Ok(alive)).await;
        }
        Request::Containers => {
            let statuses = shim.statuses();
            answer(&connection, Ok(Response::Containers(statuses))).await;
        }
        Request::Exec { id, spec } => {
            if let Err(refusal) = shim.exec(&mut connection, &id, &spec).await {
                answer(&connection, Err(refusal)).await;
            }
        }
        Request::Attach { id, stdin } => {
            if let Err(refusal) = shim.attach(&mut connection, &id, stdin).await {
                answer(&connection, Err(refusal)).await;
            }
        }
        Request::RemoveSandbox => {
            let outcome = shim.close().await.map(|()| Response::Done);
            answer(&connection, outcome).await;
            let _ = timeout(LAST_ANSWER_PATIENCE, connection.closed()).await;
            done.notify_one();
        }
        simple => {
            let outcome = change(&shim, simple).await.map(|()| Response::Done);
            answer(&connection, outcome).await;
        }
    }
}

/// Requests that are answered by done or failed.
async fn change(shim: &Rc<Shim>, request: Request) -> Result<(), Refusal> {
    match request {
        Request::Create(record) => shim.create(*record),
        Request::Start(id) => shim.start(&id).await,
        Request::Stop { id, grace_ms } => shim.stop(&id, Duration::from_millis(grace_ms)).await,
        Request::StopAll { grace_ms } => shim.stop_all(Duration::from_millis(grace_ms)).await,
        Request::Remove(id) => shim.remove(&id).await,
        other => Err(Refusal::other(format!("a request out of place: {other:?}"))),
    }
}

async fn answer(connection: &Connection, outcome: Result<Response, Refusal>) {
    let response = outcome.unwrap_or_else(|refusal| Response::Failed {
        kind: refusal.kind,
        reason: refusal.reason,
    });
    // A client that has gone needs no answer.
    let _ = connection.send(&response).await;
}

async fn watch(shim: &Shim, connection: &mut Connection) {
    let mut changes = shim.changes.subscribe();
    loop {
        if connection.send(&Response::Changed).await.is_err() {
            return;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = connection.closed() => return,
        }
    }
}
