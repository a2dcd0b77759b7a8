"""A program: trains and measures our ensemble as the job does, without servers. Prints its figures as one line of JSON.

python -m benchmarks.accuracy.ours MODEL JOB.json
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any


class LocalJob:
    """What a job sees of a trainer that is not there: a folder and a store of its own, and nobody to stop it."""

    def __init__(self, config: Any, folder: Path) -> None:
        """Args: config, of the job; folder, for everything it writes."""
        from rlhf.artifacts.store import ArtifactStore

        self.id, self.config, self.store = "bench", config, ArtifactStore(folder)
        self.folder = self.store.job_folder(self.id)

    def progress(self, step: int, total: int, metrics: dict[str, float]) -> None:
        """Tells nobody."""

    def event(self, name: str, message: str, **_: Any) -> None:
        """Tells the terminal."""
        print(f"{name}: {message}", file=sys.stderr)

    def raise_if_stopped(self) -> None:
        """Nobody stops it."""


def main() -> int:
    """Trains and prints."""
    import torch

    from rlhf.contracts.jobs import RewardModelJobConfig
    from rlhf.lm.loading import load_language_model
    from rlhf.local.machine import physical_cores
    from services.trainer.reward_model.train import run_reward_model

    model, job_file = sys.argv[1:]
    torch.set_num_threads(physical_cores())
    config = RewardModelJobConfig.model_validate_json(Path(job_file).read_bytes())
    base = load_language_model(model)
    with tempfile.TemporaryDirectory(prefix="rlhf-bench-") as folder:
        job = LocalJob(config, Path(folder))
        run_reward_model(job, base)  # type: ignore[arg-type]
        figures = json.loads((job.folder / "metrics.json").read_text())
    figures["seconds"] = figures["durations"]["read_s"] + figures["durations"]["train_s"]
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
