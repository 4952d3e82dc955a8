//! What disk a resource is: its source, and the persistent volume on it.
//!
//! Pure.

use std::fmt;
use std::sync::Arc;

use super::ResourceError;
use crate::common::Labels;
use crate::container::Volume;
use crate::ids::PersistenceId;
use crate::wire::{names, record};

names! {
    /// What a disk is.
    pub enum DiskSourceType default Unknown {
        /// A directory; any part of it may be used.
        Path = 1 "PATH",
        /// A mounted file system; only the whole of it may be used.
        Mount = 2 "MOUNT",
        /// A block device of a storage provider.
        Block = 3 "BLOCK",
        /// Storage of a provider that is not yet a mount or a block device.
        Raw = 4 "RAW",
    } else
    /// Missing, or a kind this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// What makes a disk resource a persistent volume.
    pub struct Persistence {
        /// The volume's name, unique per role and agent.
        pub id: PersistenceId,
        /// Who created it; not part of the identity.
        pub principal: Option<String>,
    }
}

record! {
    /// Where a path or mount disk lives.
    #[derive(Eq)]
    pub struct DiskRoot {
        /// Directory on the agent.
        pub root: Option<String>,
    }
}

record! {
    /// Which disk of the agent a resource is cut from.
    #[derive(Eq)]
    pub struct DiskSource {
        /// What it is.
        #[serde(rename = "type")]
        pub kind: DiskSourceType,
        /// Set for PATH.
        pub path: Option<DiskRoot>,
        /// Set for MOUNT.
        pub mount: Option<DiskRoot>,
        /// Who makes the storage, given by its provider.
        pub vendor: Option<String>,
        /// The provider's name of this volume.
        pub id: Option<String>,
        /// The provider's notes.
        pub metadata: Option<Labels>,
        /// The provider's class of storage.
        pub profile: Option<String>,
    }
}

impl DiskSource {
    /// A directory disk.
    pub fn path(root: impl Into<String>) -> Self {
        Self {
            kind: DiskSourceType::Path,
            path: Some(DiskRoot {
                root: Some(root.into()),
            }),
            ..Self::default()
        }
    }

    /// A mounted disk.
    pub fn mount(root: impl Into<String>) -> Self {
        Self {
            kind: DiskSourceType::Mount,
            mount: Some(DiskRoot {
                root: Some(root.into()),
            }),
            ..Self::default()
        }
    }

    /// Checks that it says of its kind what belongs to it, and nothing else.
    pub(super) fn validate(&self) -> Result<(), ResourceError> {
        let wrong = |field: &'static str| {
            Err(ResourceError::DiskSourceField {
                kind: self.kind,
                field,
            })
        };
        match self.kind {
            DiskSourceType::Unknown => Err(ResourceError::UnknownDiskSource),
            DiskSourceType::Path if self.mount.is_some() => wrong("mount"),
            DiskSourceType::Mount if self.path.is_some() => wrong("path"),
            DiskSourceType::Block | DiskSourceType::Raw if self.path.is_some() => wrong("path"),
            DiskSourceType::Block | DiskSourceType::Raw if self.mount.is_some() => wrong("mount"),
            DiskSourceType::Path
            | DiskSourceType::Mount
            | DiskSourceType::Block
            | DiskSourceType::Raw => Ok(()),
        }
    }
}

/// `MOUNT(id,profile):/root`.
impl fmt::Display for DiskSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if self.id.is_some() || self.profile.is_some() {
            let id = self.id.as_deref().unwrap_or_default();
            let profile = self.profile.as_deref().unwrap_or_default();
            write!(f, "({id},{profile})")?;
        }
        let place = self.path.as_ref().or(self.mount.as_ref());
        if let Some(root) = place.and_then(|place| place.root.as_deref()) {
            write!(f, ":{root}")?;
        }
        Ok(())
    }
}

record! {
    /// What a disk resource is beyond its size.
    pub struct DiskInfo {
        /// Set for persistent volumes.
        pub persistence: Option<Persistence>,
        /// Where the volume appears in the container; not part of the identity.
        pub volume: Option<Volume>,
        /// Which disk; the agent's work directory when missing.
        pub source: Option<DiskSource>,
    }
}

impl DiskInfo {
    /// A persistent volume `id` that appears at `container_path`, on the agent's root disk.
    pub fn persistent(id: impl Into<PersistenceId>, container_path: impl Into<String>) -> Self {
        Self {
            persistence: Some(Persistence {
                id: id.into(),
                principal: None,
            }),
            volume: Some(Volume::writable(container_path)),
            source: None,
        }
    }

    /// This disk without persistence and volume; none when nothing is left.
    pub fn stripped(&self) -> Option<Arc<Self>> {
        self.source.as_ref().map(|source| {
            Arc::new(Self {
                source: Some(source.clone()),
                ..Self::default()
            })
        })
    }

    /// Whether the disk can only be used as a whole.
    pub fn is_indivisible(&self) -> bool {
        self.persistence.is_some()
            || self
                .source
                .as_ref()
                .is_some_and(|source| match source.kind {
                    DiskSourceType::Mount | DiskSourceType::Block => true,
                    DiskSourceType::Raw => source.id.is_some(),
                    DiskSourceType::Path | DiskSourceType::Unknown => false,
                })
    }

    /// Whether this is the same disk: same source and same persistence id.
    pub fn is_same_disk(&self, other: &Self) -> bool {
        let id = |disk: &Self| disk.persistence.as_ref().map(|p| p.id.clone());
        self.source == other.source && id(self) == id(other)
    }
}

/// `source,persistence id:container path`.
impl fmt::Display for DiskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}")?;
        }
        if let Some(persistence) = &self.persistence {
            let comma = if self.source.is_some() { "," } else { "" };
            write!(f, "{comma}{}", persistence.id)?;
        }
        if let Some(volume) = &self.volume {
            write!(f, ":{volume}")?;
        }
        Ok(())
    }
}
