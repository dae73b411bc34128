//! The files that an operator names, with those of directories.

use std::path::{Path, PathBuf};

use crate::input::{STDIN, Trouble};

/// The deepest directory below a named one.
const MAX_DEPTH: usize = 16;

/// `paths`, with each directory replaced by the YAML and JSON files in and below it, by name.
/// Hidden directories and links to directories do not count.
///
/// # Errors
/// A directory cannot be read, contains a Helm chart, or contains no such file.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Trouble> {
    let mut files = Vec::new();
    for path in paths {
        if path != Path::new(STDIN) && path.is_dir() {
            let before = files.len();
            add(path, MAX_DEPTH, &mut files)?;
            if files.len() == before {
                return Err(trouble(
                    path,
                    "found no YAML or JSON file, expected a plugin config or Kubernetes resources",
                ));
            }
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn add(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Trouble> {
    let unreadable = |error: std::io::Error| trouble(directory, &error.to_string());
    if depth == 0 {
        return Err(trouble(
            directory,
            &format!("found a directory more than {MAX_DEPTH} levels down, expected fewer"),
        ));
    }
    if directory.join("Chart.yaml").is_file() {
        return Err(trouble(
            directory,
            "found a Helm chart, expected its rendered resources: helm template NAME CHART --values FILE | alb-oidc check -",
        ));
    }
    let entries = std::fs::read_dir(directory).map_err(unreadable)?;
    let entries: Result<Vec<_>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
    let mut entries = entries.map_err(unreadable)?;
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|name| name.to_str());
        let is_hidden = name.is_some_and(|name| name.starts_with('.'));
        if path.is_dir() {
            // A link may lead back here.
            if is_hidden || path.is_symlink() {
                continue;
            }
            add(&path, depth.saturating_sub(1), files)?;
        } else if path
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| ["yaml", "yml", "json"].contains(&extension))
        {
            files.push(path);
        }
    }
    Ok(())
}

fn trouble(path: &Path, what: &str) -> Trouble {
    Trouble(format!("{}: {what}", path.display()))
}
