from pathlib import Path

from setuptools import find_packages, setup


REQUIRED = [
    "torch>=2.6",
    "transformers>=5.20,<6",
    "huggingface_hub>=1.0",
    "datasets>=5.2",
    "accelerate>=1.12",
    "peft>=0.18",
    "evaluate>=0.4.6",
    "safetensors>=0.4",
    "Pillow>=11",
    "numpy>=1.26",
    "xxhash>=3.4",
    "filelock>=3.13",
    "tqdm>=4.66",
    "typer>=0.15",
    "jinja2>=3.1",
    "matplotlib>=3.8",
]
ONNX = ["onnx>=1.17", "onnxscript>=0.5"]
TENSORBOARD = "tensorboard>=2.15"
TRACKING = [TENSORBOARD, "trackio>=0.30"]
MTEB = ["mteb>=2.20", "sentence-transformers>=6"]
DEMO = ["gradio>=6.31"]
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "ruff>=0.12",
    "playwright>=1",
    "onnxruntime>=1.20",
    TENSORBOARD,
    *ONNX,
    *MTEB,
    *DEMO,
]
EXTRAS = {"onnx": ONNX, "tracking": TRACKING, "mteb": MTEB, "demo": DEMO, "test": TEST}

setup(
    name="m2c",
    version="0.1.0",
    description="Zero-shot composed image retrieval: turn any CLIP into a retriever that takes a picture and words",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["m2c*", "modeling_m2c", "processing_m2c", "hub_cards*"]),
    py_modules=["train_accelerate"],
    scripts=["train_accelerate.py"],
    package_data={
        "m2c.data.scenes": ["clip/*"],
        "m2c.evaluation": ["composed_retrieval/*.py"],
        "m2c.retrieval.editing": ["templates/*.jinja", "templates/*/*.jinja"],
        "m2c.retrieval.scenes": ["captioner/*", "editor/*"],
        "hub_cards": ["templates/*.md"],
        "hub_cards.space": ["template/*.py"],
    },
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["m2c = m2c.cli:app"]},
)
