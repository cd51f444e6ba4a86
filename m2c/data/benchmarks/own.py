"""Anyone's own benchmark, in a folder that can be made by hand, or written from another benchmark.

    my_benchmark/
        gallery/metadata.jsonl   {"file_name": "shoes/1.jpg", "id": "shoe-1"}, relative to gallery/
        gallery/shoes/1.jpg      ...
        queries.jsonl            {"id": "1", "reference_id": "shoe-1", "captions": ["in red"], "target_id": "shoe-2"}
        benchmark.json           optional: {"name": ..., "split": ..., "category": ..., ...}

Instead of the folder `gallery/` there may be a `gallery.parquet` with the columns `id` and `image`, and instead of
`queries.jsonl` a `queries.parquet`. A query may have `modification`, a single text, instead of `captions`, and may have
`subset_ids`, `answer_ids`, `aspects` and `shared_concept`; `target_id` is `null` where it is secret.
"""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image
from tqdm.auto import tqdm

from m2c.data.image_folder import write_image_folder
from m2c.data.loading import read_image, undecoded
from m2c.output_folder import new_folder

from .build import check_queries
from .files import PLAIN_NAME, check_choice, check_item, read_json
from .form import GALLERY_FEATURES, QUERY_FEATURES, TEXT, Benchmark, make_query


FORMATS = ("imagefolder", "parquet")
IMAGES = Features({"id": TEXT, "image": Image()})
# The names become parts of file names.
ABOUT = {
    "name": PLAIN_NAME,
    "split": PLAIN_NAME,
    "category": f"{PLAIN_NAME} or null",
    "variant": f"{PLAIN_NAME} or null",
    "left_out": "mapping of texts to whole numbers",
}
LISTS = ("subset_ids", "answer_ids", "aspects")
ROW_GROUP = 100


def write_benchmark(benchmark: Benchmark, directory: str | Path, format: str = "imagefolder") -> Path:
    """Writes a benchmark in the documented form of this module, for [`load_own`] and for `datasets`.

    An image's own bytes are kept; where it has a box, the part that counts is written as PNG, and there is no box any more.

    Args:
        benchmark: all its image files must be there.
        directory: a new or empty folder.
        format: `"imagefolder"` (`gallery/` and `queries.jsonl`) or `"parquet"` (two files, images included).

    Raises:
        FileExistsError: if the directory exists and is not empty. Nothing in it is touched.
        ValueError: if there is no such format, or an image with a box cannot be read or cut to it.
        OSError: if an image file is not there or not an image. As with any error, the directory stays as it was.
    """
    check_choice("format", format, FORMATS)
    directory = Path(directory)
    with new_folder(directory) as folder:
        about = {key: getattr(benchmark, key) for key in ABOUT}
        (folder / "benchmark.json").write_text(json.dumps(about, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        if format == "parquet":
            _write_parquet(_cut(benchmark), folder / "gallery.parquet")
            pq.write_table(benchmark.queries.with_format("arrow")[:], folder / "queries.parquet")
        else:
            write_image_folder(_cut(benchmark), folder / "gallery")
            lines = [json.dumps(query, ensure_ascii=False) + "\n" for query in benchmark.queries]
            (folder / "queries.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    return directory


def _cut(benchmark: Benchmark) -> Dataset:
    """The gallery as `id` and `image`, where an image is its bytes, cut to its box, when a row is read."""

    def cut(batch: dict[str, list]) -> dict[str, list]:
        rows = [dict(zip(batch, values)) for values in zip(*batch.values())]
        return {"id": batch["id"], "image": [_image_bytes(row, benchmark) for row in rows]}

    return undecoded(benchmark.gallery, {"image"}).with_transform(cut)


def _image_bytes(row: dict, benchmark: Benchmark) -> dict:
    if row["box"]:
        buffer = io.BytesIO()
        benchmark.cut(read_image(row, "image", row["id"]), row["id"], row["box"]).save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}
    image = row["image"]
    if image["bytes"] is not None:
        return image
    return {"bytes": Path(image["path"]).read_bytes(), "path": Path(image["path"]).name}


def _write_parquet(gallery: Dataset, path: Path):
    """In small row groups, so that a gallery larger than memory can be written and read."""
    with pq.ParquetWriter(path, IMAGES.arrow_schema) as writer:
        for start in tqdm(range(0, len(gallery), ROW_GROUP), desc=f"writing {path.name}"):
            writer.write_table(pa.Table.from_pydict(gallery[start : start + ROW_GROUP], IMAGES.arrow_schema))


def load_own(root: str | Path) -> Benchmark:
    """A benchmark in the documented form of this module. Whether images of a `gallery/` folder are there is not checked.

    Args:
        root: the folder. Without `benchmark.json`, the benchmark is called as the folder, and its split `"val"`.

    Raises:
        ValueError: if something is not there, incomplete, or not of the form; an id is not in the gallery, or there twice; the
            target is the reference, not among the answers, or not in the subset; a name cannot be part of a file name. The
            message names file, line (or row) and key.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"the root {root} is not a folder")
    gallery, (queries, places) = _read_gallery(root), _read_queries(root)
    check_queries(queries, gallery["id"], places)
    about = {"name": root.resolve().name, "split": "val", **_read_about(root / "benchmark.json")}
    return Benchmark(gallery=gallery, queries=Dataset.from_list(queries, features=QUERY_FEATURES), **about)


def _read_about(path: Path) -> dict:
    if not path.exists():
        return {}
    about = read_json(path, "object")
    check_item(about, {key: kind for key, kind in ABOUT.items() if key in about}, str(path))
    return {key: about[key] for key in ABOUT if key in about}


def _read_gallery(root: Path) -> Dataset:
    path = _first(root, "gallery/metadata.jsonl", "gallery.parquet")
    if path.suffix == ".jsonl":
        rows, places = _read_rows(path)
        for row, place in zip(rows, places):
            check_item(row, {"file_name": "text", "id": "text"}, place)
        images = [str(path.parent / row["file_name"]) for row in rows]
        columns = {"id": [row["id"] for row in rows], "image": images, "box": [[]] * len(rows)}
        gallery = Dataset.from_dict(columns, features=GALLERY_FEATURES)
    else:
        columns = _parquet(path).schema_arrow.names
        if not set(IMAGES) <= set(columns):
            raise ValueError(f"{path} must have the columns {' and '.join(IMAGES)}; it has {', '.join(columns)}")
        gallery = Dataset.from_parquet(str(path), columns=list(IMAGES), features=IMAGES)
        gallery = gallery.add_column("box", [[]] * len(gallery), feature=GALLERY_FEATURES["box"])
        places = _rows_of(path, len(gallery))
    seen = {}
    for name, place in zip(gallery["id"], places):
        if name in seen:
            raise ValueError(f"{place}: the image id {name!r} is also that of {seen[name]}")
        seen[name] = place
    return gallery


def _read_queries(root: Path) -> tuple[list[dict], list[str]]:
    path = _first(root, "queries.jsonl", "queries.parquet")
    if path.suffix == ".jsonl":
        rows, places = _read_rows(path)
    else:
        rows = _parquet(path).read().to_pylist()
        places = _rows_of(path, len(rows))
    if not rows:
        raise ValueError(f"{path} has no queries")
    return [_query(row, place) for row, place in zip(rows, places)], places


def _query(row: dict, place: str) -> dict:
    """A row of `QUERY_FEATURES` from a row that a user wrote."""
    if isinstance(row, dict) and "modification" in row:
        if row.get("captions"):
            raise ValueError(f"{place} has both 'captions' and 'modification'; one of them is enough")
        check_item(row, {"modification": "text"}, place)
        row = {**{key: value for key, value in row.items() if key != "modification"}, "captions": [row["modification"]]}
    check_item(row, {"id": "text", "reference_id": "text", "captions": "list of texts", "target_id": "text or null"}, place)
    optional = {**dict.fromkeys(LISTS, "list of texts"), "shared_concept": "text or null"}
    given = {key: value for key, value in row.items() if key not in LISTS or value is not None}
    check_item(given, {key: kind for key, kind in optional.items() if key in given}, place)
    unknown = sorted(set(given) - set(QUERY_FEATURES))
    if unknown:
        raise ValueError(f"{place} has {unknown[0]!r}, which is none of {', '.join(QUERY_FEATURES)}, modification")
    query = make_query(**given)
    if query["target_id"] == query["reference_id"]:
        # The reference is left out of its query's ranking, so the target would never be found.
        raise ValueError(f"{place}: {query['target_id']!r} is both 'reference_id' and 'target_id'")
    for key in ("answer_ids", "subset_ids"):
        if query["target_id"] is not None and query[key] and query["target_id"] not in query[key]:
            raise ValueError(f"{place}: the target {query['target_id']!r} is not among its {key!r}")
    return query


def _first(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_file():
            return root / name
    raise ValueError(f"a benchmark of one's own has {' or '.join(names)}; there is neither in {root}")


def _read_rows(path: Path) -> tuple[list, list[str]]:
    """The values of a JSON-lines file, and how messages call them. Blank lines are skipped."""
    rows, places = [], []
    # Bytes, so that text that is no UTF-8 is an error of its line.
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                places.append(f"line {number} of {path}")
                try:
                    rows.append(json.loads(line))
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{places[-1]} is no complete JSON ({error})") from error
    return rows, places


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no complete parquet file ({error})") from error


def _rows_of(path: Path, size: int) -> list[str]:
    return [f"row {index} of {path}" for index in range(size)]
