//! What callers rely on when they compile.

use std::path::Path;
use std::time::Duration;

use futures::future::BoxFuture;
use local_runtime::image::{ImageConfig, ImageInfo, PullOptions};
use local_runtime::{
    ContainerId, ContainerSpec, ExecOutput, ExecSession, ExecSpec, ImageError, ImageStore, Runtime,
    RuntimeConfig, RuntimeError, SandboxSpec,
};

type Outcome<'a, T> = BoxFuture<'a, Result<T, RuntimeError>>;

/// Boxing demands `Send`, as async traits do, with lifetimes that the caller does not choose.
struct Boxed;

impl Boxed {
    fn open<'a>(config: RuntimeConfig) -> Outcome<'a, Runtime> {
        Box::pin(Runtime::open(config))
    }

    fn remove_all<'a>(state: &'a Path, cluster: &'a str) -> Outcome<'a, ()> {
        Box::pin(Runtime::remove_all(state, cluster))
    }

    fn create<'a>(runtime: &'a Runtime, id: &'a str) -> Outcome<'a, ContainerId> {
        Box::pin(async move {
            runtime.create_sandbox(SandboxSpec::default()).await?;
            runtime.create_container(id, ContainerSpec::default()).await
        })
    }

    fn end<'a>(runtime: &'a Runtime, id: &'a ContainerId) -> Outcome<'a, ()> {
        Box::pin(async move {
            runtime.start_container(id).await?;
            runtime.stop_container(id, Duration::ZERO).await?;
            runtime.remove_container(id).await?;
            runtime.stop_sandbox(id.sandbox(), Duration::ZERO).await?;
            runtime.usage(id.sandbox()).await?;
            runtime.container_status(id).await?;
            runtime.containers(id.sandbox()).await;
            drop(runtime.container_logs(id, Default::default()).await?);
            runtime.remove_sandbox(id.sandbox()).await
        })
    }

    fn exec<'a>(
        runtime: &'a Runtime,
        id: &'a ContainerId,
    ) -> Outcome<'a, (ExecSession, ExecOutput)> {
        Box::pin(async move {
            let session = runtime.exec(id, ExecSpec::default()).await?;
            runtime.attach(id, true).await?;
            Ok((
                session,
                runtime.exec_sync(id, Vec::new(), Duration::ZERO).await?,
            ))
        })
    }

    fn images<'a>(
        images: &'a ImageStore,
        name: &'a str,
    ) -> BoxFuture<'a, Result<ImageInfo, ImageError>> {
        Box::pin(async move {
            images.load(Path::new(name)).await?;
            images
                .import_image(name, ImageConfig::default(), Vec::new())
                .await?;
            images.remove(name).await?;
            images.pull(name, PullOptions::default()).await
        })
    }
}

#[test]
fn every_operation_can_move_between_threads() {
    fn sendable<T: Send + Sync>() {}
    sendable::<Runtime>();
    sendable::<ImageStore>();
    fn movable<T: Send>() {}
    movable::<ExecSession>();
    // That these compile is the proof.
    let _operations = (
        Boxed::open,
        Boxed::remove_all,
        Boxed::create,
        Boxed::end,
        Boxed::exec,
        Boxed::images,
    );
}
