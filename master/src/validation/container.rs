//! Commands and containers of tasks and executors.
//!
//! Pure. Source: Mesos `src/common/validation.cpp`.

use meseta_protocol::common::{
    CommandInfo, Environment, Secret, SecretType, Variable, VariableType,
};
use meseta_protocol::container::{
    ContainerInfo, ContainerType, Volume, VolumeSource, VolumeSourceType,
};

/// What is wrong with a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretRejection {
    /// The field of its type is missing.
    #[error("Secret of type {0} must have the '{1}' field set")]
    Missing(SecretType, &'static str),
    /// The field of the other type is there.
    #[error("Secret of type {0} must not have the '{1}' field set")]
    Extra(SecretType, &'static str),
    /// A type this version does not know.
    #[error("Secret of type UNKNOWN is not allowed")]
    Unknown,
}

/// What is wrong with a variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariableProblem {
    /// VALUE without a value.
    #[error("of type 'VALUE' must have a value set")]
    ValueMissing,
    /// VALUE with a secret.
    #[error("of type 'VALUE' must not have a secret set")]
    SecretInValue,
    /// SECRET without a secret.
    #[error("of type 'SECRET' must have a secret set")]
    SecretMissing,
    /// SECRET with a value.
    #[error("of type 'SECRET' must not have a value set")]
    ValueInSecret,
    /// The secret makes no sense.
    #[error("specifies an invalid secret: {0}")]
    Secret(#[source] SecretRejection),
    /// An environment cannot hold the secret.
    #[error("specifies a secret containing null bytes, which is not allowed in the environment")]
    NullBytes,
}

/// What is wrong with a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandRejection {
    /// A bad variable.
    #[error("Environment variable '{0}' {1}")]
    Variable(String, #[source] VariableProblem),
    /// A variable of a type this version does not know.
    #[error("Environment variable of type 'UNKNOWN' is not allowed")]
    UnknownVariable,
}

/// Checks a command.
///
/// # Errors
/// [`CommandRejection`] with the first variable that makes no sense.
pub fn validate_command(command: &CommandInfo) -> Result<(), CommandRejection> {
    command
        .environment
        .as_ref()
        .map_or(Ok(()), validate_environment)
}

fn validate_environment(environment: &Environment) -> Result<(), CommandRejection> {
    for variable in &environment.variables {
        if variable.kind == VariableType::Unknown {
            return Err(CommandRejection::UnknownVariable);
        }
        if let Some(problem) = problem_of(variable) {
            return Err(CommandRejection::Variable(variable.name.clone(), problem));
        }
    }
    Ok(())
}

fn problem_of(variable: &Variable) -> Option<VariableProblem> {
    match (variable.kind, &variable.value, &variable.secret) {
        (VariableType::Unknown, ..) | (VariableType::Value, Some(_), None) => None,
        (VariableType::Value, _, Some(_)) => Some(VariableProblem::SecretInValue),
        (VariableType::Value, None, None) => Some(VariableProblem::ValueMissing),
        (VariableType::Secret, _, None) => Some(VariableProblem::SecretMissing),
        (VariableType::Secret, Some(_), Some(_)) => Some(VariableProblem::ValueInSecret),
        (VariableType::Secret, None, Some(secret)) => problem_of_secret(secret),
    }
}

fn problem_of_secret(secret: &Secret) -> Option<VariableProblem> {
    if let Err(rejection) = validate_secret(secret) {
        return Some(VariableProblem::Secret(rejection));
    }
    let bytes = secret
        .value
        .as_ref()
        .map_or(&[][..], |value| value.data.as_slice());
    bytes.contains(&0).then_some(VariableProblem::NullBytes)
}

/// Checks a secret.
///
/// # Errors
/// [`SecretRejection`] when its fields do not fit its type.
pub fn validate_secret(secret: &Secret) -> Result<(), SecretRejection> {
    let kind = secret.kind;
    let (is_there, name, other_is_there, other) = match kind {
        SecretType::Reference => (
            secret.reference.is_some(),
            "reference",
            secret.value.is_some(),
            "value",
        ),
        SecretType::Value => (
            secret.value.is_some(),
            "value",
            secret.reference.is_some(),
            "reference",
        ),
        SecretType::Unknown => return Err(SecretRejection::Unknown),
    };
    if !is_there {
        return Err(SecretRejection::Missing(kind, name));
    }
    if other_is_there {
        return Err(SecretRejection::Extra(kind, other));
    }
    Ok(())
}

/// What is wrong with a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeRejection {
    /// None or several sources.
    #[error("Only one of them should be set: 'host_path', 'image' and 'source'")]
    NotOneSource,
    /// A type this version does not know.
    #[error("'source.type' is unknown")]
    UnknownSource,
    /// The field of the source's type is missing.
    #[error("'source.{0}' is not set for {1} volume")]
    Missing(&'static str, &'static str),
}

/// What is wrong with a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerRejection {
    /// A bad volume.
    #[error("Invalid volume: {0}")]
    Volume(#[from] VolumeRejection),
    /// DOCKER without its details.
    #[error("DockerInfo 'docker' is not set for DOCKER typed ContainerInfo")]
    NoDocker,
    /// The container's name is the agent's to give.
    #[error("Parameter in DockerInfo must not be 'name'")]
    DockerName,
}

/// Checks a container.
///
/// # Errors
/// [`ContainerRejection`] with the first rule that is broken.
pub fn validate_container(container: &ContainerInfo) -> Result<(), ContainerRejection> {
    for volume in &container.volumes {
        validate_volume(volume)?;
    }
    if container.kind == ContainerType::Docker {
        let docker = container
            .docker
            .as_ref()
            .ok_or(ContainerRejection::NoDocker)?;
        if docker
            .parameters
            .iter()
            .any(|parameter| parameter.key == "name")
        {
            return Err(ContainerRejection::DockerName);
        }
    }
    Ok(())
}

fn validate_volume(volume: &Volume) -> Result<(), VolumeRejection> {
    match (&volume.host_path, &volume.image, &volume.source) {
        (Some(_), None, None) | (None, Some(_), None) => Ok(()),
        (None, None, Some(source)) => validate_source(source),
        _ => Err(VolumeRejection::NotOneSource),
    }
}

fn validate_source(source: &VolumeSource) -> Result<(), VolumeRejection> {
    let (is_there, field, name) = match source.kind {
        VolumeSourceType::Unknown => return Err(VolumeRejection::UnknownSource),
        VolumeSourceType::DockerVolume => (
            source.docker_volume.is_some(),
            "docker_volume",
            "DOCKER_VOLUME",
        ),
        VolumeSourceType::HostPath => (source.host_path.is_some(), "host_path", "HOST_PATH"),
        VolumeSourceType::SandboxPath => (
            source.sandbox_path.is_some(),
            "sandbox_path",
            "SANDBOX_PATH",
        ),
        VolumeSourceType::Secret => (source.secret.is_some(), "secret", "SECRET"),
        VolumeSourceType::Csi => match &source.csi_volume {
            None => (false, "csi_volume", "CSI"),
            Some(csi) => (
                csi.static_provisioning.is_some(),
                "csi_volume.static_provisioning",
                "CSI",
            ),
        },
    };
    if is_there {
        Ok(())
    } else {
        Err(VolumeRejection::Missing(field, name))
    }
}

/// Whether the container asks to share its parent's control groups; none when it does not say.
pub fn share_cgroups(container: Option<&ContainerInfo>) -> Option<bool> {
    container?.linux_info.as_ref()?.share_cgroups
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_protocol::common::{SecretReference, SecretValue};
    use meseta_protocol::container::{CsiVolume, DockerInfo, Image, Parameter};

    fn of<E: ToString>(result: Result<(), E>) -> String {
        result.map_or_else(|rejection| rejection.to_string(), |()| "ok".to_owned())
    }

    #[test]
    fn every_rule_of_variables_has_its_text() {
        let plain = Variable::new("A", "x");
        let secret = |secret| Variable {
            kind: VariableType::Secret,
            value: None,
            secret: Some(secret),
            ..plain.clone()
        };
        let value = |bytes: &[u8]| Secret {
            kind: SecretType::Value,
            value: Some(SecretValue {
                data: serde_bytes_of(bytes),
            }),
            reference: None,
        };
        let reference = Secret {
            kind: SecretType::Reference,
            reference: Some(SecretReference::default()),
            value: None,
        };
        for (variable, expected) in [
            (plain.clone(), "ok"),
            (secret(value(b"x")), "ok"),
            (secret(reference.clone()), "ok"),
            (
                Variable {
                    value: None,
                    ..plain.clone()
                },
                "Environment variable 'A' of type 'VALUE' must have a value set",
            ),
            (
                Variable {
                    secret: Some(value(b"x")),
                    ..plain.clone()
                },
                "Environment variable 'A' of type 'VALUE' must not have a secret set",
            ),
            (
                Variable {
                    kind: VariableType::Secret,
                    value: None,
                    ..plain.clone()
                },
                "Environment variable 'A' of type 'SECRET' must have a secret set",
            ),
            (
                Variable {
                    value: Some("x".into()),
                    ..secret(value(b"x"))
                },
                "Environment variable 'A' of type 'SECRET' must not have a value set",
            ),
            (
                secret(Secret {
                    reference: None,
                    ..reference.clone()
                }),
                "Environment variable 'A' specifies an invalid secret: Secret of type REFERENCE must have the \
                 'reference' field set",
            ),
            (
                secret(Secret {
                    value: value(b"x").value,
                    ..reference
                }),
                "Environment variable 'A' specifies an invalid secret: Secret of type REFERENCE must not have the \
                 'value' field set",
            ),
            (
                secret(value(b"x\0")),
                "Environment variable 'A' specifies a secret containing null bytes, which is not allowed in the \
                 environment",
            ),
            (
                Variable {
                    kind: VariableType::Unknown,
                    ..plain.clone()
                },
                "Environment variable of type 'UNKNOWN' is not allowed",
            ),
        ] {
            let command = CommandInfo {
                environment: Some(Environment {
                    variables: vec![variable],
                }),
                ..CommandInfo::shell("true")
            };
            assert_eq!(of(validate_command(&command)), expected);
        }
    }

    fn serde_bytes_of<T: From<Vec<u8>>>(bytes: &[u8]) -> T {
        T::from(bytes.to_vec())
    }

    #[test]
    fn every_rule_of_containers_has_its_text() {
        let source = |kind, csi| Volume {
            source: Some(VolumeSource {
                kind,
                csi_volume: csi,
                ..VolumeSource::default()
            }),
            ..Volume::writable("x")
        };
        let host = Volume {
            host_path: Some("/x".into()),
            ..Volume::writable("x")
        };
        let one =
            "Invalid volume: Only one of them should be set: 'host_path', 'image' and 'source'";
        for (volume, expected) in [
            (host.clone(), "ok"),
            (Volume::writable("x"), one),
            (
                Volume {
                    image: Some(Image::default()),
                    ..host
                },
                one,
            ),
            (
                source(VolumeSourceType::Unknown, None),
                "Invalid volume: 'source.type' is unknown",
            ),
            (
                source(VolumeSourceType::DockerVolume, None),
                "Invalid volume: 'source.docker_volume' is not set for DOCKER_VOLUME volume",
            ),
            (
                source(VolumeSourceType::HostPath, None),
                "Invalid volume: 'source.host_path' is not set for HOST_PATH volume",
            ),
            (
                source(VolumeSourceType::SandboxPath, None),
                "Invalid volume: 'source.sandbox_path' is not set for SANDBOX_PATH volume",
            ),
            (
                source(VolumeSourceType::Secret, None),
                "Invalid volume: 'source.secret' is not set for SECRET volume",
            ),
            (
                source(VolumeSourceType::Csi, None),
                "Invalid volume: 'source.csi_volume' is not set for CSI volume",
            ),
            (
                source(VolumeSourceType::Csi, Some(CsiVolume::default())),
                "Invalid volume: 'source.csi_volume.static_provisioning' is not set for CSI volume",
            ),
        ] {
            let container = ContainerInfo {
                volumes: vec![volume],
                ..ContainerInfo::mesos()
            };
            assert_eq!(of(validate_container(&container)), expected);
        }
        let mut docker = ContainerInfo {
            kind: ContainerType::Docker,
            ..ContainerInfo::default()
        };
        assert_eq!(
            of(validate_container(&docker)),
            "DockerInfo 'docker' is not set for DOCKER typed ContainerInfo"
        );
        let name = Parameter {
            key: "name".into(),
            value: "x".into(),
        };
        docker.docker = Some(DockerInfo {
            parameters: vec![name],
            ..DockerInfo::default()
        });
        assert_eq!(
            of(validate_container(&docker)),
            "Parameter in DockerInfo must not be 'name'"
        );
    }
}
