"""What must not be sent is found in files of any content, by the file's name; what training leaves passes."""

import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_cards.publishing import checks
from hub_cards.publishing.checks import find_problems, refuse_problems
from hub_cards.publishing.staging import stage_model


TOKEN = f"hf_{'aB3' * 11}x"
PATH, PATH_IN = "/home/ana/runs/first", "names a path of one machine in"
ESCAPED = {"token": r"hf\u005f" + TOKEN[3:], "path": r"\/home\u002fana\/runs"}


def with_header(metadata: str) -> bytes:
    """A safetensors file without tensors. Its first bytes, the length of its header, look like those of a pickle."""
    header = f'{{"__metadata__": {metadata}}}'.encode().ljust(0x280)
    return len(header).to_bytes(8, "little") + header


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nA model of `you/base`.\n")
    (tmp_path / "config.json").write_text('{"model_type": "m2c"}')
    (tmp_path / "model.safetensors").write_bytes(with_header('{"format": "pt"}'))
    assert (tmp_path / "model.safetensors").read_bytes().startswith(checks.PICKLE_STARTS)
    return tmp_path


def test_nothing_to_object(folder):
    assert not find_problems(folder, None)
    refuse_problems(folder, folder, None)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("old.pkl", b"", "is a pickle"),
        ("pytorch_model.bin", b"\x80\x02}q\x00.", "is a pickle"),
        ("weights", b"\x80\x05\x95", "is a pickle"),
        ("weights.dat", b"PK\x03\x04...", "is a pickle"),
        ("features.NPY", b"", "is a pickle"),
        ("notes.txt", b"caf\xe9", "is not UTF-8"),
        ("record.JSON", b"caf\xe9", "is not UTF-8"),
        ("rows.parquet", b"PAR1 and no more", "is no complete parquet file"),
        ("model.safetensors", b"\x80\x02\0\0\0\0\0\0{}", "is no complete safetensors file"),
        ("a.safetensors", with_header(f'{{"from": "{PATH}"}}'), "names a path of one machine in its metadata;"),
        ("a.safetensors", with_header(f'{{"by": "{ESCAPED["token"]}"}}'), "holds what looks like a token of the Hub;"),
        ("notes.md", f"my token: {TOKEN}".encode(), "holds what looks like a token of the Hub;"),
        (f"{TOKEN}.txt", b"", "holds what looks like a token of the Hub;"),
        ("evaluation/record.json", f'{{"token": "{ESCAPED["token"]}"}}'.encode(), "holds what looks like a token of the Hub;"),
        ("rows.arrow", b"\xff\0\0" + TOKEN.encode() + b"\0", "holds what looks like a token of the Hub;"),
        ("config.json", f'{{\n"model_type": "m2c",\n"from": "{PATH}"}}'.encode(), "names a path of one machine in line 3;"),
        ("config.json", f'{{"from": "{ESCAPED["path"]}"}}'.encode(), "names a path of one machine in line 1;"),
        ("config.json", rb'{"from": "C:\\Users\\ana\\runs"}', "names a path of one machine in line 1;"),
        ("training.yaml", f"from: {PATH}\n".encode() * 9, "names a path of one machine in line 1, 2, 3;"),
        ("notes.md", b"I began with ~/runs/first.", "names a path of one machine in line 1;"),
        ("modeling.py", f'WEIGHTS = "{PATH}"'.encode(), "names a path of one machine in line 1;"),
        ("settings.toml", f'[data]\nroot = "{PATH}"'.encode(), "names a path of one machine in line 2;"),
        ("train.sh", f"m2c train --output_dir {PATH}".encode(), "names a path of one machine in line 1;"),
        ("try.ipynb", f'{{"source": ["open(\'{PATH}/x\')"]}}'.encode(), "names a path of one machine in line 1;"),
        ("rows.csv", f'red.png,"a dress, from {PATH}"'.encode(), "names a path of one machine in line 1;"),
        ("metadata.jsonl", f'{{"caption": "a dress, from {PATH}"}}'.encode(), "names a path of one machine in line 1;"),
        ("notes.md", b"I began with /red/green.", "names a path of one machine in line 1;"),
        ("drawing.svg", f'<image href="{PATH}/x.png"/>'.encode(), "names a path of one machine in line 1;"),
        ("Makefile", f"run:\n\tm2c train --output_dir {PATH}".encode(), "names a path of one machine in line 2;"),
    ],
)
def test_what_must_not_be_sent(folder, name, content, problem):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    (found,) = find_problems(folder, "mit")
    assert found.startswith(f"{name.replace(TOKEN, '***')} {problem}")
    assert TOKEN not in found and "ana" not in found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", '{"model": {"vocab": {"/usr": 1, "/home/ana": 2}}}'),
        ("metadata.jsonl", '{"caption": "half \\ud83e and 24/7, w/ 1/2"}\n'),
        ("modeling.py", 'PARTS = re.split(r"(\\*|\\{text\\})/[a-z]+/x", text)  # see https://arxiv.org/abs/1\n'),
        ("notes.md", "See https://huggingface.co/you/base/blob/main/config.json, and ./runs/first.\n"),
        ("empty.txt", ""),
        ("metadata.jsonl", json.dumps({"caption": "men's w/ 3/4 sleeve /top", "modification": "a /b/c or \\alpha\\beta"})),
        ("rows.csv", 'red.png,"a /b/c"\nblue.png,see https://shop.example/home/ana/x\n'),
        ("rows.tsv", "red.png\ta /b/c\n"),
    ],
)
def test_what_may_be_sent(folder, name, content):
    (folder / name).write_text(content)
    assert not find_problems(folder, None)


COLUMNS = [
    ("text", lambda text: ["a cat", text], "text"),
    ("texts", lambda text: [["a cat"], ["a dog", text], None], "texts.list.element"),
    ("image", lambda text: [{"bytes": b"\x89PNG", "path": text}, None], "image.path"),
    ("deep", lambda text: [{"rows": [{"name": [text]}]}], "deep.rows.list.element.name.list.element"),
    ("blob", lambda text: [b"\x89PNG", text.encode()], "blob"),
]


@pytest.mark.parametrize(("column", "values", "name"), COLUMNS)
def test_texts_in_parquet_files_are_looked_at(folder, column, values, name):
    """Compressed, they are nowhere in the bytes of the file."""
    for text, problem in {
        f"my {TOKEN}": "holds what looks like a token of the Hub;",
        PATH: f"{PATH_IN} column {name};",
    }.items():
        write_parquet(folder / "a.PARQUET", pa.table({"number": list(range(len(values(text)))), column: values(text)}))
        assert text.encode() not in (folder / "a.PARQUET").read_bytes()
        (found,) = find_problems(folder, None)
        assert found.startswith(f"a.PARQUET {problem}") and text not in found


def test_what_is_about_a_parquet_file_is_looked_at(folder):
    for text, problem in {ESCAPED["token"]: "holds what looks", f'{{"from": "{PATH}"}}': f"{PATH_IN} its metadata;"}.items():
        text = text.encode().decode("unicode_escape")
        write_parquet(folder / "a.parquet", pa.table({"number": [1]}).replace_schema_metadata({"about": text}))
        (found,) = find_problems(folder, None)
        assert found.startswith(f"a.parquet {problem}")


def test_words_in_parquet_files_are_no_paths_and_names_of_files_are(folder):
    write_parquet(folder / "a.parquet", pa.table({"caption": ["a /b/c"], "image": [{"bytes": b"", "path": "b/c"}]}))
    assert not find_problems(folder, None)
    write_parquet(folder / "a.parquet", pa.table({"image": [{"bytes": b"", "path": "/b/c.png"}], "file_name": ["/b/c.png"]}))
    assert find_problems(folder, None) == [f"a.parquet {PATH_IN} column file_name, column image.path; {checks.REMEDY}"]


def write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="gzip", write_statistics=False)


@pytest.mark.parametrize("suffix", [".PNG", ".avif", ".heic", ".svg", ".jfif"])
def test_pictures_need_a_licence_of_their_own(folder, suffix):
    """The card's is that of the CLIP underneath."""
    for name in ("learning_curves.png", f"retrieval{suffix}"):
        (folder / name).write_bytes(b"\xff\xd8")
    assert not find_problems(folder, "cc-by-4.0")
    (found,) = find_problems(folder, None)
    start = f"retrieval{suffix}, one of 1 pictures, has no licence of its own; name theirs with --pictures-licence"
    assert found.startswith(start)


def test_every_problem_on_a_line_of_its_own(folder):
    (folder / "old.bin").write_bytes(b"\x80\x02pickle")
    (folder / "extra.json").write_text(json.dumps({"data": PATH}))
    with pytest.raises(ValueError) as raised:
        refuse_problems(folder, "my-model", None)
    first, *problems = str(raised.value).splitlines()
    assert first == "my-model must not be published as it is:"
    assert [line.split()[:2] for line in problems] == [["-", "extra.json"], ["-", "old.bin"]]


NAME = st.text(st.characters(categories=("L", "N")), min_size=2, max_size=8)
PATHS = st.lists(NAME, min_size=1, max_size=5).map(lambda parts: "/".join(["/home", *parts]))
FORMS = {
    "a.json": lambda text, other: json.dumps({other: [text, {"key": other}]}, indent=1),
    "b.json": lambda text, other: json.dumps([other, text], ensure_ascii=False).encode("utf-8", "replace").decode(),
    "c.jsonl": lambda text, other: "\n".join(json.dumps({"caption": entry}) for entry in (other, text, other)),
    "d.json": lambda text, other: json.dumps({text: other}),
    "e.py": lambda text, other: f"NAMES = [{json.dumps(other)}, {json.dumps(text)}]\n",
    "f.yaml": lambda text, other: f"key: {text}\nother: {json.dumps(other)}\n",
}


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=50)
@given(path=PATHS, other=st.text())
def test_secrets_and_paths_among_any_other_text(name, path, other):
    with tempfile.TemporaryDirectory() as folder:
        for text, problem in ((path, "names a path"), (TOKEN, "holds what looks like a token")):
            Path(folder, name).write_text(FORMS[name](text, other), encoding="utf-8", newline="")
            found = "\n".join(find_problems(Path(folder), None))
            assert problem in found and text not in found


@given(content=st.binary(max_size=200), suffix=st.sampled_from(sorted(checks.TEXTS | checks.DATA | {""})))
def test_any_content_can_be_looked_at(content, suffix):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"file{suffix}").write_bytes(content)
        assert all(line.startswith("file") and "\n" not in line for line in find_problems(Path(folder), None))


@pytest.mark.parametrize("kind", ["base", "full", "merged", "converted"])
def test_what_training_leaves_passes(folders, kind, tmp_path):
    stage_model(folders[kind], tmp_path, "you/model")
    assert not find_problems(tmp_path, None)
    # As it lies there it need not: an adapter alone names the folder of its base.
    assert any("adapter_config.json names a path" in line for line in find_problems(folders["adapter"], None))
