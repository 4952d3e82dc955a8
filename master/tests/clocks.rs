//! The master on a node whose wall clock is set while it runs, in a simulated world.

use std::time::Duration;

use meseta_master::{Config, Master};
use meseta_protocol::FrameworkId;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::messages::Led;
use meseta_protocol::messages::scheduler::{
    FrameworkSubscribed, ReconcileTasks, StatusUpdated, SubscribeFramework, TaskQuestion,
};
use meseta_protocol::status::TaskState;
use meseta_runtime::sim::{NodeSettings, Sim};
use meseta_runtime::{Context, Pid, Process, Receive, Routes};

/// A scheduler of an earlier master's time. It asks about one task, on an agent that this master has never seen.
struct Asker {
    master: Pid,
    heard: Vec<TaskState>,
}

impl Asker {
    fn ask(&self, cx: &mut Context<'_, Self>) {
        let question = TaskQuestion {
            task_id: "t".into(),
            agent_id: Some("earlier-S0".into()),
        };
        let ask = ReconcileTasks {
            framework_id: FrameworkId::new("earlier-0000"),
            tasks: vec![question],
        };
        cx.send(&self.master, ask);
    }
}

impl Process for Asker {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Led<FrameworkSubscribed>>()
            .on::<Led<StatusUpdated>>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let mut framework = FrameworkInfo::new("nobody", "test");
        framework.id = Some(FrameworkId::new("earlier-0000"));
        let subscribe = SubscribeFramework {
            framework,
            ..SubscribeFramework::default()
        };
        cx.send(&self.master, subscribe);
        for seconds in [10, 90] {
            cx.after(Duration::from_secs(seconds), |asker, cx| asker.ask(cx));
        }
    }
}

impl Receive<Led<FrameworkSubscribed>> for Asker {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Led<FrameworkSubscribed>) {}
}

impl Receive<Led<StatusUpdated>> for Asker {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, told: Led<StatusUpdated>) {
        self.heard.push(told.message.update.status.state);
    }
}

#[test]
fn a_new_master_answers_after_one_ping_window_though_its_wall_clock_is_set() {
    for step in [-3_600_000, 0, 3_600_000] {
        let mut sim = Sim::new(1);
        let node = sim.add(NodeSettings::new("master", "master"), |boot| {
            boot.spawn("master", Master::new(Config::new(2, "master")));
        });
        let master = sim.pid(node, "master");
        let settings = NodeSettings::new("framework", "scheduler").accepts(false);
        let framework = sim.add(settings, move |boot| {
            let (master, heard) = (master.clone(), Vec::new());
            boot.spawn("scheduler", Asker { master, heard });
        });
        let scheduler = sim.pid(framework, "scheduler");
        sim.run_for(Duration::from_secs(1)).unwrap();
        sim.step_wall(node, step);
        sim.run_for(Duration::from_secs(60)).unwrap();
        let heard = |sim: &Sim| sim.process::<Asker>(&scheduler).unwrap().heard.clone();
        assert_eq!(
            heard(&sim),
            [],
            "step {step}: its agent may still register again"
        );
        sim.run_for(Duration::from_secs(60)).unwrap();
        assert_eq!(heard(&sim), [TaskState::Unknown], "step {step}");
    }
}
