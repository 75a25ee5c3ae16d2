//! Certificates and credentials files: what is accepted, and what is refused with which words.

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

fn credentials(ca: &ClusterCa, entity: &str) -> Credentials {
    let entity = entity.parse().unwrap();
    let (cert_pem, key_pem) = ca.issue(&entity, Validity::default()).unwrap();
    Credentials {
        fsid: ca.fsid().into(),
        entity,
        monitors: vec![MonAddress { name: "a".into(), address: "127.0.0.1:6789".into() }],
        ca_pem: ca.certificate_pem().into(),
        cert_pem,
        key_pem,
    }
}

#[test]
fn a_ca_survives_its_pem_and_signs() {
    let ca = ClusterCa::create("fsid-1").unwrap();
    let again = ClusterCa::from_pem(ca.certificate_pem(), ca.key_pem()).unwrap();
    assert_eq!(again.fsid(), "fsid-1");
    let entity = "osd.3".parse().unwrap();
    let identity = Identity::generate().unwrap();
    let csr = identity.signing_request(&entity).unwrap();
    let pem = again.sign(&csr, &entity, Validity::default()).unwrap();
    let info = CertificateInfo::from_pem(&pem).unwrap();
    assert_eq!((info.entity, info.fsid.as_str()), (entity, "fsid-1"));
}

#[test]
fn bad_requests_and_mixed_up_cas_are_refused() {
    let ca = ClusterCa::create("fsid-1").unwrap();
    let entity = "client.x".parse().unwrap();
    for bad in ["", "junk", ca.certificate_pem()] {
        let error = ca.sign(bad, &entity, Validity::default()).unwrap_err();
        assert!(error.to_string().contains("client.x"), "{error}");
    }
    let other = ClusterCa::create("fsid-1").unwrap();
    let error = ClusterCa::from_pem(ca.certificate_pem(), other.key_pem()).unwrap_err();
    assert!(error.to_string().contains("another key"), "{error}");
    let (leaf, key) = ca.issue(&entity, Validity::default()).unwrap();
    assert!(ClusterCa::from_pem(&leaf, &key).is_err());
}

#[test]
fn credentials_survive_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.nacre");
    let credentials = credentials(&ClusterCa::create("fsid-1").unwrap(), "client.admin");
    credentials.save(&path).unwrap();
    credentials.save(&path).unwrap();
    assert_eq!(Credentials::load(&path).unwrap(), credentials);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(!format!("{credentials:?}").contains("PRIVATE"));
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.nacre");
    let error = Credentials::load(&path).unwrap_err().to_string();
    assert!(error.contains("x.nacre"), "{error}");
    let ca = ClusterCa::create("fsid-1").unwrap();
    let good = credentials(&ca, "client.admin");
    let expect = |credentials: Credentials, part: &str| {
        let error = Credentials::from_toml(&credentials.to_toml()).unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    expect(Credentials { entity: "client.other".parse().unwrap(), ..good.clone() }, "names client.admin");
    expect(Credentials { fsid: "fsid-2".into(), ..good.clone() }, "cluster fsid-1");
    expect(Credentials { key_pem: "junk".into(), ..good.clone() }, "key:");
    expect(Credentials { ca_pem: good.cert_pem.clone(), ..good.clone() }, "ca:");
    let unknown = format!("colour = 1\n{}", good.to_toml());
    let error = Credentials::from_toml(&unknown).unwrap_err();
    assert!(error.contains("colour") && error.contains("line 1"), "{error}");
    let error = Credentials::from_toml("fsid = 3\nkey = '''-----BEGIN secret").unwrap_err();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_short_life_ends() {
    let ca = ClusterCa::create("fsid-1").unwrap();
    let (pem, _) = ca.issue(&"osd.1".parse().unwrap(), Validity::lasting(Duration::from_secs(60))).unwrap();
    let left =
        CertificateInfo::from_pem(&pem).unwrap().not_after - time::OffsetDateTime::now_utc().unix_timestamp();
    assert!((50..=61).contains(&left), "{left}");
}
