// Written by `cargo run -p schemas -- --write` from the type that reads runtime.yaml. Do not edit.

import { z } from 'zod';

/** Bounds of connections, of what they send, and of what waits for them. */
export const LimitsConfigSchema = z.strictObject({
  connections: z.number().int().min(1).max(1000000).default(4096)
    .describe('Connections at once, as far as the system\'s limit on open files allows; at the bound the one that is idle longest is closed'),
  header_s: z.number().int().min(1).max(3600).default(15)
    .describe('Seconds for a request\'s head'),
  body_s: z.number().int().min(1).max(86400).default(120)
    .describe('Seconds for a request\'s body'),
  pause_s: z.number().int().min(1).max(3600).default(15)
    .describe('Seconds between two pieces of a body'),
  idle_s: z.number().int().min(1).max(86400).default(75)
    .describe('Seconds between two requests of a connection'),
  write_s: z.number().int().min(1).max(86400).default(60)
    .describe('Seconds in which a client has to take 64 KiB of its answer, or what is left of it'),
  bodies_mb: z.number().int().min(1).max(1048576).default(64)
    .describe('All bodies that are being read or worked on, the first 16 KiB of each not counted, MiB; more are refused with 429'),
  answer_mb: z.number().int().min(1).max(1048576).default(16)
    .describe('One answer that is not streamed, or the unread part of one that is, MiB; what would be longer is refused or ended'),
  unread_mb: z.number().int().min(1).max(1048576).default(256)
    .describe('All such answers that their clients have not read yet, MiB; from half of it on, new requests are refused with 503. The unread parts of a model\'s streams have as much room beside them'),
  stored_responses: z.number().int().min(0).max(1000000).default(1024)
    .describe('Answers of /v1/responses that are kept for `previous_response_id`, at most; beyond them the oldest is forgotten. 0 keeps none'),
  stored_responses_mb: z.number().int().min(1).max(1048576).default(64)
    .describe('All these answers with their conversations, MiB; beyond it the oldest is forgotten'),
});
/** Bounds of connections, of what they send, and of what waits for them: every key, with what is in force. */
export type LimitsConfig = z.output<typeof LimitsConfigSchema>;
/** Bounds of connections, of what they send, and of what waits for them: the keys to set. */
export interface LimitsConfigInput {
  /** Connections at once, as far as the system's limit on open files allows; at the bound the one that is idle longest is closed. 1 to 1000000; default `4096`. */
  connections?: number | undefined;
  /** Seconds for a request's head. 1 to 3600; default `15`. */
  header_s?: number | undefined;
  /** Seconds for a request's body. 1 to 86400; default `120`. */
  body_s?: number | undefined;
  /** Seconds between two pieces of a body. 1 to 3600; default `15`. */
  pause_s?: number | undefined;
  /** Seconds between two requests of a connection. 1 to 86400; default `75`. */
  idle_s?: number | undefined;
  /** Seconds in which a client has to take 64 KiB of its answer, or what is left of it. 1 to 86400; default `60`. */
  write_s?: number | undefined;
  /** All bodies that are being read or worked on, the first 16 KiB of each not counted, MiB; more are refused with 429. 1 to 1048576; default `64`. */
  bodies_mb?: number | undefined;
  /** One answer that is not streamed, or the unread part of one that is, MiB; what would be longer is refused or ended. 1 to 1048576; default `16`. */
  answer_mb?: number | undefined;
  /** All such answers that their clients have not read yet, MiB; from half of it on, new requests are refused with 503. The unread parts of a model's streams have as much room beside them. 1 to 1048576; default `256`. */
  unread_mb?: number | undefined;
  /** Answers of /v1/responses that are kept for `previous_response_id`, at most; beyond them the oldest is forgotten. 0 keeps none. 0 to 1000000; default `1024`. */
  stored_responses?: number | undefined;
  /** All these answers with their conversations, MiB; beyond it the oldest is forgotten. 1 to 1048576; default `64`. */
  stored_responses_mb?: number | undefined;
}

/** The HTTP server. */
export const ServerConfigSchema = z.strictObject({
  host: z.string().min(1).default('127.0.0.1')
    .describe('Address to listen on'),
  port: z.number().int().min(0).max(65535).default(8080)
    .describe('Port to listen on; 0 takes a free one'),
  body_limit_mb: z.number().int().min(1).max(1024).default(8)
    .describe('Longest body taken, MiB'),
  shutdown_grace_s: z.number().int().min(0).max(3600).default(30)
    .describe('Seconds that accepted requests get to end when the server shuts down'),
  wedged_after_s: z.number().int().min(1).max(3600).default(60)
    .describe('Seconds after which a step that goes on calls the server wedged'),
  allowed_hosts: z.array(z.string()).default([])
    .describe('Names that a request\'s `Host` may have while the server listens on a loopback address, beside loopback\'s own: with a port, or without for every port; * turns the check off'),
  cors_origins: z.array(z.string()).default([])
    .describe('Origins of web pages that may use the server, such as `https://app.example`; * for all'),
  strip_billing_header: z.boolean().default(true)
    .describe('Leave out of prompts the line that one popular agent puts before its instructions and changes in every request: with it no two of its prompts begin alike'),
  limits: LimitsConfigSchema.prefault({})
    .describe('Bounds of connections, of what they send, and of what waits for them'),
});
/** The HTTP server: every key, with what is in force. */
export type ServerConfig = z.output<typeof ServerConfigSchema>;
/** The HTTP server: the keys to set. */
export interface ServerConfigInput {
  /** Address to listen on. Default `"127.0.0.1"`. */
  host?: string | undefined;
  /** Port to listen on; 0 takes a free one. 0 to 65535; default `8080`. */
  port?: number | undefined;
  /** Longest body taken, MiB. 1 to 1024; default `8`. */
  body_limit_mb?: number | undefined;
  /** Seconds that accepted requests get to end when the server shuts down. 0 to 3600; default `30`. */
  shutdown_grace_s?: number | undefined;
  /** Seconds after which a step that goes on calls the server wedged. 1 to 3600; default `60`. */
  wedged_after_s?: number | undefined;
  /** Names that a request's `Host` may have while the server listens on a loopback address, beside loopback's own: with a port, or without for every port; * turns the check off. Default `[]`. */
  allowed_hosts?: string[] | undefined;
  /** Origins of web pages that may use the server, such as `https://app.example`; * for all. Default `[]`. */
  cors_origins?: string[] | undefined;
  /** Leave out of prompts the line that one popular agent puts before its instructions and changes in every request: with it no two of its prompts begin alike. Default `true`. */
  strip_billing_header?: boolean | undefined;
  /** Bounds of connections, of what they send, and of what waits for them. */
  limits?: LimitsConfigInput | undefined;
}

/** The engine and its device. */
export const EngineConfigSchema = z.strictObject({
  device: z.string().regex(/^(auto|metal|vulkan(:[0-9]+)?|cpu)$/).default('auto')
    .describe('auto, metal, vulkan, vulkan:N or cpu'),
  arithmetic: z.enum(['fast', 'exact']).default('fast')
    .describe('fast or exact'),
  cpu_instructions: z.enum(['auto', 'avx512', 'avx2', 'neon', 'portable']).default('auto')
    .describe('Instruction set of the CPU device\'s kernels: auto takes the best that the processor has, avx512, avx2, neon and portable that one'),
  threads: z.number().int().min(0).max(1024).default(0)
    .describe('Threads of the CPU device; 0 for all cores'),
  max_sequences: z.number().int().min(1).max(256).default(32)
    .describe('Sequences that run at once'),
  max_batch_rows: z.number().int().min(16).max(8192).nullable().default(null)
    .describe('Rows of one step: decoding sequences plus chunks of prompts. Null takes 128 on a CPU and 512 on a GPU'),
  kv_cache_tokens: z.number().int().min(256).max(16777216).default(16384)
    .describe('Tokens that the KV cache holds'),
  max_waiting: z.number().int().min(0).max(65536).default(256)
    .describe('Requests that may wait before more are refused with 429'),
  step_limit_s: z.number().int().min(1).max(3600).default(120)
    .describe('Seconds after which a step counts as failed'),
  kv_spill_mb: z.number().int().min(0).max(1048576).default(0)
    .describe('Host memory for KV blocks of earlier prompts that the KV cache has no room for, MiB; 0 for none'),
  kv_spill_file: z.string().min(1).nullable().default(null)
    .describe('A file for those that host memory has no room for; the model\'s name is appended. Made at the start, removed at the end'),
  kv_spill_file_mb: z.number().int().min(1).max(16777216).default(4096)
    .describe('Size of the file, MiB'),
});
/** The engine and its device: every key, with what is in force. */
export type EngineConfig = z.output<typeof EngineConfigSchema>;
/** The engine and its device: the keys to set. */
export interface EngineConfigInput {
  /** auto, metal, vulkan, vulkan:N or cpu. Default `"auto"`. */
  device?: string | undefined;
  /** fast or exact. Default `"fast"`. */
  arithmetic?: 'fast' | 'exact' | undefined;
  /** Instruction set of the CPU device's kernels: auto takes the best that the processor has, avx512, avx2, neon and portable that one. Default `"auto"`. */
  cpu_instructions?: 'auto' | 'avx512' | 'avx2' | 'neon' | 'portable' | undefined;
  /** Threads of the CPU device; 0 for all cores. 0 to 1024; default `0`. */
  threads?: number | undefined;
  /** Sequences that run at once. 1 to 256; default `32`. */
  max_sequences?: number | undefined;
  /** Rows of one step: decoding sequences plus chunks of prompts. Null takes 128 on a CPU and 512 on a GPU. 16 to 8192; default `null`. */
  max_batch_rows?: number | null | undefined;
  /** Tokens that the KV cache holds. 256 to 16777216; default `16384`. */
  kv_cache_tokens?: number | undefined;
  /** Requests that may wait before more are refused with 429. 0 to 65536; default `256`. */
  max_waiting?: number | undefined;
  /** Seconds after which a step counts as failed. 1 to 3600; default `120`. */
  step_limit_s?: number | undefined;
  /** Host memory for KV blocks of earlier prompts that the KV cache has no room for, MiB; 0 for none. 0 to 1048576; default `0`. */
  kv_spill_mb?: number | undefined;
  /** A file for those that host memory has no room for; the model's name is appended. Made at the start, removed at the end. Default `null`. */
  kv_spill_file?: string | null | undefined;
  /** Size of the file, MiB. 1 to 16777216; default `4096`. */
  kv_spill_file_mb?: number | undefined;
}

/** Sampling parameters of requests that name none, in the place of those of the model's own files. */
export const SamplingDefaultsConfigSchema = z.strictObject({
  temperature: z.number().min(0).max(2).nullable().default(null)
    .describe('0 takes the most likely token'),
  top_p: z.number().min(0).max(1).nullable().default(null)
    .describe('Keep the smallest set of most likely tokens that reaches this probability; 1 keeps all'),
  top_k: z.number().int().min(-1).max(4294967295).nullable().default(null)
    .describe('Keep the k most likely tokens; 0 and -1 keep all'),
  min_p: z.number().min(0).max(1).nullable().default(null)
    .describe('Keep tokens of at least this share of the largest probability; 0 keeps all'),
  repetition_penalty: z.number().min(0).max(10).nullable().default(null)
    .describe('Weakens tokens of prompt and answer; 1 for none, as 0 is'),
  presence_penalty: z.number().min(-2).max(2).nullable().default(null)
    .describe('Weakens tokens of the answer, once each; 0 for none'),
  frequency_penalty: z.number().min(-2).max(2).nullable().default(null)
    .describe('Weakens tokens of the answer by their count; 0 for none'),
});
/** Sampling parameters of requests that name none, in the place of those of the model's own files: every key, with what is in force. */
export type SamplingDefaultsConfig = z.output<typeof SamplingDefaultsConfigSchema>;
/** Sampling parameters of requests that name none, in the place of those of the model's own files: the keys to set. */
export interface SamplingDefaultsConfigInput {
  /** 0 takes the most likely token. 0 to 2; default `null`. */
  temperature?: number | null | undefined;
  /** Keep the smallest set of most likely tokens that reaches this probability; 1 keeps all. 0 to 1; default `null`. */
  top_p?: number | null | undefined;
  /** Keep the k most likely tokens; 0 and -1 keep all. -1 to 4294967295; default `null`. */
  top_k?: number | null | undefined;
  /** Keep tokens of at least this share of the largest probability; 0 keeps all. 0 to 1; default `null`. */
  min_p?: number | null | undefined;
  /** Weakens tokens of prompt and answer; 1 for none, as 0 is. 0 to 10; default `null`. */
  repetition_penalty?: number | null | undefined;
  /** Weakens tokens of the answer, once each; 0 for none. -2 to 2; default `null`. */
  presence_penalty?: number | null | undefined;
  /** Weakens tokens of the answer by their count; 0 for none. -2 to 2; default `null`. */
  frequency_penalty?: number | null | undefined;
}

/** models.NAME. */
export const ModelSettingsConfigSchema = z.strictObject({
  sampling_defaults: SamplingDefaultsConfigSchema.prefault({})
    .describe('Sampling parameters of requests that name none, in the place of those of the model\'s own files'),
});
/** models.NAME: every key, with what is in force. */
export type ModelSettingsConfig = z.output<typeof ModelSettingsConfigSchema>;
/** models.NAME: the keys to set. */
export interface ModelSettingsConfigInput {
  /** Sampling parameters of requests that name none, in the place of those of the model's own files. */
  sampling_defaults?: SamplingDefaultsConfigInput | undefined;
}

/** The models. */
export const ModelsConfigSchema = z.object({
  serve: z.array(z.string()).default([])
    .describe('Folders or hub ids that `serve` loads when the command line names none; the bundled model if this is empty'),
  chat_template: z.string().nullable().default(null)
    .describe('Jinja file in the place of the chat template of the model that `serve` loads, which must be one model only'),
  tool_call_format: z.string().regex(/^(hermes|qwen3_coder|llama3_json|pythonic|mistral|gemma4|glm|harmony|none)$/).nullable().default(null)
    .describe('Format of tool calls in the answers of all models: hermes, qwen3_coder, llama3_json, pythonic, mistral, gemma4, glm or harmony; none to look for no calls; null goes by each model\'s chat template'),
  reasoning_format: z.string().regex(/^(think|mistral|seed|gemma4|harmony|none)$/).nullable().default(null)
    .describe('Format of reasoning in the answers of all models: think, mistral, seed, gemma4 or harmony; none to leave it in the content; null goes by each model\'s chat template'),
}).catchall(ModelSettingsConfigSchema);
/** The models: every key, with what is in force. */
export type ModelsConfig = z.output<typeof ModelsConfigSchema>;
/** The models: the keys to set. */
export interface ModelsConfigInput {
  /** Folders or hub ids that `serve` loads when the command line names none; the bundled model if this is empty. Default `[]`. */
  serve?: string[] | undefined;
  /** Jinja file in the place of the chat template of the model that `serve` loads, which must be one model only. Default `null`. */
  chat_template?: string | null | undefined;
  /** Format of tool calls in the answers of all models: hermes, qwen3_coder, llama3_json, pythonic, mistral, gemma4, glm or harmony; none to look for no calls; null goes by each model's chat template. Default `null`. */
  tool_call_format?: string | null | undefined;
  /** Format of reasoning in the answers of all models: think, mistral, seed, gemma4 or harmony; none to leave it in the content; null goes by each model's chat template. Default `null`. */
  reasoning_format?: string | null | undefined;
  /** Every further key is a name. */
  [name: string]: ModelSettingsConfigInput | string[] | string | null | string | null | string | null | undefined;
}

/** Memory pool: heaps and sub-allocation. */
export const MetalMemoryPoolConfigSchema = z.strictObject({
  enabled: z.boolean().default(false)
    .describe('Switch of the memory pool'),
  heap_size_mb: z.number().int().min(64).max(2048).default(256)
    .describe('Size of a heap, MiB'),
  num_heaps: z.number().int().min(2).max(16).default(4)
    .describe('Number of heaps'),
  warmup_buffer_sizes_mb: z.array(z.number().int().min(1).max(1024)).default([32, 128, 512])
    .describe('Sizes that are touched before the first request, MiB'),
  track_statistics: z.boolean().default(true)
    .describe('Keep counters'),
  log_pool_exhaustion: z.boolean().default(true)
    .describe('Log when the heaps run out'),
  max_heap_size_mb: z.number().int().min(256).max(4096).default(2048)
    .describe('Size of the largest heap, MiB'),
  min_heaps: z.number().int().min(1).max(8).default(2)
    .describe('Fewest heaps with which the pool starts; above that, heaps that the device refuses are done without'),
});
/** Memory pool: heaps and sub-allocation: every key, with what is in force. */
export type MetalMemoryPoolConfig = z.output<typeof MetalMemoryPoolConfigSchema>;
/** Memory pool: heaps and sub-allocation: the keys to set. */
export interface MetalMemoryPoolConfigInput {
  /** Switch of the memory pool. Default `false`. */
  enabled?: boolean | undefined;
  /** Size of a heap, MiB. 64 to 2048; default `256`. */
  heap_size_mb?: number | undefined;
  /** Number of heaps. 2 to 16; default `4`. */
  num_heaps?: number | undefined;
  /** Sizes that are touched before the first request, MiB. Default `[32, 128, 512]`. */
  warmup_buffer_sizes_mb?: number[] | undefined;
  /** Keep counters. Default `true`. */
  track_statistics?: boolean | undefined;
  /** Log when the heaps run out. Default `true`. */
  log_pool_exhaustion?: boolean | undefined;
  /** Size of the largest heap, MiB. 256 to 4096; default `2048`. */
  max_heap_size_mb?: number | undefined;
  /** Fewest heaps with which the pool starts; above that, heaps that the device refuses are done without. 1 to 8; default `2`. */
  min_heaps?: number | undefined;
}

/** Blit queue: asynchronous copies. */
export const BlitQueueConfigSchema = z.strictObject({
  enabled: z.boolean().default(false)
    .describe('Switch of the blit queue'),
  max_pending_ops: z.number().int().min(1).max(100).default(10)
    .describe('Copies in flight at most'),
  timeout_ms: z.number().int().min(100).max(30000).default(5000)
    .describe('Longest time of a copy, ms; one that takes longer has failed'),
  staging_buffer_size_mb: z.number().int().min(1).max(1024).default(64)
    .describe('Staging memory, MiB'),
  use_shared_events: z.boolean().default(true)
    .describe('Make compute wait for copies on the device, instead of on the host'),
  verify_checksums: z.boolean().default(false)
    .describe('Compare checksums of both ends'),
  track_metrics: z.boolean().default(true)
    .describe('Keep counters'),
});
/** Blit queue: asynchronous copies: every key, with what is in force. */
export type BlitQueueConfig = z.output<typeof BlitQueueConfigSchema>;
/** Blit queue: asynchronous copies: the keys to set. */
export interface BlitQueueConfigInput {
  /** Switch of the blit queue. Default `false`. */
  enabled?: boolean | undefined;
  /** Copies in flight at most. 1 to 100; default `10`. */
  max_pending_ops?: number | undefined;
  /** Longest time of a copy, ms; one that takes longer has failed. 100 to 30000; default `5000`. */
  timeout_ms?: number | undefined;
  /** Staging memory, MiB. 1 to 1024; default `64`. */
  staging_buffer_size_mb?: number | undefined;
  /** Make compute wait for copies on the device, instead of on the host. Default `true`. */
  use_shared_events?: boolean | undefined;
  /** Compare checksums of both ends. Default `false`. */
  verify_checksums?: boolean | undefined;
  /** Keep counters. Default `true`. */
  track_metrics?: boolean | undefined;
}

/** Command-buffer ring: steps encoded ahead. */
export const CommandBufferRingConfigSchema = z.strictObject({
  enabled: z.boolean().default(false)
    .describe('Switch of the command-buffer ring'),
  ring_size: z.number().int().min(2).max(8).default(3)
    .describe('Slots in flight'),
  max_wait_ms: z.number().int().min(100).max(10000).default(1000)
    .describe('Longest wait for a slot, ms; after that the ring falls back to one slot in flight'),
  track_statistics: z.boolean().default(true)
    .describe('Keep counters'),
  log_wait_events: z.boolean().default(false)
    .describe('Log every wait'),
});
/** Command-buffer ring: steps encoded ahead: every key, with what is in force. */
export type CommandBufferRingConfig = z.output<typeof CommandBufferRingConfigSchema>;
/** Command-buffer ring: steps encoded ahead: the keys to set. */
export interface CommandBufferRingConfigInput {
  /** Switch of the command-buffer ring. Default `false`. */
  enabled?: boolean | undefined;
  /** Slots in flight. 2 to 8; default `3`. */
  ring_size?: number | undefined;
  /** Longest wait for a slot, ms; after that the ring falls back to one slot in flight. 100 to 10000; default `1000`. */
  max_wait_ms?: number | undefined;
  /** Keep counters. Default `true`. */
  track_statistics?: boolean | undefined;
  /** Log every wait. Default `false`. */
  log_wait_events?: boolean | undefined;
}

/** The three Metal-layer optimizations; their names are Metal's and mean the same on every device. */
export const MetalOptimizationsConfigSchema = z.strictObject({
  enabled: z.boolean().default(false)
    .describe('Master switch'),
  memory_pool: MetalMemoryPoolConfigSchema.prefault({})
    .describe('Memory pool: heaps and sub-allocation'),
  blit_queue: BlitQueueConfigSchema.prefault({})
    .describe('Blit queue: asynchronous copies'),
  command_buffer_ring: CommandBufferRingConfigSchema.prefault({})
    .describe('Command-buffer ring: steps encoded ahead'),
  graceful_fallback: z.boolean().default(true)
    .describe('Replace a failing optimization by its baseline; otherwise the start or the request fails'),
  log_fallbacks: z.boolean().default(true)
    .describe('Log when a baseline takes over'),
  expose_metrics: z.boolean().default(true)
    .describe('Put the optimizations\' metrics on `/metrics`'),
});
/** The three Metal-layer optimizations; their names are Metal's and mean the same on every device: every key, with what is in force. */
export type MetalOptimizationsConfig = z.output<typeof MetalOptimizationsConfigSchema>;
/** The three Metal-layer optimizations; their names are Metal's and mean the same on every device: the keys to set. */
export interface MetalOptimizationsConfigInput {
  /** Master switch. Default `false`. */
  enabled?: boolean | undefined;
  /** Memory pool: heaps and sub-allocation. */
  memory_pool?: MetalMemoryPoolConfigInput | undefined;
  /** Blit queue: asynchronous copies. */
  blit_queue?: BlitQueueConfigInput | undefined;
  /** Command-buffer ring: steps encoded ahead. */
  command_buffer_ring?: CommandBufferRingConfigInput | undefined;
  /** Replace a failing optimization by its baseline; otherwise the start or the request fails. Default `true`. */
  graceful_fallback?: boolean | undefined;
  /** Log when a baseline takes over. Default `true`. */
  log_fallbacks?: boolean | undefined;
  /** Put the optimizations' metrics on `/metrics`. Default `true`. */
  expose_metrics?: boolean | undefined;
}

/** Logs. */
export const TelemetryConfigSchema = z.strictObject({
  log_format: z.enum(['text', 'json']).default('text')
    .describe('text or json'),
  log_level: z.enum(['error', 'warn', 'info', 'debug', 'trace']).default('info')
    .describe('error, warn, info, debug or trace'),
});
/** Logs: every key, with what is in force. */
export type TelemetryConfig = z.output<typeof TelemetryConfigSchema>;
/** Logs: the keys to set. */
export interface TelemetryConfigInput {
  /** text or json. Default `"text"`. */
  log_format?: 'text' | 'json' | undefined;
  /** error, warn, info, debug or trace. Default `"info"`. */
  log_level?: 'error' | 'warn' | 'info' | 'debug' | 'trace' | undefined;
}

/** Everything that can be configured. */
export const RuntimeConfigSchema = z.strictObject({
  server: ServerConfigSchema.prefault({})
    .describe('The HTTP server'),
  engine: EngineConfigSchema.prefault({})
    .describe('The engine and its device'),
  models: ModelsConfigSchema.prefault({})
    .describe('The models'),
  metal_optimizations: MetalOptimizationsConfigSchema.prefault({})
    .describe('The three Metal-layer optimizations; their names are Metal\'s and mean the same on every device'),
  telemetry: TelemetryConfigSchema.prefault({})
    .describe('Logs'),
});
/** Everything that can be configured: every key, with what is in force. */
export type RuntimeConfig = z.output<typeof RuntimeConfigSchema>;
/** Everything that can be configured: the keys to set. */
export interface RuntimeConfigInput {
  /** The HTTP server. */
  server?: ServerConfigInput | undefined;
  /** The engine and its device. */
  engine?: EngineConfigInput | undefined;
  /** The models. */
  models?: ModelsConfigInput | undefined;
  /** The three Metal-layer optimizations; their names are Metal's and mean the same on every device. */
  metal_optimizations?: MetalOptimizationsConfigInput | undefined;
  /** Logs. */
  telemetry?: TelemetryConfigInput | undefined;
}
