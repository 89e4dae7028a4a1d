"""The dashboard of the three optimizations: memory pool, blit queue, command-buffer ring."""

from grafana import MODEL, Query, dashboard, events, heat_map, lines, mean, quantile, rate, spread, spread_since_start, stat

LIVE = f"metal_pool_acquired_total{{{MODEL}}} - metal_pool_released_total{{{MODEL}}}"
ACQUIRE = "metal_pool_acquire_duration_seconds"
UPLOAD, DOWNLOAD = "blit_upload_duration_seconds", "blit_download_duration_seconds"
WAIT = "command_ring_wait_seconds"
EACH = "{{instance}} {{model_name}}"
OFF = " No data: it is off, or metal_optimizations.expose_metrics is false."

OVERVIEW = [
    stat(
        "Device busy",
        "Share of the last seconds in which the device ran ops; mean of the models chosen. Low under load: the host is the bottleneck, and "
        "the ring may help.",
        Query(f"avg(metal_device_utilization{{{MODEL}}})", "busy"),
        "percentunit",
        most=1,
    ),
    stat(
        "Pool in use",
        "Share of the heaps' bytes in use, of the model with the most." + OFF,
        Query(f"max(metal_pool_utilization{{{MODEL}}})", "in use"),
        "percentunit",
        thresholds=(0.8, 0.95),
        most=1,
    ),
    stat(
        "Pool exhausted",
        "How often heaps have run out since the servers' start. Above 0: raise memory_pool.heap_size_mb or num_heaps." + OFF,
        Query(f"sum(metal_pool_exhaustion_total{{{MODEL}}})", "times"),
        thresholds=(1,),
    ),
    stat(
        "Allocations outside the pool",
        "Allocations since the servers' start that a dedicated buffer served, because no heap had room." + OFF,
        Query(f"sum(metal_pool_fallback_total{{{MODEL}}})", "allocations"),
        thresholds=(1,),
    ),
    stat(
        "Copies overlapped",
        "Share of the time of transfers during which ops ran, since the start; mean of the models chosen. Near 0: transfers "
        "come while the device is idle, as at the start, and nothing is to be gained."
        + OFF,
        Query(f"avg(blit_overlap_ratio{{{MODEL}}})", "overlapped"),
        "percentunit",
        most=1,
    ),
    stat(
        "Damaged blocks",
        "Spilled KV blocks whose checksum was wrong, or that could not be read, in the time shown. They are computed again. Above 0: memory"
        " or disk is failing.",
        Query(f"sum(increase(kv_spill_damaged_blocks_total{{{MODEL}}}[$__range]))", "blocks"),
        thresholds=(1,),
    ),
    stat(
        "Ring time-outs",
        "Waits for a slot that took longer than command_buffer_ring.max_wait_ms in the time shown. One step is then in flight until 256 in"
        " a row end in time."
        + OFF,
        Query(f"sum(increase(command_ring_timeouts_total{{{MODEL}}}[$__range]))", "time-outs"),
        thresholds=(1,),
    ),
    stat(
        "Ring slots free",
        "Free slots of the model with the fewest. 0 under load: the device is kept busy." + OFF,
        Query(f"min(command_ring_available{{{MODEL}}})", "free"),
    ),
]

POOL = [
    lines(
        "Allocations acquired and released",
        "Allocations a second. While serving, nearly none: steps work in buffers that were allocated when the model was loaded." + OFF,
        [
            Query(rate("metal_pool_acquired_total"), "acquired, {{model_name}}"),
            Query(rate("metal_pool_released_total"), "released, {{model_name}}"),
        ],
        "ops",
    ),
    lines(
        "Live allocations",
        "Acquired less released. Level: fine. Higher after each busy time, with nothing running: a leak. Report it; "
        "a restart frees the memory."
        + OFF,
        [Query(LIVE, EACH)],
    ),
    lines(
        "Memory",
        "Bytes that the pool has taken from the device, of live allocations, and the most of these so far. Reserved far above the peak:"
        " lower memory_pool.heap_size_mb or num_heaps."
        + OFF,
        [
            Query(f"metal_pool_reserved_bytes{{{MODEL}}}", f"reserved, {EACH}"),
            Query(f"metal_pool_in_use_bytes{{{MODEL}}}", f"in use, {EACH}"),
            Query(f"metal_pool_peak_in_use_bytes{{{MODEL}}}", f"peak, {EACH}"),
        ],
        "bytes",
    ),
    lines(
        "Pool utilization",
        "Share of the heaps' bytes in use, without weights. Above 95 %: exhaustion follows. Below 20 % at the peak: the heaps are too"
        " large."
        + OFF,
        [Query(f"metal_pool_utilization{{{MODEL}}}", EACH)],
        "percentunit",
        thresholds=(0.8, 0.95),
        most=1,
    ),
    lines(
        "Heaps available",
        "Heaps without live allocations. Always most of them: lower memory_pool.num_heaps." + OFF,
        [Query(f"metal_pool_available{{{MODEL}}}", EACH)],
    ),
    lines(
        "Exhaustion and fallback",
        "Times that the heaps ran out, and allocations that dedicated buffers served because of it. Raise memory_pool.num_heaps or"
        " heap_size_mb, or lower engine.kv_cache_tokens. At a low utilization, buffers leave remainders that are too small: raise"
        " heap_size_mb."
        + OFF,
        [
            Query(f"sum by (model_name) (increase(metal_pool_exhaustion_total{{{MODEL}}}[$__rate_interval]))", "exhausted, {{model_name}}"),
            Query(f"sum by (model_name) (increase(metal_pool_fallback_total{{{MODEL}}}[$__rate_interval]))", "fallback, {{model_name}}"),
        ],
        bars=True,
    ),
    lines(
        "Time of an allocation",
        "Time of all allocations since the start. Microseconds: from a heap. Milliseconds: the device allocates, as the baseline does; see"
        " Exhaustion and fallback."
        + OFF,
        spread_since_start(ACQUIRE),
        "s",
    ),
    heat_map(
        "Time of an allocation, distribution", "A second band far above: allocations that the heaps did not serve." + OFF, ACQUIRE, "s"
    ),
]

BLIT = [
    lines(
        "Bytes copied",
        "Uploads (weights at the start, restored KV blocks) and downloads (spilled KV blocks)." + OFF,
        [
            Query(rate("blit_uploaded_bytes_total"), "uploaded, {{model_name}}"),
            Query(rate("blit_downloaded_bytes_total"), "downloaded, {{model_name}}"),
        ],
        "Bps",
    ),
    lines(
        "Transfers",
        "Transfers ended. Many small ones: KV blocks." + OFF,
        [Query(rate(f"{UPLOAD}_count", ""), "uploads"), Query(rate(f"{DOWNLOAD}_count", ""), "downloads")],
        "ops",
    ),
    lines(
        "Transfers in flight",
        "Transfers that were handed over and have not ended. Always at blit_queue.max_pending_ops: the queue is the bottleneck; raise it,"
        " or staging_buffer_size_mb."
        + OFF,
        [Query(f"blit_pending_operations{{{MODEL}}}", EACH)],
    ),
    lines("Time of an upload", "Start to end of an upload. Seconds: a slow disk or link." + OFF, spread(UPLOAD), "s"),
    lines(
        "Time of a download",
        "Start to end of a download. Seconds: the device is overloaded, or the spill file's disk is slow." + OFF,
        spread(DOWNLOAD),
        "s",
    ),
    lines(
        "Overlap",
        "Share of the time of transfers during which ops ran, since the start, from the device's clock. What overlaps costs no time." + OFF,
        [Query(f"blit_overlap_ratio{{{MODEL}}}", EACH)],
        "percentunit",
        most=1,
    ),
    lines(
        "KV blocks stored and restored",
        "Blocks of the prefix cache that were copied out, and copied back instead of computed again. Much stored and nothing restored:"
        " prompts do not come again, and spilling does not pay.",
        [
            Query(rate("kv_spill_stored_blocks_total"), "stored, {{model_name}}"),
            Query(rate("kv_spill_restored_blocks_total"), "restored, {{model_name}}"),
        ],
        "suffix: blocks/s",
    ),
    lines(
        "KV blocks dropped",
        "Spilled blocks that were given up because there was no room. Raise engine.kv_spill_mb, or give an engine.kv_spill_file.",
        [events("kv_spill_dropped_blocks_total")],
        bars=True,
    ),
    lines(
        "Damaged copies",
        "Spilled KV blocks that could not be read back or had a wrong checksum, and copies of the blit queue that had one. Blocks are"
        " computed again and copies repeated, so answers are right. Above 0: memory, a link or a disk is failing.",
        [
            Query(f"sum by (model_name) (increase(kv_spill_damaged_blocks_total{{{MODEL}}}[$__rate_interval]))", "blocks, {{model_name}}"),
            Query(f"sum by (model_name) (increase(blit_checksum_failures_total{{{MODEL}}}[$__rate_interval]))", "copies, {{model_name}}"),
        ],
        bars=True,
        thresholds=(1,),
    ),
]

RING = [
    lines(
        "Slots free",
        "Free slots of the ring. 0 under load: steps are queued ahead, and the device never waits. All free under load: the host is the"
        " bottleneck."
        + OFF,
        [Query(f"command_ring_available{{{MODEL}}}", EACH)],
    ),
    lines(
        "Steps submitted",
        "Slots handed out and submitted. A difference: slots that were dropped before they were submitted." + OFF,
        [Query(rate("command_ring_acquired_total", ""), "acquired"), Query(rate("command_ring_submitted_total", ""), "submitted")],
        "ops",
    ),
    lines(
        "Time-outs",
        "Waits longer than command_buffer_ring.max_wait_ms. One step is then in flight until 256 in a row end in time. Steps are too slow:"
        " lower engine.max_batch_rows, or raise max_wait_ms."
        + OFF,
        [events("command_ring_timeouts_total")],
        bars=True,
        thresholds=(1,),
    ),
    lines(
        "Wait for a slot",
        "Time that the host waits for a slot. About the time of a step: the device is the bottleneck, as it should be. Near zero: the"
        " host is."
        + OFF,
        spread(WAIT),
        "s",
    ),
    lines(
        "Share of time spent in waiting",
        "Seconds a second that the host waits for the device. The rest is the host's own work." + OFF,
        [Query(rate(f"{WAIT}_sum", "instance, model_name"), EACH)],
        "percentunit",
        most=1,
    ),
    heat_map("Wait for a slot, distribution", "Two bands: steps of answers alone, and steps that compute prompts too." + OFF, WAIT, "s"),
]

DEVICE = [
    lines(
        "Device utilization",
        "Share of the last seconds in which the device ran ops, by model; it is measured without the optimizations too. What it lacks to 1"
        " under load is all that the ring can gain.",
        [Query(f"metal_device_utilization{{{MODEL}}}", EACH)],
        "percentunit",
        most=1,
    ),
    lines(
        "Steps a second",
        "Forward passes, by model. Compare before and after an optimization is switched on, under the same load.",
        [Query(rate("vllm:iteration_tokens_total_count"), "{{model_name}}")],
        "ops",
    ),
    lines(
        "Tokens of a step",
        "Rows that a step computes. Small steps leave the device idle between them; the ring gains most there.",
        [Query(mean("vllm:iteration_tokens_total"), "mean"), Query(quantile(0.95, "vllm:iteration_tokens_total"), "p95")],
    ),
]

DASHBOARD = dashboard(
    "mlx-serving-optimizations",
    "mlx-serving: Metal optimizations",
    "Memory pool, blit queue and command-buffer ring of mlx-serving. The names are Metal's and mean the same on every device.",
    [
        ("Overview", OVERVIEW),
        ("Memory pool", POOL),
        ("Blit queue", BLIT),
        ("Command-buffer ring", RING),
        ("Device", DEVICE),
    ],
)
