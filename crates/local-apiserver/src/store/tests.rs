use super::*;
use serde_json::json;

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n"}, "data": {"k": value}})
}

fn write(key: &str, expected: Option<u64>, change: Change) -> Write {
    Write {
        resource: "configmaps".into(),
        key: key.into(),
        expected,
        change,
    }
}

async fn create(store: &Store, name: &str) -> Arc<StoredObject> {
    let change = put(config_map(name, "1"));
    store
        .write(write(&format!("n/{name}"), None, change))
        .await
        .expect("created")
}

#[tokio::test]
async fn acknowledged_writes_are_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let (store, owner) = Store::open(directory.path()).unwrap();
    let first = create(&store, "a").await;
    create(&store, "b").await;
    let change = Change::Delete(Prepared::new(config_map("b", "1")));
    let second = store.get("configmaps", "n/b").unwrap().revision;
    store
        .write(write("n/b", Some(second), change))
        .await
        .unwrap();
    let revision = store.revision();
    owner.close().await;
    let (store, _owner) = Store::open(directory.path()).unwrap();
    assert_eq!(store.revision(), revision);
    assert!(store.get("configmaps", "n/b").is_none());
    let again = store.get("configmaps", "n/a").unwrap();
    assert_eq!((again.revision, &again.tree), (first.revision, &first.tree));
}

#[tokio::test]
async fn a_stale_write_conflicts_and_a_second_create_finds_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _owner) = Store::open(directory.path()).unwrap();
    let first = create(&store, "a").await;
    let again = store
        .write(write("n/a", None, put(config_map("a", "2"))))
        .await;
    assert!(matches!(again, Err(WriteError::Exists)));
    let next = write("n/a", Some(first.revision), put(config_map("a", "2")));
    store.write(next).await.unwrap();
    let stale = write("n/a", Some(first.revision), put(config_map("a", "3")));
    assert!(matches!(
        store.write(stale).await,
        Err(WriteError::Conflict)
    ));
}

#[tokio::test]
async fn an_older_revision_can_be_listed_until_it_is_compacted() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _owner) = Store::open(directory.path()).unwrap();
    let a = create(&store, "a").await;
    let b = create(&store, "b").await;
    let next = write("n/a", Some(a.revision), put(config_map("a", "2")));
    store.write(next).await.unwrap();
    let then = store.list_at("configmaps", "n/", b.revision).unwrap();
    let values: Vec<_> = then
        .objects
        .iter()
        .map(|(_, o)| o.tree["data"]["k"].clone())
        .collect();
    assert_eq!(values, ["1", "1"]);
    let (events, _) = store.events_after("configmaps", a.revision, 10).unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Added, EventKind::Modified]);
    store.compact();
    assert!(matches!(
        store.list_at("configmaps", "n/", b.revision),
        Err(SnapshotError::Forgotten { .. })
    ));
}

#[tokio::test]
async fn two_stores_refuse_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (_store, _owner) = Store::open(directory.path()).unwrap();
    assert!(matches!(
        Store::open(directory.path()),
        Err(StoreError::Locked(_))
    ));
}

#[tokio::test]
async fn a_directory_of_another_format_is_refused_with_both_versions_named() {
    let directory = tempfile::tempdir().unwrap();
    {
        let database = redb::Database::create(directory.path().join("objects.redb")).unwrap();
        let write = database.begin_write().unwrap();
        {
            let meta: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("meta");
            let mut table = write.open_table(meta).unwrap();
            table
                .insert("format", b"springtide-store-9".as_slice())
                .unwrap();
        }
        write.commit().unwrap();
    }
    let Err(error) = Store::open(directory.path()) else {
        panic!("opened another version's directory");
    };
    let text = error.to_string();
    assert!(
        text.contains("springtide-store-9") && text.contains("springtide-store-1"),
        "{text}"
    );
}

#[tokio::test]
async fn concurrent_writers_share_transactions_and_all_survive() {
    let directory = tempfile::tempdir().unwrap();
    let (store, owner) = Store::open(directory.path()).unwrap();
    let tasks: Vec<_> = (0..300)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { create(&store, &format!("c{number:03}")).await.revision })
        })
        .collect();
    let mut revisions = Vec::new();
    for task in tasks {
        revisions.push(task.await.unwrap());
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 300);
    owner.close().await;
    let (store, _owner) = Store::open(directory.path()).unwrap();
    assert_eq!(store.list("configmaps", "n/").objects.len(), 300);
}
