use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::password::cheap_hash;
use super::*;

const TOKENS: &str = "\
# who may come in
9f2c51d0

alice:77e1a3b2
bob:PrivateToken token=\"AAEC:x\"
 Preshared  s3cret
";

#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn auth_with(options: AuthOptions) -> Auth {
    let mut secrets = Secrets::new(&[3; DIGEST_LEN]);
    secrets.add_tokens(TOKENS).unwrap();
    let mut passwords = String::new();
    for (user, password) in [("carol", "pass:word"), ("dave", "")] {
        writeln!(passwords, "{user}:{}", cheap_hash(password)).unwrap();
    }
    secrets.add_passwords(&passwords).unwrap();
    let limits = AuthLimits {
        checks_max: 2,
        verified_max: 2,
        lifetime: Duration::from_secs(60),
    };
    Auth::new(Arc::new(secrets), options, limits)
}

fn auth() -> Auth {
    auth_with(AuthOptions::default())
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn basic(user: &str, password: &str) -> HeaderMap {
    let pair = STANDARD.encode(format!("{user}:{password}"));
    headers(&[("proxy-authorization", &format!("Basic {pair}"))])
}

/// Who is granted access without a job.
fn granted(auth: &mut Auth, lines: &[(&'static str, &str)]) -> Option<String> {
    match auth.check(start(), &headers(lines)) {
        Check::Granted(user) => Some(user.name().to_owned()),
        Check::Denied => None,
        other @ (Check::Missing | Check::Verify { .. } | Check::Busy) => panic!("{other:?}"),
    }
}

fn job(auth: &mut Auth, now: Instant, headers: &HeaderMap) -> Job {
    let Check::Verify {
        key,
        job: Some(job),
    } = auth.check(now, headers)
    else {
        panic!("no job for {headers:?}");
    };
    assert_eq!(job.key(), key);
    job
}

// spec: rc-all-b, rc-apple-b, rc-firefox-a
#[test]
fn tokens_of_any_scheme_in_either_field() {
    let mut auth = auth();
    for (value, user) in [
        ("Bearer 9f2c51d0", Some("token#1")),
        ("bearer   9f2c51d0 ", Some("token#1")),
        ("Bearer 77e1a3b2", Some("alice")),
        ("PrivateToken token=\"AAEC:x\"", Some("bob")),
        ("privatetoken token=\"AAEC:x\"", Some("bob")),
        ("Preshared s3cret", Some("token#4")),
        ("9f2c51d0", Some("token#1")),
        ("Bearer s3cret", None),
        ("Preshared 9f2c51d0", None),
        ("Bearer 9F2C51D0", None),
        ("Bearer 9f2c51d", None),
        ("Bearer 9f2c51d00", None),
        ("Bearer", None),
        ("", None),
        ("Negotiate 9f2c51d0", None),
        ("Basic !!!", None),
    ] {
        for name in ["authorization", "proxy-authorization"] {
            let found = granted(&mut auth, &[(name, value)]);
            assert_eq!(found.as_deref(), user, "{name}: {value:?}");
        }
        assert!(matches!(
            auth.check(start(), &headers(&[("x-relay-key", value)])),
            Check::Missing
        ));
    }
    let two = [
        ("authorization", "Bearer no"),
        ("proxy-authorization", "Bearer 77e1a3b2"),
    ];
    assert_eq!(granted(&mut auth, &two).unwrap(), "alice");
}

// spec: rc-all-b, rc-apple-b
#[test]
fn a_configured_field_carries_a_bare_token() {
    let mut auth = auth_with(AuthOptions {
        header: Some(HeaderName::from_static("x-relay-key")),
        ..AuthOptions::default()
    });
    for (value, user) in [
        ("77e1a3b2", Some("alice")),
        ("Bearer 77e1a3b2", Some("alice")),
        ("77e1a3b3", None),
    ] {
        let found = granted(&mut auth, &[("x-relay-key", value)]);
        assert_eq!(found.as_deref(), user);
    }
}

// spec: rc-all-b, rc-chromium-c
#[test]
fn passwords_are_checked_once_and_remembered_for_a_while() {
    let (mut auth, now) = (auth(), start());
    let request = basic("carol", "pass:word");
    let first = job(&mut auth, now, &request);
    // Whoever asks meanwhile waits for the same job.
    let Check::Verify { key, job: None } = auth.check(now, &request) else {
        panic!("a second job");
    };
    assert_eq!(key, first.key());
    let verdict = first.run();
    assert_eq!(auth.handle_verdict(now, verdict).unwrap().name(), "carol");
    assert_eq!(auth.pending(), 0);
    let almost = now + Duration::from_secs(59);
    assert!(matches!(auth.check(almost, &request), Check::Granted(user) if user.name() == "carol"));
    job(&mut auth, now + Duration::from_secs(60), &request);

    // An empty password is one, too.
    let verdict = job(&mut auth, now, &basic("dave", "")).run();
    assert_eq!(auth.handle_verdict(now, verdict).unwrap().name(), "dave");
}

#[test]
fn wrong_passwords_and_strangers_cost_the_same_and_get_the_same() {
    let (mut auth, now) = (auth(), start());
    for (user, password) in [
        ("carol", "wrong"),
        ("dave", "pass:word"),
        ("nobody", "pass:word"),
        ("nobody", ""),
        ("", ""),
    ] {
        let request = basic(user, password);
        let verdict = job(&mut auth, now, &request).run();
        assert_eq!(verdict.user, None);
        assert_eq!(auth.handle_verdict(now, verdict), None);
        // A failure is not remembered.
        let again = job(&mut auth, now, &request);
        auth.handle_dropped(again.key());
    }
    assert!(auth.verified.is_empty());
}

#[test]
fn checks_and_memory_are_bounded() {
    let (mut auth, now) = (auth(), start());
    let jobs = [basic("a", "1"), basic("a", "2")].map(|request| job(&mut auth, now, &request));
    let third = basic("carol", "pass:word");
    assert!(matches!(auth.check(now, &third), Check::Busy));
    for job in jobs {
        assert_eq!(auth.handle_verdict(now, job.run()), None);
    }
    job(&mut auth, now, &third);

    let user = User("x".into());
    for number in 0_u8..5 {
        let now = now + Duration::from_secs(number.into());
        let (key, user) = (CheckKey([number; DIGEST_LEN]), Some(user.clone()));
        auth.handle_verdict(now, Verdict { key, user });
        assert!(auth.verified.len() <= 2);
        assert!(auth.verified.contains_key(&key));
    }
    assert!((1..5).contains(&auth.evicted()));
}

// spec: 9110-11.7.1-a, 9110-15.5.2-a
#[test]
fn challenges_name_every_scheme() {
    let auth = auth();
    let values: Vec<_> = auth.challenge_values().collect();
    assert_eq!(
        values,
        [
            "Basic realm=\"bauta\", charset=\"UTF-8\"",
            "Bearer",
            "PrivateToken",
            "Preshared"
        ]
    );
    let none = Arc::new(Secrets::new(&[0; DIGEST_LEN]));
    let none = Auth::new(none, AuthOptions::default(), auth.limits);
    assert_eq!(none.challenge_values().collect::<Vec<_>>(), ["Bearer"]);
}

#[test]
fn without_secrets_nobody_comes_in() {
    let secrets = Secrets::new(&[0; DIGEST_LEN]);
    assert!(secrets.is_empty());
    let mut auth = Auth::new(Arc::new(secrets), AuthOptions::default(), auth().limits);
    let now = start();
    assert!(matches!(
        auth.check(now, &basic("carol", "pass:word")),
        Check::Denied
    ));
    assert!(matches!(auth.check(now, &HeaderMap::new()), Check::Missing));
}

#[test]
fn files_are_judged_line_by_line() {
    let error = |text: &str| {
        let mut secrets = Secrets::new(&[0; DIGEST_LEN]);
        secrets.add_tokens(text).unwrap_err().to_string()
    };
    let empty = "line 2: the token is empty or not printable ASCII";
    assert_eq!(error("abc\nalice:"), empty);
    assert_eq!(error("# x\nalice:t\u{f6}ken"), empty);
    assert!(error(":abc").starts_with("line 1: the name"));
    assert!(error("a\u{f6}:abc").starts_with("line 1: the name"));
    assert_eq!(error("abc\nalice:abc"), "line 2: it is in the file twice");

    let hash = cheap_hash("x");
    let too_much = hash.replace("m=8", "m=65537");
    for (line, problem) in [
        ("alice".to_owned(), "not USER:HASH"),
        ("alice:plain".to_owned(), "not USER:HASH"),
        (
            format!("alice:{}", hash.replace("argon2id", "argon2i")),
            "not USER:HASH",
        ),
        (format!("alice:{too_much}"), "not USER:HASH"),
        (format!(":{hash}"), "the name"),
        (format!("a:{hash}\na:{hash}"), "it is in the file twice"),
    ] {
        let mut secrets = Secrets::new(&[0; DIGEST_LEN]);
        let error = secrets.add_passwords(&line).unwrap_err().to_string();
        assert!(error.contains(problem), "{line}: {error}");
    }
}

#[test]
fn a_made_hash_is_a_line_of_the_file() {
    let made = hash_password(b"secret", &[1; SALT_LEN]).unwrap();
    assert!(
        made.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{made}"
    );
    assert!(password::is_hash(&made));
}

#[test]
fn secrets_are_not_printed() {
    let mut auth = auth();
    let job = job(&mut auth, start(), &basic("carol", "pass:word"));
    let printed = format!("{auth:?} {job:?}");
    for secret in ["9f2c51d0", "s3cret", "argon2", "pass:word"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

proptest! {
    #[test]
    fn garbage_is_denied(value in "[ -~]{0,60}", user in "\\PC{0,8}", password in "\\PC{0,8}") {
        let mut auth = auth();
        let line = headers(&[("authorization", &value)]);
        let denied = matches!(auth.check(start(), &line), Check::Denied | Check::Verify { .. });
        prop_assert!(denied);
        let parsed = basic::parse("basic", STANDARD.encode(format!("{user}:{password}")).as_bytes());
        let (found, rest) = user.split_once(':').unwrap_or((&user, ""));
        let parsed = parsed.unwrap();
        prop_assert_eq!(&*parsed.user, found);
        let whole = if rest.is_empty() && !user.contains(':') { password } else { format!("{rest}:{password}") };
        prop_assert_eq!(&*parsed.password, whole.as_bytes());
    }
}
