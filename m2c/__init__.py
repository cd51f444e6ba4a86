"""M2C: turns any CLIP into a composed image retriever.

Importing it registers the classes, so that `AutoModel` and `AutoProcessor` load M2C checkpoints without `trust_remote_code`.
"""

from modeling_m2c import M2CConfig, M2CModel
from processing_m2c import M2CProcessor


__version__ = "0.1.0"

__all__ = ["M2CConfig", "M2CModel", "M2CProcessor"]
