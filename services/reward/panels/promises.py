"""Futures that follow from others, so that no thread waits for them, and the threads that keep the first ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


def kept(value: T) -> Future[T]:
    """Done already."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


def together(parts: Sequence[Future[T]]) -> Future[list[T]]:
    """All results in order, once all are there; the first failure at once, and what has not begun is left out."""
    if not parts:
        return kept([])
    whole: Future[list[T]] = Future()
    lock = threading.Lock()
    missing = len(parts)

    def on_done(part: Future[T]) -> None:
        nonlocal missing
        with lock:
            missing -= 1
            error = None if part.cancelled() else part.exception()
            if whole.done():
                return
            if error is not None:
                whole.set_exception(error)
            elif not missing:
                whole.set_result([each.result() for each in parts])
        if error is not None:
            for each in parts:
                each.cancel()

    for part in parts:
        part.add_done_callback(on_done)
    return whole


def then(future: Future[T], go_on: Callable[[T], U]) -> Future[U]:
    """What follows from a result; its failure, or that of going on, is the new one's."""
    following: Future[U] = Future()

    def on_done(done: Future[T]) -> None:
        try:
            following.set_result(go_on(done.result()))
        except Exception as error:  # noqa: BLE001
            following.set_exception(error)

    future.add_done_callback(on_done)
    return following


class Workers:
    """A few threads that take calls in order. Unlike those of the standard library, they let the process end."""

    def __init__(self, name: str, count: int) -> None:
        """Starts them. Args: name, of the threads."""
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def submit(self, call: Callable[[U], T], given: U) -> Future[T]:
        """Calls it on one of the threads."""
        promise: Future[T] = Future()
        self._calls.put((promise, partial(call, given)))
        return promise

    def _work(self) -> None:
        while True:
            promise, call = self._calls.get()
            if promise.set_running_or_notify_cancel():
                try:
                    result = call()
                except Exception as error:  # noqa: BLE001
                    promise.set_exception(error)
                else:
                    promise.set_result(result)
