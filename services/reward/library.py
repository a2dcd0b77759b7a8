"""The reward models in memory. Bundles load on first use, verified; one that fails leaves the others as they were."""

from __future__ import annotations

import logging
from collections import OrderedDict

from rlhf.artifacts.store import ArtifactStore
from rlhf.lm.ensemble import RewardEnsemble
from rlhf.lm.ensemble_bundle import load_bundle
from rlhf.lm.loading import LanguageModel
from services.reward.instruments import BUNDLES

log = logging.getLogger(__name__)


class BundleLibrary:
    """The last few ensembles, all on one backbone. Not thread-safe: the scorer's thread owns it."""

    def __init__(self, store: ArtifactStore, base: LanguageModel, kept: int) -> None:
        """Args: store, of published bundles; base, the backbone; kept, ensembles held in memory."""
        self._store, self._base, self._kept = store, base, kept
        self._ensembles: OrderedDict[str, RewardEnsemble] = OrderedDict()

    @property
    def loaded(self) -> list[str]:
        """Reward models in memory, the one used last at the end."""
        return list(self._ensembles)

    def get(self, ref: str) -> RewardEnsemble:
        """The ensemble named `job@version`.

        Raises:
            NotFound: no such bundle.
            Conflict: it is corrupt, or was made for another backbone; says why.
        """
        if ref not in self._ensembles:
            ensemble = load_bundle(self._store.resolve("reward_models", ref), self._base)
            log.info("reward model loaded", extra={"reward_model": ref, "members": ensemble.shape.members})
            self._ensembles[ref] = ensemble
            while len(self._ensembles) > self._kept:
                self._ensembles.popitem(last=False)
            BUNDLES.set(len(self._ensembles))
        self._ensembles.move_to_end(ref)
        return self._ensembles[ref]
