"""Where the property files are: ours, inside an installed package or beside it in a clone, and RecBole's."""

from importlib.util import find_spec
from pathlib import Path

from recbole_hllm.errors import ConfigError


def properties_folder() -> Path:
    """The folder that holds ``overall.yaml``, ``model/``, ``dataset/`` and ``benchmark/``.

    The repository keeps it at its top; the wheel carries it as ``recbole_hllm/properties``. An editable
    install imports the package from the clone, so it finds the clone's files.

    Raises:
        ConfigError: in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package / "properties", package.parent / "properties")
    for folder in places:
        if (folder / "overall.yaml").is_file():
            return folder
    raise ConfigError(
        f"overall.yaml is in neither {places[0]} nor {places[1]}: the installation is incomplete, "
        "install recbole-hllm again"
    )


def recbole_folder() -> Path:
    """Where RecBole is installed; nothing of it is imported to find out."""
    spec = find_spec("recbole")
    assert spec is not None and spec.origin is not None, "an installed requirement, a package with a file"
    return Path(spec.origin).parent
