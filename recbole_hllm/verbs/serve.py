"""Serves an export over HTTP: recommendations, new items, metrics, and a page to try it.

usage: recbole-hllm serve FOLDER [--port N] [--journal FOLDER] [--token-file FILE] [--index NAME] [limits]

  FOLDER                    of an export, or a link to it, which may lead to another one later
  --host 127.0.0.1          where it listens; 0.0.0.0 for other machines, with a token
  --port 8000
  --journal FOLDER          items are added and removed, and kept in this folder; without it the catalogue stays
  --token-file FILE         whose first line clients must send as 'Authorization: Bearer TOKEN'; so does the value of
                            the environment variable RECBOLE_HLLM_TOKEN
  --index exact             what finds the best items: exact, flat, ivf or hnsw
  --device cpu, --precision float32   of the user model

  --max-history 1000        ids of a history; --max-texts 50 beside them, of --max-text 4000 characters
  --max-k 500               items that are wanted; --max-ids 10000 in exclude and in among
  --max-items 100           items added at once
  --max-body 1000000        bytes of a request
  --queue 256               requests that wait; one more is answered 503
  --batch 32                requests that are scored together

SIGHUP and POST /reload load the export that is in FOLDER then, and serve it when it is whole. http://127.0.0.1:8000 is
the page, /docs says what may be asked.
"""

import logging
import os
from dataclasses import fields
from pathlib import Path

from recbole_hllm.errors import ConfigError, MissingExtra
from recbole_hllm.verbs.options import read_options

_USAGE = "serve FOLDER [--port=8000] [--journal=FOLDER]"
_TOKEN = "RECBOLE_HLLM_TOKEN"
_SHORTEST_TOKEN = 16
_LAST_PORT = 65535


def main(words: list[str]) -> int:
    """Serves until a signal ends it."""
    try:
        from recbole_hllm.serving.service.server import is_loopback, run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("recbole_hllm"):
            raise
        raise MissingExtra(str(error.name), "serve", "serve") from error
    from recbole_hllm.serving.service.limits import Limits
    from recbole_hllm.serving.service.service import Service

    bounds = {bound.name.replace("_", "-"): getattr(Limits, bound.name) for bound in fields(Limits)}
    own = {"host": "127.0.0.1", "port": 8000, "journal": str, "token-file": str}
    of_recommender = {"index": "exact", "device": "cpu", "precision": "float32"}
    (folder,), given = read_options(words, _USAGE, 1, {**own, **of_recommender, **bounds})
    limits = Limits(**{name.replace("-", "_"): given[name] for name in bounds})
    host, port = given["host"], given["port"]
    if not 1 <= port <= _LAST_PORT:
        raise ConfigError(f"serve: --port={port} is none of 1 to {_LAST_PORT}")
    token = _token(given["token-file"])
    if token is None and not is_loopback(host):
        logging.getLogger().warning(f"serve: {host} is open to other machines, and there is no token (--token-file)")
    service = Service(folder, given["journal"], limits, **{name: given[name] for name in of_recommender})
    run(service, host, port, token)
    return 0


def _token(file: str | None) -> str | None:
    """What clients must send.

    Raises:
        ConfigError: the file cannot be read, or the token is too short to be one.
    """
    if file is None:
        token = os.environ.get(_TOKEN)
        if token is None:
            return None
        place = _TOKEN
    else:
        place = f"--token-file={file}"
        try:
            token = Path(file).expanduser().read_text(encoding="utf-8").partition("\n")[0]
        except (OSError, ValueError) as error:
            raise ConfigError(f"serve: {place} cannot be read: {error}") from error
    token = token.strip()
    if len(token) < _SHORTEST_TOKEN or not (token.isascii() and token.isprintable()):
        raise ConfigError(f"serve: {place}: a token has at least {_SHORTEST_TOKEN} letters, digits and signs of ASCII")
    return token
