"""The policy service: serves a language model and hot-loads LoRA adapters."""
