"""Numbers of texts."""

import numpy as np
import pytest

from recbole_hllm.data.texts.catalogue import ItemCatalogue
from recbole_hllm.data.texts.item_texts import ItemTexts
from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.description import texts as module
from recbole_hllm.description.texts import describe_texts
from recbole_hllm.nn.backbone import load_tokenizer

FIELDS = [("", ""), ("w1 w2", "w3"), ("w1 w2", "w3"), ("", " "), ("w1 &amp; w4 w5", ""), ("", "")]
TEXTS = ItemTexts(("title", "brand"), FIELDS, np.array([False, True, True, True, True, False]))
TEMPLATE = TextTemplate(TEXTS.keys, "")


@pytest.fixture
def tokenizer(tiny_llm):
    return load_tokenizer(tiny_llm("bert"))


def quantiles(part, *names):
    return [part["quantiles"][name] for name in names]


def test_every_number_of_a_few_texts(tokenizer):
    found = describe_texts(TEXTS, TEMPLATE, tokenizer, limit=9)
    counts = ("items", "without_row", "without_text", "token_sample", "limit", "too_long")
    assert [found[name] for name in counts] == [5, 1, 1, 3, 9, 2]
    whole = found["whole"]
    assert whole["filled"] == 3
    # "title: w1 w2. brand: w3" twice, and "title: w1 & w4 w5"
    assert quantiles(whole["characters"], "min", "max") == [17, 23] and whole["characters"]["mean"] == 21
    assert quantiles(whole["words"], "min", "max") == [5, 5]
    assert quantiles(whole["tokens"], "min", "max") == [8, 10], "[CLS] title : w1 & w4 w5 [SEP]"
    title, brand = found["fields"]
    assert (title["name"], title["filled"], brand["name"], brand["filled"]) == ("title", 3, "brand", 2)
    assert quantiles(title["characters"], "min", "max") == [5, 10]
    assert quantiles(title["tokens"], "min", "max") == [2, 4]
    assert brand["words"]["mean"] == brand["tokens"]["mean"] == 1
    assert found["shared"] == {"items": 2, "texts": 1, "most": {"text": "title: w1 w2. brand: w3", "items": 2}}


def test_tokens_are_those_that_a_model_reads(tokenizer):
    template = TextTemplate(TEXTS.keys, "w7 w8 ")
    catalogue = ItemCatalogue.build(TEXTS, template, tokenizer, max_text_length=100, cache=None)
    expected = np.diff(catalogue.offsets)[[1, 2, 4]]
    tokens = describe_texts(TEXTS, template, tokenizer)["whole"]["tokens"]
    assert tokens["mean"] == pytest.approx(expected.mean()) and tokens["quantiles"]["max"] == expected.max()


def test_without_a_tokenizer_words_are_counted():
    found = describe_texts(TEXTS, TEMPLATE, None, limit=9)
    assert found["token_sample"] is found["too_long"] is found["whole"]["tokens"] is None
    assert found["whole"]["words"]["mean"] == 5


def test_tokens_of_many_items_are_those_of_a_sample(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 30)
    monkeypatch.setattr(module, "TOGETHER", 7)
    items = 100
    fields = [("",)] + [(" ".join(["w1"] * (1 + item % 10)),) for item in range(items)]
    texts = ItemTexts(("title",), fields, np.arange(items + 1) > 0)
    found = describe_texts(texts, TextTemplate(("title",), ""), tokenizer, limit=6)
    assert found["token_sample"] == found["whole"]["tokens"]["count"] == 30
    assert found["whole"]["words"]["count"] == items
    assert 0 < found["too_long"] < 30
    assert found == describe_texts(texts, TextTemplate(("title",), ""), tokenizer, limit=6)


def test_no_text_at_all():
    texts = ItemTexts(("title",), [("",)] * 3, np.array([False, True, True]))
    found = describe_texts(texts, TextTemplate(("title",), "read: "), None)
    assert (found["without_text"], found["whole"]["filled"], found["whole"]["words"]) == (2, 0, None)
    assert found["shared"] == {"items": 0, "texts": 0, "most": None}
    found = describe_texts(ItemTexts((), [()] * 3, np.array([False, True, False])), TextTemplate((), ""))
    assert (found["fields"], found["without_row"], found["without_text"]) == ([], 1, 1)


def test_a_long_example_is_cut():
    long = "x" * 200
    texts = ItemTexts(("title",), [("",), (long,), (long,)], np.array([False, True, True]))
    most = describe_texts(texts, TextTemplate(("title",), ""))["shared"]["most"]
    assert len(most["text"]) == module.SHOWN and most["text"].endswith("x…")
