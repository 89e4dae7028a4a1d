// What the engine takes and gives, beside the parameters (params.ts) and the configuration (schemas/runtime.ts).

/** A token of an answer. */
export interface TokenChunk {
  type: "token";
  /** Text that became final with it: empty while a character or a possible stop sequence is incomplete. */
  token: string;
  /** Id of the token; null for text that was held back until the end. */
  tokenId: number | null;
  /** Log-probability of the token, natural logarithm, where `logprobs` was asked for. */
  logprob?: number;
  /** Tokens at its place, most likely first, where `logprobs` was a number. */
  topLogprobs?: { tokenId: number; logprob: number }[];
}

/** Cost and end of an answer, after its last token. */
export interface MetadataChunk {
  type: "metadata";
  stats: GenerationStats;
}

/** An item of a stream. */
export type GenerationChunk = TokenChunk | MetadataChunk;

/** Cost and end of an answer. */
export interface GenerationStats {
  /** `stop`: the model or a stop sequence ended it; `length`: `maxTokens` or the context did. */
  finishReason: "stop" | "length";
  promptTokens: number;
  /** Tokens of the prompt that were computed for an earlier request. */
  cachedTokens: number;
  completionTokens: number;
  /** Seconds from arrival to the first step that computed the prompt. */
  queueS: number;
  /** Seconds from there to the first token. */
  prefillS: number;
  /** Seconds from the first token to the last. */
  decodeS: number;
}

/** A whole answer. */
export interface GenerationResult {
  text: string;
  tokens: TokenChunk[];
  stats: GenerationStats;
}

/** A model of an engine. All but its name and state are known of one that is ready. */
export interface ModelInfo {
  id: string;
  state: "loading" | "ready" | "reloading" | "unloaded" | "failed";
  /** Why it failed, or is loaded again. */
  reason?: string;
  /** Seconds since 1970 at which it was loaded. */
  created?: number;
  /** Tokens of its context. */
  context?: number;
  /** Tokens of its vocabulary. */
  vocab?: number;
  /** Bytes of its KV cache. */
  kvCacheBytes?: number;
  device?: string;
  backend?: string;
}

/** Health of an engine. */
export interface Health {
  status: "healthy" | "unhealthy";
  /** Why it is not healthy. */
  reason?: string;
  models: ModelInfo[];
}

/** Counters of an optimization that runs; one that does not run has none, and a reason if it has fallen back. */
export type Switched<T> = ({ enabled: true } & T) | { enabled: false; reason?: string };

/** Statistics of the Metal-layer optimizations; they are read as `if (stats.memory_pool.enabled) stats.memory_pool.pool_size`. */
export interface MetalOptimizationsStats {
  memory_pool: Switched<{
    total_acquired: number;
    total_released: number;
    exhaustion_events: number;
    fallback_events: number;
    pool_size: number;
    available_count: number;
    utilization: number;
    bytes_reserved: number;
    bytes_in_use: number;
    peak_bytes_in_use: number;
    fragmentation: number;
  }>;
  blit_queue: Switched<{
    total_uploads: number;
    total_downloads: number;
    bytes_uploaded: number;
    bytes_downloaded: number;
    pending_operations: number;
    avg_upload_ms: number;
    avg_download_ms: number;
    overlap_ratio: number;
    sync_wait_count: number;
    avg_sync_wait_ms: number;
    checksum_failures: number;
    fallback_events: number;
  }>;
  command_buffer_ring: Switched<{
    ring_size: number;
    available_count: number;
    in_flight_count: number;
    total_acquired: number;
    total_released: number;
    wait_events: number;
    timeout_events: number;
    avg_wait_time_us: number;
    max_wait_time_us: number;
    rotations: number;
    discarded_steps: number;
  }>;
  device: { name: string; backend: string; instructions: string | null; utilization: number };
}

/** Progress of loading a model. */
export interface LoadProgress {
  phase: "download" | "load";
  /** The file that is downloaded. */
  file: string | null;
  /** Bytes, over all files. */
  done: number;
  total: number;
}
