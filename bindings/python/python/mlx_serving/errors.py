"""One exception class for each kind of error. All are EngineError; each has a code, and the parameter at fault if there is one."""

from __future__ import annotations

from typing import Literal, cast

__all__ = [
    "EngineClosedError",
    "EngineError",
    "ErrorCode",
    "GenerationError",
    "GenerationTimeoutError",
    "InternalError",
    "InvalidParamsError",
    "InvalidTypeError",
    "LoadError",
    "ModelNotFoundError",
    "ModelNotLoadedError",
    "OverloadedError",
]


ErrorCode = Literal[
    "InvalidParams",
    "ModelNotFound",
    "ModelNotLoaded",
    "LoadError",
    "GenerationError",
    "Timeout",
    "Disposed",
    "Overloaded",
    "Internal",
]
"""Kinds of errors."""


class EngineError(Exception):
    """Base class of the engine's errors."""

    code: ErrorCode
    """Kind of the error, such as InvalidParams."""
    message: str
    """What happened, and what to do."""
    param: str | None
    """Dotted name of the parameter at fault."""

    def __init__(self, code: ErrorCode, message: str, param: str | None = None) -> None:
        super().__init__(code, message, param)
        self.code = code
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return self.message


class InvalidParamsError(EngineError, ValueError):
    """A value that a parameter or an option does not take."""


class InvalidTypeError(EngineError, TypeError):
    """A type that a parameter or an option does not take. Its code is InvalidParams too."""


class ModelNotFoundError(EngineError):
    """There is no such model to load."""


class ModelNotLoadedError(EngineError):
    """The model is not loaded."""


class LoadError(EngineError):
    """A model could not be loaded."""


class GenerationError(EngineError):
    """A generation failed on the device."""


class GenerationTimeoutError(EngineError, TimeoutError):
    """A generation took longer than its timeout_ms."""


class EngineClosedError(EngineError):
    """The engine was closed, or this is a forked child of the process that made it."""


class OverloadedError(EngineError):
    """The engine has more to do than it takes; try again later."""


class InternalError(EngineError):
    """A defect of the engine, which reports itself unhealthy from then on."""


_CLASSES: dict[str, type[EngineError]] = {
    "InvalidParams": InvalidParamsError,
    "ModelNotFound": ModelNotFoundError,
    "ModelNotLoaded": ModelNotLoadedError,
    "LoadError": LoadError,
    "GenerationError": GenerationError,
    "Timeout": GenerationTimeoutError,
    "Disposed": EngineClosedError,
    "Overloaded": OverloadedError,
    "Internal": InternalError,
}


def _error(code: str, message: str, param: str | None, wrong_type: bool) -> EngineError:
    """Makes the exception for an error of the native part, which calls this."""
    kind = InvalidTypeError if wrong_type else _CLASSES.get(code, EngineError)
    return kind(cast(ErrorCode, code), message, param)
