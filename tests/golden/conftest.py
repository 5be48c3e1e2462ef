"""Numbers of the official HLLM code on tiny invented data; HLLM_GOLDENS names another such folder."""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

DEFAULT_ROOT = Path(__file__).parent / "data" / "hllm"


class Goldens:
    """The reference's files. `kinds`: the item language models they were made with (llama, bert)."""

    def __init__(self, root: Path):
        self.root = root
        self.settings = json.loads((root / "settings.json").read_text(encoding="utf-8"))
        self.splits = json.loads((root / "splits.json").read_text(encoding="utf-8"))
        self.kinds = [kind for kind in ("llama", "bert") if (root / kind).is_dir()]
        self.npz, self.json = cache(self._npz), cache(self._json)

    def setting(self, name, default):
        """A setting, or the default where the files leave it null or out."""
        value = self.settings.get(name)
        return default if value is None else value

    def _npz(self, kind: str, name: str) -> dict[str, np.ndarray]:
        with np.load(self.root / kind / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    def _json(self, kind: str, name: str):
        return json.loads((self.root / kind / f"{name}.json").read_text(encoding="utf-8"))


@cache
def load_goldens() -> Goldens:
    root = Path(os.environ.get("HLLM_GOLDENS") or DEFAULT_ROOT)
    return Goldens(root if (root / "settings.json").is_file() else root / "hllm")


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    return load_goldens()


@pytest.fixture(scope="session", params=load_goldens().kinds)
def kind(request) -> str:
    """A test with an argument `kind` runs once for every item language model there are numbers of."""
    return request.param
