"""The page of the interface: what OpenAPI's schema says, for readers, with nothing loaded from elsewhere."""

from collections.abc import Mapping
from html import escape
from typing import Any

from recbole_hllm.serving.service.page import style


def reference(schema: Mapping[str, Any]) -> str:
    """The page of a schema."""
    operations = [
        _operation(method, path, operation, schema)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    title = f"{schema['info']['title']} {schema['info']['version']}"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>\n<style>\n{style()}</style>\n</head>\n<body>",
            f"<h1>{escape(title)}</h1>\n<p>{_code(schema['info']['description'])}</p>",
            '<p><a href="openapi.json">openapi.json</a> is the same for programs; <a href="./">try it</a>.</p>',
            f'<main class="reference">\n{"".join(operations)}</main>\n</body>\n</html>\n',
        ]
    )


def _operation(method: str, path: str, operation: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    body = content.get("application/json", {}).get("schema")
    parameters = [(one["name"], one["schema"], one.get("description", "")) for one in operation.get("parameters", ())]
    errors = [
        f"<tr><th>{escape(status)}</th><td>{escape(answer['description'])}</td></tr>"
        for status, answer in operation["responses"].items()
        if status != "200"
    ]
    return (
        f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>\n"
        f"<p>{_code(operation.get('description', ''))}</p>\n"
        + _table("In the address", parameters, schema)
        + _table("Body", _fields(body or {}, schema), schema)
        + f'<h3>Errors</h3>\n<div class="scroll"><table>{"".join(errors)}</table></div>\n'
    )


def _fields(body: Mapping[str, Any], schema: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str]]:
    of_body = _resolved(body, schema)
    return [(name, one, one.get("description", "")) for name, one in of_body.get("properties", {}).items()]


def _table(heading: str, rows: list[tuple[str, Mapping[str, Any], str]], schema: Mapping[str, Any]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f"<tr><th><code>{escape(name)}</code></th><td>{escape(_kind(one, schema))}</td><td>{_code(about)}</td></tr>"
        for name, one, about in rows
    )
    return f'<h3>{heading}</h3>\n<div class="scroll"><table>{cells}</table></div>\n'


def _kind(one: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A type in words."""
    one = _resolved(one, schema)
    if "anyOf" in one:
        return " or ".join(_kind(part, schema) for part in one["anyOf"])
    if one.get("type") == "array":
        return f"list of {_kind(one['items'], schema)}"
    return str(one.get("type", "anything"))


def _resolved(one: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in one:
        return one
    found: Mapping[str, Any] = schema["components"]["schemas"][one["$ref"].rpartition("/")[2]]
    return found


def _code(text: str) -> str:
    """Escaped, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
