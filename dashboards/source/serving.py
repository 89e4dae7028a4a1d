"""The dashboard of serving: what clients see, and why."""

from grafana import MODEL, SERVER, Query, dashboard, events, heat_map, lines, mean, or_zero, quantile, rate, spread, stat

TTFT = "vllm:time_to_first_token_seconds"
QUEUE, PREFILL, DECODE = (f"vllm:request_{part}_time_seconds" for part in ("queue", "prefill", "decode"))


def answers(status, by=""):
    """The rate of HTTP answers of the API by a matcher of their status. The series of a status begins with its first answer."""
    return rate("http_requests_total", by, f'{SERVER},handler=~"/v1/.*",{status}')


LINUX = " No data where the server does not run on Linux."
ANY = 'status!=""'
REFUSED = 'status=~"429|503"'

OVERVIEW = [
    stat(
        "Servers up",
        "Servers that answered the last scrape. Fewer than you started: look at the log of the one that is missing.",
        Query(f"count(mlx_serving_build_info{{{SERVER}}})", "servers"),
    ),
    stat(
        "Alerts firing",
        "Alerts of rules.yml that fire now. No data: Prometheus does not have the rules. Its page Alerts names them.",
        Query('count(ALERTS{alertname=~"MlxServing.+",alertstate="firing"}) or 0 * max(mlx_serving:generation_tokens:rate5m)', "alerts"),
        thresholds=(1,),
    ),
    stat(
        "Requests running",
        "Answers that are computed now. At engine.max_sequences, further requests wait.",
        Query(f"sum(vllm:num_requests_running{{{MODEL}}})", "running"),
    ),
    stat(
        "Requests waiting",
        "Requests that wait for their turn. Above 0 for minutes: more come than are served. Send fewer, or add servers.",
        Query(f"sum(vllm:num_requests_waiting{{{MODEL}}})", "waiting"),
        thresholds=(1, 64),
    ),
    stat(
        "Tokens generated a second",
        "Tokens of answers, all chosen models together.",
        Query(rate("vllm:generation_tokens_total", ""), "tokens"),
        "suffix: tok/s",
    ),
    stat(
        "First token, p95",
        "Time from arrival to first token that 95 % of the requests stay under. High with requests waiting: overload. "
        "High without: long prompts; see Where the time goes.",
        Query(quantile(0.95, TTFT), "p95"),
        "s",
        thresholds=(1, 5),
    ),
    stat(
        "KV cache, fullest model",
        "Share of KV blocks in use. Near 1, answers are preempted and computed again: raise engine.kv_cache_tokens.",
        Query(f"max(vllm:kv_cache_usage_perc{{{MODEL}}})", "in use"),
        "percentunit",
        thresholds=(0.8, 0.95),
        most=1,
    ),
    stat(
        "Refused",
        "Share of API requests that got 429 (too busy) or 503 (not ready). Above 1 %: clients notice; see Errors and rejects by cause.",
        Query(f"({or_zero(answers(REFUSED))}) / {answers(ANY)}", "refused"),
        "percentunit",
        thresholds=(0.001, 0.01),
        most=1,
    ),
]

TRAFFIC = [
    lines(
        "API requests a second",
        "HTTP answers by server and route. Uneven between servers: look at the balancer.",
        [Query(answers(ANY, "instance, handler"), "{{instance}} {{handler}}")],
        "reqps",
    ),
    lines(
        "HTTP answers by status",
        "All answers, probes and scrapes too. 4xx are the clients' mistakes, except 429: too busy. 5xx are in the server's log, with"
        " reasons.",
        [Query(rate("http_requests_total", "status", SERVER), "{{status}}")],
        "reqps",
        stacked=True,
    ),
    lines(
        "Finish reasons",
        "Answers by how they ended. stop: the model or a stop sequence ended it. length: max_tokens or the context did. abort: the client"
        " hung up. error: computing it failed; see the log. Much length: raise max_tokens.",
        [
            Query(rate("vllm:request_success_total", "finished_reason"), "{{finished_reason}}"),
            Query(rate("request_failure_total", "finished_reason"), "{{finished_reason}}"),
        ],
        "reqps",
        stacked=True,
    ),
    lines(
        "Errors and rejects by cause",
        "Requests without a whole answer. Too busy (429): a queue or a limit on memory is full; add servers, or raise engine.max_waiting if"
        " clients can wait. Not ready (503): a model is being loaded again, or the server stops. Client's mistake: the request was wrong."
        " Server's fault: see the log. Failed while computing: may come after status 200, in the middle of a stream.",
        [
            Query(or_zero(answers('status="429"')), "too busy (429)"),
            Query(or_zero(answers('status="503"')), "not ready (503)"),
            Query(or_zero(answers('status=~"4..",status!="429"')), "client's mistake (4xx)"),
            Query(or_zero(answers('status=~"5..",status!="503"')), "server's fault (5xx)"),
            Query(rate("request_failure_total", "", f'{MODEL},finished_reason="error"'), "failed while computing"),
            Query(rate("request_failure_total", "", f'{MODEL},finished_reason="abort"'), "client hung up"),
        ],
        "reqps",
        width=24,
    ),
]

LATENCY = [
    lines(
        "End to end",
        "Arrival to last token of whole answers. It grows with the length of answers; compare Answer lengths before you look for a fault.",
        spread("vllm:e2e_request_latency_seconds"),
        "s",
    ),
    lines(
        "Time to first token",
        "Arrival to first token. Queue and prefill are its parts. High p99 with low p50: long prompts, or bursts.",
        spread(TTFT),
        "s",
    ),
    lines(
        "Between tokens",
        "Time between two tokens of one answer. It grows with the number of requests that run and with prompts that are computed beside"
        " them. To bound it, lower engine.max_batch_rows or engine.max_sequences.",
        spread("vllm:inter_token_latency_seconds"),
        "s",
    ),
    lines(
        "Where the time goes, mean",
        "Mean time of whole answers in the queue, in prefill (prompt) and in decode (answer). Queue grows first under overload. Prefill"
        " grows with prompts that are not in the prefix cache.",
        [Query(mean(QUEUE), "queue"), Query(mean(PREFILL), "prefill"), Query(mean(DECODE), "decode")],
        "s",
        stacked=True,
    ),
    lines(
        "Where the time goes, p95",
        "The same parts, at the 95th percentile of each. They do not add up.",
        [Query(quantile(0.95, QUEUE), "queue"), Query(quantile(0.95, PREFILL), "prefill"), Query(quantile(0.95, DECODE), "decode")],
        "s",
    ),
    heat_map(
        "Time to first token, distribution",
        "Two bands: two kinds of requests, such as prompts that are in the prefix cache and prompts that are not.",
        TTFT,
        "s",
    ),
]

THROUGHPUT = [
    lines(
        "Prompt and generated tokens a second",
        "Tokens of prompts taken in (cached ones too) and of answers, by model.",
        [
            Query(rate("vllm:prompt_tokens_total"), "prompt, {{model_name}}"),
            Query(rate("vllm:generation_tokens_total"), "generated, {{model_name}}"),
        ],
        "suffix: tok/s",
    ),
    lines(
        "Steps a second",
        "Forward passes. None while requests run: the model is wedged; the alert Wedged tells of it.",
        [Query(rate("vllm:iteration_tokens_total_count"), "{{model_name}}")],
        "ops",
    ),
    lines(
        "Tokens of a step",
        "Rows that a step computes: one for each running answer, plus chunks of prompts. The more, the better the device is used. "
        "engine.max_batch_rows bounds it.",
        [
            Query(mean("vllm:iteration_tokens_total"), "mean"),
            Query(quantile(0.95, "vllm:iteration_tokens_total"), "p95"),
        ],
    ),
    lines(
        "Running, by server and model",
        "Answers that are computed, by server and model. Flat at engine.max_sequences with requests waiting: the server is full.",
        [Query(f"sum by (instance, model_name) (vllm:num_requests_running{{{MODEL}}})", "{{instance}} {{model_name}}")],
    ),
    lines(
        "Waiting, by server and model",
        "Requests that wait for their turn, by server and model. engine.max_waiting bounds it; beyond it they get 429.",
        [Query(f"sum by (instance, model_name) (vllm:num_requests_waiting{{{MODEL}}})", "{{instance}} {{model_name}}")],
    ),
    lines(
        "Preemptions",
        "Answers that gave their KV blocks back and are computed again. More than a few: the KV cache is too small for the load. "
        "Raise engine.kv_cache_tokens or lower engine.max_sequences.",
        [events("vllm:num_preemptions_total")],
        bars=True,
    ),
]

CACHE = [
    lines(
        "KV cache in use",
        "Share of KV blocks in use by running answers. Above 95 % for minutes: preemptions follow. Raise engine.kv_cache_tokens.",
        [Query(f"vllm:kv_cache_usage_perc{{{MODEL}}}", "{{instance}} {{model_name}}")],
        "percentunit",
        thresholds=(0.8, 0.95),
        most=1,
    ),
    lines(
        "Prefix cache hit rate",
        "Share of prompt tokens that were found in the prefix cache and not computed. Low although prompts share their beginnings: the"
        " cache is too small (raise engine.kv_cache_tokens or engine.kv_spill_mb), or clients change the beginning of each prompt.",
        [Query(f"{rate('vllm:prefix_cache_hits_total')} / {rate('vllm:prefix_cache_queries_total')}", "{{model_name}}")],
        "percentunit",
        most=1,
    ),
    lines(
        "Spilled KV blocks",
        "Blocks of earlier prompts copied out of the KV cache (stored), copied back instead of computed again (restored), and given up"
        " (dropped: raise engine.kv_spill_mb). Without engine.kv_spill_mb all are 0.",
        [
            Query(rate("kv_spill_stored_blocks_total", ""), "stored"),
            Query(rate("kv_spill_restored_blocks_total", ""), "restored"),
            Query(rate("kv_spill_dropped_blocks_total", ""), "dropped"),
        ],
        "suffix: blocks/s",
    ),
]

GRAMMARS = [
    lines(
        "Time for a mask",
        "Time to work out which tokens a grammar allows next. It passes while the device computes the step; far above the time of a step, it"
        " holds up all answers of the step. No data: no request has had a schema, a grammar or a forced tool call.",
        spread("mlx_serving_grammar_mask_seconds"),
        "s",
    ),
    lines(
        "Masks and forced tokens",
        "Masks of allowed tokens, and tokens that were not sampled because the grammar left no choice. The more are forced, the fewer steps.",
        [
            Query(rate("mlx_serving_grammar_masks_total", ""), "masks"),
            Query(rate("mlx_serving_grammar_forced_tokens_total", ""), "forced tokens"),
        ],
        "suffix: /s",
    ),
    lines(
        "Late masks",
        "Masks that took longer than a step may wait. Each failed one request with status 500. Simplify the schemas, or use less of the"
        " processors for other work.",
        [events("mlx_serving_grammar_late_masks_total")],
        bars=True,
    ),
]

LENGTHS = [
    heat_map(
        "Prompt lengths",
        "Tokens of the prompts of whole answers. Longer than you expect: clients send their history along.",
        "vllm:request_prompt_tokens",
    ),
    heat_map(
        "Answer lengths",
        "Tokens of whole answers. Many at one length: max_tokens cuts them; see Finish reasons.",
        "vllm:request_generation_tokens",
    ),
    heat_map(
        "max_tokens asked for",
        "The max_tokens of requests that have it. Far above the lengths of answers: harmless, since blocks are taken as answers grow.",
        "vllm:request_params_max_tokens",
    ),
]

PROCESS = [
    lines(
        "Resident memory",
        "Memory of the server's process. Grows for hours under the same load: report it, with the output of mlx-serving doctor." + LINUX,
        [Query(f"process_resident_memory_bytes{{{SERVER}}}", "{{instance}}")],
        "bytes",
    ),
    lines(
        "Processor",
        "Cores in use. On a CPU device, near engine.threads under load; on a GPU far less." + LINUX,
        [Query(rate("process_cpu_seconds_total", "instance", SERVER), "{{instance}}")],
        "suffix: cores",
    ),
    lines(
        "File descriptors",
        "Descriptors open, as a share of those allowed. Connections are most of them. Near 1: raise the limit (LimitNOFILE, ulimit -n), or"
        " lower limits.connections."
        + LINUX,
        [Query(f"process_open_fds{{{SERVER}}} / process_max_fds{{{SERVER}}}", "{{instance}}")],
        "percentunit",
        thresholds=(0.6, 0.8),
        most=1,
    ),
    stat(
        "Up since",
        "Time since the server's start." + LINUX,
        Query(f"time() - process_start_time_seconds{{{SERVER}}}", "{{instance}}"),
        "s",
        width=6,
    ),
    stat(
        "Starts in the time shown",
        "How often the start time changed. Above 0 without your doing: the server crashed or was killed; look at its log and the system's."
        + LINUX,
        Query(f"sum(changes(process_start_time_seconds{{{SERVER}}}[$__range]))", "starts"),
        thresholds=(1,),
        width=6,
    ),
    stat(
        "Version",
        "Versions of the servers. More than one: a roll-out is under way.",
        Query(f"count by (version) (mlx_serving_build_info{{{SERVER}}})", "{{version}}"),
        shows="name",
        width=6,
    ),
    stat(
        "Shape of the KV cache",
        "Blocks, and tokens of a block. Their product is engine.kv_cache_tokens.",
        Query(f"vllm:cache_config_info{{{MODEL}}}", "{{model_name}}: {{num_gpu_blocks}} × {{block_size}}"),
        shows="name",
        width=6,
    ),
]

DASHBOARD = dashboard(
    "mlx-serving-serving",
    "mlx-serving: serving",
    "What clients of mlx-serving see, and why: traffic, latency, throughput, KV cache, grammars, lengths, process.",
    [
        ("Overview", OVERVIEW),
        ("Traffic", TRAFFIC),
        ("Latency", LATENCY),
        ("Throughput", THROUGHPUT),
        ("KV cache", CACHE),
        ("Grammars", GRAMMARS),
        ("Lengths", LENGTHS),
        ("Process", PROCESS),
    ],
)
