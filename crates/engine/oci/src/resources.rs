//! The `linux.resources` of a configuration as limits of a cgroup.

use crate::bundle::{Block, Config, DeviceCgroup, Resources, Throttle};
use crate::{Result, refuse};
use pintle_linux::cgroup::{BlockLimits, DeviceRule, DeviceValue, Limits};

/// What every container may use, whatever its rules say (config-linux.md, "Default Devices"; runc's AllowedDevices).
const DEVICES: [(char, Option<u32>, Option<u32>, &str); 10] = [
    ('c', None, None, "m"),
    ('b', None, None, "m"),
    ('c', Some(1), Some(3), "rwm"),
    ('c', Some(1), Some(5), "rwm"),
    ('c', Some(1), Some(7), "rwm"),
    ('c', Some(1), Some(8), "rwm"),
    ('c', Some(1), Some(9), "rwm"),
    ('c', Some(5), Some(0), "rwm"),
    ('c', Some(5), Some(2), "rwm"),
    ('c', Some(136), None, "rwm"),
];

/// The cgroup of a container: an absolute path is from the root, as is any other.
pub fn path(config: &Config, id: &str) -> String {
    let given = config.linux.cgroups_path.trim_matches('/');
    format!("/{}", if given.is_empty() { id } else { given })
}

/// Limits of a new container.
pub fn limits(config: &Config) -> Result<Limits> {
    let none = Resources::default();
    let resources = config.linux.resources.as_ref().unwrap_or(&none);
    Ok(Limits { devices: Some(devices(&resources.devices)?), ..changes(resources) })
}

/// Limits to change, without the devices.
pub fn changes(resources: &Resources) -> Limits {
    let (memory, cpu) = (&resources.memory, &resources.cpu);
    Limits {
        cpu_shares: cpu.shares.unwrap_or(0),
        cpu_quota_us: cpu.quota.unwrap_or(0),
        cpu_period_us: cpu.period.unwrap_or(0),
        cpu_rt_runtime_us: cpu.realtime_runtime.unwrap_or(0),
        cpu_rt_period_us: cpu.realtime_period.unwrap_or(0),
        cpuset_cpus: cpu.cpus.clone(),
        cpuset_mems: cpu.mems.clone(),
        memory_bytes: memory.limit.unwrap_or(0),
        memory_swap_bytes: memory.swap.unwrap_or(0),
        memory_reservation_bytes: memory.reservation.unwrap_or(0),
        memory_swappiness: memory.swappiness,
        kernel_tcp_bytes: memory.kernel_tcp.unwrap_or(0),
        oom_kill_disable: memory.disable_oom_killer.unwrap_or(false),
        block: block(&resources.block),
        // runc takes 0 as "no limit".
        pids: resources.pids.limit.map_or(0, |limit| if limit == 0 { -1 } else { limit }),
        hugepages: resources.hugepage_limits.iter().map(|h| (h.page_size.clone(), h.limit)).collect(),
        unified: resources.unified.clone(),
        devices: None,
    }
}

fn block(block: &Block) -> BlockLimits {
    let throttles = |list: &[Throttle]| -> Vec<DeviceValue> {
        list.iter().map(|t| DeviceValue { major: t.major, minor: t.minor, value: t.rate }).collect()
    };
    let weights = block.weight_device.iter();
    BlockLimits {
        weight: block.weight.unwrap_or(0),
        device_weights: weights.map(|w| DeviceValue { major: w.major, minor: w.minor, value: w.weight }).collect(),
        read_bytes: throttles(&block.throttle_read_bps_device),
        write_bytes: throttles(&block.throttle_write_bps_device),
        read_operations: throttles(&block.throttle_read_iops_device),
        write_operations: throttles(&block.throttle_write_iops_device),
    }
}

/// Rules in their order, as a list of what is allowed.
fn devices(rules: &[DeviceCgroup]) -> Result<Vec<DeviceRule>> {
    let mut allowed: Vec<DeviceRule> = Vec::new();
    for rule in rules {
        let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
        let (major, minor) = (number(rule.major), number(rule.minor));
        let access = if rule.access.is_empty() { "rwm" } else { &rule.access };
        if access.chars().any(|c| !"rwm".contains(c)) {
            return refuse(format!("device access {access:?}: give some of r, w and m"));
        }
        let kinds: &[char] = match rule.kind.as_str() {
            "" | "a" => &['a'],
            "c" | "u" => &['c'],
            "b" => &['b'],
            other => return refuse(format!("device type {other:?}: give a, b, c or u")),
        };
        let all = kinds == ['a'];
        match (rule.allow, all) {
            (true, true) => allowed = vec![DeviceRule::everything()],
            (false, true) => allowed.clear(),
            (true, false) => allowed.push(DeviceRule::new(kinds[0], major, minor, access)),
            (false, false) => {
                if allowed.iter().any(|r| r.kind == 'a') {
                    return refuse("a device cannot be denied after all were allowed: deny all first");
                }
                allowed.retain(|r| r.kind != kinds[0] || r.major != major || r.minor != minor);
            }
        }
    }
    if !allowed.iter().any(|r| r.kind == 'a') {
        allowed
            .extend(DEVICES.iter().map(|(kind, major, minor, access)| DeviceRule::new(*kind, *major, *minor, access)));
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, major: Option<i64>) -> DeviceCgroup {
        DeviceCgroup { allow, kind: kind.to_owned(), major, minor: None, access: "rw".to_owned() }
    }

    #[test]
    fn device_rules_count_in_their_order() {
        let some = devices(&[rule(false, "", None), rule(true, "c", Some(10)), rule(true, "b", Some(8))]).unwrap();
        assert_eq!(some.len(), 2 + DEVICES.len());
        let fewer = devices(&[rule(true, "c", Some(10)), rule(false, "c", Some(10))]).unwrap();
        assert_eq!(fewer.len(), DEVICES.len());
        assert_eq!(devices(&[rule(true, "a", None)]).unwrap(), [DeviceRule::everything()]);
        assert!(devices(&[rule(true, "a", None), rule(false, "c", Some(1))]).is_err());
        assert!(devices(&[rule(true, "z", None)]).is_err());
    }
}
