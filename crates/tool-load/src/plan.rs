//! What to run: the target, the users over time, and the checks that happen before anything starts.

use std::time::Duration;

/// Most virtual users one process takes; each holds one connection.
pub const USERS_MAX: u32 = 50_000;

/// A plain HTTP target, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path and query, starting with `/`.
    pub path: String,
}

/// Some users for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// How long the stage lasts.
    pub duration: Duration,
    /// Concurrent users during it.
    pub users: u32,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadPlan {
    /// Where requests go.
    pub target: Target,
    /// Users over time, one stage after the other; afterwards every user ends.
    pub stages: Vec<Stage>,
    /// Mean pause of a user between an answer and the next request; each pause is drawn evenly from half to one and a half of it.
    pub think_time: Duration,
    /// A request without a complete answer by then has failed.
    pub request_timeout: Duration,
    /// Response header whose values are counted, for example the pod that served.
    pub count_header: Option<String>,
    /// Seed of the users' pauses.
    pub seed: u64,
}

/// Why a plan cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The URL is not one we can use.
    #[error("url {url:?}: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What to change.
        reason: &'static str,
    },
    /// No users or no time.
    #[error("{field}: {reason}")]
    Value {
        /// The flag or field.
        field: &'static str,
        /// What to change.
        reason: String,
    },
}

impl Target {
    /// Takes an `http://host[:port][/path][?query]` apart.
    ///
    /// # Errors
    /// Anything else, with what to change.
    pub fn parse(url: &str) -> Result<Self, PlanError> {
        let refuse = |reason| PlanError::Url {
            url: url.to_string(),
            reason,
        };
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| refuse("must start with http:// (TLS is not supported)"))?;
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('?') => (&rest[..at], format!("/{}", &rest[at..])),
            Some(at) => (&rest[..at], rest[at..].to_string()),
            None => (rest, "/".to_string()),
        };
        if authority.contains('@') {
            return Err(refuse("must not carry a user name or password"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse::<u16>().ok().filter(|port| *port > 0);
                (
                    host,
                    port.ok_or_else(|| refuse("the port must be 1 to 65535"))?,
                )
            }
            _ => (authority, 80),
        };
        if host.is_empty() {
            return Err(refuse("must name a host"));
        }
        let path = path.split('#').next().unwrap_or("/").to_string();
        if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(refuse("must not contain spaces or control characters"));
        }
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_string(),
            port,
            path,
        })
    }

    /// The `Host` header.
    pub fn authority(&self) -> String {
        match (self.host.contains(':'), self.port) {
            (true, port) => format!("[{}]:{port}", self.host),
            (false, 80) => self.host.clone(),
            (false, port) => format!("{}:{port}", self.host),
        }
    }
}

/// A closed rise and fall: `steps` even steps up to `users`, a hold at the top, and `steps / 2` steps down; a third of
/// `duration` each.
pub fn closed_steps(users: u32, steps: u32, duration: Duration) -> Vec<Stage> {
    let third = duration / 3;
    let up = steps.max(1);
    let down = (steps / 2).max(1);
    let level = |part: u32, of: u32| {
        u32::try_from(u64::from(users) * u64::from(part) / u64::from(of)).unwrap_or(users)
    };
    let rise = (1..up).map(|step| Stage {
        duration: third / up,
        users: level(step, up).max(1),
    });
    let top = Stage {
        duration: third / up + third,
        users,
    };
    let fall = (0..down).map(|step| Stage {
        duration: third / down,
        users: level(down - step, down + 1).max(1),
    });
    rise.chain([top]).chain(fall).collect()
}

impl LoadPlan {
    /// Users wanted at `elapsed`; `None` when the plan is over.
    pub fn users_at(&self, elapsed: Duration) -> Option<u32> {
        let mut end = Duration::ZERO;
        self.stages
            .iter()
            .find(|stage| {
                end += stage.duration;
                elapsed < end
            })
            .map(|stage| stage.users)
    }

    /// How long all stages last together.
    pub fn duration(&self) -> Duration {
        self.stages.iter().map(|stage| stage.duration).sum()
    }

    /// Refuses what cannot be run, before the first connection.
    ///
    /// # Errors
    /// The first value that is out of range.
    pub fn check(&self) -> Result<(), PlanError> {
        let value = |field, reason: String| Err(PlanError::Value { field, reason });
        if self.duration().is_zero() {
            return value("duration", "must be longer than zero".to_string());
        }
        let peak = self
            .stages
            .iter()
            .map(|stage| stage.users)
            .max()
            .unwrap_or(0);
        if peak == 0 || peak > USERS_MAX {
            return value("users", format!("must be 1 to {USERS_MAX}, not {peak}"));
        }
        if self.request_timeout.is_zero() {
            return value("timeout", "must be longer than zero".to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_taken_apart_and_odd_ones_refused_with_what_to_change() {
        let target = |url: &str| Target::parse(url).unwrap();
        assert_eq!(target("http://127.0.0.1:8080/a?b=c").path, "/a?b=c");
        assert_eq!(target("http://shop").port, 80);
        assert_eq!(target("http://shop?x=1").path, "/?x=1");
        assert_eq!(target("http://[::1]:81/").host, "::1");
        assert_eq!(target("http://[::1]:81/").authority(), "[::1]:81");
        for (url, part) in [
            ("https://shop", "TLS"),
            ("http://", "host"),
            ("http://a:0/", "port"),
            ("http://u:p@a/", "password"),
            ("http://a/ b", "spaces"),
        ] {
            let text = Target::parse(url).unwrap_err().to_string();
            assert!(text.contains(part), "{url}: {text}");
        }
    }

    fn plan(stages: Vec<Stage>) -> LoadPlan {
        LoadPlan {
            target: Target::parse("http://a/").unwrap(),
            stages,
            think_time: Duration::from_millis(10),
            request_timeout: Duration::from_secs(1),
            count_header: None,
            seed: 1,
        }
    }

    #[test]
    fn users_rise_hold_and_fall_and_the_plan_ends() {
        let plan = plan(closed_steps(1000, 10, Duration::from_secs(90)));
        assert_eq!(plan.users_at(Duration::ZERO), Some(100));
        assert_eq!(plan.users_at(Duration::from_secs(45)), Some(1000));
        assert_eq!(plan.users_at(Duration::from_secs(89)), Some(166));
        assert_eq!(plan.users_at(Duration::from_secs(90)), None);
    }

    #[test]
    fn a_plan_without_users_or_time_is_refused_by_field() {
        assert!(
            plan(Vec::new())
                .check()
                .unwrap_err()
                .to_string()
                .contains("duration")
        );
        let none = vec![Stage {
            duration: Duration::from_secs(1),
            users: 0,
        }];
        assert!(
            plan(none)
                .check()
                .unwrap_err()
                .to_string()
                .contains("users")
        );
    }

    proptest! {
        #[test]
        fn steps_never_exceed_the_top_and_last_as_long_as_asked(
            users in 1u32..5000, steps in 1u32..40, seconds in 3u64..600,
        ) {
            let stages = closed_steps(users, steps, Duration::from_secs(seconds));
            prop_assert!(stages.iter().all(|stage| stage.users >= 1 && stage.users <= users));
            prop_assert!(stages.iter().any(|stage| stage.users == users));
            let total: Duration = stages.iter().map(|stage| stage.duration).sum();
            prop_assert!(total.abs_diff(Duration::from_secs(seconds)) < Duration::from_millis(1));
        }

        #[test]
        fn no_text_makes_the_url_parser_panic(text in "\\PC{0,40}") {
            let _ = Target::parse(&format!("http://{text}"));
        }
    }
}
