"""Item texts of a data set as token ids, for every model that reads them."""

import logging
from pathlib import Path

from recbole.utils import FeatureType

from recbole_hllm.data.files.reader import read_header
from recbole_hllm.data.protocol import referenced
from recbole_hllm.data.texts.catalogue import ItemCatalogue
from recbole_hllm.data.texts.item_texts import ItemTexts, TextTemplate, read_item_texts
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.language_models import llm_source
from recbole_hllm.nn.backbone import load_tokenizer
from recbole_hllm.nn.content_encoder import default_prompt
from recbole_hllm.storage.cache import cache_folder

logger = logging.getLogger(__name__)


def read_texts(config, dataset) -> ItemTexts:
    """The fields named in ``text_keys`` of ``<dataset>.item``, for every item of the data set."""
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    keys = text_columns(path, config)
    return read_item_texts(
        path,
        [keys] if isinstance(keys, str) else keys,
        dataset.field2id_token[dataset.iid_field],
        item_field=dataset.iid_field,
        field_separator=config["field_separator"],
        encoding=config["encoding"] or "utf-8",
        strict=bool(config["strict_data"]),
    )


def text_columns(path: Path, config) -> str | list[str]:
    """``text_keys``, or every text column of the item file.

    Raises:
        ConfigError: there is no such file, or no text column in it.
    """
    if not path.is_file() and (not config["text_keys"] or _without_texts(config)):
        raise ConfigError(f"there is no {path}: items' texts are read from it{_without_texts(config)}")
    if config["text_keys"]:
        return config["text_keys"]
    header = read_header(path, config["field_separator"], config["encoding"])
    columns = [name for name, kind in header.items() if kind == FeatureType.TOKEN_SEQ]
    if not columns:
        raise ConfigError(
            f"text_keys: {path} has no token_seq column; name its text columns, there are {list(header)}"
            f"{_without_texts(config)}"
        )
    return columns


def _without_texts(config) -> str:
    """What to do, of a model that has a way without them."""
    way = {"LEARN": "content: id", "LEARNScorer": "content: id (of a LEARNRanker, learn_keys: {content: id})"}
    model = str(config["model"]).partition("@")[0]
    return f"; without texts: {way[model]}" if model in way else ""


def build_catalogue(config, texts: ItemTexts, source: str | None = None) -> ItemCatalogue:
    """Every item's text and token ids.

    Args:
        texts: from ``read_texts``.
        source: whose tokenizer reads them; None: the Item LLM's.
    """
    names = referenced(config)
    template = TextTemplate(
        texts.keys,
        config["item_prompt"] or "",
        config["text_separator"] or "",
        unescape_html="raw_text" not in names,
        missing_words_dropped="missing_words" in names,
        field=config["text_field"],
    )
    source = source or llm_source(config, "item")
    tokenizer = load_tokenizer(source, config["trust_remote_code"])
    _tell_of_prompt(config, source)
    cache = cache_folder(config["cache_dir"], config["data_path"])
    return ItemCatalogue.build(
        texts, template, tokenizer, max_text_length=config["MAX_TEXT_LENGTH"], cache=cache, reference=names
    )


def _tell_of_prompt(config, source):
    prompt = default_prompt(source)
    if prompt and prompt != config["item_prompt"]:
        logger.warning(
            f"item_prompt: sentence-transformers writes {prompt!r} before every text that {source} reads "
            f"(default_prompt_name), and here it is {config['item_prompt'] or ''!r}; give item_prompt: {prompt!r} for "
            "the same vectors"
        )
