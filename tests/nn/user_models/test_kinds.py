"""User models by name."""

import inspect

import pytest

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.user_models.base import UserModel
from recbole_hllm.nn.user_models.kinds import USER_MODELS, user_model_class


@pytest.mark.parametrize("kind", USER_MODELS)
def test_every_kind_is_a_user_model_of_its_name(kind):
    found = user_model_class(kind)
    assert issubclass(found, UserModel) and found.__name__ == kind and inspect.getdoc(found)


@pytest.mark.parametrize("kind", ["SASRec", "os.system", "", "UserModel"])
def test_no_other_name_is_imported(kind):
    with pytest.raises(ModelError, match="there is no user model"):
        user_model_class(kind)
