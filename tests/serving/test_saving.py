"""A Recommender written again is the same one, and goes to the Hub and comes back from there, which a folder plays."""

import fnmatch
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.nn.user_models.sequence import SASRecUser
from recbole_hllm.serving import Recommender, Request
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.saving import DOWNLOADED, local_folder
from recbole_hllm.serving.served import ServedBlend, ServedPairs, ServedVectors
from recbole_hllm.serving.text_encoder import TextEncoder

IDS = [f"i{number}" for number in range(1, 9)]
WIDTH = 8


def vectors_of(texts):
    """Vectors that depend on the text alone."""
    seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
    return torch.stack([torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@pytest.fixture(autouse=True)
def encoding(monkeypatch):
    """In place of a language model."""
    monkeypatch.setattr(TextEncoder, "encode", lambda self, texts: vectors_of(texts))


def user_model():
    torch.manual_seed(1)
    return SASRecUser(WIDTH, 5, 1, 2, 16, "gelu", 1e-12)


def served_vectors(cosine=True):
    items = torch.cat([torch.zeros(1, WIDTH), vectors_of([f"title: {item}" for item in IDS])])
    return ServedVectors(user_model(), items, cosine=cosine, length=5)


def write_export(folder, served, dtype="float32", encoder=True):
    described = files.write_served(served, folder, dtype)
    files.write_items(folder, IDS, [{"title": item} for item in IDS])
    items, offsets = torch.tensor([1, 2, 3]), torch.tensor([0, 1, 3])
    files.write_histories(folder, files.UserHistories.of(["u1", "u2"], items, torch.ones(3).double(), offsets))
    template = None
    if encoder:
        template = {"text_keys": ["title"], "item_prompt": ""}
        (folder / files.ITEM_ENCODER / "1_Pooling").mkdir(parents=True)
        modules = [{"type": "sentence_transformers.models.Transformer", "path": ""},
                   {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]  # fmt: skip
        (folder / files.ITEM_ENCODER / "modules.json").write_text(json.dumps(modules))
        (folder / files.ITEM_ENCODER / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# The card\n")
    (folder / "user_model.onnx").write_bytes(b"onnx")
    files.write_manifest(folder, {"model": "SASRecNCE", "dataset": "toy", "served": described, "template": template})
    return folder


@pytest.fixture
def exported(tmp_path):
    return write_export(tmp_path / "export", served_vectors())


REQUESTS = [
    Request(items=["i1", "i5"], k=9), Request(user="u2", k=9, filter_seen=False), Request(items=["i2"] * 7, k=3),
    Request(items=["i3"], among=["i4", "i7", "i8"]),
]  # fmt: skip


def answers(recommender, *more):
    return [[(item.id, item.score, item.fields) for item in found]
            for found in recommender.recommend_many([*REQUESTS, *more])]  # fmt: skip


def changed(folder):
    recommender = Recommender.from_pretrained(folder)
    recommender.add_items({"new": {"title": "brand new"}, "i4": {"title": "another four"}, "i6": {"title": "six"}})
    recommender.remove_items(["i6", "i2"])
    return recommender


def test_a_changed_recommender_is_the_same_again(exported, tmp_path):
    recommender = changed(exported)
    assert recommender.save_pretrained(str(tmp_path / "saved")) == tmp_path / "saved"
    again = Recommender.from_pretrained(tmp_path / "saved")
    with_new = [Request(items=["new", "i6"], k=9), Request(texts=["brand new"], k=9)]
    assert answers(again, *with_new) == answers(recommender, *with_new)
    shown = {item for found in answers(again) for item, *_ in found}
    assert "new" in shown and not shown & {"i2", "i6"}
    assert (len(again.catalogue), again.catalogue.removed) == (7, ["i2", "i6"])
    assert not again.is_changed and again.folder == tmp_path / "saved"


def test_what_is_saved_can_be_changed_and_saved_again(exported, tmp_path):
    changed(exported).save_pretrained(tmp_path / "one")
    second = Recommender.from_pretrained(tmp_path / "one")
    second.add_items({"i2": {"title": "i2"}, "newer": {"title": "newer"}})  # the first comes back
    second.save_pretrained(tmp_path / "two")
    third = Recommender.from_pretrained(tmp_path / "two")
    assert answers(third) == answers(second) and third.catalogue.removed == ["i6"]
    card = (tmp_path / "two" / "README.md").read_text()
    assert card.count("after the export") == 1


def test_the_card_says_that_items_changed_and_only_then(exported, tmp_path):
    Recommender.from_pretrained(exported).save_pretrained(tmp_path / "same")
    assert (tmp_path / "same" / "README.md").read_bytes() == (exported / "README.md").read_bytes()
    assert (tmp_path / "same" / "user_model.onnx").read_bytes() == b"onnx"
    changed(exported).save_pretrained(tmp_path / "other")
    card = (tmp_path / "other" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n---\n\n# The card\n\nItems were added, changed or removed")


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_rounded_vectors_stay_as_small_until_there_are_others(tmp_path, dtype):
    folder = write_export(tmp_path / "export", served_vectors(), dtype)
    same = Recommender.from_pretrained(folder)
    same.save_pretrained(tmp_path / "same")
    again = Recommender.from_pretrained(tmp_path / "same")
    assert again.manifest["served"]["dtype"] == dtype
    torch.testing.assert_close(again.served.items, same.served.items, rtol=1e-6, atol=1e-7)
    other = changed(folder)
    other.save_pretrained(tmp_path / "other")
    again = Recommender.from_pretrained(tmp_path / "other")
    assert again.manifest["served"]["dtype"] == "float32" and answers(again) == answers(other)


def test_a_blend_with_a_removed_item(tmp_path):
    pairs = ServedPairs(torch.rand(9), torch.tensor([[1, 2], [5, 7]]), torch.tensor([2.0, 3.0]))
    blend = ServedBlend([served_vectors(), pairs], torch.tensor([[0.5, 0.5], [0.9, 0.1]]), [3], 5)
    recommender = Recommender.from_pretrained(write_export(tmp_path / "export", blend, encoder=False))
    recommender.remove_items(["i7"])
    recommender.save_pretrained(tmp_path / "saved")
    again = Recommender.from_pretrained(tmp_path / "saved")
    assert answers(again) == answers(recommender) and again.catalogue.removed == ["i7"]


def test_the_items_of_a_blend_stay_as_small_when_one_is_removed(tmp_path):
    pairs = ServedPairs(torch.rand(9), torch.tensor([[1, 2], [5, 7]]), torch.tensor([2.0, 3.0]))
    blend = ServedBlend([served_vectors(), pairs], torch.tensor([[0.5, 0.5]]), [], 5)
    recommender = Recommender.from_pretrained(write_export(tmp_path / "export", blend, "int8", encoder=False))
    recommender.remove_items(["i7"])
    recommender.save_pretrained(tmp_path / "saved")
    again = Recommender.from_pretrained(tmp_path / "saved")
    assert files.dtype_of(again.manifest["served"]) == "int8" and answers(again) == answers(recommender)


def test_nothing_is_written_over_and_half_a_folder_never_stays(exported, tmp_path, monkeypatch):
    recommender = Recommender.from_pretrained(exported)
    before = sorted(exported.rglob("*"))
    with pytest.raises(ConfigError, match="save_pretrained: .*export is not empty; name a new folder"):
        recommender.save_pretrained(exported)
    assert sorted(exported.rglob("*")) == before

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_manifest", full)
    with pytest.raises(ConfigError, match="save_pretrained: cannot write .*saved: No space left on device"):
        recommender.save_pretrained(tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_an_export_that_another_took_the_place_of_is_not_mixed_with_it(exported, tmp_path):
    recommender = Recommender.from_pretrained(exported)
    manifest = json.loads((exported / files.MANIFEST).read_text())
    (exported / files.MANIFEST).write_text(json.dumps({**manifest, "exported": "later"}))
    with pytest.raises(ModelError, match="save_pretrained: .*export is no longer the export"):
        recommender.save_pretrained(tmp_path / "saved")
    shutil.rmtree(exported)
    with pytest.raises(ModelError, match="read it again"):
        recommender.save_pretrained(tmp_path / "saved")


# ---- the Hub ----


class FakeHub:
    """One repository, kept as the Hub's cache keeps it: files are links to what lies beside the snapshot."""

    def __init__(self, place):
        self.place, self.asked, self.repository = place, [], {}

    def __call__(self, token):  # as HfApi
        self.asked.append(("token", token))
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        self.asked.append(("create", repo_id, private, exist_ok))
        return f"https://hub.example/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, commit_message, delete_patterns):
        self.asked.append(("upload", repo_id, commit_message))
        files_now = {path.relative_to(folder_path).as_posix(): path.read_bytes()
                     for path in Path(folder_path).rglob("*") if path.is_file()}  # fmt: skip
        kept = {name: content for name, content in self.repository.items()
                if not any(fnmatch.fnmatch(name, pattern) for pattern in delete_patterns)}  # fmt: skip
        self.repository = {**kept, **files_now}

    def snapshot_download(self, repo_id, *, allow_patterns):
        cache = self.place / f"models--{repo_id.replace('/', '--')}"
        snapshot = cache / "snapshots" / "0123abcd"
        for name, content in self.repository.items():
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                blob = cache / "blobs" / hashlib.sha256(content).hexdigest()
                blob.parent.mkdir(parents=True, exist_ok=True)
                blob.write_bytes(content)
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                (snapshot / name).symlink_to(blob)
        return str(snapshot)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    import huggingface_hub

    hub = FakeHub(tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def test_to_the_hub_and_back(exported, hub):
    hub.repository = {"parts/0/vectors.safetensors": b"of an earlier export", "LICENSE": b"theirs", "run.py": b"code"}
    recommender = changed(exported)
    assert recommender.push_to_hub("me/shop", token="secret") == "https://hub.example/me/shop"
    created, uploaded = ("create", "me/shop", True, True), ("upload", "me/shop", "SASRecNCE on toy")
    assert hub.asked == [("token", "secret"), created, uploaded]
    assert {"README.md", "user_model.onnx", "recommender.json", "LICENSE", "run.py"} < set(hub.repository)
    assert "parts/0/vectors.safetensors" not in hub.repository
    again = Recommender.from_pretrained("me/shop")
    names = {path.relative_to(again.folder).as_posix() for path in again.folder.rglob("*") if path.is_file()}
    assert "item_encoder/1_Pooling/config.json" in names
    assert names.isdisjoint({"LICENSE", "run.py", "user_model.onnx", "users.txt", "histories.safetensors"})
    request = Request(items=["new", "i1"], k=9)
    assert again.recommend_many([request]) == recommender.recommend_many([request])


def test_histories_of_users_go_to_the_hub_only_when_asked_to(exported, hub):
    recommender = Recommender.from_pretrained(exported)
    recommender.push_to_hub("me/shop", private=False)
    assert not {"users.txt", "histories.safetensors"} & set(hub.repository)
    assert hub.asked[1] == ("create", "me/shop", False, True)
    recommender.push_to_hub("me/shop", histories=True)
    assert answers(Recommender.from_pretrained("me/shop")) == answers(recommender)


def test_what_the_hub_says_is_told(exported, hub, monkeypatch):
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    recommender = Recommender.from_pretrained(exported)
    for error in (OfflineModeIsEnabled("offline"), HFValidationError("no name"), LocalEntryNotFoundError("no network")):

        def refuse(*_, error=error, **__):
            raise error

        monkeypatch.setattr(hub, "create_repo", refuse)
        monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
        with pytest.raises(ModelError, match=f"push_to_hub: me/shop: {error}"):
            recommender.push_to_hub("me/shop")
        with pytest.raises(ModelError, match=f"me/shop: no folder of this name, and of the Hub: {error}"):
            Recommender.from_pretrained("me/shop")


@pytest.mark.parametrize("name", ["missing", "./missing", "./missing/export", "a/b/c", "/no/such"])
def test_only_a_name_of_a_repository_is_looked_for_there(name, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_folder(name) == Path(name)
    with pytest.raises(ModelError, match="there is no export in it"):
        Recommender.from_pretrained(name)


def test_a_folder_is_taken_before_a_repository(exported, hub, monkeypatch):
    monkeypatch.chdir(exported.parent.parent)
    name = f"{exported.parent.name}/{exported.name}"
    assert Recommender.from_pretrained(name).catalogue.ids[1:] == IDS


def test_links_out_of_the_cache_are_refused(exported, hub, tmp_path):
    Recommender.from_pretrained(exported).push_to_hub("me/shop")
    snapshot = Path(hub.snapshot_download("me/shop", allow_patterns=DOWNLOADED))
    (tmp_path / "outside.json").write_text("{}")
    (snapshot / "config.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(ModelError, match="config.json is a link out of the export"):
        Recommender.from_pretrained(snapshot)
