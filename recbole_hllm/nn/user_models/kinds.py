"""All kinds of user models by name, as an export names them; a module is imported when its kind is asked for."""

from importlib import import_module

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.user_models.base import UserModel

_ROOM = "recbole_hllm.nn.user_models"
# Name of the class -> its module.
USER_MODELS = {
    "SASRecUser": "sequence",
    "LiGRUser": "sequence",
    "HSTUUser": "sequence",
    "LRUUser": "sequence",
    "FilterUser": "sequence",
    "UserLLM": "language",
    "PromptedUser": "language",
    "PreferenceUser": "preference",
    "MeanUser": "mean",
}


def user_model_class(kind: str) -> type[UserModel]:
    """The class of a kind.

    Raises:
        ModelError: there is no such kind.
    """
    if kind not in USER_MODELS:
        raise ModelError(f"there is no user model {kind!r} ({', '.join(USER_MODELS)})")
    found: type[UserModel] = getattr(import_module(f"{_ROOM}.{USER_MODELS[kind]}"), kind)
    return found
