//! Who a node is: its certificate, the cluster's certificate authority, and the one-use keys of guests.
//!
//! Owns how keys and certificates are made, kept in files and read. Everything is ECDSA on P-256 in X.509:
//!
//! ```text
//! authority      ca.pem, ca-key.pem (0600)       signs nodes; the key never leaves the machine that issues
//! node           node.pem, node-key.pem (0600)   SAN: each host as DNS name or IP, each role as
//!                                                URI `meseta:role:<role>`
//! guest          never in a file of its own       self-signed, known by the SHA-256 of its DER form
//! ```
//!
//! Invariant: a file that holds a private key is created with mode 0600 and never widened, and no private key is
//! ever printed. What may connect is decided in `transport/quic`; this file only says who somebody is.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Environment variable that names the directory of the development authority.
pub const DEVELOPMENT_CA_VARIABLE: &str = "MESETA_DEV_CA_DIR";
/// What a role's URI in a certificate starts with.
pub const ROLE_URI_PREFIX: &str = "meseta:role:";
/// How long an authority's own certificate is valid.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a node's certificate is valid unless said otherwise.
pub const NODE_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long before its making a certificate becomes valid, for clocks that are a little behind.
const BACKDATED: Duration = Duration::from_secs(3600);

const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca-key.pem";
const NODE_FILE: &str = "node.pem";
const NODE_KEY_FILE: &str = "node-key.pem";

/// Why an identity or an authority cannot be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or directory cannot be read or written.
    #[error("cannot {action} {path}: check that it exists and that this user may do so", path = path.display())]
    Io {
        /// What was tried, for example `read`.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file is not the PEM it should be.
    #[error("{path} holds no {what}: give a PEM file that does", path = path.display())]
    Pem {
        /// What was looked for, for example `certificate`.
        what: &'static str,
        /// In which file.
        path: PathBuf,
        /// Why it was not found.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key do not belong together, or one of them cannot be used.
    #[error("{origin}: certificate and private key cannot be used together: issue the pair again")]
    Unusable {
        /// The files or the parts.
        origin: String,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// A certificate cannot be parsed.
    #[error("{origin} is not an X.509 certificate that can be read: {reason}")]
    Certificate {
        /// Which certificate.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// A host or a role cannot stand in a certificate.
    #[error(
        "`{name}` cannot stand in a certificate: use an IP address, a DNS name or a plain role word"
    )]
    BadName {
        /// The text.
        name: String,
    },
    /// Making a key or a certificate failed.
    #[error("cannot make a {what}")]
    Issue {
        /// What was being made.
        what: &'static str,
        /// What is wrong.
        #[source]
        source: rcgen::Error,
    },
    /// The directory of an authority could be changed by somebody else.
    #[error("{path} belongs to another user or lets others write: remove it, or name another directory in {DEVELOPMENT_CA_VARIABLE}", path = path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
}

/// SHA-256 of a certificate in DER form.
pub type Fingerprint = [u8; 32];

/// SHA-256 of `der`, by which a guest's certificate is pinned.
#[expect(clippy::expect_used, reason = "the proof is in the text")]
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    // Each TLS 1.3 suite carries its hash; the one of AES-128-GCM is SHA-256.
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .expect("the suite is one of TLS 1.3, as its name says");
    let mut sum = [0; 32];
    sum.copy_from_slice(suite.common.hash_provider.hash(der).as_ref());
    sum
}

/// Certificate, private key and the authorities a node trusts.
pub struct Identity {
    key: PrivateKeyDer<'static>,
    /// The chain with the same key as the TLS stack uses it: reading a key takes as long as signing with it.
    certified: Arc<CertifiedKey>,
    authorities: Vec<CertificateDer<'static>>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone_key(),
            certified: Arc::clone(&self.certified),
            authorities: self.authorities.clone(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("names", &self.names().ok())
            .field("authorities", &self.authorities.len())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads PEM files: the authorities in `ca`, the certificate chain in `cert` (own one first) and its key.
    ///
    /// # Errors
    /// [`IdentityError`], naming the file and what to do.
    pub fn from_files(ca: &Path, cert: &Path, key: &Path) -> Result<Self, IdentityError> {
        let private =
            PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|source| IdentityError::Pem {
                what: "private key",
                path: key.to_owned(),
                source,
            })?;
        Self::checked(
            read_certificates(cert)?,
            private,
            read_certificates(ca)?,
            format!("{} and {}", cert.display(), key.display()),
        )
    }

    /// Identity of its parts in DER form, as a parent hands them to a child: the certificate chain (own one first),
    /// the private key as PKCS #8, and the authorities to trust.
    ///
    /// # Errors
    /// [`IdentityError::Unusable`] when key and certificate do not fit, [`IdentityError::Certificate`] when the key
    /// is in no known form.
    pub fn from_der(
        chain: Vec<Vec<u8>>,
        key: Vec<u8>,
        authorities: Vec<Vec<u8>>,
    ) -> Result<Self, IdentityError> {
        let key = PrivateKeyDer::try_from(key).map_err(|reason| IdentityError::Certificate {
            origin: "private key handed over in DER form".to_owned(),
            reason: reason.to_owned(),
        })?;
        Self::checked(
            chain.into_iter().map(CertificateDer::from).collect(),
            key,
            authorities.into_iter().map(CertificateDer::from).collect(),
            "identity handed over in DER form".to_owned(),
        )
    }

    /// A fresh certificate and key for a node with these host names or IP addresses and roles, valid for
    /// [`NODE_VALIDITY`].
    ///
    /// # Errors
    /// [`IdentityError::BadName`] for a host or role that a certificate cannot hold, [`IdentityError::Issue`].
    pub fn issue(
        authority: &CertificateAuthority,
        hosts: &[String],
        roles: &[&str],
    ) -> Result<Self, IdentityError> {
        Self::issue_for(authority, hosts, roles, NODE_VALIDITY)
    }

    /// As [`Identity::issue`], valid for `validity` from now on.
    ///
    /// # Errors
    /// As [`Identity::issue`].
    pub fn issue_for(
        authority: &CertificateAuthority,
        hosts: &[String],
        roles: &[&str],
        validity: Duration,
    ) -> Result<Self, IdentityError> {
        let issue = |source| IdentityError::Issue {
            what: "node certificate",
            source,
        };
        let mut params = CertificateParams::default();
        for host in hosts {
            params.subject_alt_names.push(host_name(host)?);
        }
        for role in roles {
            params.subject_alt_names.push(role_name(role)?);
        }
        params.distinguished_name = named(hosts.first().map_or("meseta node", String::as_str));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity);
        let key = KeyPair::generate().map_err(issue)?;
        let certificate = params.signed_by(&key, &authority.issuer).map_err(issue)?;
        Self::checked(
            vec![certificate.der().clone()],
            PrivateKeyDer::from(key),
            vec![authority.certificate.clone()],
            "issued node certificate".to_owned(),
        )
    }

    /// A fresh certificate of the development authority ([`CertificateAuthority::load_or_create_development`]) for
    /// this machine: `localhost`, the loopback addresses, the machine's host name and `extra_hosts`.
    ///
    /// # Errors
    /// [`IdentityError`] of the authority or of the certificate.
    pub fn development(role: &str, extra_hosts: &[String]) -> Result<Self, IdentityError> {
        let authority = CertificateAuthority::load_or_create_development()?;
        Self::issue(&authority, &development_hosts(extra_hosts), &[role])
    }

    /// Writes `ca.pem`, `node.pem` and `node-key.pem` (0600) into `dir`, which is made when missing.
    ///
    /// # Errors
    /// [`IdentityError::Io`]; files that exist already are not overwritten.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        make_private_dir(dir)?;
        let pem = |certificates: &[CertificateDer<'_>]| -> String {
            certificates
                .iter()
                .map(|c| to_pem("CERTIFICATE", c))
                .collect()
        };
        write_new(&dir.join(CA_FILE), 0o644, &pem(&self.authorities))?;
        write_new(&dir.join(NODE_FILE), 0o644, &pem(self.chain()))?;
        let label = match &self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            PrivateKeyDer::Pkcs8(_) | _ => "PRIVATE KEY",
        };
        write_new(
            &dir.join(NODE_KEY_FILE),
            0o600,
            &to_pem(label, self.key.secret_der()),
        )
    }

    /// Certificate chain in DER form, the own certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Chain and key for the TLS stack.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// The private key. Only for handing it to the TLS stack or to a child process.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// Certificates of the authorities that peers must be signed by.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Hosts and roles of the own certificate.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] when it cannot be parsed.
    pub fn names(&self) -> Result<PeerIdentity, IdentityError> {
        let own = self
            .chain()
            .first()
            .ok_or_else(|| IdentityError::Certificate {
                origin: "empty certificate chain".to_owned(),
                reason: "there is no certificate".to_owned(),
            })?;
        PeerIdentity::read(own)
    }

    fn checked(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        authorities: Vec<CertificateDer<'static>>,
        origin: String,
    ) -> Result<Self, IdentityError> {
        let certified = CertifiedKey::from_der(
            chain,
            key.clone_key(),
            &rustls::crypto::aws_lc_rs::default_provider(),
        )
        .map_err(|source| IdentityError::Unusable { origin, source })?;
        Ok(Self {
            key,
            certified: Arc::new(certified),
            authorities,
        })
    }
}

/// Signs the certificates of a cluster's nodes.
pub struct CertificateAuthority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// A new authority called `name`, valid for [`AUTHORITY_VALIDITY`]. It is in memory only until it is saved.
    ///
    /// # Errors
    /// [`IdentityError::Issue`].
    pub fn create(name: &str) -> Result<Self, IdentityError> {
        let issue = |source| IdentityError::Issue {
            what: "certificate authority",
            source,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        // Signs nodes directly and no further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, AUTHORITY_VALIDITY);
        let key = KeyPair::generate().map_err(issue)?;
        let certificate = params.self_signed(&key).map_err(issue)?.der().clone();
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads `ca.pem` and `ca-key.pem` of `dir`.
    ///
    /// # Errors
    /// [`IdentityError`], naming the file and what to do.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let (ca_path, key_path) = (dir.join(CA_FILE), dir.join(CA_KEY_FILE));
        let unusable = |reason: String| IdentityError::Certificate {
            origin: format!("{} with {}", ca_path.display(), key_path.display()),
            reason,
        };
        let certificate = read_certificates(&ca_path)?
            .into_iter()
            .next()
            .ok_or_else(|| unusable("there is no certificate".to_owned()))?;
        let key_pem = String::from_utf8(read(&key_path)?).map_err(|e| unusable(e.to_string()))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|e| unusable(e.to_string()))?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|e| unusable(e.to_string()))?;
        Ok(Self {
            certificate,
            issuer,
        })
    }

    /// Writes `ca.pem` and `ca-key.pem` (0600) into `dir`, which is made (0700) when missing.
    ///
    /// # Errors
    /// [`IdentityError::Io`]; an authority that exists already is not overwritten.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        make_private_dir(dir)?;
        write_new(
            &dir.join(CA_KEY_FILE),
            0o600,
            &self.issuer.key().serialize_pem(),
        )?;
        write_new(
            &dir.join(CA_FILE),
            0o644,
            &to_pem("CERTIFICATE", &self.certificate),
        )
    }

    /// The development authority of this user, made at the first call: in `$MESETA_DEV_CA_DIR`, else
    /// `$HOME/.meseta/dev-ca`, else `/tmp/meseta-dev-ca-<uid>`.
    ///
    /// # Errors
    /// As [`CertificateAuthority::load_or_create`].
    pub fn load_or_create_development() -> Result<Self, IdentityError> {
        Self::load_or_create(&development_directory()?, "Meseta development CA")
    }

    /// The authority kept in `dir`, or a new one called `name` when there is none. Of several processes that call
    /// this at once one creates it and all get the same: it is written to a directory beside `dir` that is then
    /// renamed, which succeeds for one of them only.
    ///
    /// # Errors
    /// [`IdentityError::NotOurs`] when `dir` belongs to another user or others may write to it; else as
    /// [`CertificateAuthority::load`] and [`CertificateAuthority::save`].
    pub fn load_or_create(dir: &Path, name: &str) -> Result<Self, IdentityError> {
        if !dir.join(CA_FILE).exists() {
            Self::create_in(dir, name)?;
        }
        let metadata = fs::metadata(dir).map_err(|source| io_error("read", dir, source))?;
        if metadata.uid() != own_uid()? || metadata.permissions().mode() & 0o022 != 0 {
            return Err(IdentityError::NotOurs {
                path: dir.to_owned(),
            });
        }
        Self::load(dir)
    }

    /// The authority's own certificate in DER form, which peers trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    fn create_in(dir: &Path, name: &str) -> Result<(), IdentityError> {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(|source| io_error("make", parent, source))?;
        }
        let mut beside = dir.as_os_str().to_owned();
        #[expect(
            clippy::disallowed_methods,
            reason = "a name that no other program uses at the same time; no process sees it"
        )]
        beside.push(format!(".new-{}", uuid::Uuid::new_v4()));
        let beside = PathBuf::from(beside);
        Self::create(name)?.save(&beside)?;
        let renamed = fs::rename(&beside, dir);
        if let Err(source) = renamed {
            fs::remove_dir_all(&beside).map_err(|source| io_error("remove", &beside, source))?;
            // A directory that is not empty cannot be replaced: somebody else was first, whose authority is used.
            if !dir.join(CA_FILE).exists() {
                return Err(io_error("make", dir, source));
            }
        }
        Ok(())
    }
}

/// One-use key of a guest: self-signed, made by the host, pinned there by its fingerprint and handed to the guest.
pub struct GuestKey {
    /// Certificate in DER form.
    pub certificate: Vec<u8>,
    /// Private key in DER form (PKCS #8).
    pub private_key: Vec<u8>,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
}

impl fmt::Debug for GuestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestKey").finish_non_exhaustive()
    }
}

impl GuestKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`IdentityError::Issue`].
    pub fn generate() -> Result<Self, IdentityError> {
        let issue = |source| IdentityError::Issue {
            what: "guest key",
            source,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = named("meseta guest");
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, NODE_VALIDITY);
        let key = KeyPair::generate().map_err(issue)?;
        let certificate = params.self_signed(&key).map_err(issue)?.der().to_vec();
        Ok(Self {
            fingerprint: fingerprint(&certificate),
            certificate,
            private_key: key.serialize_der(),
        })
    }

    /// The guest's identity: this key, trusting the authorities (DER form) that its host is signed by.
    ///
    /// # Errors
    /// [`IdentityError::Unusable`] when the parts do not fit.
    pub fn identity(&self, authorities: Vec<Vec<u8>>) -> Result<Identity, IdentityError> {
        Identity::from_der(
            vec![self.certificate.clone()],
            self.private_key.clone(),
            authorities,
        )
    }
}

/// What a certificate says of its owner.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerIdentity {
    /// Hosts it may speak for, as text: DNS names and IP addresses.
    pub hosts: Vec<Arc<str>>,
    /// Its roles, for example `master`.
    pub roles: Vec<Arc<str>>,
}

impl PeerIdentity {
    /// Reads hosts and roles of a certificate in DER form. Whether it may be trusted is not looked at.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] when it cannot be parsed.
    pub fn read(der: &[u8]) -> Result<Self, IdentityError> {
        let bad = |reason: String| IdentityError::Certificate {
            origin: "peer's certificate".to_owned(),
            reason,
        };
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| bad(e.to_string()))?;
        let mut read = Self::default();
        let names = certificate
            .subject_alternative_name()
            .map_err(|e| bad(e.to_string()))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            if let GeneralName::DNSName(host) = name {
                read.hosts.push(Arc::from(*host));
            } else if let GeneralName::IPAddress(octets) = name {
                read.hosts.extend(ip_text(octets));
            } else if let GeneralName::URI(uri) = name
                && let Some(role) = uri.strip_prefix(ROLE_URI_PREFIX)
            {
                read.roles.push(Arc::from(role));
            }
        }
        Ok(read)
    }

    /// Whether the certificate names `host`: DNS names without regard to case, IP addresses by value.
    pub fn has_host(&self, host: &str) -> bool {
        let ip: Option<IpAddr> = host.parse().ok();
        self.hosts.iter().any(|own| match ip {
            Some(ip) => own.parse() == Ok(ip),
            None => own.eq_ignore_ascii_case(host),
        })
    }
}

/// Names that a development certificate holds for this machine.
fn development_hosts(extra: &[String]) -> Vec<String> {
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    for host in std::iter::once(machine.trim()).chain(extra.iter().map(String::as_str)) {
        // A machine may have a name that no certificate can hold; it is then reached by its other names.
        let usable = host_name(host).is_ok() || extra.iter().any(|h| h == host);
        if usable && !hosts.iter().any(|h| h == host) {
            hosts.push(host.to_owned());
        }
    }
    hosts
}

fn development_directory() -> Result<PathBuf, IdentityError> {
    let set = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
    if let Some(dir) = set(DEVELOPMENT_CA_VARIABLE) {
        return Ok(PathBuf::from(dir));
    }
    if let Some(home) = set("HOME") {
        return Ok(Path::new(&home).join(".meseta").join("dev-ca"));
    }
    Ok(PathBuf::from(format!("/tmp/meseta-dev-ca-{}", own_uid()?)))
}

/// Effective user id: the owner of this process' directory in `/proc`.
fn own_uid() -> Result<u32, IdentityError> {
    let path = Path::new("/proc/self");
    fs::metadata(path)
        .map(|metadata| metadata.uid())
        .map_err(|source| io_error("read", path, source))
}

fn ip_text(octets: &[u8]) -> Option<Arc<str>> {
    let ip = match octets.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
    };
    Some(Arc::from(ip.to_string()))
}

fn host_name(host: &str) -> Result<SanType, IdentityError> {
    let bad = || IdentityError::BadName {
        name: host.to_owned(),
    };
    if let Ok(ip) = host.parse() {
        return Ok(SanType::IpAddress(ip));
    }
    // The same check that a dialler makes of the name it looks for.
    rustls_pki_types::DnsName::try_from(host).map_err(|_| bad())?;
    Ok(SanType::DnsName(host.try_into().map_err(|_| bad())?))
}

fn role_name(role: &str) -> Result<SanType, IdentityError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let uri = format!("{ROLE_URI_PREFIX}{role}");
    match uri.as_str().try_into() {
        Ok(uri) if !role.is_empty() && role.chars().all(plain) => Ok(SanType::URI(uri)),
        Ok(_) | Err(_) => Err(IdentityError::BadName {
            name: role.to_owned(),
        }),
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Meseta");
    name.push(DnType::CommonName, common_name);
    name
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are valid by the world's clock, not by a node's"
)]
fn set_validity(params: &mut CertificateParams, validity: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + validity).into();
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|source| io_error("read", path, source))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bad = |source| IdentityError::Pem {
        what: "certificate",
        path: path.to_owned(),
        source,
    };
    let found = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(bad)?;
    if found.is_empty() {
        return Err(bad(rustls_pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

/// Makes `dir` with mode 0700, and what is missing above it, unless it exists.
fn make_private_dir(dir: &Path) -> Result<(), IdentityError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| io_error("make", dir, source))
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), IdentityError> {
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| io_error("write", path, source))
}

fn to_pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    // 48 bytes become the 64 characters of a line.
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for i in 0..4 {
                // 6 bits always index into the 64 letters.
                let letter = char::from(ALPHABET[(bits >> (18 - 6 * i)) as usize & 63]);
                text.push(if i <= group.len() { letter } else { '=' });
            }
        }
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_node_certificate_names_its_hosts_and_roles() {
        let authority = CertificateAuthority::create("test").unwrap();
        let identity = Identity::issue(
            &authority,
            &hosts(&["node-1.example", "10.0.0.7", "::1"]),
            &["master", "agent"],
        )
        .unwrap();
        let names = identity.names().unwrap();
        assert_eq!(
            names.hosts.iter().map(|h| &**h).collect::<Vec<_>>(),
            ["node-1.example", "10.0.0.7", "::1"]
        );
        assert_eq!(
            names.roles.iter().map(|r| &**r).collect::<Vec<_>>(),
            ["master", "agent"]
        );
        assert!(names.has_host("NODE-1.example") && names.has_host("0:0::1"));
        assert!(!names.has_host("10.0.0.8"));
    }

    #[test]
    fn refuses_names_that_a_certificate_cannot_hold() {
        let authority = CertificateAuthority::create("test").unwrap();
        for (host, role) in [
            ("a b", "master"),
            ("ok", ""),
            ("ok", "mas ter"),
            ("ok", "é"),
        ] {
            assert!(matches!(
                Identity::issue(&authority, &hosts(&[host]), &[role]),
                Err(IdentityError::BadName { .. })
            ));
        }
    }

    #[test]
    fn files_read_back_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, node) = (dir.path().join("ca"), dir.path().join("node"));
        let authority = CertificateAuthority::create("test").unwrap();
        authority.save(&ca).unwrap();
        let again = CertificateAuthority::load(&ca).unwrap();
        assert_eq!(again.certificate(), authority.certificate());
        let identity = Identity::issue(&again, &hosts(&["localhost"]), &["agent"]).unwrap();
        identity.save(&node).unwrap();
        let read = Identity::from_files(
            &node.join("ca.pem"),
            &node.join("node.pem"),
            &node.join("node-key.pem"),
        )
        .unwrap();
        assert_eq!(read.chain(), identity.chain());
        assert_eq!(read.key(), identity.key());
        assert_eq!(read.authorities(), identity.authorities());
        for key in [ca.join("ca-key.pem"), node.join("node-key.pem")] {
            assert_eq!(
                fs::metadata(key).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert!(authority.save(&ca).is_err(), "an authority was overwritten");
    }

    #[test]
    fn says_which_file_is_missing_or_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let text = CertificateAuthority::load(dir.path())
            .unwrap_err()
            .to_string();
        assert!(text.contains("ca.pem"), "{text}");
        let authority = CertificateAuthority::create("test").unwrap();
        let one = Identity::issue(&authority, &hosts(&["a"]), &[]).unwrap();
        let other = Identity::issue(&authority, &hosts(&["a"]), &[]).unwrap();
        let mixed = Identity::from_der(
            one.chain().iter().map(|c| c.to_vec()).collect(),
            other.key().secret_der().to_vec(),
            vec![],
        );
        assert!(matches!(mixed, Err(IdentityError::Unusable { .. })));
    }

    #[test]
    fn several_that_create_the_authority_at_once_get_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep").join("dev-ca");
        let barrier = std::sync::Barrier::new(8);
        let all: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let authority = CertificateAuthority::load_or_create(&path, "dev").unwrap();
                        authority.certificate().to_vec()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(all.iter().all(|certificate| *certificate == all[0]));
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "temporary directories were left behind");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn refuses_an_authority_that_others_may_write_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dev-ca");
        CertificateAuthority::load_or_create(&path, "dev").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            CertificateAuthority::load_or_create(&path, "dev"),
            Err(IdentityError::NotOurs { .. })
        ));
    }

    #[test]
    fn a_guest_key_is_known_by_the_sha256_of_its_certificate() {
        let key = GuestKey::generate().unwrap();
        assert_eq!(key.fingerprint, fingerprint(&key.certificate));
        key.identity(vec![]).unwrap();
        // The published SHA-256 of the empty text.
        assert_eq!(fingerprint(b"")[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
