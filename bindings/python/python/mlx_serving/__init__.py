"""An LLM engine in this process: MLX checkpoints on Metal, Vulkan and CPUs.

    with Engine() as engine:
        engine.load_model()
        print(engine.generate("The moon is", max_tokens=20).text)
"""

from pathlib import Path

from krserve_native import __version__, _native

from .config_types import RuntimeConfig
from .engine import Engine, Message, Parameters, Progress
from .errors import (
    EngineClosedError,
    EngineError,
    ErrorCode,
    GenerationError,
    GenerationTimeoutError,
    InternalError,
    InvalidParamsError,
    InvalidTypeError,
    LoadError,
    ModelNotFoundError,
    ModelNotLoadedError,
    OverloadedError,
)
from .results import Completion, FinishReason, Health, Model, Token, Usage
from .stream import Stream

__all__ = [
    "Completion",
    "Engine",
    "EngineClosedError",
    "EngineError",
    "ErrorCode",
    "FinishReason",
    "GenerationError",
    "GenerationTimeoutError",
    "Health",
    "InternalError",
    "InvalidParamsError",
    "InvalidTypeError",
    "LoadError",
    "Message",
    "Model",
    "ModelNotFoundError",
    "ModelNotLoadedError",
    "OverloadedError",
    "Parameters",
    "Progress",
    "RuntimeConfig",
    "Stream",
    "Token",
    "Usage",
    "__version__",
]

_native.set_bundled_models(str(Path(__file__).parent / "models"))
