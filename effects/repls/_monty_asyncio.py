"""asyncio for the sandbox, which itself has no more of it than `run`, `gather` and `sleep`.

Differences to asyncio that code can see:

1. A task that is waited for goes on together with all others that were made before, and all of
   them run to their end.
2. Timeouts never strike: the clock stands still, and a sub-model's time isn't the cell's.
3. A semaphore lets everyone through: how many subcalls run at once is the run's policy. One of
   size 1 is refused, since code may rely on being alone.
"""

ASYNCIO = """
import asyncio as _rlm_asyncio
async def _rlm_value(value):
    return value
def _rlm_awaitable(value):
    if isinstance(value, _rlm_Task):
        return value.wait()
    if value is None or isinstance(value, (str, list, dict, int, float)):
        return _rlm_value(value)
    return value
_rlm_tasks = []
class _rlm_Task:
    def __init__(self, coroutine):
        self.coroutine = coroutine
        self.is_done = False
        self.error = None
        self.value = None
        _rlm_tasks.append(self)
    def __repr__(self):
        return "<Task>"
    async def run(self):
        try:
            self.value = await _rlm_awaitable(self.coroutine)
        except Exception as error:
            self.error = error
        self.is_done = True
    async def wait(self):
        while not self.is_done:
            if self not in _rlm_tasks:
                raise RuntimeError("a task can't wait here for one that waits for it")
            await _rlm_run_tasks()
        return self.result()
    def done(self):
        return self.is_done
    def result(self):
        if not self.is_done:
            raise RuntimeError("Result is not set.")
        if self.error is not None:
            raise self.error
        return self.value
    def exception(self):
        if not self.is_done:
            raise RuntimeError("Exception is not set.")
        return self.error
async def _rlm_run_tasks():
    ready = _rlm_tasks[:]
    _rlm_tasks[:] = []
    await _rlm_asyncio.gather(*[task.run() for task in ready])
async def _rlm_caught(awaitable):
    try:
        return await awaitable
    except Exception as error:
        return error
class _rlm_Semaphore:
    def __init__(self, value=1):
        if value < 2:
            raise NotImplementedError(
                "asyncio.Semaphore(1) isn't available here: await one call after the other"
            )
    def __enter__(self):
        return None
    def __exit__(self, *error):
        return False
def _rlm_async_with(value):
    if isinstance(value, _rlm_Semaphore):
        return value
    raise NotImplementedError(
        "async with isn't available here, except with an asyncio.Semaphore"
    )
def _rlm_make_asyncio():
    async def gather(*awaitables, return_exceptions=False):
        ready = [_rlm_awaitable(a) for a in awaitables]
        if return_exceptions:
            ready = [_rlm_caught(a) for a in ready]
        return await _rlm_asyncio.gather(*ready)
    def create_task(coroutine, *, name=None, context=None):
        return coroutine if isinstance(coroutine, _rlm_Task) else _rlm_Task(coroutine)
    async def wait_for(awaitable, timeout):
        return await _rlm_awaitable(awaitable)
    async def shield(awaitable):
        return await _rlm_awaitable(awaitable)
    def as_completed(awaitables, *, timeout=None):
        return iter([create_task(a) for a in awaitables])
    def run(main, *, debug=None):
        return _rlm_asyncio.run(_rlm_awaitable(main))
    async def to_thread(function, *args, **options):
        return function(*args, **options)
    def get_event_loop():
        return loop
    loop = _rlm_module({
        "run_until_complete": run, "create_task": create_task, "close": lambda: None,
    })
    return {
        "gather": gather, "create_task": create_task, "ensure_future": create_task,
        "to_thread": to_thread, "get_event_loop": get_event_loop,
        "get_running_loop": get_event_loop, "new_event_loop": get_event_loop,
        "wait_for": wait_for, "shield": shield, "as_completed": as_completed, "run": run,
        "sleep": _rlm_asyncio.sleep, "Semaphore": _rlm_Semaphore,
        "BoundedSemaphore": _rlm_Semaphore, "TimeoutError": TimeoutError,
    }
_rlm_m_asyncio = _rlm_module(_rlm_make_asyncio())
"""
