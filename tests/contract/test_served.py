"""Every model recommends without RecBole what it recommends with it, or says why it cannot."""

import subprocess
import sys

import pytest
import torch
from recbole.data.interaction import Interaction
from small_models import MODELS

from recbole_hllm import run
from recbole_hllm.data.rows.columns import EVENT_TIME, EVENT_TIMES, WHOLE_HISTORY
from recbole_hllm.errors import ModelError
from recbole_hllm.model.base.servable import Servable
from recbole_hllm.model.base.served_model import served_of
from recbole_hllm.registry import get_spec
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.rows import Rows
from recbole_hllm.serving.served import ServedBlend, ServedTable, ServedVectors
from recbole_hllm.serving.served_z_scores import ServedZScores

# model -> what its refusal says.
REFUSED = {
    **dict.fromkeys(("HLLMRanker", "LEARNRanker", "LEARNScorer", "DeepFM"), "how likely a label is"),
    **dict.fromkeys(("PromptLLM", "PromptLLMTuned"), "as one text"),
    **dict.fromkeys(("Pop", "ItemKNN"), "its scores are no products of vectors"),
    "Markov": "a Blend of Markov and others",
    "GRU4Rec": "by code of RecBole's",
    "BPR": "it knows users by their id",
}
# model -> keys of further cases.
A_TABLE = {"item_table_keys": {"n_layers": 1, "epochs": 1}}
FURTHER = {
    "HSTU": [{"implementation": "hllm"}],
    "HLLM": [{"time_num": 4, "time_width": 3, "input_item_id": True}, {"MAX_ITEM_LIST_LENGTH_TEST": 7}],
    "SASRecCE": [{"similarity": "cosine"}],
    "TextKNN": [{"knn_history": 2}],
    "UniSRec": [{"with_item_ids": False, "n_experts": 2}],
    "E4SRec": [{"training_rows": "prefix"}],
    "SLMRec": [{"distillation": "online"}],
}
SERVED = [
    name
    for name in [*MODELS, "SASRec"]
    if issubclass(get_spec(name).model, Servable) and name not in REFUSED and name != "Blend"
]
CASES = [(name, keys) for name in SERVED for keys in [{}, *FURTHER.get(name, [])]]
# Of one item, of less, as much and more than is read, with repetitions.
HISTORIES = [[3], [1, 2], [5, 4, 9, 5], [7, 8, 9, 10, 11], [2, 2, 2, 2, 2, 2], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]]
TIMES = [[1e9 + 1000 * row + 7.5 * place**3 for place in range(len(items))] for row, items in enumerate(HISTORIES)]
AT = [times[-1] + 86400 for times in TIMES]
LENGTH = 5


def asked():
    return Rows.of(HISTORIES, TIMES, AT)


def rows_of(model, length):
    """The same histories as RecBole's models read them, the last ``length`` items of each."""
    cut, whole = [items[-length:] for items in HISTORIES], Rows.of(HISTORIES).items
    rows = Rows.of(cut, [times[-length:] for times in TIMES], AT)
    padding = (0, length - rows.items.shape[1])
    columns = {
        "user_id": torch.ones(len(cut), dtype=torch.long), model.ITEM_SEQ_LEN: rows.lengths, EVENT_TIME: rows.at,
        model.ITEM_SEQ: torch.nn.functional.pad(rows.items, padding),
        EVENT_TIMES: torch.nn.functional.pad(rows.times, padding), WHOLE_HISTORY: whole,
    }  # fmt: skip
    return Interaction(columns)


def scores_of(served, rows):
    if isinstance(served, ServedTable) or getattr(served, "scores_all", False):
        return served.scores(rows)[:, 1:]
    scores = served.users(rows) @ served.items.T
    if (beside := served.beside(rows)) is not None:
        beside.add_to(scores)
    return scores[:, 1:]


@torch.no_grad()
def shaken(model):
    """Weights far from where they start, so that each of them counts; vectors of items are of these."""
    model.train()
    torch.manual_seed(1)
    for weight in model.parameters():
        weight.add_(0.3 * torch.randn_like(weight))
    for name, table in model.named_parameters():
        if name in ("item_embedding.weight", "item_table.weight"):
            table[0] = 0
    return model.eval()


@torch.no_grad()
def assert_served(model, served, folder, length=LENGTH, merged=2e-6):
    """Scores and rankings are the model's, before and after files were written."""
    wanted = model.full_sort_predict(rows_of(model, length)).view(len(HISTORIES), -1)[:, 1:].float()
    found = scores_of(served, asked())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-6)
    assert wanted.std(dim=0).min() > 1e-4, "histories count"
    assert torch.equal(found.argsort(descending=True, stable=True), wanted.argsort(descending=True, stable=True))
    described = files.write_served(served, folder)
    again = files.read_served(folder, described)
    torch.testing.assert_close(scores_of(again, asked()), found, rtol=1e-5, atol=merged)
    if isinstance(served, ServedVectors):
        assert (again.length, again.cosine, again.scale) == (served.length, served.cosine, served.scale)
        assert again.reads_times == served.reads_times
        if served.user_model.LANGUAGE_MODEL is None and not served.cosine:
            assert torch.equal(scores_of(again, asked()), found)


def test_every_model_is_served_or_refused():
    assert {*SERVED, *(REFUSED.keys() & MODELS.keys()), "Blend"} == {*MODELS, "SASRec"}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_stand_alone_says_why_and_what_can(name):
    model = get_spec(name).model
    with pytest.raises(ModelError, match=f"^{name} is not exported: .*{REFUSED[name]}.*"):
        served_of(model.__new__(model))


@pytest.mark.parametrize(
    ("name", "keys"), CASES, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_scores_and_rankings_are_those_of_the_model(build, tmp_path, name, keys):
    model = shaken(build(name, **(A_TABLE if name in ("E4SRec", "SLMRec") else {}), **keys).model)
    served = served_of(model)
    assert_served(model, served, tmp_path, keys.get("MAX_ITEM_LIST_LENGTH_TEST", LENGTH))


# ---- a Blend ----


@pytest.fixture(scope="module")
def runs(settings_of, tmp_path_factory):
    """Finished runs of parts that read histories of different lengths, with different temperatures."""
    folder = tmp_path_factory.mktemp("runs")
    parts = {
        "SASRecNCE": {"num_negatives": 8, "temperature": 0.3}, "Markov": {},
        "SASRec": {"MAX_ITEM_LIST_LENGTH": 3}, "HSTU": {"num_negatives": 8}, "EASE": {"score_from": "history"},
    }  # fmt: skip
    return {
        name: run(name, config_dict={**settings_of(name), **keys, "epochs": 1}, run_dir=folder / name)["run_dir"]
        for name, keys in parts.items()
    }


def test_a_blend_is_served_with_its_weights_and_markovs_pairs(build, runs, tmp_path):
    of = [folder for name, folder in runs.items() if name != "EASE"]
    model = build("Blend", of=of, blend_weights=None, blend_lengths=[2, 4]).model.eval()
    model.mix[:] = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.3, 0.3, 0.3, 0.1], [0.7, 0.05, 0.25, 0.0]])
    served = served_of(model)
    assert isinstance(served, ServedBlend) and [part.reads_times for part in served.parts] == [
        False,
        False,
        False,
        True,
    ]
    assert [getattr(part, "length", None) for part in served.parts] == [5, None, 3, 5]
    assert served.beside(asked()) is not None and served.reads_times
    assert_served(model, served, tmp_path)


def test_a_blend_without_pairs_is_a_product(build, runs, tmp_path):
    model = build("Blend", of=[runs["SASRecNCE"], runs["SASRec"]], blend_weights=[0.25, 0.75]).model.eval()
    served = served_of(model)
    assert served.beside(asked()) is None and not served.reads_times
    assert_served(model, served, tmp_path)


def test_a_blend_names_what_cannot_be_exported(build, parts, runs):
    with pytest.raises(ModelError, match=r"of: .*BPR: BPR is not exported: it knows users by their id"):
        served_of(build("Blend").model)


@pytest.mark.parametrize("scores", ["z_scores", "log_probabilities"])
def test_a_blend_with_ease(build, runs, tmp_path, scores):
    model = build(
        "Blend", of=list(runs.values()), blend_weights=None, blend_lengths=[4], blend_scores=scores
    ).model.eval()
    model.mix[:] = torch.tensor([[0.1, 0.2, 0.2, 0.3, 0.2], [0.3, 0.1, 0.1, 0.1, 0.4]])
    served = served_of(model)
    assert isinstance(served, ServedZScores) is (scores == "z_scores") and isinstance(served.parts[4], ServedTable)
    assert_served(model, served, tmp_path)


def test_z_scores_of_models_with_vectors_are_a_product(build, runs, tmp_path):
    of = [runs["SASRecNCE"], runs["SASRec"]]
    model = build("Blend", of=of, blend_weights=[0.25, 0.75], blend_scores="z_scores").model.eval()
    served = served_of(model)
    assert served.beside(asked()) is None
    assert_served(model, served, tmp_path)


def test_ease_scores_the_history_it_is_given(build, tmp_path):
    model, rows = build("EASE", score_from="history").model, asked()
    served = served_of(model)
    wanted = model.full_sort_predict(Interaction({WHOLE_HISTORY: rows.items}))[:, 1:]
    torch.testing.assert_close(scores_of(served, rows), wanted, rtol=1e-5, atol=1e-6)
    again = files.read_served(tmp_path, files.write_served(served, tmp_path))
    assert torch.equal(scores_of(again, rows), scores_of(served, rows)) and wanted.std(dim=0).min() > 1e-4
    with pytest.raises(ModelError, match="EASE is exported with score_from: history"):
        served_of(build("EASE").model)


# ---- LoRA ----


@pytest.mark.parametrize(("name", "llm"), [("HLLM", "user_encoder"), ("E4SRec", "llm")])
def test_lora_is_merged_in_the_files(build, settings_of, tmp_path, name, llm):
    pytest.importorskip("peft")
    path = settings_of("HLLM")["item_pretrain_dir"]
    keys = {"user_pretrain_dir": path, "user_llm_init": True, "user_llm_config": None, "user_llm_tuning": "lora"}
    further = {"instruction": "User: {items}", **A_TABLE} if name == "E4SRec" else {"item_llm_init": True}
    model = shaken(build(name, **keys, **further).model)
    assert any(".lora_" in weight for weight, _ in model.named_parameters())
    assert_served(model, served_of(model), tmp_path, merged=2e-5)  # of numbers up to 4, summed in another order
    written = files.load_file(tmp_path / files.USER_LLM / "model.safetensors")
    assert written and not any("lora" in weight for weight in written)


def test_a_student_is_written_without_its_teacher(build, tmp_path):
    model = build("SLMRec", **A_TABLE, distillation="online").model.eval()
    described = files.write_served(served_of(model), tmp_path)
    written = (
        files.load_file(tmp_path / files.WEIGHTS),
        files.load_file(tmp_path / files.USER_LLM / "model.safetensors"),
    )
    assert sorted(written[0]) == ["input_proj.bias", "input_proj.weight", "llm.after", "llm.before", "score.weight"]
    assert {name.split(".")[1] for name in written[1] if name.startswith("layers.")} == {"0", "1"}
    assert described["kind"] == "PromptedUser"


# ---- keys and classes that do not go ----


def test_actions_are_no_part_of_a_request(build):
    model = build("HLLM").model
    model.input_features.action = torch.nn.Embedding(3, 16)
    with pytest.raises(ModelError, match="action_field"):
        served_of(model)


def test_a_class_that_computes_something_else_is_not_served_as_the_one_it_is_built_on(build):
    model = build("eSASRec").model.eval()
    served_of(model)

    class Mine(type(model)):
        def read_history(self, vectors, history):
            return 2 * vectors

    model.__class__ = Mine
    with pytest.raises(ModelError, match=r"Mine is not exported: Mine has its own read_history, and no user_model\(\)"):
        served_of(model)
    Mine.user_model = type(model).__mro__[1].user_model
    served_of(model)


# ---- without RecBole ----


ALONE = """
import sys
from recbole_hllm.serving import Recommender
found = Recommender.from_pretrained(sys.argv[1]).recommend(items=["i3", "i7"], k=4)
print(*(f"{item.id} {item.score:.5f}" for item in found), sep="\\n")
print([name for name in ("recbole", "transformers", "polars") if name in sys.modules])
"""


def test_an_export_is_read_in_a_program_without_recbole(build, tmp_path):
    built = build("SASRecNCE")
    data, model = built.train._dataset, shaken(built.model)
    ids = list(map(str, data.field2id_token[data.iid_field]))[1:]
    described = files.write_served(served_of(model), tmp_path)
    files.write_items(tmp_path, ids, [{}] * len(ids))
    files.write_manifest(tmp_path, {"model": "SASRecNCE", "served": described, "template": None})
    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines.pop() == "[]"
    items = torch.from_numpy(data.token2id(data.iid_field, ["i3", "i7"]))[None]
    with torch.no_grad():
        scores = model.full_sort_predict(Interaction({model.ITEM_SEQ: items, model.ITEM_SEQ_LEN: torch.tensor([2])}))[0]
    scores[[0, *items[0].tolist()]] = -torch.inf
    best = scores.topk(4)
    names = data.id2token(data.iid_field, best.indices.numpy())
    assert lines == [f"{name} {score:.5f}" for name, score in zip(names, best.values.tolist(), strict=True)]
