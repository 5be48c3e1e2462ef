"""Item texts of a data set as token ids, for every model that reads them."""

import logging
from collections.abc import Mapping
from pathlib import Path

from recbole.data.dataset.dataset import Dataset
from recbole.utils import FeatureType
from transformers import PreTrainedTokenizerBase

from recbole_hllm.config.keys.language_models import ItemTextKeys
from recbole_hllm.data.files.formats import find_table, read_header
from recbole_hllm.data.protocol import referenced
from recbole_hllm.data.texts.catalogue import ItemCatalogue
from recbole_hllm.data.texts.item_texts import ItemTexts, read_item_texts
from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.errors import ConfigError
from recbole_hllm.nn.content_encoder import default_prompt
from recbole_hllm.storage.cache import cache_folder

logger = logging.getLogger(__name__)


def item_file(settings: ItemTextKeys) -> Path:
    """The table of the items, whatever its format."""
    return find_table(Path(settings.data_path) / f"{settings.dataset}.item")


def read_texts(settings: ItemTextKeys, dataset: Dataset) -> ItemTexts:
    """The fields named in ``text_keys`` of ``<dataset>.item``, for every item of the data set."""
    path = item_file(settings)
    keys = text_columns(path, settings)
    return read_item_texts(
        path,
        [keys] if isinstance(keys, str) else keys,
        dataset.field2id_token[dataset.iid_field],
        item_field=dataset.iid_field,
        field_separator=settings.field_separator,
        encoding=settings.encoding or "utf-8",
        strict=settings.strict_data,
        cache=cache_folder(settings.cache_dir, settings.data_path),
    )


def text_columns(path: Path, settings: ItemTextKeys) -> str | list[str]:
    """``text_keys``, or every text column of the item file.

    Raises:
        ConfigError: there is no such file, or no text column in it.
    """
    if not path.exists() and (not settings.text_keys or _without_texts(settings.model)):
        raise ConfigError(f"there is no {path}: items' texts are read from it{_without_texts(settings.model)}")
    if settings.text_keys:
        return settings.text_keys
    header = read_header(path, settings.field_separator, settings.encoding)
    columns = token_seq_columns(header)
    if not columns:
        raise ConfigError(
            f"text_keys: {path} has no token_seq column; name its text columns, there are {list(header)}"
            f"{_without_texts(settings.model)}"
        )
    return columns


def token_seq_columns(header: Mapping[str, FeatureType]) -> list[str]:
    """The text columns of an item file, which are read where ``text_keys`` names none."""
    return [name for name, kind in header.items() if kind == FeatureType.TOKEN_SEQ]


def _without_texts(row: str) -> str:
    """What to do, of a model that has a way without them."""
    way = {"LEARN": "content: id", "LEARNScorer": "content: id (of a LEARNRanker, learn_keys: {content: id})"}
    model = row.partition("@")[0]
    return f"; without texts: {way[model]}" if model in way else ""


def build_catalogue(
    settings: ItemTextKeys, texts: ItemTexts, tokenizer: PreTrainedTokenizerBase, source: str
) -> ItemCatalogue:
    """Every item's text and token ids.

    Args:
        texts: from ``read_texts``.
        tokenizer: reads them.
        source: where it lies.
    """
    template, names = template_of(settings, texts.keys), referenced(settings.reference)
    _tell_of_prompt(settings.item_prompt, source)
    cache = cache_folder(settings.cache_dir, settings.data_path)
    return ItemCatalogue.build(
        texts, template, tokenizer, max_text_length=settings.MAX_TEXT_LENGTH, cache=cache, reference=names
    )


def template_of(settings: ItemTextKeys, columns: tuple[str, ...]) -> TextTemplate:
    """How the fields of an item become one text.

    Args:
        columns: names of the fields, in the order in which they are written.
    """
    names = referenced(settings.reference)
    return TextTemplate(
        columns,
        settings.item_prompt,
        settings.text_separator,
        unescape_html="raw_text" not in names,
        missing_words_dropped="missing_words" in names,
        field=settings.text_field,
    )


def _tell_of_prompt(given: str, source: str) -> None:
    prompt = default_prompt(source)
    if prompt and prompt != given:
        logger.warning(
            f"item_prompt: sentence-transformers writes {prompt!r} before every text that {source} reads "
            f"(default_prompt_name), and here it is {given!r}; give item_prompt: {prompt!r} for "
            "the same vectors"
        )
