//! The generated files, and their comparison with what is committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
};

use anyhow::{Context as _, Result};

/// Generated files by name, all in one folder.
pub(crate) struct Generated {
    files: BTreeMap<String, Vec<u8>>,
}

/// Why a file of the folder is not as generated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// Generated, but not committed.
    Missing(String),
    /// Committed with another content.
    Changed(String),
    /// Committed, but not generated.
    Surplus(String),
}

// === impl Generated ===

impl Generated {
    pub(crate) fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { files }
    }

    /// Makes the folder hold these files and no others.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        for difference in self.differences(folder)? {
            let path = folder.join(difference.file());
            match self.files.get(difference.file()) {
                Some(content) => fs::write(&path, content),
                None => fs::remove_file(&path),
            }
            .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// Compares with the files of a folder; in order of file name.
    pub(crate) fn differences(&self, folder: &Path) -> Result<Vec<Difference>> {
        let committed = read_folder(folder)?;
        let names: BTreeSet<&String> = self.files.keys().chain(committed.keys()).collect();
        Ok(names
            .into_iter()
            .filter_map(|name| match (self.files.get(name), committed.get(name)) {
                (Some(ours), Some(theirs)) if ours == theirs => None,
                (Some(_), Some(_)) => Some(Difference::Changed(name.clone())),
                (Some(_), None) => Some(Difference::Missing(name.clone())),
                (None, _) => Some(Difference::Surplus(name.clone())),
            })
            .collect())
    }
}

/// The plain files of a folder by name.
pub(crate) fn read_folder(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let content = fs::read(&path).with_context(|| path.display().to_string())?;
        files.insert(name, content);
    }
    Ok(files)
}

// === impl Difference ===

impl Difference {
    fn file(&self) -> &str {
        match self {
            Self::Missing(file) | Self::Changed(file) | Self::Surplus(file) => file,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(file) => write!(f, "{file}: is missing"),
            Self::Changed(file) => write!(f, "{file}: differs"),
            Self::Surplus(file) => write!(f, "{file}: is not generated"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(files: &[(&str, &str)]) -> Generated {
        Generated::new(
            files.iter().map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec())).collect(),
        )
    }

    #[test]
    fn every_kind_of_difference_is_named_and_repaired() {
        let folder = tempfile::tempdir().unwrap();
        generated(&[("changed.rs", "old"), ("same.rs", "same"), ("surplus.rs", "x")])
            .write(folder.path())
            .unwrap();
        let new = generated(&[("changed.rs", "new"), ("missing.rs", "m"), ("same.rs", "same")]);

        let named: Vec<String> =
            new.differences(folder.path()).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(named, ["changed.rs: differs", "missing.rs: is missing", "surplus.rs: is not generated"]);

        new.write(folder.path()).unwrap();
        assert_eq!(new.differences(folder.path()).unwrap(), []);
    }
}
