"""The engine: models by name in this process, and what they answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Literal, TypedDict, Unpack

from krserve_native import _native

from ._threads import beside
from .config_types import RuntimeConfig
from .errors import InvalidTypeError
from .results import Completion, Health, Model, Token, _finish_reason, _usage
from .stream import Stream

__all__ = ["Engine", "Message", "Parameters", "Progress"]

Progress = Callable[[str, str, int, int], object]
"""Called with a stage, download or load; the file at work; bytes done; and bytes in all."""


class _Required(TypedDict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class Message(_Required, total=False):
    """A message of a conversation. developer is another word for system."""

    name: str


class Parameters(TypedDict, total=False):
    """Parameters of a generation beside its prompt. What is left out, or None, has the model's own default.

    model: name of the model; the only one that is loaded if it is left out
    add_special_tokens: whether the tokenizer's own begin and end are added; True for a prompt, False for a conversation
    max_tokens: longest answer, 1 or more; by default 512, or less where the context has no room for them
    temperature: 0 to 2; 0 takes the most likely token
    top_p: 0 to 1, probability of the most likely tokens that are drawn from; 1 draws from all
    top_k: how many of the most likely tokens are drawn from, 0 or more; 0 draws from all
    min_p: 0 to 1, least probability of what is drawn from, as a share of the most likely token's
    repetition_penalty: 0.01 to 10; 1 for none
    presence_penalty: -2 to 2, taken off each token that has come; 0 for none
    frequency_penalty: -2 to 2, taken off a token for each time that it has come; 0 for none
    seed: 0 to 2**64 - 1; the same seed gives the same answer
    logit_bias: -100 to 100 for token ids, added to their logits
    stop: text, or several, that ends the answer and is not part of it
    ignore_eos: True goes on behind the model's own end
    logprobs: True for the log-probability of each token; 0 to 20 for as many of the most likely ones too
    chat_template_kwargs: variables of the chat template
    timeout_ms: time for the whole answer, 1 or more; a later one is a GenerationTimeoutError
    """

    model: str | None
    add_special_tokens: bool | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    stop: str | Sequence[str] | None
    ignore_eos: bool | None
    logprobs: bool | int | None
    chat_template_kwargs: Mapping[str, Any] | None
    timeout_ms: int | None


Prompt = str | Sequence[int]


class Engine:
    """Models in this process. The configuration is a mapping with the keys of runtime.yaml, or the path of such a file."""

    def __init__(self, config: RuntimeConfig | str | PathLike[str] | None = None) -> None:
        self._native = _native.Engine(config)

    # Models.

    def load_model(
        self,
        model: str | PathLike[str] | None = None,
        *,
        name: str | None = None,
        chat_template: str | PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Model:
        """Loads a model from a folder or the hub, the bundled one if none is named, and returns its entry of list_models.

        An interrupt ends the wait, and what is loaded then is unloaded.
        """
        return self._native.load_model(_load(model, name, chat_template), _callable(progress))

    async def load_model_async(
        self,
        model: str | PathLike[str] | None = None,
        *,
        name: str | None = None,
        chat_template: str | PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Model:
        """Like load_model, without blocking the event loop: another thread loads, and calls progress.

        Canceling it ends the wait, and what is loaded then is unloaded.
        """
        args, progress = _load(model, name, chat_template), _callable(progress)
        before = {model["id"] for model in self.list_models()}
        loaded: list[str] = []
        # Taken by the first that comes, the load's end or the cancellation; the other finds it taken.
        first = threading.Lock()

        def unload() -> None:
            for id in loaded:
                if id not in before:
                    self.unload_model(id)

        def load() -> Model:
            card = self._native.load_model(args, progress)
            loaded.append(card["id"])
            if not first.acquire(blocking=False):
                unload()
            return card

        try:
            return await beside(load)
        except asyncio.CancelledError:
            if not first.acquire(blocking=False):
                await beside(unload)
            raise

    def unload_model(self, model: str | None = None) -> None:
        """Unloads a model, the only one if none is named; its answers fail. Ends when its memory is free."""
        self._native.unload_model(_given(model=model))

    def list_models(self) -> list[Model]:
        """Every model with its state."""
        return self._native.list_models()

    # Answers.

    def generate(
        self, prompt: Prompt | None = None, *, messages: Sequence[Message] | None = None, **parameters: Unpack[Parameters]
    ) -> Completion:
        """Generates the answer to a prompt (text or token ids) or to a conversation."""
        text, ids, tokens, summary = self._native.generate(_asked(prompt, messages, parameters))
        return _completion(text, ids, tokens, summary, parameters)

    def chat(self, messages: Sequence[Message], **parameters: Unpack[Parameters]) -> Completion:
        """Answers a conversation."""
        return self.generate(messages=messages, **parameters)

    def stream(
        self, prompt: Prompt | None = None, *, messages: Sequence[Message] | None = None, **parameters: Unpack[Parameters]
    ) -> Stream:
        """Answers token by token: an iterator, and an async iterator."""
        return Stream(self._native, _asked(prompt, messages, parameters))

    async def generate_async(
        self, prompt: Prompt | None = None, *, messages: Sequence[Message] | None = None, **parameters: Unpack[Parameters]
    ) -> Completion:
        """Like generate, without blocking the event loop. Canceling it cancels the answer."""
        stream = self.stream(prompt, messages=messages, **parameters)
        tokens = await stream._remaining()
        text, ids = "".join([token.text for token in tokens]), [token.id for token in tokens if token.id is not None]
        assert stream._summary is not None
        return _completion(text, ids, [token for token in tokens if token.logprob is not None], stream._summary, parameters)

    async def chat_async(self, messages: Sequence[Message], **parameters: Unpack[Parameters]) -> Completion:
        """Like chat, without blocking the event loop."""
        return await self.generate_async(messages=messages, **parameters)

    def tokenize(self, text: str, *, model: str | None = None, add_special_tokens: bool | None = None) -> list[int]:
        """Token ids of a text."""
        return self._native.tokenize(_given(text=text, model=model, add_special_tokens=add_special_tokens))

    def detokenize(self, tokens: Sequence[int], *, model: str | None = None) -> str:
        """Text of token ids."""
        return self._native.detokenize(_given(tokens=tokens, model=model))

    # State.

    def health_check(self) -> Health:
        """Tells whether the engine is healthy, and if not, why. Never fails."""
        return self._native.health()

    def metal_stats(self, model: str | None = None) -> dict[str, Any]:
        """Statistics of the three Metal-layer optimizations."""
        return self._native.metal_stats(_given(model=model))

    def metrics(self) -> str:
        """Metrics of all models, as Prometheus reads them."""
        return self._native.metrics()

    # The end.

    def close(self) -> None:
        """Unloads all models; answers fail, and so does every later call but health_check. Ends when their memory is free."""
        self._native.close()

    async def close_async(self) -> None:
        """Like close, without blocking the event loop."""
        await beside(self._native.close)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_async()


def _given(**args: Any) -> dict[str, Any]:
    """The arguments that were given."""
    return {name: value for name, value in args.items() if value is not None}


def _callable(progress: Progress | None) -> Progress | None:
    if progress is not None and not callable(progress):
        raise InvalidTypeError("InvalidParams", f"`progress` takes a function; it is {progress!r}", "progress")
    return progress


def _load(
    model: str | PathLike[str] | None, name: str | None, chat_template: str | PathLike[str] | None
) -> dict[str, Any]:
    return _given(model=_path(model), name=name, chat_template=_path(chat_template))


def _path(path: str | PathLike[str] | None) -> str | None:
    return path.__fspath__() if isinstance(path, PathLike) else path


def _asked(prompt: Prompt | None, messages: Sequence[Message] | None, parameters: Parameters) -> dict[str, Any]:
    return {"prompt": prompt, "messages": messages, **parameters}


def _completion(
    text: str, ids: list[int], tokens: list[Token], summary: dict[str, Any], parameters: Parameters
) -> Completion:
    asked = parameters.get("logprobs")
    logprobs = tokens if asked is not None and asked is not False else None
    return Completion(text, ids, _finish_reason(summary), _usage(summary), logprobs)
