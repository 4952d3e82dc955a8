"""A scheduler with pymesos that runs many tasks in one custom executor: scheduler.py MASTER PYTHON EXECUTOR COUNT."""
import getpass
import sys

from pymesos import MesosSchedulerDriver, Scheduler, decode_data, encode_data

master, python, executor, count = sys.argv[1:]


class Many(Scheduler):
    def __init__(self):
        self.left = int(count)
        self.agent = None
        self.answered = False

    def resourceOffers(self, driver, offers):
        offer = offers[0]
        if self.agent is not None:
            return driver.declineOffer(offer['id'], {'refuse_seconds': 3600})
        self.agent = offer['agent_id']
        info = {
            'type': 'CUSTOM', 'executor_id': {'value': 'echo'}, 'framework_id': {'value': driver.framework_id},
            'command': {'value': 'exec %s %s' % (python, executor)},
            'resources': [self.amount('cpus', 0.1), self.amount('mem', 32)],
        }
        names = ['t%d' % n for n in range(self.left)] + ['stays']
        driver.launchTasks(offer['id'], [{
            'task_id': {'value': name}, 'name': name, 'agent_id': self.agent, 'executor': info,
            'resources': [self.amount('cpus', 0.01), self.amount('mem', 1)],
            'data': encode_data(name.encode()),
        } for name in names])

    def amount(self, name, value):
        return {'name': name, 'type': 'SCALAR', 'scalar': {'value': value}}

    def statusUpdate(self, driver, update):
        name, state = update['task_id']['value'], update['state']
        assert state in ('TASK_RUNNING', 'TASK_FINISHED', 'TASK_KILLED'), update
        if state == 'TASK_FINISHED':
            assert decode_data(update['data']).decode() == name, update
            self.left -= 1
            if self.left == 0:
                driver.sendFrameworkMessage({'value': 'echo'}, self.agent, encode_data(b'hello'))
        elif state == 'TASK_KILLED':
            print('killed', name, 'answered', self.answered, flush=True)
            driver.stop()

    def frameworkMessage(self, driver, executor_id, agent_id, message):
        self.answered = decode_data(message) == b'hello'
        driver.killTask({'value': 'stays'})

    def error(self, driver, message):
        print('error', message, flush=True)
        driver.stop()


MesosSchedulerDriver(Many(), {'user': getpass.getuser(), 'name': 'many'}, master).run()
