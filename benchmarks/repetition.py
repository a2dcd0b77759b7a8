"""`make bench-repetition`: what each way to discourage repetition does to the demo's prompts, greedily and sampled.

A real policy process answers the same prompts under every setting, with the same seed:

    rep-4        share of a response's 4-grams of words that repeat an earlier one, the mean
    distinct-2   distinct 2-grams of words over all, of all responses together; compare it at similar lengths only
    loops        responses in which the same 8 words in a row occur three times or more
    stuck        responses that end in a phrase repeated three times or more in a row: still looping at the end
    log p        mean natural log-probability of a response token under the plain model, at the sampling temperature,
                 at 1 where that is 0: what the setting costs in likelihood
    end          responses that end by EOS, before the limit

make bench-repetition ARGS="--prompts 256"
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from benchmarks.servers import serving_policy
from rlhf.demo.dataset import load_prompts
from rlhf.demo.preset import conversation
from rlhf.evaluation.text_metrics import distinct_n, loop_share, seq_rep_4
from rlhf.local.signals import StopRequested

SETTINGS: dict[str, dict[str, float]] = {
    "none": {},
    "repetition_penalty 1.1": {"repetition_penalty": 1.1},
    "repetition_penalty 1.2": {"repetition_penalty": 1.2},
    "repetition_penalty 1.3": {"repetition_penalty": 1.3},
    "no_repeat_ngram_size 3": {"no_repeat_ngram_size": 3},
    "frequency_penalty 0.3": {"frequency_penalty": 0.3},
    "repetition_penalty 1.1, no_repeat_ngram_size 4": {"repetition_penalty": 1.1, "no_repeat_ngram_size": 4},
}
TEMPERATURES = (0.0, 0.7)
NEW_TOKENS, SEED, PROMPTS_PER_REQUEST = 96, 0, 32
PHRASE_WORDS = 12
"""Longest phrase, in words, that `is_stuck` looks for."""
COLUMNS = ("rep-4", "distinct-2", "loops", "stuck", "log p", "end", "tokens")


def main() -> int:
    """Generates and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a local folder; default: SmolLM2-135M-Instruct, made when it is absent")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=NEW_TOKENS, help="most tokens of a response")
    options = parser.parse_args()
    from rlhf.local.weights import ensure_smollm2

    model = options.model or str(ensure_smollm2(say=lambda line: print(line, file=sys.stderr)))
    rows = []
    try:
        with serving_policy(model) as server, httpx.Client(base_url=server.url, timeout=None) as client:
            for temperature in TEMPERATURES:
                for name, setting in SETTINGS.items():
                    print(f"temperature {temperature}: {name}", file=sys.stderr)
                    sampling = {"temperature": temperature, "max_new_tokens": options.tokens, **setting}
                    made = list(generate(client, sampling, options.prompts))
                    rows.append({"temperature": temperature, "setting": name, **measure(made)})
    except StopRequested as stop:
        return stop.exit_code
    report(rows, options)
    return 0


def generate(client: httpx.Client, sampling: dict[str, Any], prompts: int) -> Iterator[dict[str, Any]]:
    """The policy's results for so many of the demo's prompts, of all its types."""
    rows = load_prompts()
    step = max(1, len(rows) // prompts)
    conversations = [[message.model_dump() for message in conversation(row)] for row in rows[::step][:prompts]]
    for start in range(0, len(conversations), PROMPTS_PER_REQUEST):
        part = conversations[start : start + PROMPTS_PER_REQUEST]
        # A seed a request: rows of two requests with one seed would share their random numbers.
        body = {"prompts": part, "sampling": {**sampling, "seed": SEED + start}, "return": {"logprobs": True}}
        answer = client.post("/generate", json=body)
        if answer.status_code != 200:
            raise RuntimeError(f"the policy answers {answer.status_code}: {answer.text[:300]}")
        yield from answer.json()["results"]


def measure(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The columns for one setting."""
    texts = [result["text"] for result in results]
    logprobs = [value for result in results for value in result["model_logprobs"]]
    return {
        "rep-4": seq_rep_4(texts),
        "distinct-2": distinct_n(texts, 2),
        "loops": loop_share(texts),
        "stuck": sum(is_stuck(text) for text in texts) / len(texts),
        "log p": sum(logprobs) / len(logprobs),
        "end": sum(result["finish_reason"] == "eos_token" for result in results) / len(results),
        "tokens": sum(result["generated_tokens"] for result in results) / len(results),
        "responses": len(results),
    }


def is_stuck(text: str) -> bool:
    """Whether a text ends in a phrase of at most 12 words that comes three times in a row, the last one maybe cut."""
    words = re.findall(r"\w+(?:['’]\w+)*", text.lower())
    for length in range(1, PHRASE_WORDS + 1):
        # A period of `length` words holds over the last three phrases.
        tail = words[-3 * length :]
        if len(tail) == 3 * length and tail[length:] == tail[:-length]:
            return True
    return False


def report(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """The table, and the same as JSON on the last line."""
    print(f"\n{rows[0]['responses']} prompts of the demo, at most {options.tokens} tokens, seed {SEED}")
    for temperature in TEMPERATURES:
        print(f"\n{f'temperature {temperature}':<48}" + "".join(f"{name:>11}" for name in COLUMNS))
        for row in (row for row in rows if row["temperature"] == temperature):
            shown = [f"{row[name]:.0%}" for name in ("loops", "stuck")]
            cells = [f"{row['rep-4']:.4f}", f"{row['distinct-2']:.3f}", *shown]
            cells += [f"{row['log p']:.3f}", f"{row['end']:.0%}", f"{row['tokens']:.1f}"]
            print(f"{row['setting']:<48}" + "".join(f"{cell:>11}" for cell in cells))
    print(json.dumps({"prompts": rows[0]["responses"], "tokens": options.tokens, "seed": SEED, "rows": rows}))


if __name__ == "__main__":
    sys.exit(main())
