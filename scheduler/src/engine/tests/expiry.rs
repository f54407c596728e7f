//! Hosts that have a session and say nothing.

use std::time::Duration;

use super::{Engine, Limits, check_with, epoch, limits, play};

fn with_expiry() -> Limits {
    Limits {
        host_silence: Duration::from_secs(10),
        host_expiry: Duration::from_secs(30),
        ..limits()
    }
}

#[test]
fn the_children_of_a_host_that_says_nothing_are_answered_anew() {
    let alive = "after 5000; a progresses 1; b loads 0;".repeat(7);
    let script = format!(
        "h joins 1; h holds; a joins; b joins 0; a registers; b registers; h progresses 1; {alive}"
    );
    check_with(with_expiry(), &script, "a<h b<a a<source1 b<a!a");
}

#[test]
fn a_silent_host_is_not_sent_to_the_source() {
    check_with(
        with_expiry(),
        "h joins; a joins 0; b joins 0; h holds; b registers; a registers; after 11000; a loads 0; \
         h leaves",
        "b<h a<h a<source1 b<wait",
    );
}

#[test]
fn a_scheduler_that_stood_still_takes_nobody_for_silent() {
    let mut engine = Engine::new(with_expiry(), Vec::new());
    let (_, now) = play(&mut engine, epoch(), "a joins; after 20000");
    let woken = now + Duration::from_secs(60);
    engine.handle_timeout(woken);
    assert_eq!(engine.poll_expired(), None);
    play(&mut engine, woken, "after 10000");
    assert_eq!(engine.poll_expired(), Some("a".parse().unwrap()));
}
