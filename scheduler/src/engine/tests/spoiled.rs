//! Holders that are of no use, and attempts that turn out wrong.

use super::*;

#[test]
fn a_seed_that_is_to_warm_is_not_left_to_a_holder_that_failed_others() {
    check(
        "s seeds; h joins; h holds; a joins; a registers; a blames h; s registers",
        "a<h s<warm a<wait s<source1(h) a<s",
    );
}

#[test]
fn a_seed_that_hangs_on_whom_it_would_help_is_granted_the_source() {
    check(
        "s seeds; h joins; h holds; a joins; a registers; s registers; a blames h",
        "a<h s<h+a s<source1(h) a<wait a<s",
    );
}

#[test]
fn a_seed_that_is_of_no_use_to_whoever_starves_is_not_granted_the_source() {
    check(
        "s seeds; h joins; h holds; a joins; s registers; a registers; a blames s; a blames h",
        "s<h a<h+s a<h a<source1 s<h!a",
    );
}

#[test]
fn the_wrong_attempt_of_a_fetcher_is_dropped_everywhere() {
    let (first, second) = ring();
    let (a, b) = ("a progresses 4", "b progresses 2");
    check(
        &format!(
            "s seeds; t seeds; a joins; b joins; c joins; a registers; {first} registers; \
             b registers; {first} progresses 8; {a}; {b}; {first} fails corrupt; c registers; \
             a fails corrupt; {second} registers; a registers; a progresses 1 1"
        ),
        &format!(
            "{first}<warm a<wait {first}<source1 a<{first} b<{first}+a a<drop1 b<drop1 \
             c<drop1 {second}<warm c<wait {second}<drop1 {second}<source2 c<{second} \
             a<drop1 a<{second}+c a<drop1"
        ),
    );
}

#[test]
fn of_hosts_without_the_grant_it_takes_three_to_drop_an_attempt() {
    let get = |host: &str| format!("{host} joins; {host} registers; {host} progresses 8; ");
    let herd: String = ["a", "b", "c", "d"].map(get).concat();
    let mut engine = Engine::new(limits(), Vec::new());
    let script = format!("h seeds; h holds; {herd} a fails corrupt; b fails corrupt");
    let (told, now) = play(&mut engine, epoch(), &script);
    assert!(!told.contains("drop"), "{told}");
    let (told, _) = play(&mut engine, now, "c fails corrupt");
    assert!(told.starts_with("d<drop1"), "{told}");
}
