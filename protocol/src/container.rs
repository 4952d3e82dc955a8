//! Containers: what a task or executor asks of the world around its process, and what it got.
//!
//! Pure. Source: Mesos `include/mesos/v1/mesos.proto`.

use std::collections::BTreeMap;
use std::fmt;

use crate::common::{Labels, Secret};
use crate::ids::ContainerId;
use crate::wire::{names, record};

names! {
    /// Who makes the container.
    pub enum ContainerType default Unknown {
        /// Docker.
        Docker = 1 "DOCKER",
        /// The agent itself.
        Mesos = 2 "MESOS",
    } else
    /// Missing, or one this version does not know.
    Unknown = 0 "UNKNOWN"
}

names! {
    /// Whether a volume can be written.
    pub enum VolumeMode default ReadWrite {
        /// Read and write.
        ReadWrite = 1 "RW",
        /// Read only.
        ReadOnly = 2 "RO",
    } else
    /// A mode this version does not know.
    Unknown = 0 "UNKNOWN"
}

names! {
    /// What is mounted as a volume.
    pub enum VolumeSourceType default Unknown {
        /// A volume of a Docker plug-in.
        DockerVolume = 1 "DOCKER_VOLUME",
        /// A path of the agent's file system.
        HostPath = 4 "HOST_PATH",
        /// A path of this or the parent container's sandbox.
        SandboxPath = 2 "SANDBOX_PATH",
        /// A file with a secret.
        Secret = 3 "SECRET",
        /// A volume of a CSI plug-in.
        Csi = 5 "CSI_VOLUME",
    } else
    /// Missing, or a kind this version does not know.
    Unknown = 0 "UNKNOWN"
}

names! {
    /// Whose sandbox a path is in.
    pub enum SandboxPathType default Unknown {
        /// This container's.
        Own = 1 "SELF",
        /// The parent container's.
        Parent = 2 "PARENT",
    } else
    /// Missing, or one this version does not know.
    Unknown = 0 "UNKNOWN"
}

names! {
    /// How a mount spreads to other mount namespaces.
    pub enum MountPropagationMode default HostToContainer {
        /// Mounts made on the host appear in the container.
        HostToContainer = 1 "HOST_TO_CONTAINER",
        /// Mounts made on either side appear on the other.
        Bidirectional = 2 "BIDIRECTIONAL",
    } else
    /// A mode this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// One name and value.
    pub struct Parameter {
        /// The name.
        pub key: String,
        /// The value.
        pub value: String,
    }
}

record! {
    /// Names and values in the order given.
    pub struct Parameters {
        /// The parameters.
        pub parameter: Vec<Parameter>,
    }
}

record! {
    /// A volume of a Docker plug-in.
    pub struct DockerVolume {
        /// The plug-in.
        pub driver: Option<String>,
        /// The volume's name.
        pub name: String,
        /// Options of the plug-in.
        pub driver_options: Option<Parameters>,
    }
}

record! {
    /// How a mount spreads.
    pub struct MountPropagation {
        /// Which way.
        pub mode: MountPropagationMode,
    }
}

record! {
    /// A path of the agent's file system.
    pub struct HostPathVolume {
        /// Absolute path.
        pub path: String,
        /// How mounts under it spread.
        pub mount_propagation: Option<MountPropagation>,
    }
}

record! {
    /// A path of a sandbox.
    pub struct SandboxPathVolume {
        /// Whose sandbox.
        #[serde(rename = "type")]
        pub kind: SandboxPathType,
        /// Path below the sandbox.
        pub path: String,
    }
}

record! {
    /// A CSI volume that exists already.
    pub struct StaticProvisioning {
        /// The plug-in's name of the volume.
        pub volume_id: String,
        /// Whether it may only be read.
        pub readonly: bool,
        /// Context of the volume, as the plug-in gave it.
        pub volume_context: BTreeMap<String, String>,
    }
}

record! {
    /// A volume of a CSI plug-in.
    pub struct CsiVolume {
        /// The plug-in.
        pub plugin_name: String,
        /// Set: the volume exists already.
        pub static_provisioning: Option<StaticProvisioning>,
    }
}

record! {
    /// What is mounted: the field of its type is set.
    pub struct VolumeSource {
        /// Which field is set.
        #[serde(rename = "type")]
        pub kind: VolumeSourceType,
        /// A Docker plug-in's volume.
        pub docker_volume: Option<DockerVolume>,
        /// A path of the agent.
        pub host_path: Option<HostPathVolume>,
        /// A path of a sandbox.
        pub sandbox_path: Option<SandboxPathVolume>,
        /// A secret.
        pub secret: Option<Secret>,
        /// A CSI plug-in's volume.
        pub csi_volume: Option<CsiVolume>,
    }
}

record! {
    /// Something mounted into a container: exactly one of `host_path`, `image` and `source`.
    pub struct Volume {
        /// Whether it can be written.
        pub mode: VolumeMode,
        /// Where it appears in the container; relative paths are below the sandbox.
        pub container_path: String,
        /// A path of the agent, or of the sandbox when relative.
        pub host_path: Option<String>,
        /// An image whose files appear.
        pub image: Option<Image>,
        /// Any other source.
        pub source: Option<VolumeSource>,
    }
}

impl Volume {
    /// A place in the container that can be written.
    pub fn writable(container_path: impl Into<String>) -> Self {
        Self {
            container_path: container_path.into(),
            ..Self::default()
        }
    }
}

/// `host path:container path:rw`, or the container path alone.
impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(host_path) = &self.host_path else {
            return f.write_str(&self.container_path);
        };
        let mode = match self.mode {
            VolumeMode::ReadWrite => ":rw",
            VolumeMode::ReadOnly => ":ro",
            VolumeMode::Unknown => "",
        };
        write!(f, "{host_path}:{}{mode}", self.container_path)
    }
}

names! {
    /// Format of an image.
    pub enum ImageType default Unknown {
        /// An App Container image.
        Appc = 1 "APPC",
        /// A Docker image.
        Docker = 2 "DOCKER",
    } else
    /// Missing, or one this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// A Docker image.
    pub struct DockerImage {
        /// `[registry/]repository[:tag]`.
        pub name: String,
        /// Docker configuration with the registry's credentials.
        pub config: Option<Secret>,
    }
}

record! {
    own Default;
    /// An image with a root file system.
    pub struct Image {
        /// Its format.
        #[serde(rename = "type")]
        pub kind: ImageType,
        /// Set for DOCKER.
        pub docker: Option<DockerImage>,
        /// Whether a copy of the agent will do; true when missing.
        pub cached: bool,
    }
}

impl Default for Image {
    fn default() -> Self {
        Self {
            kind: ImageType::Unknown,
            docker: None,
            cached: true,
        }
    }
}

record! {
    /// What only containers made by the agent itself have.
    pub struct MesosInfo {
        /// Image of the root file system; the agent's own files when missing.
        pub image: Option<Image>,
    }
}

names! {
    /// Network of a Docker container.
    pub enum DockerNetwork default Host {
        /// The host's own.
        Host = 1 "HOST",
        /// Docker's bridge.
        Bridge = 2 "BRIDGE",
        /// None at all.
        None = 3 "NONE",
        /// A named one.
        User = 4 "USER",
    } else
    /// One this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// A port of the host that leads to one of the container.
    pub struct PortMapping {
        /// Port of the host.
        pub host_port: u32,
        /// Port of the container.
        pub container_port: u32,
        /// `tcp` or `udp`; tcp when missing.
        pub protocol: Option<String>,
    }
}

record! {
    /// What only Docker containers have.
    pub struct DockerInfo {
        /// Image to run.
        pub image: String,
        /// Network to join.
        pub network: DockerNetwork,
        /// Ports of a bridge network.
        pub port_mappings: Vec<PortMapping>,
        /// Whether the container has all the host's rights.
        pub privileged: bool,
        /// Further options of `docker run`.
        pub parameters: Vec<Parameter>,
        /// Whether to pull the image even when there is a copy.
        pub force_pull_image: bool,
        /// Driver of the volumes.
        pub volume_driver: Option<String>,
    }
}

names! {
    /// Version of the Internet protocol.
    pub enum IpProtocol default V4 {
        /// Version 4.
        V4 = 1 "IPv4",
        /// Version 6.
        V6 = 2 "IPv6",
    } else
    /// One this version does not know.
    Unknown = 0 "UNKNOWN"
}

record! {
    /// An address asked for or given.
    pub struct IpAddress {
        /// Version.
        pub protocol: IpProtocol,
        /// The address's text; when asking, missing means any.
        pub ip_address: Option<String>,
    }
}

record! {
    /// A network joined or to be joined.
    pub struct NetworkInfo {
        /// Addresses.
        pub ip_addresses: Vec<IpAddress>,
        /// The network's name.
        pub name: Option<String>,
        /// Groups for isolation.
        pub groups: Vec<String>,
        /// Notes for the network's plug-in.
        pub labels: Option<Labels>,
        /// Ports of the host that lead here.
        pub port_mappings: Vec<PortMapping>,
    }
}

record! {
    /// Linux capabilities by name without the prefix `CAP_`.
    #[derive(Eq)]
    pub struct CapabilityInfo {
        /// The names.
        pub capabilities: Vec<String>,
    }
}

record! {
    /// Linux settings of a container.
    pub struct LinuxInfo {
        /// The older field: capabilities in effect.
        pub capability_info: Option<CapabilityInfo>,
        /// Capabilities that may be gained.
        pub bounding_capabilities: Option<CapabilityInfo>,
        /// Capabilities from the start.
        pub effective_capabilities: Option<CapabilityInfo>,
        /// Whether to see the agent's processes.
        pub share_pid_namespace: Option<bool>,
        /// Whether a nested container lives in its parent's control groups; true when missing.
        pub share_cgroups: Option<bool>,
    }
}

record! {
    /// One resource limit of processes.
    pub struct RLimit {
        /// Name as in Mesos: `RLMT_NOFILE` …
        #[serde(rename = "type")]
        pub kind: String,
        /// The limit no process can pass; unlimited when both are missing.
        pub hard: Option<u64>,
        /// The limit processes start with.
        pub soft: Option<u64>,
    }
}

record! {
    /// Resource limits of processes.
    pub struct RLimitInfo {
        /// The limits.
        pub rlimits: Vec<RLimit>,
    }
}

record! {
    /// Size of a terminal in characters.
    #[derive(Copy, Eq)]
    pub struct WindowSize {
        /// Lines.
        pub rows: u32,
        /// Characters in a line.
        pub columns: u32,
    }
}

record! {
    /// A terminal to attach.
    #[derive(Copy, Eq)]
    pub struct TtyInfo {
        /// Its size.
        pub window_size: Option<WindowSize>,
    }
}

record! {
    /// What a task or executor asks of its container.
    pub struct ContainerInfo {
        /// Who makes it.
        #[serde(rename = "type")]
        pub kind: ContainerType,
        /// What appears in its file system.
        pub volumes: Vec<Volume>,
        /// Its host name.
        pub hostname: Option<String>,
        /// Set for DOCKER.
        pub docker: Option<DockerInfo>,
        /// May be set for MESOS.
        pub mesos: Option<MesosInfo>,
        /// Networks to join; the host's when empty.
        pub network_infos: Vec<NetworkInfo>,
        /// Linux settings.
        pub linux_info: Option<LinuxInfo>,
        /// Limits of its processes.
        pub rlimit_info: Option<RLimitInfo>,
        /// Terminal to attach.
        pub tty_info: Option<TtyInfo>,
    }
}

impl ContainerInfo {
    /// A container made by the agent itself.
    pub fn mesos() -> Self {
        Self {
            kind: ContainerType::Mesos,
            ..Self::default()
        }
    }
}

record! {
    /// What a container got.
    pub struct ContainerStatus {
        /// Its name.
        pub container_id: Option<ContainerId>,
        /// Networks with the addresses given.
        pub network_infos: Vec<NetworkInfo>,
        /// Process id of its first process, as the agent sees it.
        pub executor_pid: Option<u32>,
    }
}
