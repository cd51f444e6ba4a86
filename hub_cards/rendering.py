"""Templates, and how names and numbers of others are put into their Markdown."""

import json
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .evaluations import is_number
from .licences import is_on_hub


TEMPLATES = Path(__file__).parent / "templates"
NOT_RECORDED = "not recorded"
MISSING = "missing"


def render(template: str, **values) -> str:
    """Fills a template of `templates/`. A name that the template uses and `values` lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"python": python, "code": code, "setting": setting}
    environment.filters |= {"count": count, "figure": figure, "repository": repository}
    text = environment.get_template(template).render(**values)
    # Blocks that have nothing to say leave blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def python(text: str) -> str:
    """A text as a literal of Python."""
    return json.dumps(text, ensure_ascii=False)


def code(value) -> str:
    """Any value as a code span, on one line and fit for a table's cell: nothing in it is read as Markdown or HTML."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(letter if letter.isprintable() else " " for letter in text).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    # A span can neither be empty nor begin or end with the letter of its fence.
    space = " " if not text.strip() or "`" in (text[0], text[-1]) else ""
    return f"{fence}{space}{text}{space}{fence}"


def setting(settings: dict, name: str) -> str:
    """A value of a record, or that it is not recorded."""
    if name not in settings:
        return NOT_RECORDED
    value = settings[name]
    if value is None or isinstance(value, bool):
        return {None: "none", False: "no", True: "yes"}[value]
    if isinstance(value, list):
        return ", ".join(code(entry) if isinstance(entry, str) else json.dumps(entry) for entry in value) or "none"
    return code(value) if isinstance(value, (str, dict)) else str(value)


def count(value) -> str:
    """A whole number with thousands, or that it is missing."""
    return f"{value:,}" if is_number(value) else MISSING


def figure(value) -> str:
    """A figure in percent, or that it is missing."""
    return f"{value:.2f}" if is_number(value) else MISSING


def repository(name: str | None, kind: str = "") -> str:
    """A model, or with `"datasets/"` a data set, linked if it is on the Hub; or that it is not recorded."""
    if name is None:
        return NOT_RECORDED
    return f"[{name}](https://huggingface.co/{kind}{name})" if is_on_hub(name) else code(name)
