"""`rlhf serve`: the stack for a user's own requests, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import time
from collections.abc import Callable

from rlhf.local.runfolder import claimed, remove
from rlhf.local.signals import StopRequested, StopSignals
from rlhf.local.stack import Endpoints, Stack, StackOptions

ENDPOINTS_FILE = "endpoints.json"
DATA = ("redis", "store")
CHECK_S = 0.5


def serve(options: StackOptions, signals: StopSignals, say: Callable[[str], None], *, fresh: bool = False) -> None:
    """Runs the stack until a stop is requested; then stops it and returns.

    Jobs, adapters and reward models of an earlier run in the same folder are kept, and its unfinished jobs go on. What
    people judged is kept in any case.

    Args:
        options: what to start.
        signals: entered already.
        say: prints a line.
        fresh: forget the earlier run.

    Raises:
        ServiceFailed: a process died; everything else is stopped.
        FolderBusy: another stack runs in this folder.
    """
    with claimed(options.folder) as folder:
        remove(folder, ("logs", ENDPOINTS_FILE, *(DATA if fresh else ())))
        try:
            stack = Stack(options, signals, say)
            say(f"starting the services with {stack.threads} threads each; logs in {stack.logs}")
            with stack:
                stack.endpoints.write(folder / ENDPOINTS_FILE)
                say(describe(stack.endpoints, folder / ENDPOINTS_FILE))
                while True:
                    stack.supervisor.check()
                    time.sleep(CHECK_S)
        except StopRequested:
            pass
        finally:
            remove(folder, (ENDPOINTS_FILE,))
        say("stopped")


def describe(endpoints: Endpoints, path: object) -> str:
    """What a user needs for a first request."""
    console = [] if endpoints.console is None else [f"console  {endpoints.console} (log in with the API key)"]
    return "\n".join(
        (
            *console,
            f"policy   {endpoints.policy}",
            f"reward   {endpoints.reward}",
            f"trainer  {endpoints.trainer}",
            f"API key  {endpoints.api_key}",
            f"All of it, and the Redis URL, is in {path}. Ctrl-C stops everything. Try:",
            f'  curl {endpoints.policy}/generate -H "Authorization: Bearer {endpoints.api_key}" \\',
            """    -H 'content-type: application/json' -d '{"prompts": ["Why is the sky blue?"]}'""",
        )
    )
