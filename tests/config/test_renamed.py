"""Old names of keys: errors that name the new one, and folders of earlier runs."""

import pytest

from recbole_hllm.config import renamed
from recbole_hllm.config.config import Config
from recbole_hllm.config.renamed import refuse_renamed, upgraded
from recbole_hllm.config.schema import DECLARED
from recbole_hllm.data.protocol import REFERENCE
from recbole_hllm.errors import ConfigError


def test_an_old_name_is_an_error_that_names_the_new_one():
    with pytest.raises(ConfigError, match="^key 'E4SRec.llm_layers' in f.yaml is called 'E4SRec.user_llm_layers' now$"):
        refuse_renamed("E4SRec.llm_layers", " in f.yaml")
    with pytest.raises(ConfigError, match=r"^key 'reduction' no longer exists: reference: \[distillation_sum\]"):
        refuse_renamed("reduction")
    refuse_renamed("user_llm_layers")


def test_new_names_are_keys_and_old_ones_are_not():
    assert set(renamed._NAMES.values()) <= DECLARED.keys()
    assert not DECLARED.keys() & {*renamed._NAMES, *renamed._REPLACED}
    assert {*renamed._OF_THE_HLLM_CODE, "distillation_sum", "distillation_norm"} == REFERENCE.keys()


def test_settings_of_an_earlier_run_have_the_new_names():
    old = {"model": "SLMRec", "llm_pretrain_dir": "x", "llm_layers": 2, "teacher_keys": {"llm_layers": 8},
           "SLMRec.llm_tuning": "lora", "reference": False}  # fmt: skip
    assert upgraded(old) == {
        "model": "SLMRec", "user_pretrain_dir": "x", "user_llm_layers": 2, "teacher_keys": {"user_llm_layers": 8},
        "SLMRec.user_llm_tuning": "lora", "reference": False,
    }  # fmt: skip
    assert upgraded({"model": "HSTU", "variant": "hllm"}) == {"model": "HSTU", "implementation": "hllm"}
    assert upgraded({"model": "HLLM", "user_llm_layers": 2, "llm_layers": 4}) == {"model": "HLLM", "user_llm_layers": 2}


def test_a_key_for_all_rows_of_a_table_becomes_one_of_those_that_had_it():
    """HLLM has keys of the new names too, and of a row the key with its name is stronger."""
    old = {"model": ["HLLM", "E4SRec", "LEARN@x"], "user_llm_layers": 2, "llm_layers": 4, "E4SRec.llm_init": True,
           "negatives": "per_position", "negatives_from": "catalogue"}  # fmt: skip
    assert upgraded(old) == {
        "model": ["HLLM", "E4SRec", "LEARN@x"], "user_llm_layers": 2, "E4SRec.user_llm_layers": 4,
        "E4SRec.user_llm_init": True, "negatives": "per_position", "LEARN.negatives": "catalogue",
    }  # fmt: skip
    table = {"model": "HLLM,SLMRec", "reference": True, "reduction": "sum", "distill": ["cos", "heads"]}
    assert upgraded(table) == {
        "model": "HLLM,SLMRec", "reference": True, "SLMRec.distill_norm": 0.0,
        "SLMRec.reference": [*renamed._OF_THE_HLLM_CODE, "distillation_sum"],
    }  # fmt: skip


def test_a_users_model_may_have_a_key_of_an_old_name():
    own = {"model": "Mine", "variant": "x", "Mine@a.reduction": "sum", "seed": 1}
    assert upgraded(own) == own


def test_old_names_inside_of_searches_and_keys_of_other_runs(toy):
    assert upgraded({"HSTU.search": {"variant": ["meta", "hllm"]}}) == {
        "HSTU.search": {"implementation": ["meta", "hllm"]}
    }
    with pytest.raises(ConfigError, match="^key 'llm_layers' in teacher_keys is called 'user_llm_layers' now$"):
        Config("SLMRec", "toy", config_dict={**toy, "teacher_keys": {"llm_layers": 8}})
    with pytest.raises(ConfigError, match="^key 'variant' in HSTU.search is called 'implementation' now$"):
        Config("HSTU", "toy", config_dict={**toy, "HSTU.search": {"variant": ["meta", "hllm"]}})


def test_settings_with_new_names_stay_as_they_are():
    new = {"model": "HLLM", "user_llm_layers": 2, "reference": True, "user_llm_config": {"hidden_size": 8}}
    assert upgraded(new) == new


@pytest.mark.parametrize("content, kept", [("llm", "L"), ("bert", "B"), ("id", "B")])
def test_of_two_content_models_the_one_that_was_read_is_kept(content, kept):
    both = {"content_llm_dir": "L", "content_bert_dir": "B"}
    assert upgraded({"content": content, **both}) == {"content": content, "item_pretrain_dir": kept}
    assert upgraded({"content_llm_dir": "L"}) == {"item_pretrain_dir": "L"}


def test_distillation_is_said_with_weights_and_references():
    old = {"distill": ["cos"], "distill_cos": 2.0, "reduction": "sum", "norm_power": 1, "reference": ["warmup"]}
    assert upgraded(old) == {
        "distill_cos": 2.0, "distill_norm": 0.0, "distill_heads": 0.0,
        "reference": ["warmup", "distillation_sum", "distillation_norm"],
    }  # fmt: skip
    unchanged = {"distill": None, "reduction": "mean", "norm_power": 2, "reference": False}
    assert upgraded(unchanged) == {"reference": False}
    everything = upgraded({"reduction": "mean", "norm_power": 2, "reference": True})
    assert everything == {"reference": renamed._OF_THE_HLLM_CODE}, "of HLLM's code, not of SLMRec's"
