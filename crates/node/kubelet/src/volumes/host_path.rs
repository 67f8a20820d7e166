//! Volumes that are paths of the host: checked or made as their type says.

use super::Why;
use pintle_types::k8s::api::core::v1::HostPathVolumeSource;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub fn set_up(source: &HostPathVolumeSource) -> Result<PathBuf, Why> {
    let path = PathBuf::from(&source.path);
    if !path.is_absolute() || path.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(Why::Invalid(format!("path {:?} must be absolute and without '..'", source.path)));
    }
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&path);
            made.map_err(Why::file("make directory", &path))?;
        }
        "FileOrCreate" if !path.exists() => {
            let made = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o644).open(&path);
            made.map_err(Why::file("make file", &path))?;
        }
        _ => {}
    }
    check(&path, kind)?;
    Ok(path)
}

fn check(path: &Path, kind: &str) -> Result<(), Why> {
    let wanted = match kind {
        "" => return Ok(()),
        "Directory" | "DirectoryOrCreate" => "directory",
        "File" | "FileOrCreate" => "file",
        "Socket" => "socket file",
        "CharDevice" => "character device",
        "BlockDevice" => "block device",
        other => return Err(Why::Invalid(format!("{other:?} is an invalid volume type"))),
    };
    let found = std::fs::metadata(path).is_ok_and(|m| match wanted {
        "directory" => m.is_dir(),
        "file" => m.is_file(),
        "socket file" => m.file_type().is_socket(),
        "character device" => m.file_type().is_char_device(),
        _ => m.file_type().is_block_device(),
    });
    if found { Ok(()) } else { Err(Why::HostPath(format!("{} is not a {wanted}", path.display()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &Path, kind: &str) -> HostPathVolumeSource {
        HostPathVolumeSource { path: path.to_string_lossy().into_owned(), type_: Some(kind.into()) }
    }

    #[test]
    fn types_are_checked_and_made() {
        let dir = crate::fake::temporary_directory();
        let (file, missing) = (dir.path().join("f"), dir.path().join("missing"));
        std::fs::write(&file, "x").unwrap();
        for (path, kind, ok) in [
            (&file, "File", true),
            (&file, "Directory", false),
            (&file, "Socket", false),
            (&missing, "", true),
            (&missing, "Directory", false),
            (&missing, "nonsense", false),
            (&missing, "DirectoryOrCreate", true),
        ] {
            assert_eq!(set_up(&source(path, kind)).is_ok(), ok, "{kind}");
        }
        assert!(missing.is_dir());
        assert!(set_up(&HostPathVolumeSource { path: "/a/../b".into(), type_: None }).is_err());
        let error = set_up(&source(&file, "Directory")).unwrap_err().to_string();
        assert_eq!(error, format!("hostPath type check failed: {} is not a directory", file.display()));
    }
}
