"""Programs that are interrupted at a known point."""

from __future__ import annotations

__all__ = ["AT_THE_LOOP", "BEFORE_LINES"]

AT_THE_LOOP = """
import asyncio, os, signal, sys, threading, time
from queue import SimpleQueue

arrived = SimpleQueue()

def interrupt(*_):
    arrived.put(None)
    raise KeyboardInterrupt

class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self):
        # Until the other thread waits outside of `Thread.start`, whose locks bear no interruption.
        waiting = threading.main_thread().ident
        while sys._current_frames()[waiting].f_code.co_filename == threading.__file__:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        arrived.get()
        return super().new_event_loop()

signal.signal(signal.SIGINT, interrupt)
asyncio.set_event_loop_policy(Policy())
"""
"""Interrupts the main thread while it waits for the event loop of another thread to be made."""

BEFORE_LINES = """
import os, sys

OURS = ("blocking_session.py", "loop_thread.py")

class Interrupted:
    def __init__(self, line):
        self.lines = 0
        self.line = line

    def __call__(self, frame, event, _):
        if event == "line" and os.path.basename(frame.f_code.co_filename) in OURS:
            self.lines += 1
            if self.lines == self.line:
                raise KeyboardInterrupt
        return self

def interrupt_each(use):
    # Returns how many lines there are.
    line = 0
    while True:
        line += 1
        interrupted = Interrupted(line)
        sys.settrace(interrupted)
        try:
            use()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        if interrupted.lines < line:
            return interrupted.lines
"""
"""Interrupts a function before each line of a blocking session that it runs in the main thread.

In a process of its own, because an interruption between two steps of `except` leaves the handled
exception behind, as the context of every later one. A signal does not come there.
"""
