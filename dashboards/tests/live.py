"""A server under load, scraped by Prometheus, and the dashboards' queries as Grafana would put them."""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

FOLDER = pathlib.Path(__file__).resolve().parent.parent
BUNDLED = FOLDER.parent / "models" / "rustbook-5m-4bit"
# A cache and a queue that are soon full, so that blocks are spilled, answers preempted and requests refused.
CONFIGURATION = """
engine: { device: cpu, kv_cache_tokens: 1024, kv_spill_mb: 2, max_sequences: 6, max_waiting: 4 }
metal_optimizations:
  memory_pool: { heap_size_mb: 64, num_heaps: 2, warmup_buffer_sizes_mb: [32] }
"""
INTERVAL_S = 1
DEADLINE_S = 90


@contextlib.contextmanager
def child(command, **options):
    """A program that is told to end afterwards, and must."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def said(process, log, pattern):
    """The group of a pattern in a program's log, as soon as it is there."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text())
        if found := re.search(pattern, text):
            return found[1]
        assert process.poll() is None and time.monotonic() < deadline, f"no {pattern} in:\n{text}"
        time.sleep(0.05)


@contextlib.contextmanager
def served_and_scraped(binary, folder):
    """Two models on a server, and `dashboards/run` with it: addresses of both."""
    second = folder / "second"
    shutil.copytree(BUNDLED, second)
    (folder / "runtime.yaml").write_text(CONFIGURATION)
    serve = [binary, "serve", "--config", folder / "runtime.yaml", "--port", "0", "--metal-opts", "all", "-m", BUNDLED, "-m", second]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLX_SERVING_")}
    with contextlib.ExitStack() as stack:
        logs = [folder / "server.log", folder / "run.log"]
        files = [stack.enter_context(log.open("w")) for log in logs]
        server = stack.enter_context(child(serve, stdout=files[0], stderr=subprocess.STDOUT, env=environment))
        target = said(server, logs[0], r" on http://(\S+)")
        environment |= {"SCRAPE_INTERVAL": f"{INTERVAL_S}s", "PROMETHEUS_PORT": "0", "PATH": f"{_grafana(folder)}:{os.environ['PATH']}"}
        run = stack.enter_context(child([FOLDER / "run", target], stdout=files[1], stderr=subprocess.STDOUT, env=environment))
        prometheus = said(run, logs[1], r"Prometheus: (\S+)")
        said(run, logs[1], r"(Grafana: +http)")
        yield f"http://{target}", prometheus


def _grafana(folder):
    """The folder of a program that writes down how it was started, in the place of Grafana."""
    (folder / "grafana" / "bin").mkdir(parents=True)
    (folder / "grafana" / "conf").mkdir()
    (folder / "grafana" / "conf" / "defaults.ini").touch()
    program = folder / "grafana" / "bin" / "grafana"
    program.write_text(
        f'#!/bin/sh\n(echo "$@"; env) >"{folder}/grafana.began"\nmv "{folder}/grafana.began" "{folder}/grafana.started"\nexec sleep 600\n'
    )
    program.chmod(0o755)
    return program.parent


def provisioned(folder, prometheus):
    """Grafana as it was started finds data source and dashboards."""
    started, deadline = folder / "grafana.started", time.monotonic() + DEADLINE_S
    while not started.exists():
        assert time.monotonic() < deadline, "grafana was not started"
        time.sleep(0.05)
    arguments, *lines = started.read_text().splitlines()
    assert arguments == f"server --homepath {folder / 'grafana'}", arguments
    environment = dict(line.split("=", 1) for line in lines if "=" in line)
    assert environment["PROMETHEUS_URL"] == prometheus
    assert environment["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert {path.name for path in pathlib.Path(environment["DASHBOARDS_PATH"]).iterdir()} == {"serving.json", "metal-optimizations.json"}
    provisioning = pathlib.Path(environment["GF_PATHS_PROVISIONING"])
    sources = (provisioning / "datasources" / "prometheus.yml").read_text()
    assert "url: $PROMETHEUS_URL" in sources and f"timeInterval: {INTERVAL_S}s" in sources, sources
    assert "path: $DASHBOARDS_PATH" in (provisioning / "dashboards" / "mlx-serving.yml").read_text()
    return provisioning.parent


class Load:
    """Requests to two models from several threads: whole answers, ones that keep to a grammar, ones that are hung up on, wrong ones; some are
    refused."""

    def __init__(self, url, models):
        self.url, self.models, self.over = url, models, threading.Event()
        self.workers = [threading.Thread(target=self._work, args=(random.Random(seed),)) for seed in range(28)]

    def __enter__(self):
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for worker in self.workers:
            worker.join(DEADLINE_S)

    def _work(self, choice):
        ends = time.monotonic() + DEADLINE_S + 30
        while not self.over.is_set() and time.monotonic() < ends:
            topic = f"Chapter {choice.randrange(12)} of the book is about ownership and borrowing. "
            body = {"model": choice.choice(self.models), "prompt": topic * 8, "max_tokens": choice.randrange(8, 250), "stream": True}
            kind = choice.randrange(20)
            if kind == 0:
                body["model"] = "another"
            elif kind == 1:
                body["max_tokens"] = -1
            elif kind == 3:
                # Its beginning is forced, whatever the model would choose.
                body["guided_regex"] = "Each value in Rust has an owner, and (ownership|borrowing)( [a-z]{2,9}){3,30}"
            if not self._ask(body, hang_up=kind == 2):
                self.over.wait(0.2)

    def _ask(self, body, hang_up):
        """Whether there was an answer."""
        request = urllib.request.Request(f"{self.url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read(200) if hang_up else answer.read()
            return True
        except urllib.error.HTTPError as error:
            error.close()
            return False


class Prometheus:
    """Its HTTP interface, and Grafana's variables."""

    def __init__(self, url):
        self.url, self.began = url, time.time()

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def values(self, variable, chosen):
        """What a variable of a dashboard offers."""
        metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
        return self.get(f"label/{label}/values", **{"match[]": substituted(metric, chosen)})

    def lines(self, expression, chosen):
        """Series of a query over the time since the start: labels and values. An empty one is none."""
        now = time.time()
        timed = substituted(expression, chosen | {"__range": f"{max(1, round(now - self.began))}s"})
        data = self.get("query_range", query=timed, start=self.began, end=now, step=INTERVAL_S)
        series = [(one["metric"], [float(value) for _, value in one["values"]]) for one in data["result"]]
        return [(labels, finite) for labels, values in series if (finite := [v for v in values if abs(v) < float("inf")])]


def substituted(expression, chosen):
    """A query with its variables as Grafana writes them: several values as a regular expression, escaped for the string that it is in."""
    spans = {"__interval": f"{INTERVAL_S}s", "__rate_interval": f"{4 * INTERVAL_S}s"}

    def value(name):
        chosen_values = (spans | chosen)[name]
        if isinstance(chosen_values, str):
            return chosen_values
        escaped = [re.sub(r"[$^*{}\[\]+?.()|]", r"\\\\\g<0>", one.replace("\\", "\\" * 4)) for one in chosen_values]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: value(found[1] or found[2]), expression)


def folder():
    return tempfile.TemporaryDirectory(prefix="mlx-serving-dashboards-")
