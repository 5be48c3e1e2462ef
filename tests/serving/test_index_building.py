"""Indexes are measured, kept in the export, and read again."""

import json

import pytest
import torch
from small_export import served_vectors, user_histories, write_export

from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.errors import ConfigError, Damaged, ModelError
from recbole_hllm.nn.user_models.base import UserModel
from recbole_hllm.serving import Recommender, Request
from recbole_hllm.serving import index_building as module
from recbole_hllm.serving.folder import UserHistories
from recbole_hllm.serving.index_building import build_index, digest, in_words, read_index, write_index
from recbole_hllm.serving.served import ServedVectors

faiss = pytest.importorskip("faiss")


@pytest.fixture
def folder(tmp_path):
    return write_export(tmp_path / "export", items=60, users=12)


def test_recall_is_the_share_of_the_best_that_are_found(monkeypatch):
    """Of 4 best items of each user, an effort of 1 finds 1, of 2 finds 2, and so on."""
    served, histories = served_vectors(60), user_histories(30, 60)
    exact = module.ExactIndex(served)

    def found(built, kind, users, k, effort):
        best = exact.search(users, k)[1]
        best[:, effort:] = 0
        return best

    monkeypatch.setattr(module, "neighbours", found)
    measured = build_index(served, histories, "ivf", min_recall=0.5, k=4, users=20).measured
    assert (measured.recall, measured.effort, measured.k, measured.users, measured.histories) == (
        0.5,
        2,
        4,
        20,
        "stored",
    )
    assert build_index(served, histories, "ivf", min_recall=0.51, k=4).measured.recall == 1.0
    assert build_index(served, histories, "ivf", min_recall=0.25, k=4).measured.effort == 1


def test_an_index_that_finds_too_few_is_refused(monkeypatch):
    monkeypatch.setattr(module, "neighbours", lambda built, kind, users, k, effort: torch.ones(len(users), k).long())
    with pytest.raises(ModelError, match=r"hnsw finds 0.0\d+ of the best 50 items of 12 users.*min_recall is 0.9;"):
        build_index(served_vectors(60), user_histories(12, 60), "hnsw", min_recall=0.9)


def test_without_histories_random_ones_are_measured():
    measured = build_index(served_vectors(60), UserHistories(), "flat", users=10, k=5).measured
    assert (measured.histories, measured.users, measured.recall) == ("random", 10, 1.0)


def test_histories_are_cut_to_what_is_read_and_have_their_times():
    """A model that reads times gets those of the items, and the last one as that of the request."""

    class Watching(UserModel):
        reads_times = True

        def forward(self, histories):
            seen.append(histories)
            return histories.vectors.sum(1)

    seen = []
    vectors = served_vectors(60)
    served = ServedVectors(Watching({}), vectors.items, cosine=True, length=5)
    build_index(served, user_histories(70, 60), "flat", k=3)
    build_index(served, UserHistories(), "flat", k=3, users=9)
    assert [len(histories.lengths) for histories in seen] == [64, 6, 9]
    assert max(int(histories.lengths.max()) for histories in seen) == 5
    for histories in seen:
        assert torch.equal(histories.at, histories.times.gather(1, histories.last[:, None])[:, 0])


@pytest.mark.parametrize(
    "options", [{"min_recall": 0}, {"min_recall": 1.1}, {"k": 0}, {"k": 5000}, {"users": 0}, {"breadth": 1}]
)
def test_numbers_out_of_bounds(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        build_index(served_vectors(60), UserHistories(), "hnsw", **options)


def test_no_items():
    with pytest.raises(ModelError, match="there are no items"):
        build_index(served_vectors(0), UserHistories(), "hnsw")


# ---- in an export ----


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_a_recommender_builds_it_once_and_reads_it_then(folder, kind, monkeypatch):
    exact = Recommender.from_pretrained(folder)
    first = Recommender.from_pretrained(folder, index=kind)
    monkeypatch.setattr(module, "build_index", None)
    again = Recommender.from_pretrained(folder, index=kind)
    assert again.index.measured == first.index.measured and not again.index.exact
    assert in_words(again.index).startswith(f"{kind} of 60 items: finds ")
    for recommender in (first, again):
        recommended = recommender.recommend(items=["i1", "i2"], k=5)
        assert recommended[0].id == exact.recommend(items=["i1", "i2"], k=5)[0].id
        assert not {"i1", "i2"} & {item.id for item in recommended}


def test_recommendations_are_those_of_the_exact_one(folder):
    exact, flat = Recommender.from_pretrained(folder), Recommender.from_pretrained(folder, index="flat")
    for recommender in (exact, flat):
        recommender.remove_items(["i3", "i60"])
    for words in (
        {"items": ["i1"]},
        {"user": "u3", "k": 50},
        {"items": ["i5"], "exclude": ["i6"], "filter_seen": False},
    ):
        wanted, found = exact.recommend(**words), flat.recommend(**words)
        assert [item.id for item in found] == [item.id for item in wanted]
        assert [item.score for item in found] == pytest.approx([item.score for item in wanted], abs=1e-5)
        assert not {"i3", "i60"} & {item.id for item in found}


def test_an_index_of_other_vectors_or_kind_is_built_again(folder):
    index = Recommender.from_pretrained(folder, index="flat").index
    served = Recommender.from_pretrained(folder).served
    assert read_index(folder, served, "flat").measured == index.measured
    assert read_index(folder, served, "hnsw") is None
    other = write_export(folder.parent / "other", items=60, cosine=True)
    before = digest(folder)
    (folder / "vectors.safetensors").write_bytes((other / "vectors.safetensors").read_bytes())
    assert digest(folder) == before  # the same numbers
    write_export(other, items=61)
    for name in ("vectors.safetensors", "items.jsonl"):
        (folder / name).write_bytes((other / name).read_bytes())
    assert digest(folder) != before
    assert read_index(folder, served, "flat") is None
    assert Recommender.from_pretrained(folder, index="flat").index.built.ntotal == 61
    assert json.loads((folder / "index.json").read_text())["items"] == 61


def test_vectors_of_parts_count(tmp_path):
    (tmp_path / "parts" / "0").mkdir(parents=True)
    (tmp_path / "parts" / "0" / "vectors.safetensors").write_bytes(b"one")
    before = digest(tmp_path)
    (tmp_path / "parts" / "0").rename(tmp_path / "parts" / "1")
    assert digest(tmp_path) != before


def test_no_index_is_read_where_its_description_is_missing(folder):
    index = Recommender.from_pretrained(folder, index="flat").index
    (folder / "index.json").unlink()
    assert read_index(folder, index.vectors, "flat") is None


def test_damaged_files_are_named(folder):
    recommender = Recommender.from_pretrained(folder, index="hnsw")
    (folder / "index.faiss").write_bytes(b"IHNs" + bytes(50))
    with pytest.raises(Damaged, match="index.faiss is no index of this program, or damaged"):
        Recommender.from_pretrained(folder, index="hnsw")
    smaller = build_index(served_vectors(59), UserHistories(), "hnsw")
    write_index(smaller, folder)
    with pytest.raises(Damaged, match=r"index.faiss is not of these vectors.*recbole-hllm index"):
        read_index(folder, recommender.served, "hnsw")
    described = json.loads((folder / "index.json").read_text())
    for wrong in ({"effort": 10**9}, {"k": 0}, {"recall": "1"}, {"effort": True}):
        (folder / "index.json").write_text(json.dumps({**described, **wrong}))
        with pytest.raises(Damaged, match=r"index.json is damaged.*recbole-hllm index"):
            read_index(folder, recommender.served, "hnsw")
    for content in ("[]", "{}", "{"):
        (folder / "index.json").write_text(content)
        with pytest.raises(Damaged, match="index.json is"):
            read_index(folder, recommender.served, "hnsw")


def test_items_that_are_added_and_changed_after_it_was_built_are_found(folder, monkeypatch):
    recommender = Recommender.from_pretrained(folder, index="hnsw")
    user = recommender.served.users(recommender.rows_of([Request(items=["i1"])])[0])
    monkeypatch.setattr(recommender, "_encoded", lambda texts: 10 * user.expand(len(texts), -1))
    monkeypatch.setattr(recommender, "_template", TextTemplate(("title",), ""))
    recommender.add_items({"new": {"title": "a"}})
    assert recommender.recommend(items=["i1"], k=1)[0].id == "new"
    recommender.remove_items(["new"])
    recommender.add_items({"i7": {"title": "b"}})
    assert recommender.recommend(items=["i1"], k=1)[0].id == "i7"


def test_an_unknown_index(folder):
    with pytest.raises(ConfigError, match="index: 'best' is not one of exact, flat, ivf, hnsw"):
        Recommender.from_pretrained(folder, index="best")
