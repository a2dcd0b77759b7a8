"""A program: makes the reward model of both sides, the model's trunk under a random head. Learns nothing.

python -m benchmarks.ppo_steps.classifier MODEL FOLDER
"""

from __future__ import annotations

import sys


def main() -> int:
    """Writes weights and tokenizer."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    source, folder = sys.argv[1:]
    disable_progress_bar()
    set_verbosity_error()  # that the head is new is why this is done
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, dtype=torch.float32)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
