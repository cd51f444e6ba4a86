"""What users run. Each function is sent to another process as text."""


def publish(arguments, token=None, probes=True, patience=100):
    """`m2c publish ARGUMENTS`: how it ends, and all that it says. Without `probes` no model is loaded, which takes seconds."""
    import importlib
    import os

    from typer.testing import CliRunner

    from m2c.cli import app

    publishing, hub = (importlib.import_module(f"hub_cards.publishing.{name}") for name in ("publish", "hub"))
    before = os.environ["HF_TOKEN"], publishing.probe, hub.PATIENCE
    os.environ["HF_TOKEN"] = before[0] if token is None else token
    publishing.probe = before[1] if probes else lambda *_: {}
    hub.PATIENCE = patience
    try:
        result = CliRunner().invoke(app, ["publish", *arguments])
    finally:
        os.environ["HF_TOKEN"], publishing.probe, hub.PATIENCE = before
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return {"code": result.exit_code, "said": result.output}


def compare(folder, repo_id, revision):
    from pathlib import Path

    from hub_cards.publishing.hub import differing_files

    return differing_files(Path(folder), repo_id, "model", revision)


def write_process_id(path):
    import os
    from pathlib import Path

    Path(path).write_text(str(os.getpid()))


def run_card(repo_id, repo_type="model"):
    """Runs the first lines of Python in a card. Returns them, what they printed, and the features that they computed."""
    import contextlib
    import io
    import re
    from pathlib import Path

    from huggingface_hub import hf_hub_download

    card = Path(hf_hub_download(repo_id, "README.md", repo_type=repo_type)).read_text(encoding="utf-8")
    code = re.search("^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)[1]
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "card", "exec"), names)
    features = {name: names[name].tolist() for name in ("query", "gallery") if name in names}
    return {"code": code, "printed": printed.getvalue().strip(), "features": features}


def retrieve(repo_id):
    """What the pipeline and `SentenceTransformer` make of the same query and gallery."""
    from PIL import Image
    from sentence_transformers import SentenceTransformer
    from transformers import pipeline

    pictures = [Image.new("RGB", (50, 40), color) for color in ("red", "green", "blue")]
    query = {"image": pictures[0], "text": "is big"}
    answers = pipeline("composed-image-retrieval", model=repo_id, trust_remote_code=True)(query, gallery=pictures)
    encoder = SentenceTransformer(repo_id, trust_remote_code=True)
    similarities = encoder.similarity(encoder.encode([query]), encoder.encode(pictures))[0]
    return {
        "pipeline": {str(answer["index"]): answer["score"] for answer in answers},
        "sentence-transformers": {str(index): score for index, score in enumerate(similarities.tolist())},
    }


def read_triplets(repo_id):
    """Of every row the text and all pixels."""
    from datasets import load_dataset

    rows = load_dataset(repo_id, split="train")
    columns = ("reference", "target")
    return [{**row, **{name: row[name].convert("RGB").tobytes().hex() for name in columns}} for row in rows]
