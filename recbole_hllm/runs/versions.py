"""What made a run, and when: versions of the program and its libraries, and the time of its end."""

import platform
from datetime import datetime, timezone
from importlib.metadata import version

import recbole_hllm

# Those that numbers depend on.
_LIBRARIES = ("recbole", "torch", "transformers", "numpy")


def versions() -> dict[str, str]:
    """Versions by name, Python's too, and ``finished``, the time in UTC as ISO 8601 writes it."""
    return {
        "recbole_hllm": recbole_hllm.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
