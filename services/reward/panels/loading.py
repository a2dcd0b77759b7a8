"""Makes the panels of the operator's file: loads classifiers, opens clients, reads references."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import ServiceError
from rlhf.contracts.panels import ClassifierMember, Panel, RemoteMember
from rlhf.contracts.reward import RewardSample
from rlhf.lm.classifiers import load_classifier
from rlhf.lm.loading import LanguageModel, load_tokenizer
from rlhf.serving.panels import read_reference
from services.reward.panels.classifiers import ClassifierScorer
from services.reward.panels.dialects import Speech
from services.reward.panels.members import Member, Scale, ScaledMember
from services.reward.panels.panel import PanelModel
from services.reward.panels.remotes import RemoteClient, RemoteScorer
from services.reward.settings import RewardSettings
from services.reward.turns import TurnReader

log = logging.getLogger(__name__)


def load_panels(settings: RewardSettings, store: ArtifactStore, base: LanguageModel) -> dict[str, PanelModel]:
    """Panels by their `name@version`. Classifiers are loaded and standardised, remote members are not asked yet.

    Args:
        settings: of the service.
        store: of published reward models, whose names panels may not have.
        base: the backbone, whose chat template clients may have used.

    Raises:
        ValueError: names the file, the member and what is wrong with it.
    """
    if not settings.panels:
        return {}
    turns, panels = TurnReader(base.tokenizer), {}
    for ref, panel in settings.panels.items():
        try:
            name = ref.partition("@")[0]
            if store.versions("reward_models", name):
                raise ValueError(f"{store.root} has a published reward model {name}; give the panel another name")
            reference = read_reference(ref, panel)
            members = [_load_member(settings, ref, index, panel, reference) for index in range(len(panel.members))]
            panels[ref] = PanelModel(members, turns.sample)
        except (OSError, ValueError, ServiceError) as error:
            raise ValueError(f"RLHF_REWARD_PANELS: {settings.reward_panels}: {ref}: {error}") from error
        log.info("panel loaded", extra={"reward_model": ref, "members": len(members)})
    return panels


def _load_member(
    settings: RewardSettings, ref: str, index: int, panel: Panel, reference: Sequence[RewardSample]
) -> ScaledMember:
    config = panel.members[index]
    where = f"member {index} of {ref}"
    scale = None if config.mean is None or config.std is None else Scale(config.mean, config.std)
    try:
        member = (
            _load_classifier(settings, where, config) if isinstance(config, ClassifierMember) else _open(where, config)
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"members.{index}: {error}") from error
    scaled = ScaledMember(member, scale, reference)
    if scale is None and not member.remote:
        scaled.fit()
    return scaled


def _load_classifier(settings: RewardSettings, where: str, config: ClassifierMember) -> Member:
    classifier = load_classifier(
        config.model,
        revision=config.revision,
        label=config.label,
        max_length=config.max_length,
        device=settings.device,
        dtype=getattr(torch, config.dtype),
    )
    return ClassifierScorer(f"{where} ({config.model})", classifier, token_budget=settings.max_batch_tokens)


def _open(where: str, config: RemoteMember) -> Member:
    client = RemoteClient(config.url, _key(config), timeout_s=config.timeout_s)
    tokenizer = None if config.tokenizer is None else load_tokenizer(config.tokenizer)
    return RemoteScorer(
        f"{where} ({config.url})",
        client,
        Speech(config.dialect, config.label, tokenizer),
        model=config.model,
        batch=config.batch,
        connections=config.connections,
    )


def _key(config: RemoteMember) -> str | None:
    if config.api_key_env is not None:
        if not (key := os.environ.get(config.api_key_env)):
            raise ValueError(f"api_key_env={config.api_key_env!r} is not set or empty; set it to the server's key")
        return key
    if config.api_key_file is None:
        return None
    if not (key := Path(config.api_key_file).read_text().strip()):
        raise ValueError(f"api_key_file={config.api_key_file!r} is empty; write the server's key into it")
    return key
