"""The backend `vllm` against a fake of vLLM's dialect: what is sent, what comes of it, and the life of adapters."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from safetensors.torch import save_file

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Conflict, InvalidInput, NotFound, Unavailable
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import load_text_model
from services.policy.backends import vllm
from services.policy.backends.base import ModelFacts
from services.policy.backends.server import Address, Server
from services.policy.engine.requests import Limits
from services.policy.engine.rows import Extras, Row, sample_seed
from tests.fake_vllm import create_fake_vllm
from tests.unit.policy.publishing import publish

EVERYTHING = Extras(model_logprobs=True, top_logprobs=2, prompt_logprobs=True)
Started = Callable[..., vllm.VllmBackend]


def server_of(app: FastAPI) -> Server:
    return Server(Address("vllm", "http://there"), httpx.ASGITransport(app))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def fake() -> FastAPI:
    return create_fake_vllm()


@contextmanager
def running(fake: FastAPI, folder: Path, store: ArtifactStore, **settings: Any) -> Iterator[vllm.VllmBackend]:
    base, model_type = load_text_model(str(folder))
    given = {"store_there": None, "adapter_name": "{job}@{version}", "most_adapters": 2, **settings}
    facts, limits = ModelFacts(model_type), Limits()
    backend = vllm.VllmBackend(base, facts, limits, server_of(fake), model="base", store=store, **given)
    backend.start()
    try:
        yield backend
    finally:
        backend.stop()
        assert not backend.alive


@pytest.fixture
def backend(fake: FastAPI, folders: dict[str, Path], store: ArtifactStore) -> Iterator[vllm.VllmBackend]:
    with running(fake, folders["llama"], store) as backend:
        yield backend


def ask(backend: vllm.VllmBackend, adapter: str | None = None, prompts: Any = ((5, 9),), **sampling: Any) -> list[Row]:
    settings = SamplingParams(**{"max_new_tokens": 3, "seed": 4, **sampling})
    return backend.submit([list(ids) for ids in prompts], settings, adapter, EVERYTHING).outcome.result(30).rows


def test_everything_is_said_so_that_no_default_of_the_server_counts(fake: FastAPI, backend: vllm.VllmBackend) -> None:
    ask(backend, temperature=0.7, top_p=0.9, top_k=4, min_p=0.1, repetition_penalty=1.2, stop=["x"], min_new_tokens=1)
    assert fake.state.bodies == [
        {
            "model": "base",
            "prompt": [5, 9],
            "n": 1,
            "seed": sample_seed(4, 0, 0),
            "max_tokens": 3,
            "min_tokens": 1,
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 4,
            "min_p": 0.1,
            "repetition_penalty": 1.2,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "stop": ["x"],
            "logprobs": 2,
            "prompt_logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
    ]


def test_answers_fill_rows_in_order(fake: FastAPI, backend: vllm.VllmBackend) -> None:
    rows = ask(backend, prompts=((5, 9), (30,)), n=2)
    # The fake counts up from the prompt's last token: 9 → 10 11 12, 30 → 31 32 33.
    assert [row.token_ids for row in rows] == [[10, 11, 12]] * 2 + [[31, 32, 33]] * 2
    assert [body["seed"] for body in sorted(fake.state.bodies, key=lambda body: body["seed"])] == sorted(
        sample_seed(4, prompt, sample) for prompt in (0, 1) for sample in (0, 1)
    )
    for row in rows:
        assert row.behavior_logprobs == row.model_logprobs == [-0.5] * 3
        # Of the sampled token (-0.5), the banned one (-9999) and token 1 (-2.0), the best two that are allowed.
        assert row.top_logprobs == [[(token, -0.5), (1, -2.0)] for token in row.token_ids]
        assert row.prompt_logprobs == [-2.0] * (len(row.prompt_ids) - 1)
        assert row.finish_reason == "length"


def test_eos_ends_a_response_wherever_the_server_ends_it(backend: vllm.VllmBackend) -> None:
    # The fake counts modulo 256, so EOS (257) never comes; a stop text does: token 73 is `j`, after `h` and `i`.
    row = ask(backend, prompts=((70,),), max_new_tokens=8, stop=["ij"])[0]
    assert row.token_ids == [71, 72, 73]
    assert row.finish_reason == "stop_sequence"
    assert len(row.behavior_logprobs) == len(row.top_logprobs) == 3


@pytest.mark.parametrize(
    "setting",
    [
        {"typical_p": 0.9},
        {"no_repeat_ngram_size": 3},
        {"frequency_penalty": 0.5},
        {"presence_penalty": 0.5},
        {"temperature": 0.005},
        {"temperature": 0, "min_p": 0.1},
    ],
)
def test_what_vllm_cannot_do_is_refused_by_name(backend: vllm.VllmBackend, setting: dict) -> None:
    with pytest.raises(InvalidInput, match=rf"{list(setting)[-1]}=.* cannot be done by the backend vllm"):
        ask(backend, **setting)


def test_adapters_are_loaded_when_first_named_and_the_least_used_let_go(
    fake: FastAPI, backend: vllm.VllmBackend, store: ArtifactStore, folders: dict[str, Path]
) -> None:
    refs = [publish(store, folders["llama"], "job", version) for version in (1, 2, 3)]
    for ref in (refs[0], refs[1], refs[0], refs[2]):
        assert ask(backend, ref)[0].behavior_logprobs == [-0.7] * 3
    assert backend.adapters == [refs[0], refs[2]]
    assert fake.state.adapters == {ref: str(store.root / "adapters/job" / ref[-1]) for ref in (refs[0], refs[2])}


def test_paths_are_those_of_the_server(fake: FastAPI, folders: dict[str, Path], store: ArtifactStore) -> None:
    ref = publish(store, folders["llama"], "job", 1)
    settings = {"store_there": Path("/mnt/store"), "adapter_name": "{job}-v{version}"}
    with running(fake, folders["llama"], store, **settings) as backend:
        ask(backend, ref)
    assert fake.state.adapters == {"job-v1": "/mnt/store/adapters/job/1"}
    with (
        running(fake, folders["llama"], store, store_there=Path("/absent/store")) as backend,
        pytest.raises(NotFound, match=r"Asked for /absent/store/adapters/job/1: .*RLHF_BACKEND_STORE"),
    ):
        ask(backend, ref)


def test_an_adapter_that_another_replica_loaded_is_used(
    fake: FastAPI, backend: vllm.VllmBackend, store: ArtifactStore, folders: dict[str, Path]
) -> None:
    ref = publish(store, folders["llama"], "job", 1)
    fake.state.adapters[ref] = "/elsewhere/job/1"
    assert ask(backend, ref)[0].behavior_logprobs == [-0.7] * 3


def test_an_adapter_that_loads_and_changes_nothing_is_refused(
    fake: FastAPI, backend: vllm.VllmBackend, store: ArtifactStore, folders: dict[str, Path]
) -> None:
    ref = publish(store, folders["llama"], "mismatched", 1)
    with pytest.raises(Conflict, match=r"exactly as without it.*names of its modules may not match"):
        ask(backend, ref)
    assert fake.state.adapters == {}
    assert backend.adapters == []


def test_whole_weights_are_refused_before_the_server_hears_of_them(
    fake: FastAPI, backend: vllm.VllmBackend, store: ArtifactStore
) -> None:
    ref = store.publish("adapters", "whole", 1, lambda folder: save_file({}, folder / "replaced.safetensors"))
    with pytest.raises(Conflict, match="the backend vllm cannot put in the place of its model's"):
        ask(backend, ref)
    assert fake.state.adapters == {}


def test_an_untrained_adapter_may_change_nothing(
    backend: vllm.VllmBackend, store: ArtifactStore, folders: dict[str, Path]
) -> None:
    ref = publish(store, folders["llama"], "mismatched", 2, size=0.0)
    assert ask(backend, ref)[0].behavior_logprobs == [-0.5] * 3


def test_unknown_adapters_are_not_found(backend: vllm.VllmBackend) -> None:
    with pytest.raises(NotFound, match="nobody@1 does not exist"):
        ask(backend, "nobody@1")


def test_a_server_that_has_lost_an_adapter_gets_it_again(
    fake: FastAPI, backend: vllm.VllmBackend, store: ArtifactStore, folders: dict[str, Path]
) -> None:
    ref = publish(store, folders["llama"], "job", 1)
    ask(backend, ref)
    fake.state.adapters.clear()
    with pytest.raises(Unavailable, match="no longer, as after a restart"):
        ask(backend, ref)
    assert ask(backend, ref)[0].behavior_logprobs == [-0.7] * 3


def test_the_start_looks_at_the_server(fake: FastAPI, folders: dict[str, Path]) -> None:
    base, model_type = load_text_model(str(folders["llama"]))
    found = asyncio.run(vllm.ask_facts(server_of(fake), base, model_type))
    assert found == (ModelFacts("llama"), 128, "base")
    raw = server_of(create_fake_vllm(logprobs_mode="raw_logprobs"))
    with pytest.raises(ValueError, match="start it with --logprobs-mode processed_logprobs"):
        asyncio.run(vllm.ask_facts(raw, base, model_type))
