//! Projects, logstores and indexes: made, shown, changed and removed.

use super::LogService;
use super::record::{IndexRecord, LogstoreRecord, ProjectRecord};
use super::refusal::Refused;
use super::server::Reply;
use super::store::{Shelf, Write};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Most projects.
const MAX_PROJECTS: usize = 50;
/// Most logstores of a project.
const MAX_LOGSTORES: usize = 200;
/// Most names in one page of a list.
const MAX_PAGE: usize = 500;
/// Days that logs may be kept; the longest means for ever.
const TTL_DAYS: std::ops::RangeInclusive<i64> = 1..=3_650;
/// Most shards that may be asked for; all logs lie in one all the same.
const SHARDS: std::ops::RangeInclusive<i64> = 1..=100;
/// What a logstore may be given; the rest is refused by name.
const SETTINGS: [&str; 13] = [
    "logstoreName",
    "ttl",
    "shardCount",
    "enable_tracking",
    "autoSplit",
    "maxSplitShard",
    "appendMeta",
    "telemetryType",
    "hot_ttl",
    "mode",
    "infrequentAccessTTL",
    "preserveStorage",
    "productType",
];

/// An object in the body of a request.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        Refused::new(
            400,
            "PostBodyInvalid",
            format!("the body is no JSON object: {error}"),
        )
    })
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

/// Names as the service takes them.
fn check_name(what: &str, name: &str, marks: &[u8]) -> Result<(), Refused> {
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let ends = bytes.first().is_some_and(is_plain) && bytes.last().is_some_and(is_plain);
    if ends
        && (2..=63).contains(&name.len())
        && bytes
            .iter()
            .all(|byte| is_plain(byte) || marks.contains(byte))
    {
        return Ok(());
    }
    Err(Refused::parameter(format!(
        "{what} {name:?} must be 2 to 63 lower-case letters, digits and dashes, with a letter or digit at both ends"
    )))
}

/// The wanted page of names that contain a part.
fn page<'a>(
    names: impl Iterator<Item = &'a String>,
    part: &str,
    offset: Option<&str>,
    size: Option<&str>,
) -> Result<(usize, Vec<&'a String>), Refused> {
    let number = |name: &str, given: Option<&str>, default: usize| match given {
        None | Some("") => Ok(default),
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| Refused::parameter(format!("{name} must be a number, not {text:?}"))),
    };
    let offset = number("offset", offset, 0)?;
    let size = number("size", size, MAX_PAGE)?.min(MAX_PAGE);
    let all: Vec<&String> = names.filter(|name| name.contains(part)).collect();
    Ok((all.len(), all.into_iter().skip(offset).take(size).collect()))
}

fn moment(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(
        |_| String::new(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

fn project_json(name: &str, record: &ProjectRecord, region: &str) -> Value {
    json!({
        "projectName": name,
        "description": record.description,
        "status": "Normal",
        "owner": crate::ram::ACCOUNT,
        "region": region,
        "createTime": moment(record.created_at),
        "lastModifyTime": moment(record.changed_at),
        "resourceGroupId": "",
        "dataRedundancyType": "LRS",
    })
}

impl LogService {
    async fn write(&self, writes: Vec<Write>) -> Result<(), Refused> {
        self.store
            .write(writes)
            .await
            .map_err(|error| Refused::internal(&error))
    }

    pub(super) async fn create_project(
        &self,
        project: &str,
        body: &[u8],
    ) -> Result<Reply, Refused> {
        let body = object(body)?;
        let name = text(&body, "projectName").unwrap_or(project);
        if !project.is_empty() && name != project {
            let message =
                format!("projectName {name:?} is not the project {project:?} that the host names");
            return Err(Refused::parameter(message));
        }
        check_name("projectName", name, b"-")?;
        let _one = self.managing.lock().await;
        {
            let contents = self.store.contents();
            if contents.projects.contains_key(name) {
                let message = format!("Project with the same name already exists: {name}");
                return Err(Refused::new(400, "ProjectAlreadyExist", message));
            }
            if contents.projects.len() >= MAX_PROJECTS {
                let message = format!("there may be at most {MAX_PROJECTS} projects");
                return Err(Refused::new(403, "ExceedQuota", message));
            }
        }
        let now = self.now();
        let record = ProjectRecord {
            description: text(&body, "description").unwrap_or_default().to_owned(),
            created_at: now,
            changed_at: now,
        };
        self.put_project(name, record).await
    }

    async fn put_project(&self, name: &str, record: ProjectRecord) -> Result<Reply, Refused> {
        self.write(vec![Write::Project(name.to_owned(), Some(record.clone()))])
            .await?;
        self.store
            .contents()
            .projects
            .insert(name.to_owned(), record);
        Ok(Reply::empty())
    }

    fn project(&self, name: &str) -> Result<ProjectRecord, Refused> {
        let contents = self.store.contents();
        let record = contents.projects.get(name);
        record.cloned().ok_or_else(|| Refused::no_project(name))
    }

    pub(super) async fn update_project(&self, name: &str, body: &[u8]) -> Result<Reply, Refused> {
        let body = object(body)?;
        let _one = self.managing.lock().await;
        let mut record = self.project(name)?;
        if let Some(description) = text(&body, "description") {
            description.clone_into(&mut record.description);
        }
        record.changed_at = self.now();
        self.put_project(name, record).await
    }

    pub(super) fn get_project(&self, name: &str) -> Result<Reply, Refused> {
        let record = self.project(name)?;
        Ok(Reply::json(&project_json(
            name,
            &record,
            &self.shared.config.region,
        )))
    }

    pub(super) fn list_projects(
        &self,
        part: &str,
        offset: Option<&str>,
        size: Option<&str>,
    ) -> Result<Reply, Refused> {
        let contents = self.store.contents();
        let (total, names) = page(contents.projects.keys(), part, offset, size)?;
        let region = &self.shared.config.region;
        let shown =
            |name: &&String| Some(project_json(name, contents.projects.get(*name)?, region));
        let projects: Vec<Value> = names.iter().filter_map(shown).collect();
        Ok(Reply::json(
            &json!({"count": projects.len(), "total": total, "projects": projects}),
        ))
    }

    pub(super) async fn delete_project(&self, name: &str) -> Result<Reply, Refused> {
        let _one = self.managing.lock().await;
        self.project(name)?;
        let keys: Vec<(String, String)> = {
            let contents = self.store.contents();
            let own = contents
                .logstores
                .keys()
                .filter(|(project, _)| project == name);
            own.cloned().collect()
        };
        let mut writes = vec![Write::Project(name.to_owned(), None)];
        for key in &keys {
            writes.extend(self.removal(key));
        }
        self.write(writes).await?;
        let mut contents = self.store.contents();
        contents.projects.remove(name);
        for key in &keys {
            contents.remove(key);
        }
        Ok(Reply::empty())
    }

    /// What removes a logstore from the file.
    fn removal(&self, key: &(String, String)) -> Vec<Write> {
        let contents = self.store.contents();
        let id = contents.logstores.get(key).map(|shelf| shelf.record.id);
        let forget = id.map(|id| Write::Forget(id, u64::MAX));
        forget
            .into_iter()
            .chain([Write::Logstore(key.clone(), None)])
            .collect()
    }

    pub(super) async fn create_logstore(
        &self,
        project: &str,
        body: &[u8],
    ) -> Result<Reply, Refused> {
        let settings = object(body)?;
        let name = text(&settings, "logstoreName")
            .ok_or_else(|| Refused::parameter("logstoreName must be given"))?
            .to_owned();
        check_name("logstoreName", &name, b"-_")?;
        let ttl = check_settings(&settings)?;
        let _one = self.managing.lock().await;
        self.project(project)?;
        let key = (project.to_owned(), name.clone());
        let id = {
            let mut contents = self.store.contents();
            if contents.logstores.contains_key(&key) {
                let message = format!("logstore {name} already exists");
                return Err(Refused::new(400, "LogStoreAlreadyExist", message));
            }
            let own = contents.logstores.keys().filter(|(of, _)| of == project);
            if own.count() >= MAX_LOGSTORES {
                let message = format!("a project may have at most {MAX_LOGSTORES} logstores");
                return Err(Refused::new(403, "ExceedQuota", message));
            }
            contents.newest += 1;
            contents.newest
        };
        let now = self.now();
        let record = LogstoreRecord {
            id,
            ttl,
            settings,
            created_at: now,
            changed_at: now,
            index: None,
        };
        self.write(vec![Write::Logstore(key.clone(), Some(record.clone()))])
            .await?;
        let blocks = Vec::new();
        self.store
            .contents()
            .logstores
            .insert(key, Shelf { record, blocks });
        Ok(Reply::empty())
    }

    fn record(&self, project: &str, logstore: &str) -> Result<LogstoreRecord, Refused> {
        self.project(project)?;
        let contents = self.store.contents();
        let shelf = contents
            .logstores
            .get(&(project.to_owned(), logstore.to_owned()));
        shelf
            .map(|shelf| shelf.record.clone())
            .ok_or_else(|| Refused::no_logstore(logstore))
    }

    async fn put_record(
        &self,
        project: &str,
        logstore: &str,
        record: LogstoreRecord,
    ) -> Result<Reply, Refused> {
        let key = (project.to_owned(), logstore.to_owned());
        self.write(vec![Write::Logstore(key.clone(), Some(record.clone()))])
            .await?;
        if let Some(shelf) = self.store.contents().logstores.get_mut(&key) {
            shelf.record = record;
        }
        Ok(Reply::empty())
    }

    pub(super) async fn update_logstore(
        &self,
        project: &str,
        logstore: &str,
        body: &[u8],
    ) -> Result<Reply, Refused> {
        let settings = object(body)?;
        let _one = self.managing.lock().await;
        let mut record = self.record(project, logstore)?;
        record.settings.extend(settings);
        record
            .settings
            .insert("logstoreName".to_owned(), json!(logstore));
        record.ttl = check_settings(&record.settings)?;
        record.changed_at = self.now();
        self.put_record(project, logstore, record).await
    }

    pub(super) fn get_logstore(&self, project: &str, logstore: &str) -> Result<Reply, Refused> {
        let record = self.record(project, logstore)?;
        let mut shown = json!({
            "logstoreName": logstore,
            "ttl": record.ttl,
            "shardCount": 1,
            "enable_tracking": false,
            "appendMeta": false,
            "autoSplit": false,
            "maxSplitShard": 64,
            "createTime": record.created_at,
            "lastModifyTime": record.changed_at,
        });
        for (name, value) in record.settings {
            shown[name] = value;
        }
        Ok(Reply::json(&shown))
    }

    pub(super) fn list_logstores(
        &self,
        project: &str,
        part: &str,
        offset: Option<&str>,
        size: Option<&str>,
    ) -> Result<Reply, Refused> {
        self.project(project)?;
        let contents = self.store.contents();
        let own = contents.logstores.keys().filter(|(of, _)| of == project);
        let (total, names) = page(own.map(|(_, name)| name), part, offset, size)?;
        Ok(Reply::json(
            &json!({"count": names.len(), "total": total, "logstores": names}),
        ))
    }

    pub(super) async fn delete_logstore(
        &self,
        project: &str,
        logstore: &str,
    ) -> Result<Reply, Refused> {
        let _one = self.managing.lock().await;
        self.record(project, logstore)?;
        let key = (project.to_owned(), logstore.to_owned());
        self.write(self.removal(&key)).await?;
        self.store.contents().remove(&key);
        Ok(Reply::empty())
    }

    pub(super) async fn put_index(
        &self,
        project: &str,
        logstore: &str,
        body: &[u8],
        is_new: bool,
    ) -> Result<Reply, Refused> {
        let body = Value::Object(object(body)?);
        IndexRecord::check(&body).map_err(Refused::parameter)?;
        let _one = self.managing.lock().await;
        let mut record = self.record(project, logstore)?;
        if is_new && record.index.is_some() {
            let message = "log store index is already created; change it with UpdateIndex";
            return Err(Refused::new(400, "IndexAlreadyExist", message));
        }
        if !is_new && record.index.is_none() {
            return Err(no_index());
        }
        let changed_at = self.now();
        record.index = Some(IndexRecord { body, changed_at });
        self.put_record(project, logstore, record).await
    }

    pub(super) fn get_index(&self, project: &str, logstore: &str) -> Result<Reply, Refused> {
        let index = self.record(project, logstore)?.index.ok_or_else(no_index)?;
        let mut shown = index.body;
        shown["lastModifyTime"] = json!(index.changed_at);
        if shown.get("ttl").is_none() {
            shown["ttl"] = json!(30);
        }
        Ok(Reply::json(&shown))
    }

    pub(super) async fn delete_index(
        &self,
        project: &str,
        logstore: &str,
    ) -> Result<Reply, Refused> {
        let _one = self.managing.lock().await;
        let mut record = self.record(project, logstore)?;
        if record.index.take().is_none() {
            return Err(no_index());
        }
        self.put_record(project, logstore, record).await
    }
}

fn no_index() -> Refused {
    Refused::new(404, "IndexConfigNotExist", "index config doesn't exist")
}

/// Checks what was said about a logstore; answers with the days its logs are kept.
fn check_settings(settings: &Map<String, Value>) -> Result<u32, Refused> {
    let is_known = |name: &&String| SETTINGS.contains(&name.as_str());
    if let Some(unknown) = settings.keys().find(|name| !is_known(name)) {
        return Err(Refused::parameter(format!(
            "{unknown} is not supported by this log service; leave it out"
        )));
    }
    let number = |name: &str, bounds: &std::ops::RangeInclusive<i64>, default: i64| {
        let given = settings.get(name).filter(|value| !value.is_null());
        let number = given.map_or(Some(default), Value::as_i64);
        number
            .filter(|number| bounds.contains(number))
            .ok_or_else(|| {
                Refused::parameter(format!(
                    "{name} must be a number from {} to {}",
                    bounds.start(),
                    bounds.end()
                ))
            })
    };
    number("shardCount", &SHARDS, 1)?;
    let ttl = number("ttl", &TTL_DAYS, 30)?;
    Ok(u32::try_from(ttl).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_names_are_checked_with_the_name_told() {
        let settings = |value: Value| value.as_object().unwrap().clone();
        assert_eq!(
            check_settings(&settings(json!({"ttl": 7, "shardCount": 2}))),
            Ok(7)
        );
        for (given, told) in [
            (json!({"ttl": 0}), "ttl must be"),
            (json!({"ttl": "x"}), "ttl must be"),
            (json!({"shardCount": 101}), "shardCount"),
            (json!({"encrypt_conf": {}}), "encrypt_conf is not supported"),
        ] {
            let error = check_settings(&settings(given)).unwrap_err();
            assert!(error.message.contains(told), "{error}");
        }
        assert!(check_name("x", "my-logs", b"-").is_ok());
        for name in ["", "a", "-ab", "aB", "a_b", "ab-"] {
            assert!(check_name("x", name, b"-").is_err(), "{name}");
        }
    }
}
