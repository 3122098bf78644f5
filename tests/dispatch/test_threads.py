"""Threads: jobs are run, also where the system has no thread to give for a while."""

import threading

from flash_runtime.dispatch.threads import Threads


def test_jobs_are_run_once_there_is_a_thread_again(monkeypatch):
    threads, done = Threads(2), threading.Semaphore(0)

    def start(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        threads.submit(done.release)
    threads.submit(done.release)
    assert done.acquire(timeout=5)
    assert done.acquire(timeout=5)
