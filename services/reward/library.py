"""The reward models in memory. Bundles load on first use, verified; one that fails leaves the others as they were."""

from __future__ import annotations

import logging
from collections import OrderedDict

from rlhf.artifacts.store import ArtifactStore
from rlhf.lm.ensemble import RewardEnsemble
from rlhf.lm.ensemble_bundle import BundleCandidate, read_bundle
from rlhf.lm.loading import LanguageModel
from services.reward.instruments import BUNDLES

log = logging.getLogger(__name__)


class BundleLibrary:
    """The last few ensembles, all on one backbone. Where nothing else is said, the scorer's thread calls."""

    def __init__(self, store: ArtifactStore, base: LanguageModel, kept: int) -> None:
        """Args: store, of published bundles; base, the backbone; kept, ensembles held in memory."""
        self._store, self._base, self._kept = store, base, kept
        self._ensembles: OrderedDict[str, RewardEnsemble] = OrderedDict()

    @property
    def loaded(self) -> list[str]:
        """Reward models in memory, the one used last at the end."""
        return list(self._ensembles)

    def available(self) -> list[str]:
        """Reward models in the store, not verified. From any thread."""
        return self._store.refs("reward_models")

    def get(self, ref: str) -> RewardEnsemble:
        """The ensemble named `job@version`.

        Raises:
            NotFound: no such bundle.
            Conflict: it is corrupt, or was made for another backbone; says why.
        """
        if ref not in self._ensembles:
            self.adopt(ref, self.read(ref))
        self._ensembles.move_to_end(ref)
        return self._ensembles[ref]

    def read(self, ref: str) -> BundleCandidate:
        """Reads and verifies the bundle named `job@version`, whether or not it is in memory. From any thread.

        Raises:
            NotFound, Conflict: as `get`.
        """
        return read_bundle(self._store.resolve("reward_models", ref), self._base)

    def adopt(self, ref: str, candidate: BundleCandidate) -> None:
        """Serves a bundle from now on, in place of one of its name. Raises Conflict when its scores are not its own."""
        self._ensembles[ref] = ensemble = candidate.prove()
        self._ensembles.move_to_end(ref)
        log.info("reward model loaded", extra={"reward_model": ref, "members": ensemble.shape.members})
        while len(self._ensembles) > self._kept:
            self._ensembles.popitem(last=False)
        BUNDLES.set(len(self._ensembles))
