"""A saved retriever works in other libraries, in a process that does not have this package."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import normalize

from m2c.checkpoints import save_retriever
from m2c.training import TrainingConfig
from m2c.training.tasks.adapters import add_composing_adapter
from modeling_m2c.pipeline_m2c import ComposedImageRetrievalPipeline


COLORS = ("red", "blue", "green")
TEXTS = ("is blue", "has a very big star at the top of it", "")


@pytest.fixture
def pictures():
    return [Image.new("RGB", (40 + 10 * index, 50), color) for index, color in enumerate(COLORS)]


@pytest.fixture(params=["stage 1", "stage 2"])
def retriever(request, model):
    if request.param == "stage 2":
        add_composing_adapter(model, TrainingConfig(stage=2, lora_rank=4))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
@torch.no_grad()
def expected(retriever, processor, pictures) -> dict[str, torch.Tensor]:
    """Unit features as the model itself gives them."""
    composed = retriever.get_composed_features(
        **processor(images=pictures, text=list(TEXTS), return_tensors="pt")
    ).pooler_output
    images = retriever.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output
    texts = retriever.get_text_features(**processor(text=list(TEXTS), return_tensors="pt")).pooler_output
    return {"composed": normalize(composed, dim=-1), "images": normalize(images, dim=-1), "texts": normalize(texts, dim=-1)}


def run_without_package(code: str, folder) -> str:
    preamble = f"""
        import sys
        sys.modules["m2c"] = sys.modules["modeling_m2c"] = sys.modules["processing_m2c"] = None  # cannot be imported
        from PIL import Image
        pictures = [Image.new("RGB", (40 + 10 * index, 50), color) for index, color in enumerate({COLORS})]
        queries = [{{"image": image, "text": text}} for image, text in zip(pictures, {TEXTS})]
        """
    source = textwrap.dedent(preamble) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=folder, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def repository(retriever, processor, tmp_path):
    save_retriever(retriever, processor, tmp_path / "repository")
    adapter = tmp_path / "repository" / "adapter_config.json"
    if adapter.exists():
        # sentence-transformers finds the base of an adapter by name; publishing writes that of the repository itself.
        adapter.write_text(json.dumps({**json.loads(adapter.read_text()), "base_model_name_or_path": "repository"}))
    return tmp_path


def test_pipeline_of_a_saved_retriever(repository, expected):
    """Batched and one by one, with a gallery of pictures and of features."""
    answers = run_without_package(
        """
        import json
        from transformers import pipeline
        retriever = pipeline("composed-image-retrieval", model="repository", trust_remote_code=True)
        features = retriever.encode_gallery(pictures)
        print(json.dumps([
            retriever(queries, gallery=pictures),
            retriever(queries, gallery=features, batch_size=3),
            [retriever(query, gallery=features) for query in queries],
        ]))
        """,
        repository,
    )
    scores = expected["composed"] @ expected["images"].T
    for answered in json.loads(answers.splitlines()[-1]):
        for row, answer in zip(scores, answered, strict=True):
            assert [item["index"] for item in answer] == row.argsort(descending=True).tolist()
            torch.testing.assert_close(torch.tensor([item["score"] for item in answer]), row.sort(descending=True).values)


def test_sentence_transformer_of_a_saved_retriever(repository, expected):
    pytest.importorskip("sentence_transformers")
    run_without_package(
        """
        from safetensors.torch import save_file
        from sentence_transformers import SentenceTransformer
        encoder = SentenceTransformer("repository", trust_remote_code=True)
        save_file({
            "composed": encoder.encode(queries, convert_to_tensor=True),
            "images": encoder.encode(pictures, convert_to_tensor=True),
            "texts": encoder.encode([query["text"] for query in queries], convert_to_tensor=True),
        }, "features.safetensors")
        """,
        repository,
    )
    found = load_file(repository / "features.safetensors")
    assert found.keys() == expected.keys()
    for name, features in expected.items():
        torch.testing.assert_close(found[name], features, msg=name)


@pytest.fixture
def searching(model, processor):
    return ComposedImageRetrievalPipeline(model=model, processor=processor)


def test_queries_that_come_one_by_one(searching, pictures):
    """From a generator and a data set: each is read once, and all are answered as a list of them is."""
    queries = [{"image": image, "text": text} for image, text in zip(pictures, TEXTS)]
    expected, read = searching(queries, gallery=pictures), []

    class Queries(torch.utils.data.Dataset):
        def __len__(self):
            return len(queries)

        def __getitem__(self, index):
            read.append(index)
            return queries[index]

    assert list(searching((query for query in queries), gallery=pictures)) == expected and len(expected) == 3
    assert list(searching(Queries(), gallery=pictures)) == expected and read == [0, 1, 2]
    with pytest.raises(ValueError, match="a query is a dict with 'image' and 'text'"):
        list(searching((query["image"] for query in queries), gallery=pictures))


def test_top_k_and_the_size_of_the_gallery(searching, pictures):
    query = {"image": pictures[0], "text": "is blue"}
    assert len(searching(query, gallery=pictures, top_k=2)) == 2
    assert len(searching(query, gallery=pictures, top_k=50)) == 3
    assert searching.encode_gallery([]).shape == (0, searching.model.config.projection_dim)


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        ({"text": "is blue"}, None, "a query is a dict with 'image' and 'text'"),
        ("is blue", None, "a query is a dict"),
        ({"image": Image.new("RGB", (9, 9)), "text": "is blue"}, [], "the gallery is empty"),
    ],
)
def test_wrong_queries(searching, pictures, query, gallery, message):
    with pytest.raises(ValueError, match=message):
        searching(query, gallery=pictures if gallery is None else gallery)


def test_the_processor_takes_arguments_in_the_way_of_transformers(processor, pictures):
    """Sorted by modality, as sentence-transformers passes them."""
    arguments = {"text_kwargs": {"padding": "max_length"}, "images_kwargs": {"do_normalize": False}}
    ours = processor(images=pictures, text=list(TEXTS), common_kwargs={"return_tensors": "pt"}, **arguments)
    assert ours.input_ids.shape == (3, 40) and 0 <= ours.pixel_values.min() and ours.pixel_values.max() <= 1
