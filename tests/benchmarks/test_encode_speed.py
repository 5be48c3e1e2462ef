"""The ways to encode texts do the same work, and the table divides what it says."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recbole_hllm.nn.backbone import BackboneSpec, load_backbone, load_tokenizer

FOLDER = Path(__file__).parents[2] / "benchmarks"
TITLES = [f"w{place} " * (1 + place % 7) for place in range(30)]


@pytest.fixture
def program(monkeypatch, tiny_llm):
    """The program, with a tiny model in place of MiniLM."""
    monkeypatch.syspath_prepend(FOLDER)
    program, folder = importlib.import_module("encode_speed"), tiny_llm("bert", vocab_size=4096)
    for name, value in {
        "MINILM": folder, "MODELS": {"MiniLM": BackboneSpec(folder)}, "LENGTHS": (3, 6), "SIDE": 32, "BATCH": 4,
        "CHUNK": 40,
    }.items():  # fmt: skip
        monkeypatch.setattr(program, name, value)
    return program


@pytest.fixture
def texts(program):
    """(T,) tokens and (N,) lengths of the titles."""
    return program.tokenised(load_tokenizer(program.MINILM), TITLES)


def test_a_pass_is_the_same_whatever_the_way(program, texts):
    ways = {"plain": program.encoder_of(program.MODELS["MiniLM"], "sdpa")}
    program.plainly(ways["plain"].backbone, *texts, None)
    for name in ("eager", "packed"):
        ways[name] = encoder = program.encoder_of(program.MODELS["MiniLM"], name)
        program.train(lambda encoder=encoder: program.encode_items(encoder, *texts, token_budget=program.CHUNK))
    gradients = {
        name: {key: weight.grad for key, weight in way.backbone.named_parameters() if weight.grad is not None}
        for name, way in ways.items()
    }
    for name in ("eager", "packed"):
        assert gradients[name].keys() >= gradients["plain"].keys() - {"embeddings.word_embeddings.weight"}
        for key, gradient in gradients[name].items():
            torch.testing.assert_close(gradient, gradients["plain"][key], atol=1e-4, rtol=1e-3, msg=f"{name} {key}")


def test_operations_are_those_that_torch_counts(program):
    model = load_backbone(BackboneSpec(program.MINILM, attn_implementation="eager")).eval()
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(5, 7, dtype=torch.long))
    counted = program.operations(model, torch.full((5,), 7))
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_ways_take_turns_and_the_median_counts(program, monkeypatch):
    now, called = [0.0], []
    monkeypatch.setattr(program.time, "process_time", lambda: now[0])

    def way(name, times):
        times = iter(times)

        def run():
            called.append(name)
            now[0] += next(times)

        return run

    seconds = program.Ways(3).seconds({"a": way("a", [9, 1, 5, 2]), "b": way("b", [9, 4, 3, 8])})
    assert seconds == {"a": 2, "b": 4} and called == ["a", "b"] * 4


def encode_one_by_one(program, wrong=0.0):
    """In place of SentenceTransformer: the mean over each text's states."""
    model, tokenizer = load_backbone(program.MODELS["MiniLM"]).eval(), load_tokenizer(program.MINILM)

    class Sentences:
        def __init__(self, folder, device):
            assert (folder, device) == (program.MINILM, "cpu")

        @torch.no_grad()
        def encode(self, texts, **options):
            ids = [torch.tensor([tokenizer(text)["input_ids"][: self.max_seq_length]]) for text in texts]
            vectors = torch.cat([model(input_ids=one).last_hidden_state.mean(1) for one in ids])
            return vectors + wrong * torch.randn_like(vectors)

    return SimpleNamespace(SentenceTransformer=Sentences)


def test_the_program_runs_and_divides_what_it_says(program, monkeypatch, tmp_path, capsys):
    lines = ["item_id:token\ttitle:token_seq\tbrand:token_seq", *(f"{n}\t{t}\tx" for n, t in enumerate(TITLES))]
    (tmp_path / "a.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert sorted(program.titles(tmp_path / "a.item", 30)) == sorted(TITLES)
    monkeypatch.setitem(sys.modules, "sentence_transformers", encode_one_by_one(program))
    spent = {"torch.mm": 2.0, f"transformers, batches of {program.BATCH}": 4.0, "longest with longest, padded": 3.0}
    spent |= {"packed": 2.0, "SentenceTransformer.encode": 5.0, "eager": 1.0, "sdpa": 1.0}

    class Ways(program.Ways):
        def seconds(self, ways):
            super().seconds(ways)
            return {name: spent[name] for name in ways}

    monkeypatch.setattr(program, "Ways", Ways)
    arguments = ["--item", tmp_path / "a.item", "--items", "7", "--rounds", "1", "--json", tmp_path / "found.json"]
    monkeypatch.setattr(sys, "argv", ["encode_speed.py", *map(str, arguments)])
    program.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["training_vs_plain"] == {"fp32": 2.0, "bf16": 2.0} and found["bf16_speedup"] == 1.0
    assert found["encode_vs_sentence_transformers"] == 2.5
    lengths = program.tokenised(load_tokenizer(program.MINILM), program.titles(tmp_path / "a.item", 7))[1]
    work = 3 * program.operations(load_backbone(program.MODELS["MiniLM"]), lengths)
    assert found["peak_share"]["fp32"] == pytest.approx(work / 2.0 / (2 * program.SIDE**3 / 2.0))
    out = capsys.readouterr().out
    assert "| MiniLM | bf16 | 6 | 1000 / 1000 | 1000 / 1000 | 2000 / 2000 |" in out and "2.50x |" in out


def test_other_vectors_are_no_comparison(program, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", encode_one_by_one(program, wrong=0.3))
    with pytest.raises(AssertionError, match="other vectors"):
        program.catalogue(program.Ways(1), TITLES)
