"""`make bench-generate`: generation over HTTP beside other servers, `transformers.generate`, and the machine's bound.

Everyone answers the demo's prompts, greedily, with repetition penalty 1.2 and exactly the same number of tokens, in a
process of their own, one after the other; the rounds alternate their order, so that what else the machine does hits
all alike, and the best round of each counts. A client sends its next request when it has its answer.

    same text   answers that are, to the letter, those of transformers.generate; kernels round differently, and one
                token that comes out otherwise changes all that follow
    bound       the matrix multiplies of a decode step alone, at as many rows as there are clients

make bench-generate ARGS="--install-peers"     once: the other servers' environments
make bench-generate ARGS="--clients 1 8 32 --rounds 2"
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from benchmarks.generation.contenders import LABELS, OURS, PEERS, Job, NotInstalled, bound, run
from benchmarks.generation.load import WrongAnswer
from benchmarks.generation.peers import install_peers
from benchmarks.generation.table import Outcome, report
from benchmarks.generation.work import add_options, arguments, make_work
from rlhf.local.processes import ServiceFailed
from rlhf.local.signals import StopRequested

BOUND = "gemm_bound"


def main() -> int:
    """Measures and prints; returns 1 when a contender that is installed could not do the work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=2, help="times that everyone is run")
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), default=list(PEERS), help="who else is run")
    parser.add_argument("--install-peers", action="store_true", help="make the other servers' environments, and end")
    options = parser.parse_args()
    if options.install_peers:
        install_peers()
        return 0
    from rlhf.local.weights import ensure_smollm2

    model = options.model or str(ensure_smollm2(say=lambda line: print(line, file=sys.stderr)))
    job = Job(make_work(options, model), arguments(options, model))
    outcome = Outcome(options.clients, options.tokens, dict.fromkeys(PEERS, "not asked for"))
    try:
        measure(job, [OURS, *options.peers, BOUND], options.rounds, outcome)
    except StopRequested as stop:
        return stop.exit_code
    print(json.dumps(report(outcome)))
    return 1 if outcome.failed else 0


def measure(job: Job, names: list[str], rounds: int, outcome: Outcome) -> None:
    """Runs everyone, in this order and then in the opposite one."""
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            if name == BOUND:
                print(f"round {turn + 1}: matrix multiplies alone", file=sys.stderr)
                outcome.add_bound(bound(job))
            elif name not in outcome.failed:
                print(f"round {turn + 1}: {LABELS[name]}", file=sys.stderr)
                one(name, job, outcome)


def one(name: str, job: Job, outcome: Outcome) -> None:
    """Runs one contender; what another project's server does wrong is told and does not end the benchmark."""
    try:
        outcome.add(name, run(name, job))
    except NotInstalled as error:
        outcome.missing[name] = str(error)
    except (ServiceFailed, WrongAnswer, subprocess.CalledProcessError) as error:
        if name == OURS:
            raise
        output = error.output if isinstance(error, subprocess.CalledProcessError) else ""
        print(f"{LABELS[name]} failed: {error}\n{output}", file=sys.stderr)
        outcome.fail(name, str(error).splitlines()[0])


if __name__ == "__main__":
    sys.exit(main())
