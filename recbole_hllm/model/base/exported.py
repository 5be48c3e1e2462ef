"""An export as a training reads it: where its language models lie, and the weights beside them."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from recbole_hllm.errors import ModelError
from recbole_hllm.serving.folder import ITEM_ENCODER, TRAINING, USER_LLM
from recbole_hllm.serving.sentence_folder import OWN_TOKENIZER


@dataclass(frozen=True)
class Exported:
    """Places in an export, or in one of an earlier version, which was of HLLM or of E4SRec alone.

    Attributes:
        key: that names it, for errors.
        rest: the file of what lies beside the language models.
        item_llm, item_tokenizer: folders of the language model of items and of its tokenizer.
        user_llm: folder of the language model that reads histories.
    """

    key: str
    rest: Path
    item_llm: Path
    item_tokenizer: Path
    user_llm: Path

    def metadata(self, kind: str) -> dict[str, str]:
        """Words beside the weights.

        Args:
            kind: of the model that it must be of.

        Raises:
            ModelError: it is damaged, or of another kind.
        """
        return self._read(kind, weights=False)[1]

    def weights(self, kind: str) -> dict[str, Tensor]:
        """Those beside the language models'; arguments and errors as of ``metadata``."""
        return self._read(kind, weights=True)[0]

    def _read(self, kind: str, weights: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
        try:
            with safe_open(self.rest, framework="pt") as saved:
                metadata = saved.metadata() or {}
                found = {name: saved.get_tensor(name) for name in saved.keys()} if weights else {}
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{self.key}: {self.rest} is damaged: {error}") from error
        if (theirs := metadata.get("kind", kind)) != kind:
            raise ModelError(f"{self.key}: {self.rest.parent} is an export of {theirs}, not of {kind}")
        return found, metadata


def exported(folder: Path, key: str, earlier: str, llms: tuple[str, str]) -> Exported | None:
    """The places in a folder; None where there is nothing that a training could start from.

    Args:
        key: that names it, for errors.
        earlier: the file of the rest in an export of an earlier version.
        llms: folders of its two language models.
    """
    if (folder / TRAINING).is_file():
        encoder = folder / ITEM_ENCODER
        return Exported(key, folder / TRAINING, encoder, encoder / OWN_TOKENIZER, folder / USER_LLM)
    if (folder / earlier).is_file():
        of_items, of_users = (folder / name for name in llms)
        return Exported(key, folder / earlier, of_items, of_items, of_users)
    return None
