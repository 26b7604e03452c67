//! Certificates that are replaced while they are in use: real connections, and files that change as a mounted Secret's do.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Extension, Router, routing::get};
use leeward_controller::peer::{self, Credentials, Look, PeerName};
use leeward_pki::{Authority, Identity, Term};
use leeward_quorum::certificate::Trouble;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

const DAY: u64 = 24 * 3600;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn term(from: u64, until: u64) -> Term {
    Term { from, until }
}

fn authority(name: &str) -> Authority {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Authority::lasting(name, term(now() - DAY, now() + 900 * DAY)).unwrap()
}

fn issue(authority: &Authority, name: &str) -> Identity {
    let hosts = vec!["127.0.0.1".to_owned()];
    let term = term(now() - 60, now() + 300 * DAY);
    authority.issue_lasting(name, hosts, term).unwrap()
}

/// A directory whose files all change at one moment, by one link.
struct Mount {
    directory: tempfile::TempDir,
    versions: AtomicUsize,
}

impl Mount {
    fn new(ca: &str, identity: &Identity) -> Self {
        let mount = Self {
            directory: tempfile::tempdir().unwrap(),
            versions: AtomicUsize::new(0),
        };
        mount.put(ca, identity);
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(file), mount.directory.path().join(file)).unwrap();
        }
        mount
    }

    fn put(&self, ca: &str, identity: &Identity) {
        let home = self.directory.path();
        let version = format!("..version-{}", self.versions.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(home.join(&version)).unwrap();
        for (file, text) in [
            ("ca.crt", ca),
            ("tls.crt", &identity.certificate),
            ("tls.key", &identity.key),
        ] {
            fs::write(home.join(&version).join(file), text).unwrap();
        }
        symlink(&version, home.join("..data_tmp")).unwrap();
        fs::rename(home.join("..data_tmp"), home.join("..data")).unwrap();
    }

    fn credentials(&self) -> Credentials {
        let file = |name: &str| self.directory.path().join(name);
        Credentials::read(&file("ca.crt"), &file("tls.crt"), &file("tls.key")).unwrap()
    }
}

async fn serve(credentials: &Credentials, router: Router, stop: &CancellationToken) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (credentials, stop) = (credentials.clone(), stop.clone());
    tokio::spawn(async move { peer::serve_on(listener, &credentials, router, stop).await });
    url
}

fn who() -> Router {
    Router::new().route(
        "/",
        get(|Extension(PeerName(name)): Extension<PeerName>| async move { name }),
    )
}

/// Asks over a connection of its own.
async fn ask(credentials: &Credentials, url: &str) -> Result<String, String> {
    let answer = credentials.client().unwrap().get(url).send().await;
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    answer.text().await.map_err(|error| format!("{error:?}"))
}

fn asking(
    client: Option<reqwest::Client>,
    credentials: Credentials,
    url: String,
    over: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<(usize, Vec<String>)> {
    tokio::spawn(async move {
        let (mut asked, mut failed) = (0, vec![]);
        while !over.load(Ordering::Relaxed) {
            let client = client.clone().unwrap_or_else(|| credentials.client().unwrap());
            asked += 1;
            match client.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => {}
                other => failed.push(format!("{other:?}")),
            }
        }
        (asked, failed)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_under_load_and_no_request_fails() {
    let authority = authority("one");
    let ca = authority.certificate();
    let (west, east) = (
        Mount::new(&ca, &issue(&authority, "west")),
        Mount::new(&ca, &issue(&authority, "east")),
    );
    let (server, client) = (west.credentials(), east.credentials());
    let stop = CancellationToken::new();
    let (inside, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let held = {
        let (inside, release) = (Arc::clone(&inside), Arc::clone(&release));
        get(move || async move {
            inside.notify_one();
            release.notified().await;
            "still open"
        })
    };
    let url = serve(&server, who().route("/held", held), &stop).await;
    // One request is under way the whole time, and keeps its connection.
    let long = tokio::spawn(client.client().unwrap().get(format!("{url}/held")).send());
    inside.notified().await;
    let over = Arc::new(AtomicBool::new(false));
    let kept = client.client().unwrap();
    let tasks = [
        asking(Some(kept), client.clone(), url.clone(), Arc::clone(&over)),
        asking(None, client.clone(), url.clone(), Arc::clone(&over)),
        asking(None, client.clone(), url.clone(), Arc::clone(&over)),
    ];
    for _ in 0..10 {
        west.put(&ca, &issue(&authority, "west"));
        assert_eq!(server.look(), Look::Taken);
        assert_eq!(ask(&client, &url).await.as_deref(), Ok("east"));
        east.put(&ca, &issue(&authority, "east"));
        assert_eq!(client.look(), Look::Taken);
        assert_eq!(client.look(), Look::Same);
        assert_eq!(ask(&client, &url).await.as_deref(), Ok("east"));
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        let (asked, failed) = task.await.unwrap();
        assert!(
            asked > 10 && failed.is_empty(),
            "{} of {asked}: {failed:?}",
            failed.len()
        );
    }
    release.notify_one();
    assert_eq!(long.await.unwrap().unwrap().text().await.unwrap(), "still open");
    stop.cancel();
}

#[tokio::test]
async fn a_new_authority_takes_over_in_three_steps_and_the_old_one_opens_nothing_then() {
    let (old, new) = (authority("old"), authority("new"));
    let both = old.certificate() + &new.certificate();
    let mounts = ["west", "east"].map(|name| (name, Mount::new(&old.certificate(), &issue(&old, name))));
    let ends = [mounts[0].1.credentials(), mounts[1].1.credentials()];
    let left_behind = Mount::new(&both, &issue(&old, "north")).credentials();
    let stop = CancellationToken::new();
    let mut urls = vec![];
    for end in &ends {
        urls.push(serve(end, who(), &stop).await);
    }
    let each_hears_the_other = async || {
        for (asks, url, name) in [(&ends[0], &urls[1], "west"), (&ends[1], &urls[0], "east")] {
            assert_eq!(ask(asks, url).await.as_deref(), Ok(name));
        }
    };
    each_hears_the_other().await;
    let steps: [(&str, &Authority); 3] = [(&both, &old), (&both, &new), (&new.certificate(), &new)];
    for (roots, signs) in steps {
        for ((name, mount), end) in mounts.iter().zip(&ends) {
            mount.put(roots, &issue(signs, name));
            assert_eq!(end.look(), Look::Taken);
            // Also while only one of them has taken it.
            each_hears_the_other().await;
        }
        assert_eq!(ask(&left_behind, &urls[0]).await.is_ok(), roots == both, "{roots}");
    }
    stop.cancel();
}

#[tokio::test]
async fn what_no_peer_would_take_is_refused_with_its_reason_and_what_was_there_goes_on() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let ca = ours.certificate();
    let (one, two) = (issue(&ours, "west"), issue(&ours, "west"));
    let west = Mount::new(&ca, &one);
    let server = west.credentials();
    let stop = CancellationToken::new();
    let url = serve(&server, who(), &stop).await;
    let client = Mount::new(&ca, &issue(&ours, "east")).credentials();
    let of = |certificate: &str, key: &str| Identity {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    };
    let hosts = || vec!["127.0.0.1".to_owned()];
    let ended = ours
        .issue_lasting("west", hosts(), term(now() - DAY, now() - 60))
        .unwrap();
    for (roots, identity, says) in [
        (ca.as_str(), of(&one.certificate, &two.key), "do not belong together"),
        (&ca, of(&two.certificate[..300], &two.key), "cannot be read"),
        (&ca, of("", &two.key), "there is none in it"),
        (
            &ca,
            of(&two.certificate, &two.key[..40]),
            "tls.key: the key cannot be read",
        ),
        ("", of(&two.certificate, &two.key), "ca.crt"),
        (&ca, ended, "has ended"),
        (&ca, issue(&theirs, "west"), "not signed by an authority"),
        (&ca, issue(&ours, "north"), r#"is of "north", and this is "west""#),
    ] {
        west.put(roots, &identity);
        match server.look() {
            Look::Refused(why) => assert!(why.contains(says), "{why}"),
            other => panic!("{says}: {other:?}"),
        }
        assert_eq!(ask(&client, &url).await.as_deref(), Ok("east"), "{says}");
    }
    // A file that is not there at this moment.
    let file = west.directory.path().join("tls.key");
    fs::remove_file(&file).unwrap();
    assert!(matches!(server.look(), Look::Refused(why) if why.contains("tls.key")));
    assert_eq!(ask(&client, &url).await.as_deref(), Ok("east"));
    symlink("..data/tls.key", &file).unwrap();
    west.put(&ca, &two);
    assert_eq!(server.look(), Look::Taken);
    assert_eq!(ask(&client, &url).await.as_deref(), Ok("east"));
    stop.cancel();
}

#[tokio::test]
async fn a_certificate_that_ended_opens_nothing_and_is_told_of_with_what_to_do() {
    let authority = authority("one");
    let ca = authority.certificate();
    let server = Mount::new(&ca, &issue(&authority, "west")).credentials();
    assert_eq!(server.troubles(), []);
    let stop = CancellationToken::new();
    let url = serve(&server, who(), &stop).await;
    let of = |days_left: i64| {
        let until = now().checked_add_signed(days_left * DAY as i64).unwrap();
        let hosts = vec!["127.0.0.1".to_owned()];
        let identity = authority
            .issue_lasting("east", hosts, term(now() - 90 * DAY, until))
            .unwrap();
        Mount::new(&ca, &identity)
    };
    let soon = of(20);
    let soon = soon.credentials();
    assert_eq!(ask(&soon, &url).await.as_deref(), Ok("east"));
    assert!(matches!(&soon.troubles()[..], [Trouble::Soon(text)] if text.contains("leeward join rotate")));
    let ended_files = of(-1);
    let ended = ended_files.credentials();
    let why = ask(&ended, &url).await.unwrap_err();
    assert!(why.contains("CertificateExpired"), "{why}");
    assert!(matches!(&ended.troubles()[..], [Trouble::Over(text)] if text.contains("leeward join rotate")));
    // A new one helps at once.
    ended_files.put(&ca, &issue(&authority, "east"));
    assert_eq!(ended.look(), Look::Taken);
    assert_eq!(ask(&ended, &url).await.as_deref(), Ok("east"));
    stop.cancel();
}

#[tokio::test]
async fn a_new_connection_proves_both_ends_anew_and_does_not_go_on_from_an_earlier_one() {
    let (old, new) = (authority("old"), authority("new"));
    let both = old.certificate() + &new.certificate();
    let server = Mount::new(&both, &issue(&old, "west")).credentials();
    let east = Mount::new(&old.certificate(), &issue(&old, "east"));
    let credentials = east.credentials();
    let stop = CancellationToken::new();
    let url = serve(&server, who(), &stop).await;
    let client = credentials.client().unwrap();
    let ask = async || client.get(&url).header("connection", "close").send().await;
    assert!(ask().await.is_ok());
    assert!(ask().await.is_ok());
    // From now on this end does not trust the authority of the other one's certificate.
    east.put(&new.certificate(), &issue(&new, "east"));
    assert_eq!(credentials.look(), Look::Taken);
    assert!(ask().await.is_err());
    stop.cancel();
}
