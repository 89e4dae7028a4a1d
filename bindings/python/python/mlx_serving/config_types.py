"""Types of the configuration: the keys of runtime.yaml, all of them optional.

Written by `cargo run -p schemas -- --write` from the type that reads runtime.yaml. Do not edit.
"""

from typing import Literal, TypedDict


class LimitsConfig(TypedDict, total=False):
    """Bounds of connections, of what they send, and of what waits for them."""

    # Connections at once, as far as the system's limit on open files allows; at the bound the one that is idle longest is closed. 1 to 1000000; default 4096.
    connections: int
    # Seconds for a request's head. 1 to 3600; default 15.
    header_s: int
    # Seconds for a request's body. 1 to 86400; default 120.
    body_s: int
    # Seconds between two pieces of a body. 1 to 3600; default 15.
    pause_s: int
    # Seconds between two requests of a connection. 1 to 86400; default 75.
    idle_s: int
    # Seconds in which a client has to take 64 KiB of its answer, or what is left of it. 1 to 86400; default 60.
    write_s: int
    # All bodies that are being read or worked on, the first 16 KiB of each not counted, MiB; more are refused with 429. 1 to 1048576; default 64.
    bodies_mb: int
    # One answer that is not streamed, or the unread part of one that is, MiB; what would be longer is refused or ended. 1 to 1048576; default 16.
    answer_mb: int
    # All such answers that their clients have not read yet, MiB; from half of it on, new requests are refused with 503. The unread parts of a model's streams have as much room beside them. 1 to 1048576; default 256.
    unread_mb: int
    # Answers of /v1/responses that are kept for `previous_response_id`, at most; beyond them the oldest is forgotten. 0 keeps none. 0 to 1000000; default 1024.
    stored_responses: int
    # All these answers with their conversations, MiB; beyond it the oldest is forgotten. 1 to 1048576; default 64.
    stored_responses_mb: int


class ServerConfig(TypedDict, total=False):
    """The HTTP server."""

    # Address to listen on. Default "127.0.0.1".
    host: str
    # Port to listen on; 0 takes a free one. 0 to 65535; default 8080.
    port: int
    # Longest body taken, MiB. 1 to 1024; default 8.
    body_limit_mb: int
    # Seconds that accepted requests get to end when the server shuts down. 0 to 3600; default 30.
    shutdown_grace_s: int
    # Seconds after which a step that goes on calls the server wedged. 1 to 3600; default 60.
    wedged_after_s: int
    # Names that a request's `Host` may have while the server listens on a loopback address, beside loopback's own: with a port, or without for every port; * turns the check off. Default [].
    allowed_hosts: list[str]
    # Origins of web pages that may use the server, such as `https://app.example`; * for all. Default [].
    cors_origins: list[str]
    # Leave out of prompts the line that one popular agent puts before its instructions and changes in every request: with it no two of its prompts begin alike. Default True.
    strip_billing_header: bool
    # Bounds of connections, of what they send, and of what waits for them.
    limits: LimitsConfig


class EngineConfig(TypedDict, total=False):
    """The engine and its device."""

    # auto, metal, vulkan, vulkan:N or cpu. Default "auto".
    device: str
    # fast or exact. Default "fast".
    arithmetic: Literal["fast", "exact"]
    # Instruction set of the CPU device's kernels: auto takes the best that the processor has, avx512, avx2, neon and portable that one. Default "auto".
    cpu_instructions: Literal["auto", "avx512", "avx2", "neon", "portable"]
    # Threads of the CPU device; 0 for all cores. 0 to 1024; default 0.
    threads: int
    # Sequences that run at once. 1 to 256; default 32.
    max_sequences: int
    # Rows of one step: decoding sequences plus chunks of prompts. Null takes 128 on a CPU and 512 on a GPU. 16 to 8192; default None.
    max_batch_rows: int | None
    # Tokens that the KV cache holds. 256 to 16777216; default 16384.
    kv_cache_tokens: int
    # Requests that may wait before more are refused with 429. 0 to 65536; default 256.
    max_waiting: int
    # Seconds after which a step counts as failed. 1 to 3600; default 120.
    step_limit_s: int
    # Host memory for KV blocks of earlier prompts that the KV cache has no room for, MiB; 0 for none. 0 to 1048576; default 0.
    kv_spill_mb: int
    # A file for those that host memory has no room for; the model's name is appended. Made at the start, removed at the end. Default None.
    kv_spill_file: str | None
    # Size of the file, MiB. 1 to 16777216; default 4096.
    kv_spill_file_mb: int


class SamplingDefaultsConfig(TypedDict, total=False):
    """Sampling parameters of requests that name none, in the place of those of the model's own files."""

    # 0 takes the most likely token. 0 to 2; default None.
    temperature: float | None
    # Keep the smallest set of most likely tokens that reaches this probability; 1 keeps all. 0 to 1; default None.
    top_p: float | None
    # Keep the k most likely tokens; 0 and -1 keep all. -1 to 4294967295; default None.
    top_k: int | None
    # Keep tokens of at least this share of the largest probability; 0 keeps all. 0 to 1; default None.
    min_p: float | None
    # Weakens tokens of prompt and answer; 1 for none, as 0 is. 0 to 10; default None.
    repetition_penalty: float | None
    # Weakens tokens of the answer, once each; 0 for none. -2 to 2; default None.
    presence_penalty: float | None
    # Weakens tokens of the answer by their count; 0 for none. -2 to 2; default None.
    frequency_penalty: float | None


class ModelSettingsConfig(TypedDict, total=False):
    """models.NAME."""

    # Sampling parameters of requests that name none, in the place of those of the model's own files.
    sampling_defaults: SamplingDefaultsConfig


class ModelsConfig(TypedDict, total=False):
    """The models."""

    # Folders or hub ids that `serve` loads when the command line names none; the bundled model if this is empty. Default [].
    serve: list[str]
    # Jinja file in the place of the chat template of the model that `serve` loads, which must be one model only. Default None.
    chat_template: str | None
    # Format of tool calls in the answers of all models: hermes, qwen3_coder, llama3_json, pythonic, mistral, gemma4, glm or harmony; none to look for no calls; null goes by each model's chat template. Default None.
    tool_call_format: str | None
    # Format of reasoning in the answers of all models: think, mistral, seed, gemma4 or harmony; none to leave it in the content; null goes by each model's chat template. Default None.
    reasoning_format: str | None
    # Every further key is a name, and holds a ModelSettingsConfig: typed dictionaries cannot say so.


class MetalMemoryPoolConfig(TypedDict, total=False):
    """Memory pool: heaps and sub-allocation."""

    # Switch of the memory pool. Default False.
    enabled: bool
    # Size of a heap, MiB. 64 to 2048; default 256.
    heap_size_mb: int
    # Number of heaps. 2 to 16; default 4.
    num_heaps: int
    # Sizes that are touched before the first request, MiB. Each 1 to 1024; default [32, 128, 512].
    warmup_buffer_sizes_mb: list[int]
    # Keep counters. Default True.
    track_statistics: bool
    # Log when the heaps run out. Default True.
    log_pool_exhaustion: bool
    # Size of the largest heap, MiB. 256 to 4096; default 2048.
    max_heap_size_mb: int
    # Fewest heaps with which the pool starts; above that, heaps that the device refuses are done without. 1 to 8; default 2.
    min_heaps: int


class BlitQueueConfig(TypedDict, total=False):
    """Blit queue: asynchronous copies."""

    # Switch of the blit queue. Default False.
    enabled: bool
    # Copies in flight at most. 1 to 100; default 10.
    max_pending_ops: int
    # Longest time of a copy, ms; one that takes longer has failed. 100 to 30000; default 5000.
    timeout_ms: int
    # Staging memory, MiB. 1 to 1024; default 64.
    staging_buffer_size_mb: int
    # Make compute wait for copies on the device, instead of on the host. Default True.
    use_shared_events: bool
    # Compare checksums of both ends. Default False.
    verify_checksums: bool
    # Keep counters. Default True.
    track_metrics: bool


class CommandBufferRingConfig(TypedDict, total=False):
    """Command-buffer ring: steps encoded ahead."""

    # Switch of the command-buffer ring. Default False.
    enabled: bool
    # Slots in flight. 2 to 8; default 3.
    ring_size: int
    # Longest wait for a slot, ms; after that the ring falls back to one slot in flight. 100 to 10000; default 1000.
    max_wait_ms: int
    # Keep counters. Default True.
    track_statistics: bool
    # Log every wait. Default False.
    log_wait_events: bool


class MetalOptimizationsConfig(TypedDict, total=False):
    """The three Metal-layer optimizations; their names are Metal's and mean the same on every device."""

    # Master switch. Default False.
    enabled: bool
    # Memory pool: heaps and sub-allocation.
    memory_pool: MetalMemoryPoolConfig
    # Blit queue: asynchronous copies.
    blit_queue: BlitQueueConfig
    # Command-buffer ring: steps encoded ahead.
    command_buffer_ring: CommandBufferRingConfig
    # Replace a failing optimization by its baseline; otherwise the start or the request fails. Default True.
    graceful_fallback: bool
    # Log when a baseline takes over. Default True.
    log_fallbacks: bool
    # Put the optimizations' metrics on `/metrics`. Default True.
    expose_metrics: bool


class TelemetryConfig(TypedDict, total=False):
    """Logs."""

    # text or json. Default "text".
    log_format: Literal["text", "json"]
    # error, warn, info, debug or trace. Default "info".
    log_level: Literal["error", "warn", "info", "debug", "trace"]


class RuntimeConfig(TypedDict, total=False):
    """Everything that can be configured."""

    # The HTTP server.
    server: ServerConfig
    # The engine and its device.
    engine: EngineConfig
    # The models.
    models: ModelsConfig
    # The three Metal-layer optimizations; their names are Metal's and mean the same on every device.
    metal_optimizations: MetalOptimizationsConfig
    # Logs.
    telemetry: TelemetryConfig
