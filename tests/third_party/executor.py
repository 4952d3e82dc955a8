"""A custom executor with pymesos: answers each task at once, and messages by repeating them."""
from pymesos import Executor, MesosExecutorDriver


class Echo(Executor):
    def launchTask(self, driver, task):
        name = task['task_id']['value']
        self.update(driver, task['task_id'], 'TASK_RUNNING')
        if name != 'stays':
            self.update(driver, task['task_id'], 'TASK_FINISHED', data=task.get('data'))

    def killTask(self, driver, task_id):
        self.update(driver, task_id, 'TASK_KILLED')

    def frameworkMessage(self, driver, message):
        driver.sendFrameworkMessage(message)

    def update(self, driver, task_id, state, data=None):
        status = {'task_id': task_id, 'state': state}
        if data:
            status['data'] = data
        driver.sendStatusUpdate(status)


MesosExecutorDriver(Echo()).run()
