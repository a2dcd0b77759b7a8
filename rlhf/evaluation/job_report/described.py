"""A job's settings, its data and what it made, as tables of facts. Pure functions; texts are for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from rlhf.evaluation.formats import show_count, show_plain, show_prompt, show_share
from rlhf.evaluation.job_report.records import JobRecords
from rlhf.evaluation.readings import items, section

Facts = list[tuple[str, str]]
Figures = Mapping[str, Any]
MOST_NAMES = 16
"""Items of a list of settings that are named; the job's data is only counted."""
LONGEST = 40
"""Characters of an item that is named."""
_SOURCES = (("responses", "prompts"), ("bbq", "questions"), ("counterfactual", "samples"))


def list_settings(config: Figures) -> Facts:
    """Every setting by its path, `update.learning_rate`. Data is counted, not shown."""
    return [(path, text) for path, text in _flatten(config) if path != "kind"]


def _flatten(value: Figures, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, each in value.items():
        path = f"{prefix}{name}"
        if isinstance(each, Mapping) and each:
            yield from _flatten(each, f"{path}.")
        elif isinstance(each, Sequence) and not isinstance(each, str):
            yield path, _list(each)
        else:
            yield path, "none" if each is None else str(each).lower() if isinstance(each, bool) else str(each)


def _list(value: Sequence[Any]) -> str:
    """Few plain items as they are, few objects by their names; else how many there are."""
    if len(value) > MOST_NAMES:
        return f"{len(value):,}"
    if all(isinstance(each, Mapping) and "name" in each for each in value):
        return ", ".join(str(each["name"]) for each in value) or "none"
    plain = all(isinstance(each, str | int | float) and len(str(each)) <= LONGEST for each in value)
    return show_plain(value) if plain else f"{len(value):,}"


def describe_data(records: JobRecords) -> list[tuple[str, Facts]]:
    """Titles and facts of the data card: what the job learned from or measured on."""
    if records.kind == "reward_model":
        return _pairs(records.reward_model.data if records.reward_model else None)
    if records.kind == "ppo":
        prompts = items(records.config.get("prompts"))
        return [("Prompts", describe_prompts(prompts))] if prompts else []
    return _measured_on(records.config)


def describe_prompts(prompts: Sequence[Any]) -> Facts:
    """How many, how many different ones, and how long. Lengths are in words."""
    texts = [show_prompt(each) for each in prompts]
    words = [len(text.split()) for text in texts]
    several = sum(isinstance(each, list) and len(each) > 1 for each in prompts)
    return [
        ("prompts", show_count(len(texts))),
        ("different ones", show_count(len(set(texts)))),
        ("conversations of several turns", show_count(several)),
        ("words, least / median / most", f"{min(words):,} / {median(words):,.0f} / {max(words):,}"),
    ]


def _pairs(data: Figures | None) -> list[tuple[str, Facts]]:
    if data is None:
        return []
    dropped = [(str(reason).replace("_", " "), count) for reason, count in section(data, "dropped").items() if count]
    facts = [
        ("pairs submitted", show_count(data.get("submitted"))),
        *((f"dropped: {reason}", show_count(count)) for reason, count in dropped),
        ("spoilt pairs added", show_count(data.get("spoilt"))),
        ("longest exchange, tokens", show_count(data.get("max_length"))),
    ]
    roles = section(data, "roles")
    return [("Pairs", facts), *((f"Pairs for {role}", _role(section(roles, role))) for role in roles)]


def _role(part: Figures) -> Facts:
    tokens = section(part, "tokens")
    return [
        ("pairs", show_count(part.get("pairs"))),
        ("prompts", show_count(part.get("prompts"))),
        ("the longer response is preferred", show_share(part.get("longer_is_preferred"))),
        ("exchanges cut to fit", show_count(part.get("truncated"))),
        *((f"tokens of {name}, median", show_count(section(tokens, name).get("median"))) for name in tokens),
    ]


def _measured_on(config: Figures) -> list[tuple[str, Facts]]:
    """Of an evaluation: each section's items, counted by what divides its figures."""
    cards: list[tuple[str, Facts]] = []
    rows = {key: items(section(config, part).get(key)) for part, key in _SOURCES}
    if rows["prompts"]:
        asked = [each.get("prompt") for each in rows["prompts"] if isinstance(each, Mapping)]
        with_references = sum(bool(each.get("references")) for each in rows["prompts"] if isinstance(each, Mapping))
        facts = [*describe_prompts(asked), ("with references", show_count(with_references))]
        cards.append(("Prompts for responses", facts))
    if tests := items(section(config, "xstest").get("prompts")):
        cards.append(("XSTest prompts", _counts(tests, "label")))
    if attacks := items(section(config, "red_team").get("prompts")):
        cards.append(("Red-team prompts", _counts(attacks, "category")))
    if rows["questions"]:
        cards.append(("BBQ questions", _counts(rows["questions"], "category")))
    if rows["samples"]:
        cards.append(("Texts for swaps", [("texts", show_count(len(rows["samples"])))]))
    return cards


def _counts(rows: Sequence[Any], key: str) -> Facts:
    named = (row.get(key) for row in rows if isinstance(row, Mapping))
    counts = Counter("not named" if name is None else str(name).replace("_", " ") for name in named)
    return [(name, show_count(count)) for name, count in sorted(counts.items())]


def describe_policy(records: JobRecords) -> Facts:
    """What a PPO job trained, and where it ended."""
    config, status, adapter = records.config, records.status, records.adapter or {}
    facts: Facts = []
    if adapter.get("base_model_name_or_path"):
        facts.append(("base model", str(adapter["base_model_name_or_path"])))
    if config:
        facts.append(("trained", _trained(config)))
        facts.append(("rewarded by", str(config.get("reward_model", "–"))))
    if status is not None and status.best is not None:
        best = status.best
        facts.append(("best version", f"{best.adapter}: reward {best.reward:.3g}, KL {best.kl:.3g} nats"))
    published = [event.data.get("adapter") for event in records.events or [] if event.kind == "published"]
    if published:
        facts.append(("newest version", str(published[-1])))
    return facts


def _trained(config: Figures) -> str:
    full, lora = config.get("full"), section(config, "lora")
    layers = (section(config, "full") if full is not None else lora).get("top_layers")
    where = "all layers" if layers is None else f"the last {layers} layers"
    return f"weights of {where}" if full is not None else f"adapters of rank {lora.get('r', '–')} on {where}"
