"""What users run. Each function is sent to another process as text."""


def publish(arguments, token=None, probes=True, patience=100):
    """`m2c publish ARGUMENTS`: how it ends, and all that it says. Without `probes` no model is loaded, which takes seconds."""
    import importlib
    import os

    from typer.testing import CliRunner

    from m2c.cli import app

    publishing, hub = (importlib.import_module(f"hub_cards.publishing.{name}") for name in ("publication", "hub"))
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

    from hub_cards.publishing.hub import Destination, differing_files

    return differing_files(Path(folder), Destination(repo_id, "model"), revision)


def write_process_id(path):
    import os
    from pathlib import Path

    Path(path).write_text(str(os.getpid()))


def run_card(repo_id, repo_type="model"):
    """Runs all Python in a card, each block after the other. Returns the first one, what it printed, and what all computed."""
    import contextlib
    import io
    import re
    from pathlib import Path

    from huggingface_hub import hf_hub_download

    card = Path(hf_hub_download(repo_id, "README.md", repo_type=repo_type)).read_text(encoding="utf-8")
    blocks = re.findall("^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    names, printed = {}, []
    for code in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(code, "card", "exec"), names)
        printed.append(output.getvalue().strip())
    values = {name: names[name].tolist() for name in ("query", "gallery", "similarities") if name in names}
    return {"code": blocks[0], "printed": printed[0], "values": values, "answers": names.get("answers")}


def embed_at(repo_id, revision):
    """Of an adapter, whose base has revisions of its own, as its card says."""
    from PIL import Image
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(repo_id, adapter_kwargs={"revision": revision}, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(repo_id, revision=revision, trust_remote_code=True)
    images = [Image.new("RGB", (50, 40), color) for color in ("red", "blue")]
    inputs = processor(images=images, text=["is big", ""], return_tensors="pt")
    return model.get_composed_features(**inputs).pooler_output.tolist()


def read_triplets(repo_id):
    """Of every row the text and all pixels."""
    from datasets import load_dataset

    rows = load_dataset(repo_id, split="train")
    columns = ("reference", "target")
    return [{**row, **{name: row[name].convert("RGB").tobytes().hex() for name in columns}} for row in rows]
