//! The availability search against a judge that is slow, obvious and its own: see [`oracle`]. The rules of clock changes, one by
//! one, are in [`dst`].

mod changes;
mod dst;
mod oracle;
mod random;
mod recurrence;
mod search;
mod worlds;
