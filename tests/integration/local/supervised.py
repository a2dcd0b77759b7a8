"""Run as a program: supervises two stand-in services until it is told to stop.

Arguments: a folder, and the services' manner: `polite`, `stubborn` (ignores SIGTERM) or `childless`.
"""

import os
import sys
import time
from pathlib import Path

from rlhf.local.processes import Program, Supervisor
from rlhf.local.signals import StopRequested, StopSignals

SERVICE = """
import signal, subprocess, sys, time
from pathlib import Path
name, folder, manner = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
def end(*_):
    with (folder / "ended").open("a") as file:
        file.write(name + "\\n")
    if manner != "stubborn":
        sys.exit(0)
signal.signal(signal.SIGTERM, end)
if manner != "childless":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(folder)])
(folder / f"{name}.ready").touch()
while True:
    time.sleep(0.05)
"""


def service(name: str, folder: Path, manner: str) -> Program:
    ready = folder / f"{name}.ready"
    return Program(
        name=name,
        command=[sys.executable, "-c", SERVICE, name, str(folder), manner],
        environment=dict(os.environ),
        log=folder / "logs" / f"{name}.log",
        probe=lambda: None if ready.exists() else "no file yet",
        ready_within=60,
        stop_within=1.0 if manner == "stubborn" else 20.0,
    )


def main(folder: Path, manner: str) -> int:
    with StopSignals() as signals:
        try:
            with Supervisor(signals, lambda line: None) as supervisor:
                supervisor.start([service("first", folder, manner)])
                supervisor.start([service("second", folder, manner)])
                supervisor.wait_ready()
                (folder / "up").touch()
                while True:
                    supervisor.check()
                    time.sleep(0.05)
        except StopRequested as stop:
            return stop.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
