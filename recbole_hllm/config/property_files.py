"""Property files and the key reference, written from the schema: ``python -m recbole_hllm.config.property_files``."""

import inspect
import json
from pathlib import Path
from typing import Any

import yaml

from recbole_hllm.config.keys.baselines import (
    HSTUKeys,
    LLMIDRecKeys,
    MarkovKeys,
    PromptLLMKeys,
    PromptLLMTunedKeys,
    SASRecNCEKeys,
    TextKNNKeys,
)
from recbole_hllm.config.keys.hllm import HLLMKeys, HLLMRankerKeys
from recbole_hllm.config.keys.learn import LEARNKeys, LEARNRankerKeys, LEARNScorerKeys
from recbole_hllm.config.keys.run import LabelledKeys, OverallKeys, RunKeys
from recbole_hllm.config.keys.slmrec import E4SRecKeys, SLMRecKeys
from recbole_hllm.config.places import properties_folder
from recbole_hllm.config.schema import Key, Settings

# Property file -> the keys it lists, and those that it leaves out, since another file has them.
PAGES: dict[str, tuple[type[Settings], ...]] = {
    "overall": (OverallKeys,),
    "labelled": (LabelledKeys, RunKeys),
    "model/E4SRec": (E4SRecKeys, RunKeys),
    "model/HLLM": (HLLMKeys, RunKeys),
    "model/HLLMRanker": (HLLMRankerKeys, HLLMKeys, LabelledKeys),
    "model/HSTU": (HSTUKeys, RunKeys),
    "model/LEARN": (LEARNKeys, RunKeys),
    "model/LEARNRanker": (LEARNRankerKeys, LabelledKeys),
    "model/LEARNScorer": (LEARNScorerKeys, LEARNKeys, LabelledKeys),
    "model/LLMIDRec": (LLMIDRecKeys, RunKeys),
    "model/Markov": (MarkovKeys, RunKeys),
    "model/PromptLLM": (PromptLLMKeys, RunKeys),
    "model/PromptLLMTuned": (PromptLLMTunedKeys, RunKeys),
    "model/SASRecNCE": (SASRecNCEKeys, RunKeys),
    "model/SLMRec": (SLMRecKeys, E4SRecKeys),
    "model/TextKNN": (TextKNNKeys, RunKeys),
}
# Column where comments begin.
_COMMENTS = 32


def page(settings: type[Settings], *known: type[Settings]) -> str:
    """A property file: what it is for, then every key in its group with its default, type and meaning.

    Args:
        settings: the keys of the page.
        known: keys that stand in another file, and here only where their default differs from all of them.
    """
    lines, title = [_comment(inspect.getdoc(settings) or "")], None
    for name, one in settings.keys.items():
        if any(other.keys.get(name) is one for other in known):
            continue
        if one.title != title:
            lines += ["", f"# {one.title}"]
            title = one.title
        lines += _entry(one)
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())


def _entry(one: Key) -> list[str]:
    first, *further = _value(one)
    start = f"{one.name}: {first}".rstrip()
    return [f"{start:<{_COMMENTS - 2}}  # ({one.type_words}) {one.meaning}", *further]


def _value(one: Key) -> list[str]:
    """The default as YAML: on the line of its key, or, for a dict of several entries, on lines of its own."""
    if isinstance(one.default, dict) and len(one.default) > 1:
        return ["", *(f"  {name}: {_inline(part)}" for name, part in one.default.items())]
    return [_inline(one.default)]


def _inline(value: Any) -> str:
    if value is None:
        return "~"
    if isinstance(value, float) and 1e-7 < value < 1e-4:
        return f"{value:.7f}".rstrip("0")  # 5e-05 is harder to read
    if isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_inline(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value)
    return yaml.safe_dump(value, width=10_000, allow_unicode=True).removesuffix("\n").removesuffix("\n...")


def main() -> None:
    """Writes every property file whose keys the schema declares."""
    for name, classes in PAGES.items():
        Path(properties_folder(), f"{name}.yaml").write_text(page(*classes), encoding="utf-8")


if __name__ == "__main__":
    main()
