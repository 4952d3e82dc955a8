//! `meseta certs`: a CA for a cluster, and certificates with roles for its nodes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use meseta_runtime::identity::{CertificateAuthority, Identity};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a CA: ca.pem goes to every node, ca-key.pem stays here.
    Ca {
        /// Directory for the two files.
        #[arg(long, env = "MESETA_DIR", default_value = "certs")]
        dir: PathBuf,
        /// Name of the cluster.
        #[arg(long, env = "MESETA_CLUSTER", default_value = "meseta")]
        cluster: String,
    },
    /// Make the certificate of one node: node.pem and node-key.pem in --out.
    Node {
        /// Directory with ca.pem and ca-key.pem.
        #[arg(long, env = "MESETA_DIR", default_value = "certs")]
        dir: PathBuf,
        /// Host names and IP addresses under which others reach the node; repeat or separate by commas.
        #[arg(
            long = "host",
            env = "MESETA_HOST",
            required = true,
            value_delimiter = ','
        )]
        hosts: Vec<String>,
        /// What the node may be.
        #[arg(long = "role", env = "MESETA_ROLE", required = true, value_delimiter = ',', value_parser = ["master", "agent", "scheduler", "operator"])]
        roles: Vec<String>,
        /// Directory for the two files.
        #[arg(long, env = "MESETA_OUT")]
        out: PathBuf,
    },
}

pub(crate) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    match &flags.command {
        Action::Ca { dir, cluster } => {
            anyhow::ensure!(
                !dir.join("ca.pem").exists(),
                "{} holds a CA already: a new one would cut off every node that has a certificate of the old one; \
                 give another --dir",
                dir.display()
            );
            CertificateAuthority::create(cluster)?.save(dir)?;
            crate::out::line(&format!("{0}/ca.pem, {0}/ca-key.pem", dir.display()))?;
        }
        Action::Node {
            dir,
            hosts,
            roles,
            out,
        } => {
            for name in ["ca.pem", "node.pem", "node-key.pem"] {
                anyhow::ensure!(
                    !out.join(name).exists(),
                    "--out={} holds a {name} already, which is never overwritten: name a directory of its own for each \
                     node, such as --out={}/{}",
                    out.display(),
                    dir.display(),
                    hosts.first().map_or("node", String::as_str)
                );
            }
            let ca = CertificateAuthority::load(dir)?;
            let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
            Identity::issue(&ca, hosts, &roles)?.save(out)?;
            crate::out::line(&format!("{0}/node.pem, {0}/node-key.pem", out.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
