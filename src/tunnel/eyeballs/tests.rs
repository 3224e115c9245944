use super::*;

#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn families_take_turns() {
    let all = addresses(&[
        "192.0.2.1:1",
        "192.0.2.2:1",
        "192.0.2.3:1",
        "[2001:db8::1]:1",
    ]);
    let mut eyeballs = Eyeballs::<u8>::new(&all);
    let now = start();
    let order: Vec<_> = std::iter::from_fn(|| eyeballs.start(now)).collect();
    assert_eq!(order, [all[0], all[3], all[1], all[2]]);
    assert!(eyeballs.is_exhausted());
    assert!(Eyeballs::<u8>::new(&[]).is_exhausted());
}

// spec: ctcp-4.1-e
#[test]
fn the_next_starts_after_silence_or_a_failure() {
    let all = addresses(&["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1"]);
    let mut eyeballs = Eyeballs::new(&all);
    let now = start();
    assert_eq!(eyeballs.start(now), Some(all[0]));
    eyeballs.started(now, 'a');
    assert_eq!(eyeballs.start(now), None);
    let later = now + ATTEMPT_DELAY;
    assert_eq!(eyeballs.next_timeout(), Some(later));
    assert_eq!(eyeballs.start(later), Some(all[1]));
    eyeballs.started(later, 'b');
    assert_eq!(eyeballs.start(later), None);
    eyeballs.failed('a');
    assert_eq!(eyeballs.start(later), Some(all[2]));
    eyeballs.started(later, 'c');
    assert_eq!(eyeballs.next_timeout(), None);
    assert_eq!(eyeballs.attempts(), ['b', 'c']);
    eyeballs.failed('b');
    assert!(!eyeballs.is_exhausted());
    eyeballs.failed('c');
    assert!(eyeballs.is_exhausted());
}
