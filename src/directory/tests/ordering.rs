//! Pushes against reads (O4), and a new connection's answer against what was pushed before.

use super::support::{Script, addresses, all};

#[test]
fn o4_a_read_answered_right_after_a_push_is_dropped() {
    let mut script = Script::listing(all([1, 2]));
    script.push(all([2]));
    script.after(0.4).read(all([1, 2]));
    assert_eq!(script.callable(), addresses([2]));
    assert_eq!(script.writer.counters().reads_dropped, 1);
}

#[test]
fn o4_a_subscribe_answer_that_a_push_overtook_is_dropped() {
    let mut script = Script::listing(all([1, 2]));
    script.reconnect(1.0).push(all([2, 3]));
    script.after(0.1).first(all([1, 2]));
    assert_eq!(script.writer.counters().reads_dropped, 1);
    script.pass(3.1); // 1 was held for a moment, and the answer does not bring it back
    assert_eq!(script.callable(), addresses([2, 3]));
}

#[test]
fn what_was_pushed_on_the_last_connection_spoils_no_first_answer_of_the_next() {
    let mut script = Script::listing(all([1, 2]));
    script.push(all([1, 2, 3]));
    script.reconnect(0.3).first(all([1, 2, 3, 4]));
    assert_eq!(script.callable(), addresses(1..=4));
    // Nor when one connection takes over from another.
    script.after(0.1).push(all([1, 2, 3, 4]));
    script.writer.handle_connected(script.now);
    script.after(0.1).first(all(1..=5));
    assert_eq!(script.callable(), addresses(1..=5));
    assert_eq!(script.writer.counters().reads_dropped, 0);
}

#[test]
fn a_read_that_finds_a_difference_is_applied_and_counted() {
    let mut script = Script::listing(all([1, 2]));
    script.after(60.0).read(all([2]));
    assert_eq!(script.callable(), addresses([2]));
    assert_eq!(script.writer.counters().reads_corrected, 1);
    script.after(60.0).read(all([2]));
    assert_eq!(script.writer.counters().reads_corrected, 1);
}

#[test]
fn o4_a_first_answer_does_not_bring_back_what_a_push_removed_just_before() {
    let mut script = Script::listing(all([1, 2, 3]));
    script.push(all([2, 3]));
    script.reconnect(1.5).first(all([1, 2, 3, 4]));
    assert_eq!(script.callable(), addresses([2, 3, 4]));
    assert_eq!(script.writer.counters().not_resurrected, 1);
    // The push that follows decides.
    script.after(0.6).push(all([1, 2, 3, 4]));
    assert_eq!(script.callable(), addresses([1, 2, 3, 4]));
}

#[test]
fn o4_nor_does_it_open_what_a_push_closed_just_before() {
    let mut script = Script::listing(all([1, 2]));
    let closed = vec![super::support::a(1).with_weight(0.0), super::support::a(2)];
    script.push(closed);
    script.reconnect(1.5).first(all([1, 2]));
    assert_eq!(script.callable(), addresses([2]));
    script.after(0.6).push(all([1, 2]));
    assert_eq!(script.callable(), addresses([1, 2]));
}

#[test]
fn a_first_answer_brings_back_what_was_removed_longer_ago() {
    let mut script = Script::listing(all([1, 2]));
    script.push(all([2]));
    script.reconnect(3.5).first(all([1, 2]));
    assert_eq!(script.callable(), addresses([1, 2]));
}

#[test]
fn what_a_push_brought_back_meanwhile_is_not_kept_away() {
    let mut script = Script::listing(all([1, 2]));
    script.push(all([2]));
    script.after(0.6).push(all([1, 2]));
    script.reconnect(1.0).first(all([1, 2]));
    assert_eq!(script.callable(), addresses([1, 2]));
    assert_eq!(script.writer.counters().not_resurrected, 0);
}
