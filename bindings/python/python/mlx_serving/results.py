"""What a generation gives beside its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from krserve_native._native import Token

__all__ = ["Completion", "FinishReason", "Health", "Model", "Token", "Usage"]

FinishReason = Literal["stop", "length"]
"""Why an answer ended: a stop string or the model's own end, or max_tokens."""


class Model(TypedDict):
    """An entry of list_models. A model that is not ready has no more than its id, its state and a reason."""

    id: str
    state: Literal["ready", "loading", "reloading", "unloaded", "failed"]
    reason: NotRequired[str]
    """Why it is reloading or has failed."""
    created: NotRequired[int]
    """Time of the load, in seconds since 1970."""
    context: NotRequired[int]
    """Longest prompt and answer together, in tokens."""
    vocab: NotRequired[int]
    kv_cache_bytes: NotRequired[int]
    device: NotRequired[str]
    """Name of the device that it is on."""
    backend: NotRequired[str]


class Health(TypedDict):
    """State of an engine and its models."""

    status: Literal["healthy", "unhealthy"]
    reason: NotRequired[str]
    """Why it is unhealthy."""
    models: list[Model]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a generation, and where its time went."""

    prompt_tokens: int
    cached_tokens: int
    """Tokens of the prompt that were found in the prefix cache."""
    completion_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float

    @property
    def total_tokens(self) -> int:
        """Tokens of prompt and answer."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    usage: Usage
    logprobs: list[Token] | None
    """The tokens with their log-probabilities, where these were asked for."""


def _finish_reason(summary: Mapping[str, Any]) -> FinishReason:
    reason: FinishReason = summary["finish_reason"]
    return reason


def _usage(summary: Mapping[str, Any]) -> Usage:
    return Usage(
        prompt_tokens=summary["prompt_tokens"],
        cached_tokens=summary["cached_tokens"],
        completion_tokens=summary["completion_tokens"],
        queue_s=summary["queue_s"],
        prefill_s=summary["prefill_s"],
        decode_s=summary["decode_s"],
    )
