//! Finds a user and its groups in the text of /etc/passwd and /etc/group of a container.
//!
//! Both files are the image's: bad lines are passed over, and only their beginning is read.

use crate::protocol::Failure;

/// Who a process becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Empty when the user has no entry.
    pub home: String,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Entry { name, uid, gid, home })
    })
}

/// Name, number and members of each group.
fn group_entries(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// A number that is none of a user or group.
const OUT_OF_RANGE: &str = "uids and gids must be in range 0-2147483647";

/// Resolves `user[:group]`. A number needs no entry; then the group is 0 unless one is named, as Docker has it.
/// With `image_groups` the groups that list the user as a member are added.
pub fn resolve(spec: &str, passwd: &str, group: &str, image_groups: bool) -> Result<Identity, Failure> {
    let (user, named_group) = spec.split_once(':').unwrap_or((spec, ""));
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok());
    let entry = entries(passwd).find(|e| e.name == user).or_else(|| entries(passwd).find(|e| Some(e.uid) == number));
    let (uid, default_gid) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(number)) => (number, 0),
        (None, None) if user.parse::<i64>().is_ok() => return Err(Failure::other(OUT_OF_RANGE)),
        (None, None) => {
            return Err(Failure::other(format!("unable to find user {user}: no matching entries in passwd file")));
        }
    };
    let gid = if named_group.is_empty() { default_gid } else { find_group(named_group, group)? };
    let mut identity = Identity { uid, gid, ..Identity::default() };
    if let Some(entry) = entry {
        identity.home = entry.home.to_owned();
        if image_groups {
            identity.groups = memberships(entry.name, group);
        }
    }
    Ok(identity)
}

/// The number of a group that is given by name or number.
pub fn find_group(named: &str, group: &str) -> Result<u32, Failure> {
    let by_name = group_entries(group).find(|(name, ..)| *name == named).map(|(_, gid, _)| gid);
    let number = named.parse::<i64>();
    by_name.or_else(|| number.as_ref().ok().and_then(|n| i32::try_from(*n).ok()?.try_into().ok())).ok_or_else(|| {
        match number {
            Ok(_) => Failure::other(OUT_OF_RANGE),
            Err(_) => Failure::other(format!("unable to find group {named}: no matching entries in group file")),
        }
    })
}

fn memberships(user: &str, group: &str) -> Vec<u32> {
    let member = |members: &str| members.split(',').any(|m| m.trim() == user);
    group_entries(group).filter(|(_, _, members)| member(members)).map(|(_, gid, _)| gid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:50:web,other\nadm:x:4:root\n";

    fn check(spec: &str, expected: Result<(u32, u32, &[u32], &str), &str>) {
        match (resolve(spec, PASSWD, GROUP, true), expected) {
            (Ok(id), Ok((uid, gid, groups, home))) => {
                let expected = Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() };
                assert_eq!(id, expected, "{spec:?}");
            }
            (Err(e), Err(part)) => assert!(e.message.contains(part), "{spec:?}: {e}"),
            (got, expected) => panic!("{spec:?}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check("", Ok((0, 0, &[4], "/root")));
        check("web", Ok((33, 34, &[50], "/var/www")));
        check("33", Ok((33, 34, &[50], "/var/www")));
        check("33:7", Ok((33, 7, &[50], "/var/www")));
        check("web:www", Ok((33, 50, &[50], "/var/www")));
        check("1000", Ok((1000, 0, &[], "")));
        check("nobody", Err("unable to find user nobody"));
        check("web:nogroup", Err("unable to find group nogroup"));
        check("4294967295", Err("uids and gids must be in range"));
        check("-1", Err("uids and gids must be in range"));
    }
}
