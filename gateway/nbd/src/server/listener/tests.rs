//! What may be at a UNIX socket's path when a server wants it.

use super::*;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

#[test]
fn a_socket_file_left_by_a_dead_server_is_replaced_and_goes_with_ours() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nbd.sock");
    // The standard library leaves the file behind, as a killed server does.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a first server"));
    assert!(path.exists());
    block_on(async {
        let socket = UnixSocket::bind(&path).await.expect("replaces the stale file");
        UnixStream::connect(&path).await.expect("somebody listens");
        drop(socket);
    });
    assert!(!path.exists());
}

#[test]
fn a_live_server_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nbd.sock");
    let _first = std::os::unix::net::UnixListener::bind(&path).expect("a first server");
    let error = block_on(UnixSocket::bind(&path)).map(|_| ()).expect_err("two servers on one socket");
    assert!(matches!(error, ServeError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("nbd.sock"), "{error}");
    assert!(path.exists());
}

#[test]
fn a_file_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("precious");
    fs::write(&path, "data").expect("a file");
    let error = block_on(UnixSocket::bind(&path)).map(|_| ()).expect_err("a file is no socket");
    assert!(matches!(error, ServeError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "data");
}

#[test]
fn impossible_paths_are_errors_that_name_them() {
    for path in [Path::new("/nonexistent/nbd.sock"), Path::new(&format!("/tmp/{}", "x".repeat(200)))] {
        let error = block_on(UnixSocket::bind(path)).map(|_| ()).expect_err("cannot be bound");
        assert!(matches!(error, ServeError::Unix { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_socket_another_server_put_in_our_place_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nbd.sock");
    block_on(async {
        let socket = UnixSocket::bind(&path).await.expect("ours");
        fs::remove_file(&path).expect("somebody removes it");
        let _theirs = UnixListener::bind(&path).expect("theirs");
        drop(socket);
        assert!(path.exists());
    });
}
