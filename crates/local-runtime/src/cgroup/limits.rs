//! Turning limits into controller files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::mounts::Hierarchy;
use crate::error::RuntimeError;
use crate::spec::ResourceLimits;

/// The period over which a CPU quota is counted.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// The kernel refuses smaller quotas.
const CPU_QUOTA_MICROS_MIN: u64 = 1_000;
/// The kernel's smallest and largest shares.
const CPU_SHARES_MIN: u64 = 2;
const CPU_SHARES_MAX: u64 = 262_144;

fn cpu_shares(request_milli: Option<u64>) -> u64 {
    // 1024 shares are one core; the kernel's default is 1024 as well.
    request_milli.map_or(1024, |milli| {
        (milli.saturating_mul(1024) / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
    })
}

/// The conversion that every runtime uses: shares 2…262144 on to weights 1…10000.
fn cpu_weight(shares: u64) -> u64 {
    1 + (shares - CPU_SHARES_MIN) * 9_999 / (CPU_SHARES_MAX - CPU_SHARES_MIN)
}

fn cpu_quota_micros(limit_milli: u64) -> u64 {
    (limit_milli.saturating_mul(CPU_PERIOD_MICROS) / 1000).max(CPU_QUOTA_MICROS_MIN)
}

pub(super) fn apply(
    hierarchy: &Hierarchy,
    group: &Path,
    limits: &ResourceLimits,
) -> Result<(), RuntimeError> {
    match hierarchy {
        Hierarchy::V1 { controllers } => {
            let file = |controller: &str, name: &str| {
                controllers
                    .get(controller)
                    .map(|root| root.join(group).join(name))
                    .unwrap_or_default()
            };
            apply_v1(file, limits)
        }
        Hierarchy::V2 { root } => apply_v2(&root.join(group), limits),
    }
}

fn apply_v1(
    file: impl Fn(&str, &str) -> PathBuf,
    limits: &ResourceLimits,
) -> Result<(), RuntimeError> {
    write(
        &file("cpu", "cpu.shares"),
        &cpu_shares(limits.cpu_request_milli).to_string(),
    )?;
    write(
        &file("cpu", "cpu.cfs_period_us"),
        &CPU_PERIOD_MICROS.to_string(),
    )?;
    let quota = limits
        .cpu_limit_milli
        .map_or("-1".to_owned(), |milli| cpu_quota_micros(milli).to_string());
    let quota_file = file("cpu", "cpu.cfs_quota_us");
    match fs::write(&quota_file, &quota) {
        // v1 refuses a quota above the parent's; the parent's then binds alone.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput && quota != "-1" => {
            write(&quota_file, "-1")?
        }
        other => other.map_err(RuntimeError::io("write cgroup limit", quota_file))?,
    }
    apply_v1_memory(
        &file("memory", "memory.limit_in_bytes"),
        &file("memory", "memory.memsw.limit_in_bytes"),
        limits,
    )?;
    write(
        &file("pids", "pids.max"),
        &limits
            .pids_limit
            .map_or("max".to_owned(), |count| count.to_string()),
    )
}

/// Memory and memory-plus-swap get the same limit, so that swap gives nothing. The second may never be below the first.
fn apply_v1_memory(
    memory: &Path,
    with_swap: &Path,
    limits: &ResourceLimits,
) -> Result<(), RuntimeError> {
    let Some(bytes) = limits.memory_limit_bytes else {
        if with_swap.exists() {
            write(with_swap, "-1")?;
        }
        return write(memory, "-1");
    };
    let text = bytes.to_string();
    if !with_swap.exists() {
        return write(memory, &text);
    }
    if fs::write(memory, &text).is_ok() {
        return write(with_swap, &text);
    }
    write(with_swap, &text)?;
    write(memory, &text)
}

fn apply_v2(directory: &Path, limits: &ResourceLimits) -> Result<(), RuntimeError> {
    let weight = match limits.cpu_request_milli {
        Some(_) => cpu_weight(cpu_shares(limits.cpu_request_milli)),
        None => 100,
    };
    write(&directory.join("cpu.weight"), &weight.to_string())?;
    let quota = limits.cpu_limit_milli.map_or("max".to_owned(), |milli| {
        cpu_quota_micros(milli).to_string()
    });
    write(
        &directory.join("cpu.max"),
        &format!("{quota} {CPU_PERIOD_MICROS}"),
    )?;
    let memory = limits
        .memory_limit_bytes
        .map_or("max".to_owned(), |bytes| bytes.to_string());
    write(&directory.join("memory.max"), &memory)?;
    let swap = directory.join("memory.swap.max");
    if swap.exists() {
        write(
            &swap,
            if limits.memory_limit_bytes.is_some() {
                "0"
            } else {
                "max"
            },
        )?;
    }
    write(
        &directory.join("pids.max"),
        &limits
            .pids_limit
            .map_or("max".to_owned(), |count| count.to_string()),
    )
}

fn write(path: &Path, value: &str) -> Result<(), RuntimeError> {
    fs::write(path, value).map_err(RuntimeError::io("write cgroup limit", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_at_both_ends_of_the_scale() {
        assert_eq!(cpu_weight(CPU_SHARES_MIN), 1);
        assert_eq!(cpu_weight(CPU_SHARES_MAX), 10_000);
        assert_eq!(cpu_weight(1024), 39);
    }

    #[test]
    fn tiny_requests_and_limits_are_raised_to_what_the_kernel_takes() {
        assert_eq!(cpu_shares(Some(1)), 2);
        assert_eq!(cpu_quota_micros(1), 1_000);
        assert_eq!(cpu_quota_micros(250), 25_000);
    }

    #[test]
    fn a_unified_group_gets_every_limit() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("memory.swap.max"), "max").unwrap();
        let limits = ResourceLimits {
            cpu_request_milli: Some(1000),
            cpu_limit_milli: Some(1500),
            memory_limit_bytes: Some(64 << 20),
            pids_limit: Some(7),
        };
        apply(
            &Hierarchy::V2 {
                root: directory.path().into(),
            },
            Path::new(""),
            &limits,
        )
        .unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("cpu.weight"), "39");
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("pids.max"), "7");
    }

    #[test]
    fn absent_limits_become_unlimited_again() {
        let directory = tempfile::tempdir().unwrap();
        apply(
            &Hierarchy::V2 {
                root: directory.path().into(),
            },
            Path::new(""),
            &ResourceLimits::default(),
        )
        .unwrap();
        assert_eq!(
            fs::read_to_string(directory.path().join("cpu.max")).unwrap(),
            "max 100000"
        );
        assert_eq!(
            fs::read_to_string(directory.path().join("memory.max")).unwrap(),
            "max"
        );
    }
}
