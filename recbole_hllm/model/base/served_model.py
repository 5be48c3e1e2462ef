"""Any model -> what recommends of it, or why nothing does."""

from recbole.utils import ModelType

from recbole_hllm.errors import ModelError
from recbole_hllm.model.base.contract import Factorised, LabelledScorer, Recommender
from recbole_hllm.model.base.servable import Servable
from recbole_hllm.serving.served import Served

# Members by which a model says what users' vectors and scores are, and by which it says the same to who serves it.
_COMPUTED_BY = {"forward", "read_history", "user_vectors", "factors", "full_sort_predict"}
_SERVED_BY = {"user_model", "served"}


def served_of(model: Recommender) -> Served:
    """What recommends, of any model.

    Raises:
        ModelError: it cannot stand alone; the message says why, and what can.
    """
    if isinstance(model, Servable) and not isinstance(model, LabelledScorer):
        _check_computes_as_served(type(model))
        return model.served()
    raise ModelError(f"{type(model).__name__} is not exported: {_why_not(model)}")


def _why_not(model: Recommender) -> str:
    if isinstance(model, LabelledScorer):
        return "it says how likely a label is, of one item at a time; export a model that ranks the catalogue, say HLLM"
    if isinstance(model, Factorised):
        return (
            "nothing reads its histories as vectors of items (PromptLLM reads them as one text; a model of your own "
            "gives served(), docs/extending/next-item.md); export HLLM, say"
        )
    if model.type == ModelType.SEQUENTIAL:
        return "its histories are read by code of RecBole's; export one of the SASRec family, eSASRec or HSTU, say"
    if model.type == ModelType.TRADITIONAL:
        return "its scores are no products of vectors; export SASRec or EASE, say, or a Blend of Markov and others"
    return "it knows users by their id, and has nothing to say to a new one; export SASRec, say"


def _check_computes_as_served(model: type[Servable]) -> None:
    """Raises ModelError where a class, say of a user, changes what is computed and inherits what is served."""
    order = model.__mro__
    computed, served = (
        next(place for place, cls in enumerate(order) if not vars(cls).keys().isdisjoint(names))
        for names in (_COMPUTED_BY, _SERVED_BY)
    )
    if computed < served:
        own = ", ".join(sorted(vars(order[computed]).keys() & _COMPUTED_BY))
        raise ModelError(
            f"{model.__name__} is not exported: {order[computed].__name__} has its own {own}, and no user_model() or "
            "served() that computes the same (docs/extending/next-item.md)"
        )
