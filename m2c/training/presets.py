"""What a run is like if it is told nothing: published values, and others for the scenes that ship with the package."""

# The tiny CLIP has four text blocks; of the published layers only two would be left there.
SCENES_INJECTION_LAYERS = (0, 1, 2)

_OPTIMISER = {"learning_rate_schedule": "cosine", "adam_beta2": 0.98, "adam_epsilon": 1e-6, "weight_decay": 0.1}
_PUBLISHED = {"max_steps": 300, "batch_size": 1024, "learning_rate": 1e-4, "cached_views": 0, "checkpoint_steps": 100}
_SCENES = {"warmup_steps": 20, "cached_views": 1, "checkpoint_steps": 0}

# By data and stage, or objective: each option that is left at `None`.
PRESETS = {
    ("published", 1): {**_OPTIMISER, **_PUBLISHED, "warmup_steps": 30, "tau": 0.07, "horizontal_flip": 0.5},
    ("published", 2): {**_OPTIMISER, **_PUBLISHED, "warmup_steps": 100, "tau": 0.01, "horizontal_flip": 0.0},
    ("published", "text_only"): {
        **_PUBLISHED,
        "max_steps": 20_000,
        "batch_size": 512,
        "warmup_steps": 0,
        "learning_rate_schedule": "constant_with_warmup",
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.01,
        "noise_scale": 1.0,
        "mapping_prompt_weight": 0.0,
        "checkpoint_steps": 1000,
    },
    ("scenes", 1): {
        **_OPTIMISER,
        **_SCENES,
        "max_samples": 6000,
        "max_steps": 160,
        "batch_size": 256,
        "learning_rate": 8e-3,
        "tau": 0.07,
        "horizontal_flip": 0.0,  # captions of scenes tell left from right
    },
    ("scenes", 2): {
        **_OPTIMISER,
        **_SCENES,
        "max_samples": 2000,
        "max_steps": 260,
        "batch_size": 128,
        "learning_rate": 3e-3,
        "tau": 0.05,
        "horizontal_flip": 0.0,
    },
    ("scenes", "text_only"): {
        **_OPTIMISER,
        **_SCENES,
        "max_samples": 6000,
        "max_steps": 200,
        "batch_size": 256,
        "learning_rate": 8e-3,
        "weight_decay": 0.01,
        "noise_scale": 1.0,
        "mapping_prompt_weight": 4.0,
    },
}
