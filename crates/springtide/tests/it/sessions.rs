//! kubectl's sessions on both tiers, carried by WebSockets and by SPDY/3.1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::busybox;
use crate::cluster::{TestCluster, run, wait_for};

/// What kubectl speaks. Versions before 1.30 know only SPDY, whatever the environment says.
#[derive(Clone, Copy, Debug)]
enum Speech {
    WebSocket,
    Spdy,
}

const BOTH: [Speech; 2] = [Speech::WebSocket, Speech::Spdy];
const TIERS: [&str; 2] = ["owned", "cloud"];

fn kubectl(cluster: &TestCluster, speech: Speech, arguments: &[&str]) -> Command {
    let mut command = cluster.kubectl_command(arguments);
    let wanted = match speech {
        Speech::WebSocket => "true",
        Speech::Spdy => "false",
    };
    for name in [
        "KUBECTL_PORT_FORWARD_WEBSOCKETS",
        "KUBECTL_REMOTE_COMMAND_WEBSOCKETS",
    ] {
        command.env(name, wanted);
    }
    command
}

fn ask(cluster: &TestCluster, speech: Speech, arguments: &[&str], input: Option<&str>) -> String {
    run(&mut kubectl(cluster, speech, arguments), input)
        .unwrap_or_else(|error| panic!("{speech:?} {arguments:?}: {error}\n{}", cluster.log()))
}

/// A web server that says who it is, on a worker or on a virtual node.
fn web(name: &str, script: &str) -> String {
    let mut labels = json!({"app": name});
    if name.starts_with("cloud") {
        labels["alibabacloud.com/eci"] = "true".into();
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": busybox::REFERENCE, "command": ["sh", "-c", script], "stdin": true,
            }],
        },
    })
    .to_string()
}

fn serve_script(name: &str) -> String {
    format!(
        "mkdir -p /www /tmp; echo I am {name} > /www/index.html; seq 1 200000 > /www/long; echo started; exec busybox httpd -f -p 8080 -h /www"
    )
}

fn start() -> TestCluster {
    let cluster = TestCluster::start(&["--workers", "1"]);
    cluster.load_image(&busybox::archive(cluster.folder.path()));
    for name in TIERS {
        cluster.apply(&web(name, &serve_script(name)));
    }
    for name in TIERS {
        cluster.wait_for_value(&["pod", name], "/status/phase", &json!("Running"));
        wait_for("the web server", 30, || {
            cluster.try_kubectl(&["exec", name, "--", "cat", "/www/index.html"], None)
        });
    }
    cluster
}

/// A running `kubectl port-forward`.
pub struct Forward {
    process: Child,
    port: u16,
    /// What it says on standard error.
    said: Arc<Mutex<String>>,
}

impl Forward {
    fn start(cluster: &TestCluster, speech: Speech, target: &str, port: &str) -> Self {
        let command = kubectl(cluster, speech, &["port-forward", target, port]);
        Self::of(command, || cluster.log())
    }

    /// Waits until it listens; `log` is shown when it does not.
    pub fn of(mut command: Command, log: impl Fn() -> String) -> Self {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let port = line
            .strip_prefix("Forwarding from 127.0.0.1:")
            .and_then(|rest| rest.split(' ').next()?.parse().ok());
        let Some(port) = port else {
            let mut error = String::new();
            let _ = process.kill();
            let _ = process.stderr.take().unwrap().read_to_string(&mut error);
            panic!("{command:?}: {line}{error}\n{}", log());
        };
        // Its further lines have to go somewhere.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let said = Arc::new(Mutex::new(String::new()));
        let (sink, mut stderr) = (said.clone(), process.stderr.take().unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                sink.lock().unwrap().push_str(&text);
            }
        });
        Self {
            process,
            port,
            said,
        }
    }

    pub fn get(&self, path: &str) -> Result<String, String> {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.port)).map_err(|error| error.to_string())?;
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .map_err(|error| error.to_string())?;
        Ok(answer)
    }

    pub fn wait_until_said(&self, text: &str) {
        wait_for(&format!("{text:?} from port-forward"), 60, || {
            let said = self.said.lock().unwrap().clone();
            if said.contains(text) {
                Ok(())
            } else {
                Err(said)
            }
        });
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn ports_of_pods_services_and_deployments_are_forwarded_on_both_tiers() {
    let mut cluster = start();
    for speech in BOTH {
        for name in TIERS {
            let forward = Forward::start(&cluster, speech, &format!("pod/{name}"), ":8080");
            let answers = std::thread::scope(|scope| {
                let asking: Vec<_> = (0..8)
                    .map(|index| {
                        scope.spawn({
                            let forward = &forward;
                            move || forward.get(if index % 2 == 0 { "/" } else { "/long" })
                        })
                    })
                    .collect();
                let join = |one: std::thread::ScopedJoinHandle<'_, _>| one.join().unwrap();
                asking.into_iter().map(join).collect::<Vec<_>>()
            });
            for (index, answer) in answers.into_iter().enumerate() {
                let answer = answer.unwrap();
                let wanted = if index % 2 == 0 {
                    format!("I am {name}\n")
                } else {
                    "\n199999\n200000\n".to_string()
                };
                assert!(
                    answer.ends_with(&wanted),
                    "{speech:?} {name}: {} bytes",
                    answer.len()
                );
            }
        }
    }
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "main", "image": busybox::REFERENCE, "command": ["sh", "-c", serve_script("web")],
                }]},
            },
        },
    });
    cluster.apply(&deployment.to_string());
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]);
    for (target, port) in [("service/web", ":80"), ("deployment/web", ":8080")] {
        let forward = Forward::start(&cluster, Speech::WebSocket, target, port);
        let answer = wait_for("the deployment's web server", 30, || {
            forward.get("/").and_then(|answer| {
                if answer.ends_with("I am web\n") {
                    Ok(answer)
                } else {
                    Err(answer)
                }
            })
        });
        assert!(answer.starts_with("HTTP/1"), "{answer}");
    }
    cluster.down();
}

#[test]
fn a_forwarded_port_nobody_listens_on_is_told_and_the_session_ends_with_its_pod() {
    let mut cluster = start();
    for (name, speech) in [("owned", Speech::WebSocket), ("cloud", Speech::Spdy)] {
        let closed = Forward::start(&cluster, speech, &format!("pod/{name}"), ":9");
        assert_eq!(closed.get("/").unwrap_or_default(), "");
        closed.wait_until_said("error forwarding port 9");
        let forward = Forward::start(&cluster, speech, &format!("pod/{name}"), ":8080");
        forward.get("/").unwrap();
        cluster.kubectl(&["delete", "pod", name, "--wait=false"]);
        forward.wait_until_said("lost connection to pod");
    }
    let refused = cluster.try_kubectl(&["port-forward", "pod/none", ":80"], None);
    assert!(refused.unwrap_err().contains("not found"));
    cluster.down();
}

#[test]
fn commands_take_input_of_any_length_and_give_back_output_and_exit_code() {
    let mut cluster = start();
    let input: String = (0..400_000).map(|number| format!("{number}\n")).collect();
    for speech in BOTH {
        for name in TIERS {
            let ask =
                |arguments: &[&str], input: Option<&str>| ask(&cluster, speech, arguments, input);
            let counted = ask(&["exec", "-i", name, "--", "wc", "-c"], Some(&input));
            assert_eq!(counted.trim(), input.len().to_string(), "{speech:?} {name}");
            let echoed = ask(&["exec", "-i", name, "--", "cat"], Some(&input));
            assert!(echoed == input, "{speech:?} {name}: {} bytes", echoed.len());
            // Ends before its input does.
            let first = ask(&["exec", "-i", name, "--", "head", "-n", "1"], Some(&input));
            assert_eq!(first, "0\n");
            let script = "echo out; echo err >&2; exit 7";
            let failed = ["exec", name, "--", "sh", "-c", script];
            let failed = run(&mut kubectl(&cluster, speech, &failed), None).unwrap_err();
            for part in ["out", "err", "exit code 7"] {
                assert!(failed.contains(part), "{speech:?} {name}: {failed}");
            }
        }
    }
    cluster.down();
}

#[test]
fn files_are_copied_in_and_out_on_both_tiers() {
    let mut cluster = start();
    let folder = cluster.folder.path().join("files");
    std::fs::create_dir_all(&folder).unwrap();
    let content: Vec<u8> = (0..1_000_000u32).map(|index| (index % 253) as u8).collect();
    std::fs::write(folder.join("in"), &content).unwrap();
    for speech in BOTH {
        for name in TIERS {
            let source = folder.join("in").display().to_string();
            let back = folder.join(format!("{name}-{speech:?}"));
            ask(
                &cluster,
                speech,
                &["cp", &source, &format!("{name}:/tmp/copied")],
                None,
            );
            let target = back.display().to_string();
            ask(
                &cluster,
                speech,
                &["cp", &format!("{name}:/tmp/copied"), &target],
                None,
            );
            assert!(
                std::fs::read(&back).unwrap() == content,
                "{speech:?} {name}"
            );
        }
    }
    cluster.down();
}

/// kubectl with a terminal of its own.
pub struct Terminal {
    master: std::fs::File,
    /// Keeps the terminal open until the end.
    _slave: std::os::fd::OwnedFd,
    slave_path: String,
    process: Child,
    seen: String,
}

impl Terminal {
    /// Signals of a terminal reach only the session it controls, so kubectl gets one.
    pub fn start(kubectl: &Command, rows: u16, columns: u16) -> Self {
        let size = nix::pty::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let mut command = Command::new("setsid");
        command
            .arg("-c")
            .arg(kubectl.get_program())
            .args(kubectl.get_args());
        command.envs(
            kubectl
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let pair = nix::pty::openpty(Some(&size), None).unwrap();
        let slave_path = nix::unistd::ttyname(&pair.slave)
            .unwrap()
            .display()
            .to_string();
        let end = || Stdio::from(pair.slave.try_clone().unwrap());
        let process = command
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&pair.master, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        Self {
            master: pair.master.into(),
            _slave: pair.slave,
            slave_path,
            process,
            seen: String::new(),
        }
    }

    fn wait_for(&mut self, text: &str) {
        wait_for(&format!("{text:?} on the terminal"), 60, || {
            let mut bytes = [0; 4096];
            if let Ok(count) = self.master.read(&mut bytes) {
                self.seen
                    .push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
            if self.seen.contains(text) {
                Ok(())
            } else {
                Err(self.seen.clone())
            }
        });
    }

    /// Types lines until one is answered as wanted: sizes travel beside the input.
    pub fn ask_until(&mut self, word: &str, wanted: &str) {
        let mut attempt = 0;
        wait_for(wanted, 60, || {
            attempt += 1;
            let line = format!("{word}{attempt}");
            let typed = self.master.write_all(format!("{line}\n").as_bytes());
            typed.map_err(|error| error.to_string())?;
            self.wait_for(&format!("{line} is "));
            if self.seen.contains(&format!(" is {wanted}")) {
                Ok(())
            } else {
                Err(self.seen.clone())
            }
        });
    }

    /// Types the end of input; the script says that it is over, and kubectl ends well.
    pub fn end(mut self) {
        self.master.write_all(b"\x04").unwrap();
        self.wait_for("over");
        let ended = wait_for("kubectl's end", 60, || {
            self.process
                .try_wait()
                .unwrap()
                .ok_or("it still runs".to_string())
        });
        assert!(ended.success(), "{}", self.seen);
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let status = Command::new("stty")
            .args([
                "-F",
                &self.slave_path,
                "rows",
                &rows.to_string(),
                "cols",
                &columns.to_string(),
            ])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

/// Answers every line with the terminal's size.
pub const SIZES: &str =
    "stty size; while read line; do echo \"$line is $(stty size)\"; done; echo over";

#[test]
fn a_terminal_knows_its_size_and_follows_it() {
    let mut cluster = start();
    for speech in BOTH {
        for name in TIERS {
            let kubectl = kubectl(
                &cluster,
                speech,
                &["exec", "-it", name, "--", "sh", "-c", SIZES],
            );
            let mut terminal = Terminal::start(&kubectl, 31, 97);
            terminal.ask_until("first", "31 97");
            terminal.resize(43, 111);
            terminal.ask_until("second", "43 111");
            terminal.end();
        }
    }
    cluster.down();
}

/// Lives twice; in its second life it writes its last line when told to.
const LINES: &str = "if [ ! -e /data/ran ]; then touch /data/ran; echo first life; exit 3; fi; \
    for number in 1 2 3; do echo line $number; done; \
    while [ ! -e /data/go ]; do sleep 0.1; done; echo late; sleep 1000";

fn lines_pod(name: &str) -> String {
    let mut pod: serde_json::Value = serde_json::from_str(&web(name, LINES)).unwrap();
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    pod.to_string()
}

#[test]
fn logs_are_cut_as_asked_followed_and_kept_of_the_life_before() {
    let mut cluster = start();
    for name in ["owned-lines", "cloud-lines"] {
        cluster.apply(&lines_pod(name));
    }
    for name in ["owned-lines", "cloud-lines"] {
        let logs = |arguments: &[&str]| {
            let all = [&["logs", name], arguments].concat();
            cluster.kubectl(&all)
        };
        wait_for("the second life", 60, || {
            let text = cluster.try_kubectl(&["logs", name], None)?;
            if text == "line 1\nline 2\nline 3\n" {
                Ok(())
            } else {
                Err(text)
            }
        });
        assert_eq!(logs(&["--tail=2"]), "line 2\nline 3\n", "{name}");
        assert_eq!(logs(&["--tail=0"]), "", "{name}");
        assert_eq!(logs(&["--previous"]), "first life\n", "{name}");
        assert_eq!(logs(&["--limit-bytes=9"]), "line 1\nli", "{name}");
        assert_eq!(logs(&["--since=1h", "--tail=1"]), "line 3\n", "{name}");
        let stamped = logs(&["--timestamps", "--tail=1"]);
        let (time, line) = stamped.split_once(' ').unwrap();
        assert_eq!(line, "line 3\n", "{name}");
        let time: jiff::Timestamp = time.parse().unwrap();
        let from_then = logs(&[&format!("--since-time={time:.9}")]);
        assert!(from_then.ends_with("line 3\n"), "{name}: {from_then}");
        let after = time + jiff::SignedDuration::from_secs(1);
        assert_eq!(logs(&[&format!("--since-time={after}")]), "", "{name}");

        let follow = Follow::start(&cluster, &["logs", "-f", "--tail=1", name]);
        let new = Follow::start(&cluster, &["logs", "-f", "--tail=0", name]);
        follow.wait_until_seen("line 3\n");
        cluster.kubectl(&["exec", name, "--", "touch", "/data/go"]);
        follow.wait_until_seen("line 3\nlate\n");
        new.wait_until_seen("late\n");
        assert_eq!(new.seen(), "late\n", "{name}");
        cluster.kubectl(&["delete", "pod", name, "--wait=false"]);
        follow.wait_until_ended();
        new.wait_until_ended();
    }
    cluster.down();
}

/// A running kubectl whose output is looked at meanwhile.
pub struct Follow {
    process: Mutex<Child>,
    output: Arc<Mutex<String>>,
}

impl Follow {
    fn start(cluster: &TestCluster, arguments: &[&str]) -> Self {
        Self::of(cluster.kubectl_command(arguments))
    }

    pub fn of(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let (sink, mut stdout) = (output.clone(), process.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                sink.lock().unwrap().push_str(&text);
            }
        });
        Self {
            process: Mutex::new(process),
            output,
        }
    }

    pub fn seen(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    pub fn type_line(&self, line: &str) {
        let mut process = self.process.lock().unwrap();
        let typed = process.stdin.as_mut().unwrap().write_all(line.as_bytes());
        drop(process);
        typed.unwrap_or_else(|error| panic!("kubectl reads no more ({error}): {}", self.seen()));
    }

    pub fn wait_until_seen(&self, text: &str) {
        wait_for(&format!("{text:?} from kubectl"), 60, || {
            let seen = self.seen();
            if seen.contains(text) {
                Ok(())
            } else {
                Err(seen)
            }
        });
    }

    pub fn wait_until_ended(&self) {
        wait_for("kubectl's end", 60, || {
            let ended = self.process.lock().unwrap().try_wait().unwrap();
            ended.map(drop).ok_or_else(|| self.seen())
        });
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap();
        let _ = process.kill();
        let _ = process.wait();
    }
}

#[test]
fn a_running_process_is_attached_to() {
    let mut cluster = start();
    let echo = "while read line; do echo \"got $line\"; done; sleep 1000";
    cluster.apply(&web("owned-echo", echo));
    let ticking =
        "number=0; while true; do number=$((number + 1)); echo tick $number; sleep 0.2; done";
    cluster.apply(&web("cloud-tick", ticking));
    for name in ["owned-echo", "cloud-tick"] {
        cluster.wait_for_value(&["pod", name], "/status/phase", &json!("Running"));
    }
    for speech in BOTH {
        let attached = Follow::of(kubectl(&cluster, speech, &["attach", "-i", "owned-echo"]));
        let word = format!("{speech:?}");
        attached.type_line(&format!("{word}\n"));
        attached.wait_until_seen(&format!("got {word}"));
        drop(attached);
        let watched = Follow::of(kubectl(&cluster, speech, &["attach", "cloud-tick"]));
        watched.wait_until_seen("tick");
        let refused = ["attach", "-i", "cloud-tick"];
        let refused = run(&mut kubectl(&cluster, speech, &refused), None).unwrap_err();
        assert!(
            refused.contains("attach without -i"),
            "{speech:?}: {refused}"
        );
    }
    for name in ["owned-echo", "cloud-tick"] {
        let debug = ["debug", name, "--image=any", "-c", "debugger", "--", "sh"];
        cluster.kubectl(&debug);
        let refused = wait_for("the refusal of an ephemeral container", 60, || {
            let logs = cluster.try_kubectl(&["logs", name, "-c", "debugger"], None);
            let refused = logs.err().ok_or("it has logs".to_string())?;
            if refused.contains("ephemeral") {
                Ok(refused)
            } else {
                Err(refused)
            }
        });
        assert!(refused.contains("--copy-to"), "{name}: {refused}");
    }
    cluster.down();
}
