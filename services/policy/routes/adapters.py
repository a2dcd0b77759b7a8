"""Which adapter a request means: engines know versions by their number alone."""

from __future__ import annotations

from fastapi import Request

from rlhf.artifacts.decisions import exact_ref


def named_adapter(request: Request, ref: str | None) -> str | None:
    """`job@version` of what a request names, read from the store for `job@latest`; call it in a thread.

    Raises:
        NotFound: no version of the job was accepted.
        Conflict: a decision cannot be read.
        RemoteAway: the store's remote copy cannot be asked.
    """
    return None if ref is None else exact_ref(request.app.state.store, ref)
