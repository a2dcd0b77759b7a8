"""The reward models in memory: the operator's panels, and bundles of the store, which load on first use, verified.

One that fails to load leaves the others as they were.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping

from rlhf.artifacts.store import ArtifactStore
from rlhf.lm.ensemble_bundle import load_bundle
from rlhf.lm.loading import LanguageModel
from services.reward.bundles import Bundle
from services.reward.instruments import BUNDLES
from services.reward.model import RewardModel

log = logging.getLogger(__name__)


class Library:
    """All panels, and the last few bundles on one backbone. Not thread-safe: the scorer's thread owns it."""

    def __init__(
        self,
        store: ArtifactStore,
        base: LanguageModel,
        *,
        kept: int,
        token_budget: int,
        panels: Mapping[str, RewardModel] | None = None,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            store: of published bundles.
            base: the backbone.
            kept: bundles held in memory.
            token_budget: padded tokens of a forward pass.
            panels: by `name@version`; never let go.
        """
        self._store, self._base, self._kept, self._token_budget = store, base, kept, token_budget
        self._panels = dict(panels or {})
        self._bundles: OrderedDict[str, Bundle] = OrderedDict()
        BUNDLES.set(len(self.loaded))

    @property
    def loaded(self) -> list[str]:
        """Reward models in memory: panels, then bundles, the one used last at the end."""
        return [*self._panels, *self._bundles]

    def get(self, ref: str) -> RewardModel:
        """The reward model of this name.

        Raises:
            NotFound: no such panel or bundle.
            Conflict: the bundle is corrupt, or was made for another backbone; says why.
        """
        return self._panels.get(ref) or self._bundle(ref)

    def _bundle(self, ref: str) -> Bundle:
        if ref not in self._bundles:
            ensemble = load_bundle(self._store.resolve("reward_models", ref), self._base)
            log.info("reward model loaded", extra={"reward_model": ref, "members": ensemble.shape.members})
            self._bundles[ref] = Bundle(ref, ensemble, self._base, token_budget=self._token_budget)
            while len(self._bundles) > self._kept:
                self._bundles.popitem(last=False)
            BUNDLES.set(len(self.loaded))
        self._bundles.move_to_end(ref)
        return self._bundles[ref]
