"""Stored features are those of the model, and nothing is encoded twice."""

import shutil

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import normalize

from m2c.checkpoints import load_model, load_processor
from m2c.data.benchmarks import QUERY_FEATURES, make_query
from m2c.data.benchmarks.scenes import load_scenes
from m2c.encoding import Extractor, extraction
from m2c.evaluation.evaluate import evaluate
from processing_m2c import M2CProcessor


TEXTS = ["in red", "", "a * on $5 🐱", "with two stars and no moon at the top"]


@pytest.fixture
def benchmark(make_benchmark):
    references = "bdba"
    return make_benchmark("abcdef", [make_query(str(n), name, [TEXTS[n]], "f") for n, name in enumerate(references)])


@pytest.fixture
def make_extractor(tmp_path):
    def make(
        name: str, dtype: torch.dtype = torch.float32, cache: str = "cache", batch_size: int = 64, **arguments
    ) -> Extractor:
        model = load_model(name).eval().to(dtype)
        return Extractor(model, load_processor(name, **arguments), tmp_path / cache, batch_size)

    return make


@torch.no_grad()
def one_by_one(name: str, benchmark, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The gallery and the composed queries, as a user of the model would encode them."""
    model, own = load_model(name).eval(), load_processor(name)
    processor = M2CProcessor(own.image_processor, own.tokenizer, composing_template=prompt)
    pictures = {row["id"]: row["image"] for row in benchmark.gallery}
    gallery = [model.get_image_features(**processor(images=p, return_tensors="pt")).pooler_output for p in pictures.values()]
    queries = [
        model.get_composed_features(
            **processor(images=pictures[query["reference_id"]], text=query["captions"], return_tensors="pt")
        ).pooler_output
        for query in benchmark.queries
    ]
    return torch.cat(gallery), normalize(torch.cat(queries), dim=-1)


@pytest.mark.parametrize("name", ["injecting", "mapping", "adapted"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_features_are_those_of_the_model(request, make_extractor, benchmark, name, batch_size):
    name, prompt = request.getfixturevalue(name), "a photo of * , {text}"
    expected_gallery, expected_queries = one_by_one(name, benchmark, prompt)
    extractor = make_extractor(name, batch_size=batch_size)
    for _ in ("computed", "stored"):
        torch.testing.assert_close(extractor.queries(benchmark, [TEXTS], prompt), expected_queries, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(extractor.gallery(benchmark), expected_gallery, atol=1e-5, rtol=1e-4)
        extractor = make_extractor(name, batch_size=batch_size)
    assert (expected_queries[0] - expected_queries[2]).abs().max() > 1e-3


def test_reference_and_text_both_matter(make_extractor, benchmark, injecting):
    extractor = make_extractor(injecting)
    same_text = extractor.queries(benchmark, [["in red"] * 4], "a photo of * that {text}")
    assert torch.equal(same_text[0], same_text[2]), "of the same reference"
    assert (same_text[0] - same_text[1]).abs().max() > 1e-3
    assert (same_text[0] - extractor.queries(benchmark, [TEXTS], "a photo of * that {text}")[2]).abs().max() > 1e-3


def test_versions_are_averaged_as_unit_features(make_extractor, benchmark, injecting):
    extractor, prompt, other = make_extractor(injecting), "a photo of * , {text}", ["without the moon"] * 4
    first, second = extractor.queries(benchmark, [TEXTS], prompt), extractor.queries(benchmark, [other], prompt)
    both = extractor.queries(benchmark, [TEXTS, other], prompt)
    torch.testing.assert_close(both, normalize(first + second, dim=-1))
    plain = [extractor.texts([TEXTS]), extractor.texts([other])]
    torch.testing.assert_close(extractor.texts([TEXTS, other]), normalize(plain[0] + plain[1], dim=-1))


@torch.no_grad()
def test_texts_and_reference_images_are_those_of_clip(make_extractor, benchmark, injecting):
    model, processor = load_model("scenes").eval(), load_processor("scenes")
    texts = [model.get_text_features(**processor(text=text, return_tensors="pt")).pooler_output for text in TEXTS]
    extractor = make_extractor(injecting, batch_size=3)
    torch.testing.assert_close(extractor.texts([TEXTS]), normalize(torch.cat(texts), dim=-1), atol=1e-5, rtol=1e-4)
    references = normalize(extractor.gallery(benchmark)[[1, 3, 1, 0]], dim=-1)
    assert torch.equal(extractor.reference_images(benchmark), references)


def test_processes_that_read_images_change_nothing(tmp_path, make_extractor, benchmark, injecting):
    model, processor = load_model(injecting).eval(), load_processor(injecting)
    extractor = Extractor(model, processor, tmp_path / "other", batch_size=2, num_workers=2)
    assert torch.equal(extractor.gallery(benchmark), make_extractor(injecting, batch_size=2).gallery(benchmark))


def encodes(tower, extractor: Extractor, benchmark) -> tuple[int, int]:
    """How many images the references of the queries take, and then the gallery."""
    texts = [text for captions in benchmark.queries["captions"] for text in captions]
    queries = tower.count(extractor.queries, benchmark, [texts], "a photo of * that {text}")
    return queries, tower.count(extractor.gallery, benchmark)


def test_references_are_not_encoded_again_for_the_gallery(tower, make_extractor, benchmark, injecting):
    assert encodes(tower, make_extractor(injecting), benchmark) == (3, 3)


def test_without_injection_the_references_are_a_part_of_the_gallery(tower, make_extractor, benchmark, mapping):
    extractor = make_extractor(mapping)
    assert encodes(tower, extractor, benchmark) == (3, 3)
    assert not extractor.tokens.place


@pytest.mark.parametrize("order", [("injecting", "adapted", "mapping", "another"), ("adapted", "another", "injecting")])
def test_another_prompt_adapter_or_method_encodes_no_image_again(
    request, tower, make_extractor, benchmark, order, save_untrained, tmp_path
):
    def path(name: str) -> str:
        if name == "another":
            return save_untrained(tmp_path / "another", 5, injection_layers=[2], mapper_hidden_act="gelu")
        return request.getfixturevalue(name)

    first, *others = map(path, order)
    assert encodes(tower, make_extractor(first), benchmark) == (3, 3)
    for name in others:
        extractor = make_extractor(name)
        assert encodes(tower, extractor, benchmark) == (0, 0)
        assert tower.count(extractor.queries, benchmark, [["in blue"] * 4], "a {text} photo of *") == 0


def test_plain_clip_and_its_retrievers_share_the_gallery(tower, make_extractor, benchmark, mapping):
    assert tower.count(make_extractor("scenes").gallery, benchmark) == 6
    assert encodes(tower, make_extractor(mapping), benchmark) == (0, 0)


@torch.no_grad()
def test_what_decides_a_feature_is_encoded_again(tower, make_extractor, benchmark, mapping):
    """Another padding, another precision, other vision weights; and each has its own features."""
    plain = make_extractor(mapping)
    padded, half = make_extractor(mapping, target_pad=1.25), make_extractor(mapping, torch.bfloat16)
    model = load_model(mapping).eval()
    model.vision_model.post_layernorm.weight.mul_(1.5)
    other = Extractor(model, plain.processor, plain.embeddings.folder.parents[1])
    galleries = []
    for extractor in (plain, padded, half, other):
        assert tower.count(extractor.gallery, benchmark) == 6
        galleries.append(extractor.gallery(benchmark))
    assert torch.equal(make_extractor(mapping, target_pad=1.25).gallery(benchmark), galleries[1])
    for number, gallery in enumerate(galleries):
        assert all(not torch.equal(gallery, earlier) for earlier in galleries[:number])
    torch.testing.assert_close(galleries[2], galleries[0], atol=0.1, rtol=0.1)
    assert galleries[2].dtype == torch.float32


@pytest.fixture
def folder(tmp_path, picture):
    """Six image files, of which `e` is the same as `b`."""
    (tmp_path / "images").mkdir()
    for seed, name in enumerate("abcdef"):
        picture(seed).save(tmp_path / "images" / f"{name}.png")
    shutil.copy(tmp_path / "images" / "b.png", tmp_path / "images" / "e.png")
    return tmp_path / "images"


def test_a_file_under_two_names_is_encoded_once(tower, make_extractor, make_benchmark, folder, mapping):
    benchmark, extractor = make_benchmark(paths=sorted(folder.iterdir())), make_extractor(mapping)
    assert tower.count(extractor.gallery, benchmark) == 5
    gallery = extractor.gallery(benchmark)
    assert torch.equal(gallery[1], gallery[4]) and not torch.equal(gallery[1], gallery[3])


def test_a_moved_folder_is_not_encoded_again_and_a_changed_file_is(
    tower, make_extractor, make_benchmark, folder, mapping, picture
):
    before = make_extractor(mapping).gallery(make_benchmark(paths=sorted(folder.iterdir())))
    moved = folder.rename(folder.parent / "moved")
    benchmark = make_benchmark(paths=sorted(moved.iterdir()))
    assert tower.count(make_extractor(mapping).gallery, benchmark) == 0
    picture(77).save(moved / "c.png")
    assert tower.count(make_extractor(mapping).gallery, benchmark) == 1
    after = make_extractor(mapping).gallery(benchmark)
    assert [torch.equal(*pair) for pair in zip(before, after)] == [True, True, False, True, True, True]


def test_another_benchmark_finds_the_images_it_shares(tower, make_extractor, make_benchmark, folder, mapping):
    paths = sorted(folder.iterdir())
    make_extractor(mapping).gallery(make_benchmark("abc", paths=paths[:3]))
    assert tower.count(make_extractor(mapping).gallery, make_benchmark("xyz", paths=paths[1:4], name="other")) == 1


def test_a_box_is_encoded_as_an_image_of_its_own(tower, make_extractor, make_benchmark, folder, mapping):
    boxes = [[], [0, 0, 8, 8], [0, 0, 8, 8], [8, 0, 8, 8]]

    def crop(picture, box):
        return picture.crop((box[0], box[1], box[0] + box[2], box[1] + box[3]))

    benchmark = make_benchmark("abcd", paths=[folder / "a.png"] * 4, boxes=boxes, crop=crop)
    extractor = make_extractor(mapping)
    assert tower.count(extractor.gallery, benchmark) == 3
    whole, left, again, right = extractor.gallery(benchmark)
    assert torch.equal(left, again) and not torch.equal(left, whole) and not torch.equal(left, right)
    with torch.no_grad():
        inputs = extractor.processor(images=crop(benchmark.gallery[0]["image"], boxes[3]), return_tensors="pt")
        torch.testing.assert_close(right[None], extractor.model.get_image_features(**inputs).pooler_output)


@pytest.fixture(scope="module")
def few():
    return load_scenes(8)


@pytest.fixture
def small_files(monkeypatch):
    monkeypatch.setattr(extraction, "EMBEDDINGS_PER_FILE", 8)
    monkeypatch.setattr(extraction, "TOKENS_PER_FILE", 4)


@pytest.mark.parametrize("limit", [6, 20])
def test_an_interrupted_run_goes_on_where_it_was(few, injecting, tower, options, small_files, limit):
    """Of 48 images 8 are references; interrupted among those, or later among the others."""
    settings = options(batch_size=2)
    tower.limit = limit
    with pytest.raises(KeyboardInterrupt):
        evaluate(injecting, [few], settings, list)
    assert tower.images == limit
    tower.limit = None
    resumed = []
    assert tower.count(lambda: resumed.append(evaluate(injecting, [few], settings, list))) == 48 - limit
    assert tower.count(evaluate, injecting, [few], settings, list) == 0
    whole = evaluate(injecting, [few], options(batch_size=2, cache_dir=settings.cache_dir / "other"), list)
    assert resumed[0].record["figures"] == whole.record["figures"]
    assert torch.equal(resumed[0].parts[0][1].gallery, whole.parts[0][1].gallery)


def test_truncated_and_foreign_files_are_encoded_again(few, injecting, tower, options, small_files):
    expected = evaluate(injecting, [few], options(), list).record["figures"]
    embeddings = sorted(options().cache_dir.glob("*/embeddings/*.safetensors"))
    tokens = sorted(options().cache_dir.glob("*/tokens/*.safetensors"))
    embeddings[0].write_bytes(embeddings[0].read_bytes()[:-100])
    embeddings[1].write_bytes(b"<html>")
    for path in tokens:
        path.write_bytes(b"")
    assert tower.count(evaluate, injecting, [few], options(), list) > 8
    assert evaluate(injecting, [few], options(), list).record["figures"] == expected
    assert tower.count(evaluate, injecting, [few], options(), list) == 0


def test_a_full_disk_is_an_error_that_leaves_no_half_file(scenes, injecting, options, monkeypatch):
    from m2c import feature_files

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(feature_files, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            evaluate(injecting, [scenes], options(), list)
    assert not [path for path in options().cache_dir.rglob("*") if path.is_file() and path.suffix != ".sqlite"]


def test_unreadable_and_infinite_are_errors_and_not_figures(make_benchmark, make_extractor, folder, mapping, monkeypatch):
    extractor, benchmark = make_extractor(mapping), make_benchmark(paths=sorted(folder.iterdir()))
    with torch.no_grad():
        extractor.model.token_mapper.state_dict()[next(iter(extractor.model.token_mapper.state_dict()))].fill_(torch.nan)
    with pytest.raises(ValueError, match="2 of 2 queries have features that are not finite"):
        extractor.queries(benchmark, [["x", "y"]], "a photo of * that {text}")
    (folder / "d.png").write_text("<html>")
    with pytest.raises(ValueError, match=r"images/d\.png"):
        make_extractor(mapping).gallery(benchmark)


def test_features_of_images_that_are_not_finite_are_an_error(make_benchmark, make_extractor, folder, mapping):
    model = load_model(mapping).eval()
    with torch.no_grad():
        model.visual_projection.weight.fill_(torch.inf)
    extractor = Extractor(model, load_processor(mapping), folder.parent / "cache")
    with pytest.raises(ValueError, match="5 of 5 images have features that are not finite"):
        extractor.gallery(make_benchmark(paths=sorted(folder.iterdir())))


@pytest.mark.parametrize("prompt", ["a photo of *", "a photo that {text}", "* * {text}", ""])
def test_a_prompt_without_its_fields_is_an_error_before_any_work(scenes, injecting, tower, options, prompt):
    with pytest.raises(ValueError, match="must hold"):
        evaluate(injecting, [scenes], options(prompt=prompt), list)
    assert tower.images == 0


def test_a_blank_caption_asks_for_the_reference_as_it_is(make_benchmark, make_extractor, injecting):
    benchmark = make_benchmark(queries=[make_query("0", "a", [""], "b")])
    extractor = make_extractor(injecting)
    blank = extractor.queries(benchmark, [[""]], "a photo of * , {text}")
    model, processor = extractor.model, extractor.processor
    with torch.no_grad():
        inputs = processor(images=benchmark.gallery[0]["image"], text="", return_tensors="pt")
        expected = normalize(model.get_composed_features(**inputs).pooler_output, dim=-1)
    torch.testing.assert_close(blank, expected, atol=1e-5, rtol=1e-4)


def test_more_queries_than_a_batch_and_repeated_references(make_benchmark, make_extractor, injecting):
    """Each query gets its own feature, whatever order the store's files have."""
    queries = [make_query(str(n), "cadb"[n % 4], [f"number {n}"], "f") for n in range(11)]
    benchmark = make_benchmark(queries=queries)
    texts = [query["captions"][0] for query in queries]
    found = make_extractor(injecting, batch_size=3).queries(benchmark, [texts], "a photo of * that {text}")
    for number in (0, 5, 10):
        alone = Dataset.from_list([queries[number]], features=QUERY_FEATURES)
        benchmark.queries = alone
        single = make_extractor(injecting).queries(benchmark, [[texts[number]]], "a photo of * that {text}")
        torch.testing.assert_close(found[number : number + 1], single, atol=1e-5, rtol=1e-4)
