"""`/datasets`: judgements as versioned preference data, for download and for training."""

from __future__ import annotations

import io
import json
import re
import secrets
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from rlhf.cli_train import PRESETS, preset_file
from rlhf.contracts.errors import Conflict, InvalidInput
from rlhf.contracts.jobs import RewardModelJobConfig
from rlhf.data.sources import INSTALL
from rlhf.serving.service import describe_validation
from services.console.backends import AtBackends
from services.console.forms import PostedForm
from services.console.pages import page
from services.console.store import datasets
from services.console.store.models import Dataset
from services.console.visitors import AtStore, Id, PersonId

router = APIRouter(prefix="/datasets")
SHOWN = 5
"""Rows on a dataset's page."""
KEY = re.compile(r"[0-9a-f]{32}")


@router.get("")
def list_datasets(request: Request, store: AtStore) -> Response:
    """All of them, newest first."""
    with store.reading() as session:
        shown = {"datasets": datasets.newest(session), "trainings": datasets.count_trainings(session)}
    return page(request, "datasets.html.j2", **shown)


@router.post("")
def freeze_study(form: PostedForm, store: AtStore, person: PersonId) -> Response:
    """A study's judgements as its next version; where nothing was judged since, the version that there is."""
    study = form.get("study", "")
    if not re.fullmatch(r"[0-9]{1,9}", study, re.ASCII):
        raise InvalidInput(f"study {study!r} is no number; freeze a study from its own page")
    with store.writing() as session:
        dataset = datasets.freeze(session, int(study), person).id
    return RedirectResponse(f"/datasets/{dataset}", status_code=303)


@router.get("/{dataset}")
def show_dataset(request: Request, dataset: Id, store: AtStore) -> Response:
    """What is in it, and what was trained on it."""
    with store.reading() as session:
        found = datasets.get(session, dataset)
        trained = datasets.trainings(session, dataset)
    rows = _rows(found)
    shown = {"dataset": found, "rows": rows[:SHOWN], "trainings": trained, "preset": _preset(len(rows))}
    # The key is drawn with the form: a double click, or the form sent again, makes one job.
    return page(request, "dataset.html.j2", key=secrets.token_hex(16), **shown)


@router.get("/{dataset}/rows.{ending}")
def download(dataset: Id, ending: Literal["jsonl", "parquet"], store: AtStore) -> Response:
    """The rows, as `rlhf train` reads them."""
    with store.reading() as session:
        found = datasets.get(session, dataset)
    content = found.content.encode() if ending == "jsonl" else _as_parquet(_rows(found))
    kind = "application/jsonl" if ending == "jsonl" else "application/vnd.apache.parquet"
    name = f"study-{found.study_id}-v{found.version}.{ending}"
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


@router.post("/{dataset}/train")
def train(dataset: Id, form: PostedForm, store: AtStore, backends: AtBackends) -> Response:
    """Submits a job that trains a reward model on it. The same form sent again means the same job."""
    key = form.get("key", "")
    if not KEY.fullmatch(key):
        raise InvalidInput("the form lacks its key; go back and load its page again")
    with store.reading() as session:
        rows = _rows(datasets.get(session, dataset))
    settings = json.loads(preset_file(_preset(len(rows))).read_text())
    try:
        config = RewardModelJobConfig.model_validate({**settings, "kind": "reward_model", "pairs": rows})
    except ValidationError as error:
        told = describe_validation([dict(each) for each in error.errors(include_url=False, include_input=False)[:3]])
        raise InvalidInput(f"no reward model can be trained on these {len(rows)} pairs: {told}") from error
    job = backends.trainer.submit(config, key=key)
    with store.writing() as session:
        datasets.record_training(session, dataset, job.id)
    return RedirectResponse(f"/jobs/{job.id}", status_code=303)


def _rows(dataset: Dataset) -> list[dict[str, Any]]:
    return [json.loads(line) for line in dataset.content.split("\n") if line]


def _preset(pairs: int) -> str:
    """The settings that were measured with about so many pairs."""
    return min(PRESETS, key=lambda preset: abs(int(preset) - pairs))


def _as_parquet(rows: list[dict[str, Any]]) -> bytes:
    try:
        from pyarrow import Table
        from pyarrow.parquet import write_table
    except ImportError as error:
        raise Conflict(f"Parquet needs pyarrow where the console runs: {INSTALL}; or download JSON Lines") from error
    target = io.BytesIO()
    write_table(Table.from_pylist(rows), target)
    return target.getvalue()
