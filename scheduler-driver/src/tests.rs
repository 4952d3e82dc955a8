//! Every transition of the subscription machine.

use super::*;
use meseta_protocol::UpdateId;
use meseta_protocol::common::CommandInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::status::StatusUpdate;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_bytes::ByteBuf;

struct Machine {
    core: Core,
    random: StdRng,
}

fn master() -> Pid {
    "master@127.0.0.1:5050".parse().unwrap()
}

fn machine(framework: FrameworkInfo) -> Machine {
    Machine {
        core: Core::new(Settings {
            framework,
            suppressed_roles: Vec::new(),
            offer_constraints: None,
            explicit_acknowledgements: false,
        }),
        random: StdRng::seed_from_u64(1),
    }
}

fn framework() -> FrameworkInfo {
    FrameworkInfo::new("u", "n")
}

fn subscribed() -> News {
    FrameworkSubscribed {
        framework_id: "f".into(),
        ..FrameworkSubscribed::default()
    }
    .into()
}

fn offers() -> News {
    ResourceOffers::default().into()
}

fn offered() -> Vec<Effect> {
    vec![Effect::Call(Callback::Offers(Vec::new()))]
}

fn detected(epoch: u64, leader: Option<Pid>) -> Input {
    Input::Detected(Followed { epoch, leader })
}

impl Machine {
    fn step(&mut self, input: Input) -> Vec<Effect> {
        self.core.step(&mut self.random, input)
    }
    fn hear(&mut self, epoch: u64, news: News) -> Vec<Effect> {
        let from = master();
        self.step(Input::Heard { from, epoch, news })
    }
    fn ask(&mut self, request: Request) -> Vec<Effect> {
        self.step(Input::Asked(request, Duration::from_secs(7)))
    }
    fn detect(&mut self) -> Vec<Effect> {
        self.step(detected(0, Some(master())))
    }
    fn subscribed() -> Self {
        let mut m = machine(framework());
        m.detect();
        let effects = m.hear(1, subscribed());
        assert!(
            matches!(&effects[..], [Effect::Call(Callback::Registered(id, _))] if id.as_str() == "f")
        );
        m
    }
}

/// The subscription in these effects, and its retry timer.
fn attempt(effects: &[Effect]) -> (&SubscribeFramework, u64, Duration) {
    match effects {
        [
            Effect::Link(to),
            Effect::Send(ToMaster::SubscribeFramework(message)),
            Effect::Arm(number, delay),
        ] if *to == master() => (message, *number, *delay),
        other => panic!("not a subscription: {other:?}"),
    }
}

#[test]
fn subscribes_again_after_longer_and_longer_delays() {
    let mut m = machine(framework());
    let effects = m.detect();
    assert_eq!(m.detect(), [], "the same master again");
    let (message, mut number, delay) = attempt(&effects);
    assert!(message.framework.id.is_none() && !message.force);
    let mut delays = vec![delay];
    for _ in 0..200 {
        assert_eq!(m.step(Input::Lost(master())), [], "the retry runs already");
        let effects = m.step(Input::RetryDue(number));
        let (_, next, delay) = attempt(&effects);
        assert_eq!(m.step(Input::RetryDue(number)), [], "a timer out of date");
        number = next;
        delays.push(delay);
    }
    for (delay, most) in delays.iter().zip([1, 2, 4, 8, 15, 15]) {
        assert!(*delay <= Duration::from_secs(most));
    }
    let longest = delays.iter().max().copied().unwrap_or_default();
    assert!(
        longest > Duration::from_secs(10) && longest <= MOST_BACKOFF,
        "{longest:?}"
    );
}

#[test]
fn after_the_loss_of_the_master_it_comes_back_with_its_id_and_without_force() {
    let mut m = Machine::subscribed();
    let effects = m.step(Input::Lost(master()));
    let [
        Effect::Call(Callback::Disconnected),
        Effect::Arm(number, delay),
    ] = effects[..]
    else {
        panic!("{effects:?}");
    };
    assert!(delay <= FIRST_BACKOFF);
    assert_eq!(m.hear(1, offers()), [], "a late word");
    let effects = m.step(Input::RetryDue(number));
    let (message, _, _) = attempt(&effects);
    assert_eq!(message.framework.id, Some("f".into()));
    assert!(!message.force);
    let effects = m.hear(1, subscribed());
    assert!(matches!(
        &effects[..],
        [Effect::Call(Callback::Reregistered(_))]
    ));
    assert_eq!(
        m.hear(1, subscribed()),
        [],
        "the answer to an earlier attempt"
    );
    assert_eq!(m.hear(1, offers()), offered());
}

#[test]
fn a_driver_that_begins_with_an_id_takes_over() {
    let mut taking_over = framework();
    taking_over.id = Some("f".into());
    let mut m = machine(taking_over);
    assert!(attempt(&m.detect()).0.force);
    let effects = m.hear(1, subscribed());
    assert!(matches!(
        &effects[..],
        [Effect::Call(Callback::Registered(..))]
    ));
    let mut empty = framework();
    empty.id = Some("".into());
    assert_eq!(attempt(&machine(empty).detect()).0.framework.id, None);
}

#[test]
fn an_older_leadership_is_not_heard_and_a_newer_one_is() {
    let mut m = Machine::subscribed();
    assert_eq!(m.hear(3, offers()), offered());
    assert_eq!(m.hear(2, offers()), []);
    assert_eq!(m.hear(2, FrameworkError::default().into()), []);
    assert_eq!(m.hear(3, offers()), offered());
    let stranger = Input::Heard {
        from: "master@127.0.0.1:9".parse().unwrap(),
        epoch: 9,
        news: offers(),
    };
    assert_eq!(m.step(stranger), []);
    assert_eq!(
        m.hear(3, offers()),
        offered(),
        "a stranger's number does not count"
    );
}

#[test]
fn another_master_is_followed_and_none_is_waited_for() {
    let mut m = Machine::subscribed();
    let effects = m.step(detected(1, None));
    assert_eq!(
        effects,
        [
            Effect::Unlink(master()),
            Effect::Call(Callback::Disconnected)
        ]
    );
    assert_eq!(m.hear(1, offers()), []);
    assert_eq!(m.step(Input::Lost(master())), []);
    assert_eq!(m.step(Input::RetryDue(m.core.retry)), []);
    let found = m.step(detected(2, Some(master())));
    assert!(
        matches!(&found[..], [Effect::Arm(_, after)] if *after <= FIRST_BACKOFF),
        "{found:?}"
    );
    let due = m.step(Input::RetryDue(m.core.retry));
    assert_eq!(attempt(&due).0.framework.id, Some("f".into()));
    assert_eq!(m.hear(1, subscribed()), [], "of an older leadership");
    let again = m.hear(2, subscribed());
    assert!(matches!(
        &again[..],
        [Effect::Call(Callback::Reregistered(_))]
    ));
}

#[test]
fn the_same_master_under_a_newer_leadership_is_subscribed_with_again() {
    let mut m = Machine::subscribed();
    let effects = m.step(detected(2, Some(master())));
    assert!(matches!(
        &effects[..],
        [
            Effect::Unlink(_),
            Effect::Call(Callback::Disconnected),
            Effect::Arm(..)
        ]
    ));
    assert_eq!(m.hear(1, offers()), []);
    assert_eq!(m.step(detected(1, None)), [], "an older word");
}

#[test]
fn an_error_ends_the_driver_in_any_state() {
    let news = || {
        News::from(FrameworkError {
            message: "no".into(),
        })
    };
    let expected = [
        Effect::Call(Callback::Error("no".into())),
        Effect::Abort(Some("no".into())),
    ];
    let mut subscribing = machine(framework());
    subscribing.detect();
    for mut m in [Machine::subscribed(), subscribing] {
        assert_eq!(m.hear(1, news()), expected);
        assert_eq!(m.hear(1, offers()), []);
        assert_eq!(m.ask(Request::Stop { failover: false }), []);
        assert_eq!(m.detect(), []);
    }
}

#[test]
fn stop_tears_the_framework_down_unless_it_is_to_be_taken_over_and_abort_deactivates_it() {
    let id = || FrameworkId::from("f");
    let teardown = Effect::from(TeardownFramework { framework_id: id() });
    let stop = |failover| Request::Stop { failover };
    assert_eq!(
        Machine::subscribed().ask(stop(false)),
        [teardown, Effect::Stop]
    );
    assert_eq!(Machine::subscribed().ask(stop(true)), [Effect::Stop]);
    assert_eq!(machine(framework()).ask(stop(false)), [Effect::Stop]);
    let quiet = Effect::from(DeactivateFramework { framework_id: id() });
    assert_eq!(
        Machine::subscribed().ask(Request::Abort),
        [quiet, Effect::Abort(None)]
    );
}

fn update(uuid: Option<UpdateId>) -> News {
    let status = TaskStatus::new("t", TaskState::Running);
    let update = StatusUpdate {
        agent_id: Some("s".into()),
        status,
        uuid,
        ..StatusUpdate::default()
    };
    StatusUpdated { update }.into()
}

#[test]
fn an_update_with_a_uuid_is_acknowledged_after_the_callback_unless_that_is_explicit() {
    let uuid = UpdateId::from_bytes([7; 16]);
    let mut m = Machine::subscribed();
    let effects = m.hear(1, update(Some(uuid)));
    let [Effect::Call(Callback::Status(status)), acknowledgement] = &effects[..] else {
        panic!("{effects:?}");
    };
    let expected = Effect::from(AcknowledgeStatus {
        framework_id: "f".into(),
        agent_id: "s".into(),
        task_id: "t".into(),
        uuid,
    });
    assert_eq!(*acknowledgement, expected);
    assert_eq!(m.hear(1, update(None)).len(), 1);
    m.core.settings.explicit_acknowledgements = true;
    assert_eq!(m.hear(1, update(Some(uuid))).len(), 1);
    assert_eq!(m.ask(Request::Acknowledge(status.clone())), [expected]);
}

#[test]
fn requests_become_messages_of_the_framework_and_nothing_without_a_subscription() {
    let offer = || vec![OfferId::from("o")];
    let filters = meseta_protocol::offer::Filters::default();
    let requests = [
        Request::Accept(offer(), Vec::new(), filters),
        Request::Decline(offer(), filters),
        Request::Revive(Vec::new()),
        Request::Suppress(Vec::new()),
        Request::Kill("t".into(), None, None),
        Request::ShutdownExecutor("s".into(), "e".into()),
        Request::Reconcile(Vec::new()),
        Request::Say("s".into(), "e".into(), ByteBuf::from("x")),
        Request::RequestResources(Vec::new()),
    ];
    for request in requests {
        let effects = Machine::subscribed().ask(request.clone());
        assert!(matches!(&effects[..], [Effect::Send(_)]), "{effects:?}");
        assert_eq!(machine(framework()).ask(request), []);
    }
    let declined = Machine::subscribed().ask(Request::Decline(offer(), filters));
    let expected = DeclineOffers {
        framework_id: "f".into(),
        offer_ids: offer(),
        filters,
    };
    assert_eq!(declined, [expected.into()]);
}

#[test]
fn the_executor_of_a_group_need_not_name_its_framework() {
    let executor = |framework: Option<&str>| ExecutorInfo {
        framework_id: framework.map(FrameworkId::from),
        ..ExecutorInfo::custom("e", CommandInfo::shell("run"))
    };
    let accept = |framework| {
        let task = TaskInfo {
            executor: Some(executor(framework)),
            ..TaskInfo::default()
        };
        let group = Operation::launch_group(executor(framework), [task, TaskInfo::default()]);
        let filters = meseta_protocol::offer::Filters::default();
        (vec![group], filters)
    };
    for (given, sent) in [(None, "f"), (Some("f"), "f"), (Some("other"), "other")] {
        let (operations, filters) = accept(given);
        let effects = Machine::subscribed().ask(Request::Accept(vec![], operations, filters));
        let (operations, filters) = accept(Some(sent));
        let expected = AcceptOffers {
            framework_id: "f".into(),
            offer_ids: vec![],
            operations,
            filters,
        };
        assert_eq!(effects, [expected.into()]);
    }
}

#[test]
fn tasks_launched_without_a_subscription_are_reported_at_once() {
    let task = TaskInfo {
        task_id: "t".into(),
        agent_id: "s".into(),
        ..TaskInfo::default()
    };
    let launch = || {
        let launch = vec![Operation::launch([task.clone()])];
        Request::Accept(
            Vec::new(),
            launch,
            meseta_protocol::offer::Filters::default(),
        )
    };
    let mut unaware = framework();
    unaware.capabilities = meseta_protocol::framework::FrameworkCapabilities::default();
    for (framework, state) in [
        (framework(), TaskState::Dropped),
        (unaware, TaskState::Lost),
    ] {
        let effects = machine(framework).ask(launch());
        let [Effect::Call(Callback::Status(status))] = &effects[..] else {
            panic!("{effects:?}");
        };
        assert_eq!(status.state, state);
        assert_eq!(status.reason, Some(StatusReason::MasterDisconnected));
        assert_eq!(status.uuid, None);
    }
}

/// The roles that a new subscription after a break would suppress.
fn suppressed_after_a_break(m: &mut Machine) -> Vec<Role> {
    m.step(Input::Lost(master()));
    let effects = m.step(Input::RetryDue(m.core.retry));
    let roles = attempt(&effects).0.suppressed_roles.clone();
    m.hear(1, subscribed());
    roles
}

#[test]
fn a_subscription_after_a_break_keeps_what_was_suppressed_and_revived() {
    let roles = |names: &[&str]| names.iter().map(|name| Role::from(*name)).collect();
    let mut m = machine(framework().in_roles(["a", "b"]));
    m.core.settings.suppressed_roles = roles(&["a"]);
    m.detect();
    m.hear(1, subscribed());
    assert_eq!(suppressed_after_a_break(&mut m), roles(&["a"]));
    m.ask(Request::Suppress(Vec::new()));
    assert_eq!(suppressed_after_a_break(&mut m), roles(&["a", "b"]));
    m.ask(Request::Revive(roles(&["a"])));
    assert_eq!(suppressed_after_a_break(&mut m), roles(&["b"]));
    m.ask(Request::Suppress(roles(&["a", "foreign"])));
    assert_eq!(
        suppressed_after_a_break(&mut m),
        roles(&["b"]),
        "what the master refuses is not kept"
    );
    m.ask(Request::Revive(Vec::new()));
    assert_eq!(suppressed_after_a_break(&mut m), roles(&[]));
}

#[test]
fn what_is_suppressed_or_revived_without_a_subscription_goes_into_the_next() {
    let roles = |names: &[&str]| names.iter().map(|name| Role::from(*name)).collect();
    let mut m = machine(framework().in_roles(["a", "b"]));
    m.core.settings.suppressed_roles = roles(&["a"]);
    assert_eq!(m.ask(Request::Suppress(roles(&["b"]))), []);
    assert_eq!(attempt(&m.detect()).0.suppressed_roles, roles(&["a", "b"]));
    // The attempt is on its way: what it does not say follows its answer.
    assert_eq!(m.ask(Request::Revive(roles(&["a"]))), []);
    let effects = m.hear(1, subscribed());
    let revive = ReviveOffers {
        framework_id: "f".into(),
        roles: roles(&["a"]),
    };
    assert!(
        matches!(&effects[..], [first, Effect::Call(Callback::Registered(..))] if *first == revive.clone().into()),
        "{effects:?}"
    );
}

#[test]
fn the_words_of_a_master_that_had_lost_the_framework_end_its_subscription_and_not_the_driver() {
    let error = || {
        News::from(FrameworkError {
            message: "Framework disconnected".into(),
        })
    };
    let mut m = Machine::subscribed();
    let effects = m.hear(1, error());
    let [
        Effect::Call(Callback::Disconnected),
        Effect::Arm(number, delay),
    ] = effects[..]
    else {
        panic!("{effects:?}");
    };
    assert!(delay <= FIRST_BACKOFF);
    assert_eq!(m.hear(1, error()), [], "the retry runs already");
    let effects = m.step(Input::RetryDue(number));
    assert_eq!(attempt(&effects).0.framework.id, Some("f".into()));
    assert_eq!(m.hear(1, error()), [], "a late word");
    assert_eq!(m.hear(1, subscribed()).len(), 1);
}
