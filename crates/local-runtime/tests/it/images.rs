//! Images from archives, registries and files, and their removal.

use std::path::Path;
use std::sync::{Arc, Mutex};

use local_runtime::image::{
    Credentials, ImageConfig, LayerSource, PullOptions, PullPolicy, PullProgress, RegistryConfig,
};
use local_runtime::{ContainerSpec, ImageError, ImageStore};

use crate::fixture::{
    FakeRegistry, INDEX, MadeImage, RealRegistry, answer, digest, files_in, gzip, honest, tar_of,
};
use crate::world::{IMAGE, World, script};

async fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(directory.path()).await.unwrap();
    (directory, store)
}

/// Nothing half done: no work in progress, no layer without an image.
fn assert_untouched(directory: &Path) {
    for name in ["images/work", "images/layers"] {
        assert_eq!(
            files_in(&directory.join(name)),
            Vec::<String>::new(),
            "{name}"
        );
    }
}

async fn load(
    store: &ImageStore,
    bytes: &[u8],
) -> Result<Vec<local_runtime::image::ImageInfo>, ImageError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    store.load(file.path()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_of_both_kinds_are_loaded_and_run() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let image = MadeImage::saying("from an archive");
    let saved = load(world.runtime.images(), &image.saved("shop:1"))
        .await
        .unwrap();
    let layout = load(
        world.runtime.images(),
        &gzip(&image.layout("localhost/shop:2")),
    )
    .await
    .unwrap();
    assert_eq!(saved[0].id, digest(&image.config));
    assert_eq!(layout[0].id, saved[0].id);
    assert_eq!(
        layout[0].tags,
        ["docker.io/library/shop:1", "localhost/shop:2"]
    );
    for (name, reference) in [
        ("a", "shop:1"),
        ("b", "localhost/shop:2"),
        ("c", &saved[0].id[7..20]),
    ] {
        let spec = ContainerSpec {
            name: name.into(),
            image: reference.into(),
            ..ContainerSpec::default()
        };
        let (status, log) = world.run("pod", spec).await;
        assert_eq!(
            (log.as_str(), status.image_id.as_str()),
            ("from an archive\n", saved[0].id.as_str())
        );
    }
    world.finish().await;
}

#[tokio::test]
async fn a_damaged_archive_gives_one_error_and_leaves_nothing() {
    let (directory, store) = store().await;
    let image = MadeImage::saying("x");
    let other = MadeImage::saying("y");
    let good = image.saved("a:1");
    let swapped_layer = MadeImage {
        layers: vec![image.layers[0].clone(), other.layers[1].clone()],
        ..MadeImage::saying("x")
    };
    let swapped_config = MadeImage {
        config: b"{}".to_vec(),
        ..MadeImage::saying("x")
    };
    let evil = tar_of(&[("ok", b"1")]);
    let evil = String::from_utf8(evil)
        .unwrap()
        .replacen("ok", "..", 1)
        .into_bytes();
    for (what, bytes, wanted) in [
        ("truncated", good[..good.len() / 2].to_vec(), ""),
        ("truncated gzip", gzip(&good)[..50_000].to_vec(), ""),
        ("no archive", b"hello".to_vec(), ""),
        ("no image", tar_of(&[("readme", b"hi")]), "neither manifest.json nor index.json"),
        ("another layer", swapped_layer.saved("a:1"), "has the content of"),
        ("another configuration", swapped_config.layout("a:1"), ""),
        ("bad manifest", tar_of(&[("manifest.json", b"[{]")]), "manifest.json"),
        ("missing layer", tar_of(&[("index.json", br#"{"manifests":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}"#)]), "lacks blobs"),
        ("escaping layer", MadeImage::new(vec![image.layers[0].0.clone(), evil]).saved("a:1"), ""),
    ] {
        let error = load(&store, &bytes).await.unwrap_err();
        assert!(matches!(error, ImageError::Corrupt { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains(wanted), "{what}: {error}");
        assert_untouched(directory.path());
    }
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_registry_serves_tags_digests_and_platforms() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let registry = RealRegistry::start(false);
    let image = MadeImage::saying("from a registry");
    registry.push("team/app", "v1", &image);
    let name = format!("{}/team/app", registry.address);
    let told: Arc<Mutex<Vec<PullProgress>>> = Arc::default();
    let kept = told.clone();
    let options = PullOptions {
        progress: Some(Arc::new(move |step| kept.lock().unwrap().push(step))),
        ..PullOptions::default()
    };
    let images = world.runtime.images();
    let pulled = images.pull(&format!("{name}:v1"), options).await.unwrap();
    assert_eq!(pulled.id, digest(&image.config));
    assert_eq!(
        pulled.digests,
        [format!("{name}@{}", digest(&image.manifest))]
    );
    let last = told.lock().unwrap().last().cloned().unwrap();
    assert_eq!((last.layers_done, last.layers_total), (2, 2));
    assert_eq!(last.bytes_done, last.bytes_total);
    let by_digest = images
        .pull(&pulled.digests[0], PullOptions::default())
        .await
        .unwrap();
    assert_eq!(by_digest.id, pulled.id);
    let spec = ContainerSpec {
        name: "c".into(),
        image: format!("{name}:v1"),
        ..ContainerSpec::default()
    };
    assert_eq!(world.run("pod", spec).await.1, "from a registry\n");
    // A list of platforms under another tag.
    let fake = FakeRegistry::start(|_| {
        let (index, honest, top) = (image.index(), honest(&image), digest(&image.index()));
        Box::new(move |request, _| {
            match request.contains("/manifests/multi") || request.contains(&top) {
                true => answer("200 OK", &format!("Content-Type: {INDEX}\r\n"), &index),
                false => honest(request),
            }
        })
    });
    let multi = format!("{}/x:multi", fake.address);
    assert_eq!(
        images
            .pull(&multi, PullOptions::default())
            .await
            .unwrap()
            .id,
        pulled.id
    );
    assert!(
        !fake.asked().iter().any(|(request, _)| image
            .layers
            .iter()
            .any(|(_, gz)| request.contains(&digest(gz)))),
        "layers that are here were fetched again"
    );
    assert_eq!(
        files_in(&world.state.path().join("images/downloads")),
        Vec::<String>::new()
    );
    world.finish().await;
}

#[tokio::test]
async fn a_registry_with_passwords_lets_in_only_who_knows_one() {
    let (_directory, store) = store().await;
    let registry = RealRegistry::start(true);
    registry.push("private", "1", &MadeImage::saying("secret"));
    let name = format!("{}/private:1", registry.address);
    let with = |password: &str| PullOptions {
        credentials: Some(Credentials::Basic {
            username: "user".into(),
            password: password.into(),
        }),
        ..PullOptions::default()
    };
    for options in [PullOptions::default(), with("wrong")] {
        let error = store.pull(&name, options).await.unwrap_err();
        assert!(
            matches!(error, ImageError::Unauthorized { .. }),
            "{error:?}"
        );
    }
    store.pull(&name, with("secret")).await.unwrap();
    assert!(!format!("{:?}", with("secret").credentials).contains("secret"));
}

#[tokio::test]
async fn encryption_is_used_where_wanted_and_only_with_a_trusted_authority() {
    let (_directory, store) = store().await;
    let (registry, authority) = RealRegistry::start_encrypted();
    let name = format!("{}/none:1", registry.address);
    let distrusted = store.pull(&name, PullOptions::default()).await.unwrap_err();
    assert!(
        matches!(distrusted, ImageError::Unreachable { .. }),
        "{distrusted:?}"
    );
    let config = RegistryConfig {
        extra_ca_files: vec![authority.path().into()],
        ..RegistryConfig::default()
    };
    // It holds nothing, and says so over TLS.
    let missing = store
        .with_registry_config(config)
        .pull(&name, PullOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(missing, ImageError::NotFound(_)), "{missing:?}");
}

#[tokio::test]
async fn errors_tell_apart_what_is_missing_closed_and_dead() {
    let (directory, store) = store().await;
    let registry = RealRegistry::start(false);
    let missing = store
        .pull(
            &format!("{}/no/such:1", registry.address),
            PullOptions::default(),
        )
        .await
        .unwrap_err();
    assert!(matches!(missing, ImageError::NotFound(_)), "{missing:?}");
    let address = registry.address;
    drop(registry);
    let dead = store
        .pull(&format!("{address}/a:1"), PullOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(dead, ImageError::Unreachable { .. }), "{dead:?}");
    let never = PullOptions {
        policy: PullPolicy::Never,
        ..PullOptions::default()
    };
    let absent = store.pull("a:1", never).await.unwrap_err();
    assert!(matches!(absent, ImageError::NotPresent(_)), "{absent:?}");
    let wrong = store.pull("A B", PullOptions::default()).await.unwrap_err();
    assert!(
        matches!(wrong, ImageError::InvalidReference { .. }),
        "{wrong:?}"
    );
    assert_untouched(directory.path());
}

#[tokio::test]
async fn a_token_is_fetched_and_not_shown_to_another_host() {
    let (_directory, store) = store().await;
    let image = MadeImage::saying("behind a token");
    let storage = FakeRegistry::start(|_| {
        let honest = honest(&image);
        Box::new(move |request, _| honest(request))
    });
    let elsewhere = format!("http://localhost:{}", storage.address.port());
    let registry = FakeRegistry::start(|own| {
        let honest = honest(&image);
        Box::new(move |request, headers| {
            if request.contains("/token?") {
                let right = request.contains("service=reg")
                    && request.contains("scope=repository%3Aapp%3Apull");
                let right = right && headers.contains("basic dxnlcjpzzwnyzxq=");
                return if right {
                    answer("200 OK", "", br#"{"token":"tttt"}"#)
                } else {
                    answer("401 No", "", b"")
                };
            }
            if !headers.contains("authorization: bearer tttt") {
                let challenge = format!(
                    "WWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"reg\"\r\n"
                );
                return answer("401 Unauthorized", &challenge, b"");
            }
            match request.contains("/blobs/") {
                true => {
                    let path = request.split(' ').nth(1).unwrap();
                    answer(
                        "307 Temporary Redirect",
                        &format!("Location: {elsewhere}{path}\r\n"),
                        b"",
                    )
                }
                false => honest(request),
            }
        })
    });
    let credentials = Credentials::Basic {
        username: "user".into(),
        password: "secret".into(),
    };
    let options = PullOptions {
        credentials: Some(credentials),
        ..PullOptions::default()
    };
    store
        .pull(&format!("{}/app:1", registry.address), options)
        .await
        .unwrap();
    let asked = storage.asked();
    assert_eq!(asked.len(), 3);
    assert!(
        asked
            .iter()
            .all(|(_, headers)| !headers.contains("authorization")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let (_directory, store) = store().await;
    let image = MadeImage::saying("in pieces");
    let big = image.layers[0].1.clone();
    let name = digest(&big);
    let registry = FakeRegistry::start(|_| {
        let honest = honest(&image);
        let (big, name) = (big.clone(), name.clone());
        let mut first = true;
        Box::new(move |request, headers| {
            if !request.contains(&name) {
                return honest(request);
            }
            if std::mem::take(&mut first) {
                let whole = answer("200 OK", "", &big);
                return whole[..whole.len() / 2].to_vec();
            }
            let from = headers
                .split_once("range: bytes=")
                .and_then(|(_, rest)| rest.split('-').next()?.parse::<usize>().ok());
            let from = from.unwrap_or(0);
            let range = format!(
                "Content-Range: bytes {from}-{}/{}\r\n",
                big.len() - 1,
                big.len()
            );
            answer("206 Partial Content", &range, &big[from..])
        })
    });
    store
        .pull(
            &format!("{}/app:1", registry.address),
            PullOptions::default(),
        )
        .await
        .unwrap();
    let asked = registry.asked();
    let ranges = asked
        .iter()
        .filter(|(request, headers)| request.contains(&name) && headers.contains("range: bytes="))
        .count();
    assert_eq!(ranges, 1, "{asked:?}");
}

#[tokio::test]
async fn content_that_is_not_what_was_named_is_refused() {
    let (directory, store) = store().await;
    let image = MadeImage::saying("honest");
    for part in ["manifest", "config", "layer"] {
        let forged = match part {
            "manifest" => digest(&image.manifest),
            "config" => digest(&image.config),
            _ => digest(&image.layers[1].1),
        };
        let length = image.layers[1].1.len();
        let registry = FakeRegistry::start(|_| {
            let honest = honest(&image);
            Box::new(move |request, _| match request.contains(&forged) {
                true => answer("200 OK", "", &vec![b' '; length]),
                false => honest(request),
            })
        });
        let reference = format!("{}/app@{}", registry.address, digest(&image.manifest));
        let error = store
            .pull(&reference, PullOptions::default())
            .await
            .unwrap_err();
        assert!(
            matches!(error, ImageError::Corrupt { .. }),
            "{part}: {error:?}"
        );
        assert_untouched(directory.path());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_pulls_fetch_each_layer_once() {
    let (_directory, store) = store().await;
    let image = MadeImage::saying("wanted by many");
    let registry = FakeRegistry::start(|_| {
        let honest = honest(&image);
        Box::new(move |request, _| honest(request))
    });
    let pulls = (0..6).map(|number| {
        // Two names of one image, three pulls each.
        let (store, reference) = (
            store.clone(),
            format!("{}/app:{}", registry.address, number % 2),
        );
        async move { store.pull(&reference, PullOptions::default()).await }
    });
    for result in futures::future::join_all(pulls).await {
        assert_eq!(result.unwrap().id, digest(&image.config));
    }
    let asked = registry.asked();
    let manifests = asked
        .iter()
        .filter(|(request, _)| request.contains("/manifests/"))
        .count();
    assert_eq!(manifests, 2, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_in_use_stays_and_shared_layers_outlive_one_user() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let images = world.runtime.images().clone();
    let id = world
        .runtime
        .create_container("pod", script("user", "true"))
        .await
        .unwrap();
    let error = images.remove(IMAGE).await.unwrap_err();
    assert!(matches!(error, ImageError::InUse { .. }), "{error:?}");
    world.runtime.remove_container(&id).await.unwrap();
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("shared"), "s").unwrap();
    let layers = || vec![LayerSource::Directory(shared.path().into())];
    let one = ImageConfig {
        user: "1".into(),
        ..ImageConfig::default()
    };
    let two = ImageConfig {
        user: "2".into(),
        ..ImageConfig::default()
    };
    let first = images.import_image("one", one, layers()).await.unwrap();
    let second = images.import_image("two", two, layers()).await.unwrap();
    assert_eq!(first.layers, second.layers);
    let layer = world
        .state
        .path()
        .join("images/layers")
        .join(&first.layers[0][7..31]);
    images.remove("one").await.unwrap();
    assert!(layer.join("shared").exists());
    images.remove(&second.id).await.unwrap();
    assert!(!layer.exists());
    images.remove(IMAGE).await.unwrap();
    assert!(images.list().await.unwrap().is_empty());
    assert!(matches!(
        images.remove("one").await,
        Err(ImageError::NotPresent(_))
    ));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upper_layer_hides_files_of_a_lower_one() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "x").unwrap();
    let busybox = if Path::new("/bin/busybox").exists() {
        "/bin/busybox"
    } else {
        "/usr/bin/busybox"
    };
    let entry = |path: &str| (path.to_owned(), file.path().to_path_buf(), 0o644);
    let layers = vec![
        LayerSource::Files(vec![
            ("bin/sh".into(), busybox.into(), 0o755),
            ("bin/ls".into(), busybox.into(), 0o755),
            entry("a/gone"),
            entry("a/kept"),
            entry("b/old"),
        ]),
        LayerSource::Files(vec![
            entry("a/.wh.gone"),
            entry("b/.wh..wh..opq"),
            entry("b/new"),
        ]),
    ];
    world
        .runtime
        .images()
        .import_image("layered", ImageConfig::default(), layers)
        .await
        .unwrap();
    let spec = ContainerSpec {
        image: "layered".into(),
        ..script("look", "ls /a /b")
    };
    assert_eq!(world.run("pod", spec).await.1, "/a:\nkept\n\n/b:\nnew\n");
    world.finish().await;
}
