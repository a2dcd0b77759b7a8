"""`make bench-safety`: SmolLM2, before and after an adapter, on XSTest and BBQ.

Asks a policy over HTTP, by the code of the evaluation job: XSTest decoded greedily and judged by string rules
(rlhf/evaluation/refusals.py), BBQ by the log-likelihood a byte of its three answers.

    over-refusal   share of XSTest's safe prompts that are refused, in full or in part: lower is better
    refusal        share of its unsafe prompts that are: higher is better
    acc, bias      BBQ's accuracy and bias score, ambiguous and disambiguated contexts apart; a bias of 0 is best

make bench-safety                                                          the base model, on a policy of its own
make bench-safety ARGS="--adapter ppo-…@20 --policy http://127.0.0.1:…"    both, on a running policy
                                                                           (its key: RLHF_API_KEY)
make bench-safety ARGS="--adapter ppo-…@20 --store runs/demo/store"        both, on a policy of its own
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rlhf.clients.policy import PolicyClient
from rlhf.contracts.evaluation import BbqConfig, XsTestConfig
from rlhf.contracts.figures import SIDES
from rlhf.contracts.reward import RewardRequest
from rlhf.data.benchmarks import read_bbq, read_xstest
from services.trainer.evaluation.asking import Services
from services.trainer.evaluation.bbq import Bbq
from services.trainer.evaluation.safety import XsTest
from services.trainer.evaluation.section import Section

ADAPTER, BASE = SIDES


def main() -> int:
    """Measures and prints."""
    options = make_parser().parse_args()
    sides: dict[str, str | None] = {BASE: None}
    if options.adapter is not None:
        sides[ADAPTER] = options.adapter
    limit = options.limit
    prompts = read_xstest(str(options.folder / "xstest" / "xstest_prompts.csv"), limit=limit)
    questions = read_bbq([str(options.folder / "bbq")], limit=limit)
    xstest = XsTest(XsTestConfig(prompts=prompts, max_new_tokens=options.max_new_tokens), sides)
    bbq = Bbq(BbqConfig(questions=questions), sides)
    with policy(options) as client:
        services = Services(client.generate, client.logprobs, no_reward)
        told = {"xstest": measure(xstest, services), "bbq": measure(bbq, services)}
    rows = [figures(side, told) for side in sides]
    print(render(rows))
    print(json.dumps({"adapter": options.adapter, "prompts": len(prompts), "questions": len(questions), "rows": rows}))
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", help="job@version; default: the base model alone")
    parser.add_argument("--policy", help="URL of a running policy; default: one is started")
    parser.add_argument("--store", type=Path, help="artifact store with the adapter, for the policy that is started")
    parser.add_argument("--model", help="a local folder; default: SmolLM2-135M-Instruct, made when it is absent")
    parser.add_argument("--folder", type=Path, default=Path("../shared/data"), help="has xstest/ and bbq/")
    parser.add_argument("--limit", type=int, help="prompts of XSTest, and questions of each BBQ file (default: all)")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="of a response to XSTest")
    return parser


def measure(section: Section, services: Services) -> dict[str, Any]:
    """A section's figures, run from its first unit to its last, with a line about each tenth of it."""
    rows: list[dict[str, Any]] = []
    every = max(1, section.units // 10)
    for unit in range(section.units):
        rows += section.run(unit, services)
        if (unit + 1) % every == 0:
            print(f"{section.name}: {unit + 1} of {section.units} requests", file=sys.stderr)
    return section.summarise(rows)


@contextmanager
def policy(options: argparse.Namespace) -> Iterator[PolicyClient]:
    """The policy to ask: the one named, or one that lives as long as the block."""
    if options.policy is not None:
        with PolicyClient(options.policy, os.environ.get("RLHF_API_KEY")) as client:
            yield client
        return
    from benchmarks.servers import serving_policy
    from rlhf.local.weights import ensure_smollm2

    model = options.model or str(ensure_smollm2(say=lambda line: print(line, file=sys.stderr)))
    key = secrets.token_urlsafe(16)
    store = {} if options.store is None else {"RLHF_STORE": str(options.store.resolve())}
    with serving_policy(model, RLHF_API_KEY=key, **store) as server, PolicyClient(server.url, key) as client:
        yield client


def no_reward(_: RewardRequest) -> NoReturn:
    """XSTest and BBQ ask for none."""
    raise AssertionError("no section of this benchmark asks for a reward")


def figures(side: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the table. Args: side, who; told, the figures of both sections."""
    xstest, bbq = told["xstest"][side], told["bbq"][side]["all"]
    row: dict[str, Any] = {"policy": side}
    for name in ("over_refusal", "refusal"):
        row |= {name: xstest[name]["rate"], f"{name}_ci95": xstest[name]["ci95"]}
    for condition in ("ambig", "disambig"):
        scores = bbq.get(condition, {})
        row |= {f"{condition}_{name}": scores.get(name) for name in ("accuracy", "bias_score", "unknown_share")}
    row["unscored"] = sum(xstest[name]["not_generated"]["count"] for name in ("over_refusal", "refusal"))
    row["unscored"] += sum(scores["unscored"] for scores in bbq.values())
    return row


def render(rows: list[dict[str, Any]]) -> str:
    """The table."""
    names = ("over-refusal", "refusal", "ambig acc", "bias", "disambig acc", "bias", "unscored")
    lines = [f"{'':<8}  {names[0]:<22}  {names[1]:<22}" + "".join(f"  {name:>12}" for name in names[2:])]
    for row in rows:
        rates = "  ".join(f"{_rate(row[name], row[f'{name}_ci95']):<22}" for name in ("over_refusal", "refusal"))
        scores = [
            row[f"{condition}_{name}"] for condition in ("ambig", "disambig") for name in ("accuracy", "bias_score")
        ]
        cells = [*map(_number, scores), str(row["unscored"])]
        lines.append(f"{row['policy']:<8}  {rates}" + "".join(f"  {cell:>12}" for cell in cells))
    return "\n".join(lines)


def _rate(rate: float | None, interval: list[float] | None) -> str:
    return "-" if rate is None or interval is None else f"{rate:.1%} ({interval[0]:.1%}-{interval[1]:.1%})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
