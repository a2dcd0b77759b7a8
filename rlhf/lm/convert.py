"""Converts one GGUF file into an ordinary Hugging Face folder: float32 safetensors, tokenizer and chat template.

Run as a program, in a process of its own: `python -m rlhf.lm.convert FILE.gguf FOLDER`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert_gguf(source: Path, target: Path) -> None:
    """Dequantises the weights of a GGUF file to float32 and saves model and tokenizer.

    Args:
        source: the GGUF file.
        target: an existing folder that receives the files.

    Raises:
        ValueError: the file holds no chat template, or weights remain quantised.
    """
    transformers.utils.logging.disable_progress_bar()
    folder = str(source.parent)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=source.name)
    if not tokenizer.chat_template:
        raise ValueError(f"{source.name} holds no chat template; take the GGUF of an instruction-tuned model")
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=source.name, dtype=torch.float32)
    # The weights are plain float32 now; without these marks the saved config would ask for a GGUF quantiser.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    left = {str(p.dtype) for p in model.parameters()} - {"torch.float32"}
    if left:
        raise ValueError(f"{source.name}: weights of type {sorted(left)} remain after conversion to float32")
    # The file's free-text title ends up here, and everything that reads the config would take it for a Hub id.
    model.config._name_or_path = ""
    model.config.__dict__.pop("_model_name_or_path", None)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
