"""Runs an author's `def` methods in worker threads of their data source.

A call borrows a thread for as long as it runs, of the limit `DataSource.threads`. A stream has one
thread from its first row to its end, of the limit `DataSource.stream_threads`: what is bound to a
thread, as a connection of sqlite3 is, can be used throughout a run, and streams, which block most
of the time, cannot take the threads of calls.

A thread cannot be cancelled. What no longer waits for a call leaves it to run to its end; a stream
ends at its next `yield`. One that does not is reported with its stack and counts against the limit
until it has ended. All threads are daemons: they do not delay the end of the process.

author_methods    calls a method, in a thread or in the event loop
pool              the threads of one data source and their limits
thread_call       one call
iterator_reader   a stream: rows from a thread to the event loop
loop_access       what a stream does in the event loop, from its thread
worker            a thread that runs one call after the other
"""

from aiostream_ds._author_threads.author_methods import call_method, runs_in_thread, threads_of
from aiostream_ds._author_threads.loop_access import in_event_loop, in_stream_thread, next_in_thread
from aiostream_ds._author_threads.pool import (
    ABANDONED_AFTER,
    CALL_WAIT,
    CLOSE_WAIT,
    READ_AHEAD,
    AuthorThreads,
    ThreadedSource,
)

__all__ = [
    "ABANDONED_AFTER",
    "CALL_WAIT",
    "CLOSE_WAIT",
    "READ_AHEAD",
    "AuthorThreads",
    "ThreadedSource",
    "call_method",
    "in_event_loop",
    "in_stream_thread",
    "next_in_thread",
    "runs_in_thread",
    "threads_of",
]
