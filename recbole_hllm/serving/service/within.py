"""Whether a request is within the limits; an error names the limit and the option that raises it."""

from collections.abc import Mapping, Sized

from recbole_hllm.serving.service.bodies import Wanted
from recbole_hllm.serving.service.limits import Limits
from recbole_hllm.serving.service.refusal import Refusal

_UNPROCESSABLE = 422
# Fields of an item.
_FIELDS = 50


def check_wanted(wanted: Wanted, limits: Limits) -> None:
    """Raises Refusal for what is asked too much."""
    if wanted.k > limits.max_k:
        raise Refusal(_UNPROCESSABLE, f"k: at most {limits.max_k:,} items are recommended (--max-k)", "k")
    _refuse_more("items", wanted.items, limits.max_history, "max-history", "send the last ones")
    _refuse_more("texts", wanted.texts, limits.max_texts, "max-texts", "send the last ones")
    _refuse_more("exclude", wanted.exclude, limits.max_ids, "max-ids", "send fewer")
    _refuse_more("among", wanted.among or (), limits.max_ids, "max-ids", "send fewer")
    for text in wanted.texts:
        _check_text("texts", text, limits)
    given = len(wanted.items) + len(wanted.texts)
    if wanted.times is not None and len(wanted.times) != given:
        raise Refusal(_UNPROCESSABLE, f"times: {len(wanted.times)} for {given} items and texts; send one each", "times")


def check_items(items: Mapping[str, Mapping[str, str]], limits: Limits) -> None:
    """Raises Refusal for more or longer items than are added at once, and for none."""
    if not items:
        raise Refusal(_UNPROCESSABLE, 'no item is given: send {"id": {"title": "..."}}')
    _refuse_more(None, items, limits.max_items, "max-items", "send them in parts")
    for item, fields in items.items():
        _check_text(item, fields, limits)


def _refuse_more(field: str | None, given: Sized, most: int, option: str, do: str) -> None:
    if len(given) > most:
        begin = f"{field}: " if field else ""
        raise Refusal(_UNPROCESSABLE, f"{begin}{len(given):,} are more than {most:,} (--{option}); {do}", field)


def _check_text(field: str, text: str | Mapping[str, str], limits: Limits) -> None:
    fields = {"text": text} if isinstance(text, str) else text
    if len(fields) > _FIELDS:
        raise Refusal(_UNPROCESSABLE, f"{field}: an item has at most {_FIELDS} fields, not {len(fields):,}", field)
    for name, value in fields.items():
        if max(len(name), len(value)) > limits.max_text:
            most = f"{limits.max_text:,} characters (--max-text)"
            raise Refusal(_UNPROCESSABLE, f"{field}: {name[:40]!r} is longer than {most}; shorten it", field)
