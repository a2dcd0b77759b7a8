"""`/annotate`: one pair after the other, blind, for annotators and admins alike."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from rlhf.contracts.errors import InvalidInput
from services.console.forms import PostedForm
from services.console.pages import page
from services.console.reasons import MOST_COMMENT, REASONS
from services.console.sides import Choice, choice_of, first_side, verdict_of
from services.console.store import judgements, queue, studies
from services.console.store.database import Store
from services.console.store.judgements import Opinion
from services.console.store.models import Judgement, Pair, Verdict
from services.console.visitors import AtStore, Id, PersonId

router = APIRouter(prefix="/annotate")


@router.get("")
def list_open(request: Request, store: AtStore, person: PersonId) -> Response:
    """The studies that may be judged, and how far one is."""
    with store.reading() as session:
        found = [(each, queue.progress(session, each, person)) for each in studies.newest(session, only_open=True)]
    return page(request, "annotate_list.html.j2", studies=found)


@router.get("/{study}")
def go_on(request: Request, study: Id, store: AtStore, person: PersonId) -> Response:
    """The next pair; at the end, what is left to do."""
    following = queue.take(store, study, person)
    if following is not None:
        return _show(study, following)
    with store.reading() as session:
        found = judgements.open_study(session, study)
        shown = {
            "study": found,
            "progress": queue.progress(session, found, person),
            "last": _told(judgements.latest(session, study, person)),
        }
    return page(request, "annotate_end.html.j2", **shown)


@router.get("/{study}/{pair}")
def show_pair(request: Request, study: Id, pair: Id, store: AtStore, person: PersonId) -> Response:
    """A pair, with what one said of it before."""
    with store.reading() as session:
        found = judgements.get_pair(session, study, pair)
        own = judgements.own(session, pair, person)
        its_study = studies.get(session, study)
        shown = {
            "study": its_study,
            "progress": queue.progress(session, its_study, person),
            "last": _told(judgements.latest(session, study, person)),
        }
    shown |= {
        "pair": found,
        "turns": found.turns,
        "responses": _in_order(found, person),
        "own": own,
        "chosen": None if own is None else choice_of(own.verdict, own.first),
        "reasons": REASONS,
        "most_comment": MOST_COMMENT,
    }
    return page(request, "annotate_pair.html.j2", **shown)


@router.post("/{study}/{pair}")
def judge_pair(study: Id, pair: Id, form: PostedForm, store: AtStore, person: PersonId) -> Response:
    """Keeps a verdict; sent again it is the same one, and another verdict takes its place."""
    given, comment = form.get("choice", ""), form.get("comment", "").replace("\r\n", "\n").strip()
    if given not in list(Choice):
        raise InvalidInput(f"choice {given!r} is none; choose {', '.join(Choice)}")
    if len(comment) > MOST_COMMENT:
        raise InvalidInput(f"the comment has {len(comment)} characters; shorten it to {MOST_COMMENT}")
    # Worked out again, not read from the form: a page cannot be made to lie about its sides.
    first = first_side(pair, person)
    reasons = [key for key in REASONS if f"reason-{key}" in form]
    judgements.judge(store, study, pair, person, Opinion(verdict_of(Choice(given), first), reasons, comment, first))
    return _next(store, study, person)


@router.post("/{study}/{pair}/skip")
def skip_pair(study: Id, pair: Id, form: PostedForm, store: AtStore, person: PersonId) -> Response:
    """Puts a pair aside."""
    judgements.skip(store, study, pair, person)
    return _next(store, study, person)


@router.post("/{study}/{pair}/undo")
def undo_judgement(study: Id, pair: Id, form: PostedForm, store: AtStore, person: PersonId) -> Response:
    """Takes one's own judgement back and shows its pair again."""
    judgements.undo(store, study, pair, person)
    return _show(study, pair)


@router.post("/{study}")
def bring_back_skipped(study: Id, form: PostedForm, store: AtStore, person: PersonId) -> Response:
    """Puts what one skipped back into one's queue."""
    judgements.bring_back(store, study, person)
    return _next(store, study, person)


def _next(store: Store, study: int, person: int) -> Response:
    following = queue.take(store, study, person)
    return _show(study, following) if following is not None else RedirectResponse(f"/annotate/{study}", status_code=303)


def _show(study: int, pair: int) -> Response:
    return RedirectResponse(f"/annotate/{study}/{pair}", status_code=303)


def _in_order(pair: Pair, person: int) -> list[tuple[str, str]]:
    """Response and policy, as this person sees them."""
    both = [(pair.response_a, pair.policy_a), (pair.response_b, pair.policy_b)]
    return both if first_side(pair.id, person) == "a" else both[::-1]


def _told(last: Judgement | None) -> dict[str, Any] | None:
    """The last judgement in the words of its page."""
    if last is None:
        return None

    def choice(verdict: Verdict | None) -> Choice | None:
        return None if verdict is None else choice_of(verdict, last.first)

    told = {"pair": last.pair_id, "choice": choice(last.verdict), "replaced": choice(last.replaced)}
    return told | {"number": last.pair.position + 1}
