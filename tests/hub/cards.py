"""The metadata at the head of a README, and what the Hub refuses in it."""

import re

import yaml


FRONT_MATTER = re.compile(r"\A\s*---[\n\r]+(.*?)[\n\r]+---\s*(?:[\n\r]|\Z)", re.DOTALL)

LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0
    artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0
    cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0
    epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research
    intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1
    ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2
    llama3.3 llama4 grok2-community gemma unknown other
    """.split()
)
SPACE_COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
SPACE_SDKS = ("gradio", "docker", "static")


def metadata(readme: str) -> dict:
    """The YAML block at the head of a README, empty if there is none. Raises `ValueError` if it is no mapping."""
    found = FRONT_MATTER.match(readme)
    try:
        content = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        raise ValueError(f"YAML metadata cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError("YAML metadata must be a mapping")
    return content


def validate(readme: str, repo_type: str) -> tuple[list[str], list[str]]:
    """Errors, which keep the README from being published, and warnings."""
    try:
        content = metadata(readme)
    except ValueError as error:
        return [str(error)], []
    if not content:
        return [], ["empty or missing yaml metadata in repo card"]
    licenses = content.get("license", [])
    allowed = [("license", name, LICENSES) for name in (licenses if isinstance(licenses, list) else [licenses])]
    if repo_type == "space":
        allowed += [(key, content.get(key, SPACE_COLORS[0]), SPACE_COLORS) for key in ("colorFrom", "colorTo")]
        allowed += [("sdk", content.get("sdk"), SPACE_SDKS)]
    return [f'"{key}" must be one of [{", ".join(sorted(names))}]' for key, value, names in allowed if value not in names], []
