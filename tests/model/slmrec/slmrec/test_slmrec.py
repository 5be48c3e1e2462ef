"""SLMRec on toy data: its loss against a plain slow formula, student and teacher, and the teacher's stored states."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_hllm import Config, create_dataset, data_preparation, run

# isort: split
from recbole.utils import init_seed

from recbole_hllm.config.keys.slmrec import SLMRecKeys
from recbole_hllm.data.rows.columns import ROW_NUMBER
from recbole_hllm.errors import ModelError
from recbole_hllm.model.slmrec import teacher as teachers
from recbole_hllm.nn.distillation import direction_loss, norm_loss
from recbole_hllm.runs.export import export_model

ROWS = ("positions", "prefix", "user")


def teacher_of(config, train):
    return teachers.read_teacher(config, train._dataset)


# ---- the loss ----


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("reduction, power", [("mean", 2), ("sum", 1)])
def test_the_loss_is_the_sum_of_its_terms(build, rows, reduction, power):
    """Row by row, unpadded, with the states that transformers gives."""
    weights = {"distill_cos": 0.7, "distill_norm": 0.2, "distill_heads": 0.3}
    published = ["distillation_sum", "distillation_norm"] if power == 1 else False
    model, batch, config, train = build(rows, reference=published, **weights)
    for head in model.heads:  # as after some training
        torch.nn.init.normal_(head.weight)
    model.eval()
    loss = model.calculate_loss(batch)
    teacher = teacher_of(config, train)
    students, taught, targets = [], [], []
    for row in range(len(batch)):
        items = batch["item_id_list"][row]
        items = items[items != 0] if rows == "positions" else items[: batch["item_length"][row]]
        read = items[:-1] if rows == "positions" else items
        where = slice(None) if rows == "positions" else slice(-1, None)
        targets.append(items[1:] if rows == "positions" else batch["item_id"][row : row + 1])
        for who, states, ends in ((model, students, (1, 2)), (teacher, taught, (2, 4))):
            vectors = who.input_proj(who.item_table(read))[None]
            hidden = who.llm.backbone(inputs_embeds=vectors, output_hidden_states=True).hidden_states
            states.append([hidden[end][0, where] for end in ends])
    students, taught = ([torch.cat(block) for block in zip(*of, strict=True)] for of in (students, taught))
    targets = torch.cat(targets)

    def ce(states, head):
        scores = head(states) @ model.item_table.weight.T
        return F.cross_entropy(scores[:, 1:], targets - 1)

    heads = ce(students[0], model.heads[0])  # two blocks: one head, so mean and sum agree
    expected = ce(students[1], model.score) + 0.3 * heads
    expected += 0.7 * direction_loss(students, taught, reduction) + 0.2 * norm_loss(students, taught, reduction, power)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    terms = {name: term.item() for name, term in model.loss_terms.items()}
    assert set(terms) == {"ce", "cos", "norm", "heads"} and terms["heads"] == pytest.approx(heads.item(), rel=1e-5)
    total = terms["ce"] + 0.7 * terms["cos"] + 0.2 * terms["norm"] + 0.3 * terms["heads"]
    assert loss.item() == pytest.approx(total, rel=1e-5)
    trained = [weight for weight in model.parameters() if weight.requires_grad and weight.numel()]
    for ours, plain in zip(torch.autograd.grad(loss, trained), torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("term", ["cos", "norm", "heads"])
def test_each_term_trains_the_students_first_layers(build, term):
    gradients = []
    for weight in (0.0, 5.0):
        keys = {f"distill_{name}": weight * (name == term) for name in ("cos", "norm", "heads")}
        model, batch, *_ = build(**keys)
        for head in model.heads:
            torch.nn.init.normal_(head.weight)
        model.eval().calculate_loss(batch).backward()
        gradients.append(model.llm.backbone.layers[0].mlp.down_proj.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-5


def test_a_weight_of_zero_takes_its_term_away(build):
    losses = {}
    for name in ("cos", "norm", "heads", None):
        weights = {f"distill_{term}": 0.5 * (term == name) for term in ("cos", "norm", "heads")}
        model, batch, _, _ = build(**weights)
        losses[name] = model.eval().calculate_loss(batch).item()
        terms = {term: value.item() for term, value in model.loss_terms.items()}
        assert losses[name] == pytest.approx(terms["ce"] + 0.5 * terms.get(name, 0), rel=1e-6)
        assert len(model.heads) == (name == "heads") and ("heads" in terms) == (name == "heads")
        assert (model.states is not None) == (name in ("cos", "norm"))
    assert len(set(losses.values())) == 4


def test_what_is_in_the_loss_is_logged(build, caplog):
    caplog.set_level("INFO")
    for keys, said in (
        ({}, "distillation: offline, 1 cos + 0.1 norm + 0.1 heads"),
        ({"distill_cos": 0, "distill_norm": 0, "distill_heads": 0}, "offline, nothing but the first weights"),
    ):
        caplog.clear()
        build(**keys)
        assert said in caplog.text


def test_a_distance_that_is_all_of_the_loss_is_told_once(build, caplog):
    def trained(model, batch):
        model.train().calculate_loss(batch)
        model.watch({name: term.item() for name, term in model.loss_terms.items()})

    model, batch, *_ = build(distill_norm=0.1)
    trained(model, batch)
    assert "distill_norm" not in caplog.text
    model, batch, *_ = build(distill_norm=1e4)
    for _ in range(2):
        trained(model, batch)
    assert caplog.text.count("distill_norm: 10000 makes the distance of states") == 1


def test_without_distillation_it_is_an_e4srec_that_begins_as_the_teacher(build, keys_of):
    model, batch, config, train = build(distill_cos=0, distill_norm=0, distill_heads=0)
    plain = type(model).__mro__[1](Config("E4SRec", config_dict=keys_of(user_llm_layers=2)), train._dataset)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain.eval().calculate_loss(batch), model.eval().calculate_loss(batch))


@pytest.mark.parametrize("reference, over", [([], 3), (["distillation_sum"], 1)])
def test_each_head_is_on_its_block(build, reference, over):
    """Four blocks of one layer: three heads, in order."""
    keys = {"distill_cos": 0, "distill_norm": 0, "distill_heads": 0.3}
    model, batch, *_ = build(user_llm_layers=4, blocks=4, reference=reference, **keys)
    for head in model.heads:
        torch.nn.init.normal_(head.weight, std=30)
    states, targets, _ = model.eval().read_rows(batch, (1, 2, 3))
    losses = [model.target_loss(state, targets, head) for state, head in zip(states[:3], model.heads, strict=True)]
    expected = model.target_loss(states[-1], targets) + 0.3 * sum(losses) / over
    torch.testing.assert_close(model.calculate_loss(batch), expected)
    model.heads[0], model.heads[2] = model.heads[2], model.heads[0]
    assert not torch.isclose(model.calculate_loss(batch), expected)


def test_one_block_has_no_heads(build):
    model, batch, *_ = build(blocks=1)
    assert len(model.heads) == 0
    model.calculate_loss(batch).backward()
    assert model.loss_terms.keys() == {"ce", "cos", "norm"}


# ---- teacher and student ----


def test_a_student_begins_as_the_first_layers_of_its_teacher(build):
    model, _, config, train = build()
    teacher = teacher_of(config, train)
    own, theirs = model.state_dict(), teacher.state_dict()
    shared = [name for name in own if not name.startswith("heads.")]
    assert model.llm.depth == 2 and teacher.llm.depth == 4
    assert all(torch.equal(own[name], theirs[name]) for name in shared)
    assert {name for name in theirs if name not in own} == {
        name for name in theirs if ".layers.2." in name or ".layers.3." in name
    }
    assert model.item_table.weight.abs().sum() > 0


def test_an_offline_teacher_gets_no_gradient_and_is_no_part_of_the_student(build):
    for cached in (True, False):
        model, batch, config, train = build(teacher_cache=cached)
        model.calculate_loss(batch).backward()
        assert not any(name.startswith("teacher") for name, _ in model.named_parameters())
        if not cached:
            assert all(weight.grad is None for weight in model.states.teacher.parameters())
            assert not model.states.teacher.training
        trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
        assert {"input_proj.weight", "score.weight", "heads.0.weight"} <= trained and "item_table.weight" not in trained


def test_an_online_teacher_is_trained_too(build):
    model, batch, _, _ = build(distillation="online")
    assert model.teacher.llm.depth == 4
    before = {name: weight.clone() for name, weight in model.teacher.named_parameters()}
    loss = model.calculate_loss(batch)
    terms = {name: term.item() for name, term in model.loss_terms.items()}
    total = terms["ce"] + terms["cos"] + 0.1 * terms["norm"] + 0.1 * terms["heads"] + terms["teacher_ce"]
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert terms["teacher_ce"] == pytest.approx(model.teacher.calculate_loss(batch).item(), rel=1e-5)
    loss.backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.step()
    moved = {name for name, weight in model.teacher.named_parameters() if not torch.equal(weight, before[name])}
    assert "llm.backbone.layers.3.mlp.down_proj.weight" in moved and "item_table.weight" not in moved


def test_distillation_reaches_an_online_teacher(build):
    """Beside its own cross-entropy: the gradient changes with the weight of the term."""
    gradients = []
    for weight in (0.5, 5.0):
        model, batch, _, _ = build(distillation="online", distill_cos=weight)
        model.calculate_loss(batch).backward()
        gradients.append(model.teacher.input_proj.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-6


def test_an_exported_student_recommends_alone(build, keys_of, tmp_path):
    model, _, config, train = build()
    batch = next(iter(data_preparation(config, create_dataset(config))[2]))[0]
    export_model(model, tmp_path / "student")
    files = [path.relative_to(tmp_path / "student").as_posix() for path in (tmp_path / "student").rglob("*.*")]
    written = {"training.safetensors", "user_llm/config.json", "user_llm/model.safetensors"}
    assert written <= set(files) and not any("teacher" in name or "head" in name for name in files)
    of_the_student = ("item_table", "user_llm_config", "user_llm_layers", "teacher_keys", "blocks")
    keys = {key: value for key, value in keys_of().items() if key not in of_the_student}
    alone = Config("E4SRec", config_dict={**keys, "pretrained_e4srec": str(tmp_path / "student")})
    other = alone.spec.model(alone, train._dataset).eval()
    with torch.no_grad():
        torch.testing.assert_close(other.full_sort_predict(batch), model.eval().full_sort_predict(batch))
    assert sum(weight.numel() for weight in other.parameters()) == model.inference_parameters()


# ---- states of the teacher, stored ----


@pytest.mark.parametrize("rows", ROWS)
def test_stored_states_are_those_of_a_fresh_teacher(build, rows):
    stored, _, _, train = build(rows)
    fresh, _, _, _ = build(rows, teacher_cache=False)
    n_rows = 0
    for batch in train:  # shuffled
        order = stored.read_rows(batch, stored.ends)[2]
        for one, other in zip(stored.states(batch, order), fresh.states(batch, order), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        n_rows += len(batch[ROW_NUMBER])
    assert n_rows == len(train._dataset)
    assert stored.eval().calculate_loss(batch).item() == pytest.approx(
        fresh.eval().calculate_loss(batch).item(), rel=1e-6
    )


def test_states_are_computed_once(build, monkeypatch):
    first, batch, config, train = build()
    computed = []
    monkeypatch.setattr(teachers, "_compute", lambda *arguments: computed.append(arguments))
    again, _, _, _ = build()
    assert computed == [] and isinstance(again.states.states, np.memmap)
    np.testing.assert_array_equal(again.states.states, first.states.states)
    build(precision="bf16")  # other numbers
    build(train_user_fraction=0.5)  # other rows
    assert len(computed) == 2


def test_states_of_each_teacher_and_precision(build, keys_of, taught_by, tmp_path):
    """The same rows, other weights, another precision, another norm: states of their own, those of a fresh one."""
    other = str(tmp_path / "other")
    keys = {key: value for key, value in keys_of().items() if key not in ("blocks", "teacher_keys")}
    run("E4SRec", config_dict={**keys, "user_llm_layers": 4, "seed": 7}, run_dir=other)
    cache, seen = {"cache_dir": str(tmp_path / "cache")}, []
    for own in ({}, {"teacher": other}, {"precision": "bf16"}):
        stored, batch, *_ = build(**cache, **own)
        fresh, _, config, _ = build(teacher_cache=False, **own)
        order = stored.read_rows(batch, stored.ends)[2]
        with torch.autocast("cpu", torch.bfloat16, enabled=config["precision"] == "bf16"):
            pairs = zip(stored.states(batch, order), fresh.states(batch, order), strict=True)
        for one, again in pairs:
            torch.testing.assert_close(one, again.float(), rtol=1e-4, atol=1e-5)
        seen.append(np.array(stored.states.states))
    assert len(list((tmp_path / "cache").glob("teacher-*"))) == 3
    assert all(np.abs(seen[0] - later).max() > 1e-4 for later in seen[1:])


def test_a_store_is_of_what_its_teacher_computes(build, tmp_path):
    """Equal weights that compute something else, as under another epsilon."""
    stores = []
    for eps in (1e-6, 0.5):
        _, _, config, train = build()
        teacher = teacher_of(config, train)
        for module in [teacher.llm.backbone, *teacher.llm.backbone.modules()]:
            if hasattr(module, "variance_epsilon"):
                module.variance_epsilon = eps
        teacher.llm.backbone.config.rms_norm_eps = eps
        config.final_config_dict["cache_dir"] = str(tmp_path)
        stores.append(teachers.CachedStates.of(teacher, SLMRecKeys.of(config), train._dataset).states)
    assert np.abs(stores[0] - stores[1]).max() > 1e-3


@pytest.mark.parametrize("damage", [lambda content: b"nothing", lambda content: content[:-1] + b"\x7f"])
def test_a_damaged_store_is_made_again(build, tmp_path, damage):
    keys = {"cache_dir": str(tmp_path)}
    kept = np.array(build(**keys)[0].states.states)
    (entry,) = tmp_path.glob("teacher-*")
    assert sorted(path.name for path in entry.iterdir()) == ["meta.json", "offsets.npy", "states.npy"]
    (entry / "states.npy").write_bytes(damage((entry / "states.npy").read_bytes()))
    np.testing.assert_array_equal(build(**keys)[0].states.states, kept)


def test_states_that_could_not_be_computed_leave_nothing(build, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(teachers, "_compute", stop)
    with pytest.raises(KeyboardInterrupt):
        build(cache_dir=str(tmp_path))
    assert not [entry for entry in tmp_path.iterdir() if entry.is_dir() and "teacher-" in entry.name]


# ---- the published set-up: LoRA over a pretrained language model, with words ----


@pytest.fixture
def published(tiny_llm):
    """Keys of a pretrained language model, its words and its LoRA, with dropout that no stored state may have."""
    llm = {"user_pretrain_dir": tiny_llm("llama", num_hidden_layers=4), "user_llm_init": True, "user_llm_config": None}
    return {**llm, "instruction": "w1 w2 {items} w3", "lora_r": 2, "lora_dropout": 0.5, "training_rows": "user"}


@pytest.fixture
def published_student(published, keys_of, tmp_path):
    """Further keys -> a student of a trained teacher, the first batch, its config and loader."""
    teacher = {key: value for key, value in keys_of(**published).items() if key not in ("blocks", "teacher_keys")}
    run("E4SRec", config_dict={**teacher, "user_llm_layers": 4, "learning_rate": 0.05}, run_dir=tmp_path / "teacher")

    def make(**keys):
        own = {**published, "cache_dir": str(tmp_path / "cache"), "teacher": str(tmp_path / "teacher"), **keys}
        config = Config("SLMRec", config_dict=keys_of(**own))
        train = data_preparation(config, create_dataset(config))[0]
        init_seed(3, True)
        return config.spec.model(config, train._dataset), next(iter(train)), config, train

    return make


def test_a_student_with_lora_and_words(published_student, tmp_path):
    model, batch, config, train = published_student()
    teacher = teacher_of(config, train)
    own, theirs = model.state_dict(), teacher.state_dict()
    shared = [name for name in own if not name.startswith("heads.")]
    additions = [name for name in shared if ".lora_B." in name]
    assert additions and all(own[name].abs().sum() > 0 for name in additions), "those of the trained teacher"
    assert all(torch.equal(own[name], theirs[name]) for name in shared)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert all(".lora_" in name or name.split(".")[0] in ("input_proj", "score", "heads") for name in trained)
    fresh, *_ = published_student(teacher_cache=False)
    order = model.read_rows(batch, model.ends)[2]
    for one, again in zip(model.states(batch, order), fresh.states(batch, order), strict=True):
        torch.testing.assert_close(one, again, rtol=1e-4, atol=1e-5)
    rows = next(iter(data_preparation(config, create_dataset(config))[2]))[0]
    export_model(model, tmp_path / "student")
    brought = {"item_table", "instruction", "blocks", "teacher"}
    brought |= {"user_pretrain_dir", "user_llm_init", "user_llm_layers"}
    keys = {key: value for key, value in config.settings.items() if key not in (*brought, "model")}
    known = Config("E4SRec", config_dict={"data_path": keys["data_path"], "dataset": "toy"}).settings
    keys = {key: value for key, value in keys.items() if key in known}
    alone = Config("E4SRec", config_dict={**keys, "pretrained_e4srec": str(tmp_path / "student")})
    other = alone.spec.model(alone, train._dataset).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            other.full_sort_predict(rows), model.eval().full_sort_predict(rows), rtol=1e-4, atol=1e-5
        )
    assert model.inference_parameters() == other.inference_parameters()


def test_a_student_with_other_words_than_its_teacher_is_refused(published_student):
    with pytest.raises(ModelError, match="teacher: its instruction differ from this student's"):
        published_student(instruction="w2 w1 {items} w3")


def test_other_weights_than_the_teachers_are_not_read(published_student, tiny_llm, tmp_path, caplog):
    model, *_ = published_student()
    assert "have no effect" not in caplog.text
    other = shutil.copytree(tiny_llm("llama", num_hidden_layers=4), tmp_path / "other")
    again, *_ = published_student(user_pretrain_dir=str(other))
    assert f"user_pretrain_dir: the weights of {other} have no effect: the student begins as the layers" in caplog.text
    assert torch.equal(again.score.weight, model.score.weight)


def test_a_student_of_other_additions_is_refused(published_student):
    with pytest.raises(ModelError, match="teacher: its user_llm_tuning differ"):
        published_student(lora_alpha=3)
    with pytest.raises(ModelError, match="teacher: its user_llm_tuning differ"):
        published_student(user_llm_tuning="frozen")
    with pytest.raises(ModelError, match="teacher: this student is not made as its teacher"):
        published_student(lora_r=3)
