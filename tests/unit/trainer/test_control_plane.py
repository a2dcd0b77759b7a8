"""The images of the job API and of rollout workers have none of the learner's packages."""

import subprocess
import sys

ABSENT = ("torch", "transformers", "peft", "safetensors", "tensorboardX")
STARTS = ("services.trainer.api.app", "services.trainer.worker", "services.trainer.rollouts.tasks")
STARTS += ("services.trainer.evaluation.run",)


def test_the_job_api_and_rollout_workers_start_without_the_learners_packages() -> None:
    code = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\nimport {', '.join(STARTS)}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == ""
