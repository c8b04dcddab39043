//! The last steps of a new process: limits, identity, capabilities, streams, and becoming the program.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{
    Gid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, getcwd, setgroups, setresgid,
    setresuid,
};

use super::passwd::{self, Identity};
use super::spawn::{ChildStdio, ControlSender};
use super::step::{InStep, Step, StepError};
use crate::capability;
use crate::protocol::ContainerRecord;
use crate::spec::Rlimit;

/// Searched when the environment has no `PATH`.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Moves this single-threaded process into a cgroup.
pub(super) fn join_cgroup(files: &[PathBuf]) -> Step<()> {
    for file in files {
        fs::write(file, "0").in_step(|| format!("join cgroup {}", file.display()))?;
    }
    Ok(())
}

/// Ends this process when the shim ends, so that no container runs without an owner.
pub(super) fn die_with_parent() -> Step<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
        .in_step(|| "tie the process to its shim".to_owned())
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> nix::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take plain numbers and touch no memory of ours.
    Errno::result(unsafe { libc::prctl(option, argument, zero, zero, zero) }).map(drop)
}

/// Becomes the program inside the container's mounts. Only returns when that failed.
pub(super) fn become_program(
    record: &ContainerRecord,
    arguments: &[String],
    tty: bool,
    stdio: ChildStdio,
    control: &ControlSender,
) -> Result<Infallible, StepError> {
    let identity = identity(record)?;
    for limit in &record.spec.rlimits {
        set_limit(limit)?;
    }
    leave_keyring();
    connect_streams(stdio, control, &identity)?;
    let directory = record.working_directory.as_str();
    chdir(directory).in_step(|| format!("change to working directory {directory}"))?;
    // The kernel finds no path to a directory outside the root, however it was reached.
    getcwd().in_step(|| format!("stay inside with working directory {directory}"))?;
    let environment = environment(record, &identity, tty);
    let program_path = environment
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let candidates = candidates(arguments, program_path)?;
    drop_rights(record, &identity)?;
    die_with_parent()?;
    execute(&candidates, arguments, &environment)
}

/// Who the record's user is, as the files that this process sees say.
fn identity(record: &ContainerRecord) -> Step<Identity> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    let mut identity = passwd::resolve(&record.user, &passwd, &group)
        .in_step(|| "find the user to run as".to_owned())?;
    if let Some(gid) = record.spec.run_as_group {
        identity.gid = gid;
    }
    identity.groups.extend(&record.spec.supplemental_groups);
    if record.spec.must_run_as_non_root && identity.uid == 0 {
        return Err(StepError(
            "runAsNonRoot is set and the container would run as root".to_owned(),
        ));
    }
    Ok(identity)
}

fn environment(record: &ContainerRecord, identity: &Identity, tty: bool) -> Vec<String> {
    let mut environment = record.environment.clone();
    let mut add = |name: &str, value: &str| {
        if !environment
            .iter()
            .any(|entry| entry.split('=').next() == Some(name))
        {
            environment.push(format!("{name}={value}"));
        }
    };
    add("PATH", DEFAULT_PATH);
    add("HOME", identity.home.as_deref().unwrap_or("/"));
    if tty {
        add("TERM", "xterm");
    }
    environment
}

fn set_limit(limit: &Rlimit) -> Step<()> {
    let resource = match limit.name.as_str() {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        other => return Err(StepError(format!("limit {other:?} is not known"))),
    };
    let value = libc::rlimit {
        rlim_cur: limit.soft,
        rlim_max: limit.hard,
    };
    // SAFETY: `value` is a complete structure that the call only reads.
    let result = unsafe { libc::setrlimit(resource, &value) };
    Errno::result(result)
        .map(drop)
        .in_step(|| format!("set limit {}", limit.name))
}

/// The host's session keyring is not for containers to read. Kernels without keyrings have none to leave.
fn leave_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for a new keyring without one; nothing else is read.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, anonymous) };
}

fn connect_streams(stdio: ChildStdio, control: &ControlSender, identity: &Identity) -> Step<()> {
    let connect = || "connect the standard streams".to_owned();
    match stdio {
        ChildStdio::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            let stdin = match stdin {
                Some(stdin) => stdin,
                None => open(
                    "/dev/null",
                    OFlag::O_RDONLY | OFlag::O_CLOEXEC,
                    Mode::empty(),
                )
                .in_step(connect)?,
            };
            // The program may open its streams again by name, as its user.
            for stream in [&stdin, &stdout, &stderr] {
                let _ = nix::unistd::fchown(stream, Some(Uid::from_raw(identity.uid)), None);
            }
            dup2_stdin(&stdin).in_step(connect)?;
            dup2_stdout(&stdout).in_step(connect)?;
            dup2_stderr(&stderr).in_step(connect)
        }
        ChildStdio::Terminal => {
            let terminal = open_terminal(control, identity)?;
            dup2_stdin(&terminal).in_step(connect)?;
            dup2_stdout(&terminal).in_step(connect)?;
            dup2_stderr(&terminal).in_step(connect)
        }
    }
}

/// Opens a terminal of this container's own, sends its controlling side to the shim, and makes it ours.
fn open_terminal(control: &ControlSender, identity: &Identity) -> Step<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open("/dev/ptmx", flags, Mode::empty()).in_step(|| "open /dev/ptmx".to_owned())?;
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    let unlocked = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock) };
    Errno::result(unlocked).in_step(|| "unlock the terminal".to_owned())?;
    // SAFETY: TIOCGPTPEER takes open flags by value and gives a new descriptor.
    let raw = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    let raw = Errno::result(raw).in_step(|| "open the terminal's other side".to_owned())?;
    // SAFETY: the kernel has just made this descriptor for us.
    let slave = unsafe { OwnedFd::from_raw_fd(raw) };
    nix::unistd::fchown(&slave, Some(Uid::from_raw(identity.uid)), None)
        .in_step(|| "give the terminal to its user".to_owned())?;
    // SAFETY: TIOCSCTTY takes a plain number; this process leads a session of its own.
    let owned = unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) };
    Errno::result(owned).in_step(|| "take the terminal".to_owned())?;
    control
        .send_terminal(master.as_fd())
        .in_step(|| "hand over the terminal".to_owned())?;
    Ok(slave)
}

fn drop_rights(record: &ContainerRecord, identity: &Identity) -> Step<()> {
    let dropping = || "drop capabilities".to_owned();
    if record.spec.no_new_privileges {
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1).in_step(|| "set no_new_privs".to_owned())?;
    }
    for number in (0..64)
        .filter(|number| *number >= capability::COUNT || record.capabilities & (1 << number) == 0)
    {
        match prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number)) {
            // The kernel knows no more of them.
            Err(Errno::EINVAL) => break,
            other => other.in_step(dropping)?,
        }
    }
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let changing = || format!("become user {uid} group {gid}");
    setgroups(&groups).in_step(changing)?;
    setresgid(gid, gid, gid).in_step(changing)?;
    setresuid(uid, uid, uid).in_step(changing)?;
    if identity.uid == 0 {
        set_capabilities(record.capabilities).in_step(dropping)?;
    }
    Ok(())
}

/// Effective and permitted become `set`, inheritable becomes empty.
fn set_capabilities(set: u64) -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let half = |bits: u64| {
        let low = (bits & u64::from(u32::MAX)) as u32;
        Data {
            effective: low,
            permitted: low,
            inheritable: 0,
        }
    };
    let data = [half(set), half(set >> 32)];
    // SAFETY: version 3 reads one header and two data records laid out exactly so; both outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })
        .map(drop)
}

/// Files to try for the program, as a shell would.
fn candidates(arguments: &[String], path: &str) -> Step<Vec<CString>> {
    let program = arguments.first().filter(|program| !program.is_empty());
    let program = program
        .ok_or_else(|| StepError("no command is given, and the image has none".to_owned()))?;
    let names = match program.contains('/') {
        true => vec![program.clone()],
        false => path
            .split(':')
            .map(|directory| if directory.is_empty() { "." } else { directory })
            .map(|directory| format!("{directory}/{program}"))
            .collect(),
    };
    names
        .into_iter()
        .map(|name| CString::new(name).in_step(|| "read the command".to_owned()))
        .collect()
}

fn execute(
    candidates: &[CString],
    arguments: &[String],
    environment: &[String],
) -> Result<Infallible, StepError> {
    let c_strings = |texts: &[String], what: &str| -> Step<Vec<CString>> {
        texts
            .iter()
            .map(|text| CString::new(text.as_str()).in_step(|| format!("read the {what}")))
            .collect()
    };
    let argument_strings = c_strings(arguments, "arguments")?;
    let environment_strings = c_strings(environment, "environment")?;
    let mut worst = Errno::ENOENT;
    for candidate in candidates {
        let Err(error) =
            execve::<CString, CString>(candidate, &argument_strings, &environment_strings);
        if !matches!(error, Errno::ENOENT | Errno::ENOTDIR) {
            worst = error;
        }
    }
    let program = &arguments[0];
    let reason = match worst {
        Errno::ENOENT if program.contains('/') => "no such file or directory".to_owned(),
        Errno::ENOENT => "executable file not found in $PATH".to_owned(),
        Errno::EACCES => "permission denied".to_owned(),
        Errno::ENOEXEC => "exec format error".to_owned(),
        other => io::Error::from(other).to_string(),
    };
    Err(StepError(format!("exec: {program:?}: {reason}")))
}

/// A container must not get at this program's file through the `/proc` entry of a process that is on its way into it.
/// What it becomes there can be looked at again.
pub(super) fn hide_program() -> Step<()> {
    prctl(libc::PR_SET_DUMPABLE, 0).in_step(|| "hide the shim's program".to_owned())
}

/// Names this process for `ps`.
pub(super) fn set_process_name(name: &CStr) {
    // SAFETY: PR_SET_NAME reads a terminated text, which `CStr` is.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Makes orphans below this process its children, so that it can reap them.
pub(super) fn become_subreaper() -> Step<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).in_step(|| "become a subreaper".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_searched_along_the_path() {
        let found = candidates(&["sh".to_owned()], "/a::/b").unwrap();
        assert_eq!(
            found,
            [c"/a/sh".to_owned(), c"./sh".to_owned(), c"/b/sh".to_owned()]
        );
        assert_eq!(
            candidates(&["/x".to_owned()], "/a").unwrap(),
            [c"/x".to_owned()]
        );
    }

    #[test]
    fn an_empty_command_is_refused() {
        assert!(candidates(&[], "/a").is_err());
        assert!(candidates(&[String::new()], "/a").is_err());
    }
}
