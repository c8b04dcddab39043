use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Knows the token `good` of `prometheus`, who may read metrics.
#[derive(Default)]
struct Cluster {
    asked: AtomicUsize,
    down: bool,
}

#[async_trait]
impl Reviewer for Cluster {
    async fn authenticate(&self, token: &str) -> Result<Option<User>, ReviewError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.down {
            return Err(ReviewError {
                attempted: "review a token",
                source: "no route".into(),
            });
        }
        Ok((token == "good").then(|| User {
            name: "prometheus".to_string(),
            ..User::default()
        }))
    }

    async fn authorize(&self, _user: &User, wanted: &Attributes) -> Result<bool, ReviewError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(wanted.subresource == "metrics" && wanted.verb == "get" && wanted.node == "n")
    }
}

fn gate(cluster: Cluster) -> (Gate, Arc<Cluster>) {
    let cluster = Arc::new(cluster);
    (Gate::new("n".to_string(), cluster.clone()), cluster)
}

fn bearing(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = format!("Bearer {token}").parse().unwrap();
    headers.insert(header::AUTHORIZATION, value);
    headers
}

async fn get(gate: &Gate, path: &str, headers: &HeaderMap) -> u16 {
    let checked = gate.check(None, &Method::GET, path, headers).await;
    checked.map_or_else(|refused| refused.status.as_u16(), |()| 200)
}

#[tokio::test]
async fn nobody_and_unknown_tokens_are_unauthorized() {
    let (gate, _) = gate(Cluster::default());
    assert_eq!(get(&gate, "/metrics", &HeaderMap::new()).await, 401);
    assert_eq!(get(&gate, "/metrics", &bearing("bad")).await, 401);
    let mut basic = HeaderMap::new();
    basic.insert(header::AUTHORIZATION, "Basic good".parse().unwrap());
    assert_eq!(get(&gate, "/metrics", &basic).await, 401);
}

#[tokio::test]
async fn a_known_user_may_what_the_rules_allow_and_is_asked_about_once() {
    let (gate, cluster) = gate(Cluster::default());
    for _ in 0..5 {
        assert_eq!(get(&gate, "/metrics/cadvisor", &bearing("good")).await, 200);
    }
    assert_eq!(cluster.asked.load(Ordering::Relaxed), 2);
    assert_eq!(get(&gate, "/pods", &bearing("good")).await, 403);
    assert_eq!(get(&gate, "/stats/summary", &bearing("good")).await, 403);
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_lets_nobody_in() {
    let (gate, _) = gate(Cluster {
        down: true,
        ..Cluster::default()
    });
    assert_eq!(get(&gate, "/metrics", &bearing("good")).await, 500);
}

#[tokio::test]
async fn masters_are_let_in_without_asking() {
    let (gate, cluster) = gate(Cluster::default());
    let user = User {
        groups: vec![MASTERS.to_string()],
        ..User::default()
    };
    let headers = HeaderMap::new();
    let checked = gate.check(Some(&user), &Method::POST, "/exec/a/b/c", &headers);
    assert_eq!(checked.await, Ok(()));
    assert_eq!(cluster.asked.load(Ordering::Relaxed), 0);
}

#[test]
fn answers_are_forgotten_when_they_are_old_or_too_many() {
    let known = Remembered::new();
    let now = Instant::now();
    let later = now + Duration::from_secs(60);
    known.put(1, "old", now + Duration::from_secs(1), now);
    assert_eq!(known.get(&1, now), Some("old"));
    assert_eq!(known.get(&1, later), None);
    for key in 0..(REMEMBERED_MAX as i32 * 3) {
        known.put(key, "new", later, now);
        assert!(known.0.lock().unwrap().len() <= REMEMBERED_MAX);
    }
}

#[test]
fn paths_need_the_right_that_upstream_asks_for() {
    for (path, wanted) in [
        ("/metrics/resource", &["metrics"][..]),
        ("/stats/summary", &["stats"]),
        ("/logs/x", &["log"]),
        ("/runningpods/", &["pods", "proxy"]),
        ("/exec/a/b/c", &["proxy"]),
        ("/containerLogs/a/b/c", &["proxy"]),
        ("", &["proxy"]),
    ] {
        assert_eq!(subresources(path), wanted, "{path}");
    }
}
