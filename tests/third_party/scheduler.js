// A scheduler written for Mesos with the package mesos-framework from npm: node scheduler.js HOST PORT
//
// It starts three tasks that end by themselves and one that it kills, as that package does it by its own rules, and then
// ends its framework. What it has seen it prints.
"use strict";

const { Scheduler, Mesos } = require("mesos-framework");
const mesos = Mesos.getMesos();

const command = (text) => new mesos.CommandInfo(null, null, true, text, null, null);
const resources = { cpus: 0.1, mem: 32, ports: 1, disk: 0 };

const scheduler = new Scheduler({
    masterUrl: process.argv[2],
    port: process.argv[3],
    frameworkName: "hello from JavaScript",
    logging: { level: "error" },
    restartStates: [],
    frameworkFailoverTimeout: 60,
    tasks: {
        short: { priority: 1, instances: 3, commandInfo: command("echo hello from $PORT0"), resources },
        long: { priority: 2, instances: 1, commandInfo: command("sleep 1000"), resources },
    },
});

const ended = [];
const failed = (error) => {
    console.log("error", error.message, error.stack || "");
    process.exit(1);
};

scheduler.on("error", failed);
// Whatever does not come, the test is to say so.
setTimeout(() => failed(new Error("not all has happened after two minutes")), 120000).unref();
scheduler.on("ready", () => scheduler.subscribe());
scheduler.on("subscribed", (it) => console.log("subscribed", it.frameworkId, it.mesosStreamId));
scheduler.on("update", (update) => {
    const status = update.status;
    // The package names its tasks: a random part, the name, and a number.
    const name = status.task_id.value.match(/(short|long)-\d+/)[0];
    console.log(name, status.state);
    if (name === "long-1" && status.state === "TASK_RUNNING") {
        scheduler.kill(status.task_id.value, status.agent_id.value);
    }
    if (status.state === "TASK_FINISHED" || status.state === "TASK_KILLED") {
        ended.push(name);
        if (ended.length === 4) {
            console.log("ended", ended.sort().join(" "));
            // Its stream ends with the framework.
            scheduler.on("error", () => process.exit(0));
            scheduler.removeListener("error", failed);
            scheduler.teardown();
        }
    }
});
