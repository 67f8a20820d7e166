//! `--chown`: users and groups by name or number, looked up in the image.

use crate::root::Root;
use std::io::Read;
use std::path::Path;

/// The most bytes of /etc/passwd or /etc/group that are read.
const MAX_BYTES: u64 = 8 << 20;

/// What `user[:group]` means in a root. A user alone is the group too, by the same word.
///
/// # Errors
/// When the image has no such user or group.
pub(crate) fn owner(root: &Root, text: &str) -> Result<(u32, u32), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    let user_id =
        id(root, "etc/passwd", user).ok_or_else(|| format!("can't find uid for user {user}: no such user: {user}"))?;
    let group_id = id(root, "etc/group", group)
        .ok_or_else(|| format!("can't find gid for group {group}: no such group: {group}"))?;
    Ok((user_id, group_id))
}

fn id(root: &Root, file: &str, name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let found = root.find(Path::new(file), true).ok()??;
    let mut text = Vec::new();
    found.file().ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("etc")).unwrap();
        std::fs::write(temp.path().join("etc/passwd"), "root:x:0:0::/:\nbin:x:1:2::/:\n").unwrap();
        std::fs::write(temp.path().join("etc/group"), "root:x:0:\nbin:x:7:\n").unwrap();
        let root = Root::open(temp.path()).unwrap();
        for (text, expected) in [
            ("5", Ok((5, 5))),
            ("5:6", Ok((5, 6))),
            ("bin", Ok((1, 7))),
            ("bin:0", Ok((1, 0))),
            ("nobody", Err("can't find uid for user nobody: no such user: nobody")),
            ("0:nobody", Err("can't find gid for group nobody: no such group: nobody")),
        ] {
            assert_eq!(owner(&root, text), expected.map_err(str::to_owned), "{text}");
        }
    }
}
