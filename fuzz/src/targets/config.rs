//! The files a person writes or carries: credentials and settings. Their parsers live in crates that link RocksDB, so their
//! sources are compiled here once more.

#[path = "../../../nacre/src/daemon/settings.rs"]
#[allow(dead_code, reason = "only the parser is used")]
mod daemon_settings;
use super::tls::{CertificateInfo, ClusterCa, Credentials, Identity, MonAddress, Validity};
use daemon_settings::Settings;
use nacre_types::EntityName;
use std::sync::OnceLock;

/// A byte of what, then: the credentials file; a signing request as it comes to the monitors; a certificate.
pub fn credentials(input: &[u8]) {
    let Some((&what, rest)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match what % 3 {
        0 => match Credentials::from_toml(text) {
            Ok(credentials) => {
                let again = Credentials::from_toml(&credentials.to_toml());
                assert_eq!(again.as_ref(), Ok(&credentials));
                assert!(!format!("{credentials:?}").contains("PRIVATE KEY"), "a key is never shown");
            }
            Err(reason) => assert!(!reason.is_empty() && !reason.contains("PRIVATE KEY"), "{reason}"),
        },
        1 => drop(ca().sign(text, &entity(), Validity::default())),
        _ => drop(CertificateInfo::from_pem(text)),
    }
}

fn entity() -> EntityName {
    EntityName::Client("fuzz".into())
}

fn ca() -> &'static ClusterCa {
    static CA: OnceLock<ClusterCa> = OnceLock::new();
    CA.get_or_init(|| ClusterCa::create("fsid").expect("a certificate authority"))
}

pub fn credentials_seeds() -> Vec<Vec<u8>> {
    let (cert_pem, key_pem) = ca().issue(&entity(), Validity::default()).expect("a certificate");
    let request = Identity::from_pem(&key_pem).expect("its own key").signing_request(&entity());
    let credentials = Credentials {
        fsid: "fsid".into(),
        entity: entity(),
        monitors: vec![MonAddress { name: "a".into(), address: "127.0.0.1:6789".into() }],
        ca_pem: ca().certificate_pem().into(),
        cert_pem: cert_pem.clone(),
        key_pem,
    };
    let seed = |what: u8, text: &str| [&[what], text.as_bytes()].concat();
    vec![
        seed(0, &credentials.to_toml()),
        seed(1, &request.expect("a request")),
        seed(2, &cert_pem),
        seed(0, "fsid = \"f\"\nentity = \"osd.1\"\nca = \"\"\ncert = \"\"\nkey = \"\"\n"),
    ]
}

pub fn settings(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(settings) = Settings::parse(text) else { return };
    let printed = toml::to_string(&settings).expect("settings are TOML");
    assert_eq!(Settings::parse(&printed).ok(), Some(settings.clone()));
    let _ = settings.advertised(settings.listen);
}

pub fn settings_seeds() -> Vec<Vec<u8>> {
    let text = "listen = \"127.0.0.1:0\"\nadvertise = \"10.0.0.1:6800\"\nhost = \"h\"\ndevice_class = \"ssd\"\n\
        index_cache_bytes = 1048576\n[location]\nrack = \"r1\"\nroot = \"default\"\n";
    vec![text.as_bytes().to_vec()]
}
