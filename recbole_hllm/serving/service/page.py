"""The page to try the service: one HTML file with its style and script inside, which asks this service alone."""

import base64
import hashlib
from functools import cache
from importlib.resources import files


def _part(name: str) -> str:
    return files("recbole_hllm.serving.service").joinpath(name).read_text("utf-8")


def style() -> str:
    """Of all pages of the service."""
    return _part("page.css")


@cache
def html() -> str:
    """The page."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">',
            f"<title>Try the recommender</title>\n<style>\n{style()}</style>\n</head>\n<body>",
            _part("page.html"),
            f"<script>{_part('page.js')}</script>\n</body>\n</html>\n",
        ]
    )


@cache
def headers() -> dict[str, str]:
    """Of pages: their own script alone may run, and only this service may be asked or show them in a frame."""
    script = base64.b64encode(hashlib.sha256(_part("page.js").encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    return {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}
