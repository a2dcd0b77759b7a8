"""The commands of `rlhf` that talk to running services, and what such commands share. They start nothing."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.contracts.errors import ServiceError
from rlhf.contracts.policy import READERS_NGRAM
from rlhf.local.console import Console
from rlhf.local.signals import StopSignals

if TYPE_CHECKING:
    from rlhf.clients.trainer import TrainerClient

ENDPOINTS = Path("runs/serve/endpoints.json")


class RequestFailed(RuntimeError):
    """A command could not do its work; the message is for its user."""


def service_options() -> argparse.ArgumentParser:
    """The options that say where a service is, for the commands that ask one."""
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--url", help="base URL of the service (default: RLHF_POLICY_URL and the like, then --endpoints)"
    )
    where.add_argument("--api-key-file", type=Path, help="file with the key (default: RLHF_API_KEY, then --endpoints)")
    where.add_argument(
        "--endpoints", type=Path, default=ENDPOINTS, help=f"what `rlhf serve` wrote (default: {ENDPOINTS})"
    )
    return where


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    """`generate` and `reward`. Args: commands, of the command line; where, see service_options."""
    generate = commands.add_parser("generate", parents=[where], help="ask the policy")
    generate.add_argument("text", help="the prompt")
    generate.add_argument("--system", help="system prompt")
    generate.add_argument("--adapter", help="job@version (default: the base model)")
    generate.add_argument("--max-new-tokens", type=int, default=128)
    generate.add_argument("--temperature", type=float, default=0.7)
    generate.add_argument(
        "--no-repeat-ngram-size",
        type=int,
        default=READERS_NGRAM,
        help=f"no phrase of so many tokens occurs twice in prompt and response; 0: off (default: {READERS_NGRAM})",
    )
    generate.add_argument("--seed", type=int)
    generate.set_defaults(command=run_generate)

    reward = commands.add_parser("reward", parents=[where], help="score a response")
    reward.add_argument("prompt")
    reward.add_argument("response")
    reward.add_argument("--model", help="job@version (default: the server's default model)")
    reward.set_defaults(command=run_reward)


def find_service(options: argparse.Namespace, name: str) -> tuple[str, str | None]:
    """URL and key of a service: from the options, the environment, or what `rlhf serve` wrote.

    Args:
        options: url, api_key_file and endpoints.
        name: policy, reward or trainer.

    Raises:
        RequestFailed: none of them says where it is.
    """
    known: dict[str, str] = {}
    if options.endpoints.is_file():
        known = json.loads(options.endpoints.read_text())
    variable = f"RLHF_{name.upper()}_URL"
    url = options.url or os.environ.get(variable) or known.get(name)
    if url is None:
        raise RequestFailed(
            f"no URL of {name}: {options.endpoints} does not exist; start `rlhf serve`, or give --url or {variable}"
        )
    if options.api_key_file is not None:
        return url, options.api_key_file.read_text().strip()
    return url, os.environ.get("RLHF_API_KEY") or known.get("api_key")


def run_generate(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf generate TEXT`."""
    from rlhf.clients.policy import PolicyClient
    from rlhf.contracts.base import Message
    from rlhf.contracts.policy import GenerateRequest

    system = [Message(role="system", content=options.system)] if options.system else []
    sampling = {
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "no_repeat_ngram_size": options.no_repeat_ngram_size,
        "seed": options.seed,
    }
    request = checked(
        GenerateRequest,
        {
            "prompts": [[*system, Message(role="user", content=options.text)]],
            "adapter": options.adapter,
            "sampling": sampling,
        },
    )
    try:
        with PolicyClient(*find_service(options, "policy")) as client:
            console.say(client.generate(request).results[0].text)
    except ServiceError as error:
        raise RequestFailed(f"policy: {error}") from error


def run_reward(options: argparse.Namespace, _: StopSignals, console: Console) -> None:
    """`rlhf reward PROMPT RESPONSE`."""
    from rlhf.clients.reward import RewardClient
    from rlhf.contracts.reward import RewardRequest

    samples = [{"prompt": options.prompt, "response": options.response}]
    request = checked(RewardRequest, {"samples": samples, "model": options.model})
    try:
        with RewardClient(*find_service(options, "reward")) as client:
            console.say(client.score(request).results[0].model_dump_json(indent=2))
    except ServiceError as error:
        raise RequestFailed(f"reward: {error}") from error


def add_priority(parser: argparse.ArgumentParser) -> None:
    """Adds `--priority` to a command that submits a job."""
    parser.add_argument(
        "--priority", type=int, default=0, help="-10 to 10; a free learner takes the highest first (default: 0)"
    )


def read_json(what: str, path: Path) -> Any:
    """The content of a file that the user named. Args: what, it is, for the message when it cannot be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RequestFailed(f"cannot read {what} {path}: {error}") from error


def trainer(options: argparse.Namespace) -> TrainerClient:
    """The trainer's client, to be used in a `with`."""
    from rlhf.clients.trainer import TrainerClient

    return TrainerClient(*find_service(options, "trainer"))


def asked(request: Any, *arguments: Any, **options: Any) -> Any:
    """The answer of a client's method. Its errors become RequestFailed."""
    try:
        return request(*arguments, **options)
    except ServiceError as error:
        raise RequestFailed(f"trainer: {error}") from error


def checked(contract: Any, body: object) -> Any:
    """A body as a contract's object; all its errors at once become RequestFailed."""
    from pydantic import ValidationError

    try:
        return contract.model_validate(body)
    except ValidationError as error:
        raise RequestFailed(describe_errors(error.errors())) from error


def describe_errors(errors: Iterable[Any]) -> str:
    """Where each error is, what is wrong, the value seen."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r:.80})" for e in errors)
