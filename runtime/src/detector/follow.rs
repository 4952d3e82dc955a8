//! What a process does with its [`Detector`]: the one place where its effects become links, messages and timers.

use tracing::info;

use super::{Detector, Effect, Followed, Input};
use crate::context::Context;
use crate::pid::Pid;
use crate::process::Process;

/// A process that follows a leader. It feeds [`detect`] with what happens.
pub trait Follower: Process {
    /// Its detector.
    fn detector(&mut self) -> &mut Detector;

    /// Asks a candidate, which is linked already, who leads. `attempts` counts the questions since its last answer, this
    /// one included.
    fn ask(&mut self, cx: &mut Context<'_, Self>, candidate: &Pid, attempts: u32);

    /// Follows this leader from now on, and nobody before.
    fn follow(&mut self, cx: &mut Context<'_, Self>, followed: Followed);
}

/// Feeds a process's detector and carries out what follows.
pub fn detect<P: Follower>(process: &mut P, cx: &mut Context<'_, P>, input: Input) {
    let effects = process.detector().step(input, cx.random());
    for effect in effects {
        match effect {
            Effect::Ask(candidate) => {
                let attempts = process.detector().unanswered(&candidate);
                cx.link(&candidate);
                process.ask(cx, &candidate, attempts);
            }
            Effect::Arm(candidate, number, after) => {
                cx.after(after, move |process, cx| {
                    detect(process, cx, Input::RetryDue(candidate, number));
                });
            }
            Effect::Follow(followed) => {
                info!(me = %cx.me(), leader = ?followed.leader, epoch = followed.epoch, "leader detected");
                process.follow(cx, followed);
            }
        }
    }
}
