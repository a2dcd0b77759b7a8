"""A program of the peers' environment: TRL's RewardTrainer on the same pairs. Imports nothing of ours.

It reads {model, seed, r, epochs, train, validation, evaluation} and prints {validation, evaluation: differences of
scores, seconds, peak_mib} as one line of JSON. The recipe is TRL's: its loss, optimiser, learning rate (1e-4), batch
size (8), LoRA targets and gradient checkpointing, without which 51 pairs of HH-RLHF took 12 GiB. float32 in place of
its bfloat16 does its result no harm on a CPU.

python trl_program.py WORK.json
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import RewardConfig, RewardTrainer

MAX_LENGTH, SCORED_TOGETHER = 1024, 8


def main() -> int:
    """Trains, scores and prints."""
    work = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(work["seed"])
    with tempfile.TemporaryDirectory(prefix="trl-bench-") as folder:
        trainer = RewardTrainer(
            model=work["model"],
            args=RewardConfig(
                output_dir=folder,
                num_train_epochs=work["epochs"],
                seed=work["seed"],
                bf16=False,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(work["train"]),
            # As ours: rank r, and an update of (alpha / r = 2)·BA.
            peft_config=LoraConfig(task_type="SEQ_CLS", r=work["r"], lora_alpha=2 * work["r"]),
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    told: dict[str, Any] = {role: differences(trainer, work[role]) for role in ("validation", "evaluation")}
    told |= {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    print(json.dumps(told))
    return 0


def differences(trainer: RewardTrainer, rows: list[dict[str, Any]]) -> list[float]:
    """Score of chosen minus score of rejected, for each row. A conversation that is too long loses its beginning."""
    tokenizer, texts = trainer.processing_class, []
    for side in ("chosen", "rejected"):
        for row in rows:
            ids = tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=False)
            texts.append(ids[-MAX_LENGTH:])
    scores = torch.empty(len(texts))
    model = trainer.model.eval()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(order), SCORED_TOGETHER):
        part = order[start : start + SCORED_TOGETHER]
        padded = tokenizer.pad({"input_ids": [texts[i] for i in part]}, padding_side="right", return_tensors="pt")
        with torch.no_grad():
            scores[part] = model(**padded).logits[:, 0]
    chosen, rejected = scores.chunk(2)
    return (chosen - rejected).tolist()


if __name__ == "__main__":
    sys.exit(main())
