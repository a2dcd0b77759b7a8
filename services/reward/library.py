"""The reward models in memory: the operator's panels, and bundles of the store, which load on first use, verified.

One that fails to load leaves the others as they were.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping

from rlhf.artifacts.store import ArtifactStore
from rlhf.lm.ensemble_bundle import BundleCandidate, read_bundle
from rlhf.lm.loading import LanguageModel
from services.reward.bundles import Bundle
from services.reward.instruments import BUNDLES
from services.reward.model import RewardModel

log = logging.getLogger(__name__)


class Library:
    """All panels, and the last few bundles on one backbone. Where nothing else is said, the scorer's thread calls."""

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

    def available(self) -> list[str]:
        """Bundles in the store, not verified. From any thread."""
        return self._store.refs("reward_models")

    def read(self, ref: str) -> BundleCandidate | None:
        """Reads and verifies a bundle, whether or not it is in memory; None for a panel, which always is.

        From any thread.

        Raises:
            NotFound, Conflict: as `get`.
        """
        return None if ref in self._panels else self._read_bundle(ref)

    def adopt(self, ref: str, candidate: BundleCandidate) -> None:
        """Serves a bundle from now on, in place of one of its name. Raises Conflict when its scores are not its own."""
        ensemble = candidate.prove()
        log.info("reward model loaded", extra={"reward_model": ref, "members": ensemble.shape.members})
        self._bundles[ref] = Bundle(ref, ensemble, self._base, token_budget=self._token_budget)
        self._bundles.move_to_end(ref)
        while len(self._bundles) > self._kept:
            self._bundles.popitem(last=False)
        BUNDLES.set(len(self.loaded))

    def _bundle(self, ref: str) -> Bundle:
        if ref not in self._bundles:
            self.adopt(ref, self._read_bundle(ref))
        self._bundles.move_to_end(ref)
        return self._bundles[ref]

    def _read_bundle(self, ref: str) -> BundleCandidate:
        return read_bundle(self._store.resolve("reward_models", ref), self._base)
