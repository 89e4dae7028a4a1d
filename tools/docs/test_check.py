#!/usr/bin/env python3
"""Plants faults in pages, and demands that each is found: tools/docs/test_check.py BINARY"""

import sys
import tempfile
from pathlib import PurePosixPath

import book
import check
from markdown import Page, anchor
from product import Product, Server

PLANTED = {
    "[a page](docs/NONE.md)": "leads nowhere",
    "[a heading](docs/API.md#none)": "no heading #none",
    "[a heading\nof here](#none)": "no heading #none",
    "[by its address](https://github.com/mlx-serving/mlx-serving/blob/main/docs/NONE.md)": "leads nowhere",
    "    mlx-serving serve --bogus": "--bogus",
    "    mlx-serving serve --port eighty    a remark": "eighty",
    "    mlx-serving serve --metal-opts turbo": "turbo",
    "    sudo X=1 mlx-serving nonsense": "nonsense",
    "    curl x | mlx-serving rn ID": "rn",
    "`mlx-serving config shew`": "shew",
    "1. Item\n\n       mlx-serving serve --bogus": "--bogus",
    "```sh\nmlx-serving bench throughput \\\n  --bogus 1\n```": "--bogus",
    "```console\n$ mlx-serving list --bogus\n```": "--bogus",
    "```sh\nif true; then\n```": "syntax error",
    "```yaml\na: [\n```": "not YAML",
    "```yaml\nengine: { treads: 1 }\n```": "treads",
    "```yaml\nengine: { kv_cache_tokens: 1 }\n```": "kv_cache_tokens",
    "```json\n{a: 1}\n```": "JSONDecodeError",
    "```python\ndef f(:\n```": "SyntaxError",
    "```js\nlet = ;\n```": "SyntaxError",
    "```ini\nno section\n```": "MissingSectionHeader",
    "```cobol\nx\n```": "no check knows the language",
    "MLX_SERVING_TREADS": "MLX_SERVING_TREADS",
    "`vllm:num_requests_walking`": "vllm:num_requests_walking",
    "`metal_pool_acquired`: a counter has another name; `metal_pool_lost_total`": "metal_pool_lost_total",
    "    curl -s localhost:8080/v1/nothing": "/v1/nothing",
    "`the memory pool is rather small`": "no source says",
}
SOUND = """
# Sound `page`, twice

## Sound page twice

## Sound page twice

[here](#sound-page-twice-1), [there](docs/API.md#errors), [elsewhere](https://example.org/x#y), [file](LICENSE)

    mlx-serving doctor          devices, drivers
    mlx-serving rm   ORG/NAME     removes it
    MLX_SERVING_METAL_OPTS=none mlx-serving serve      # a remark
    printf x | mlx-serving chat > answers.txt

```yaml
models: { serve: [ORG/NAME] }
engine: { kv_spill_mb: 64, kv_spill_file: /nowhere/kv }
```

```yaml
- anything: else
```

`metal_pool_acquired_total`, `vllm:time_to_first_token_seconds_bucket`, `kv_spill_mb`, `the engine stops`, `the memory pool ends while … are held`
"""


def main(binary):
    # Pages of these names are those whose sentences are checked.
    check.QUOTING = {"planted.md"}
    with tempfile.TemporaryDirectory() as folder:
        product = Product(binary, folder)
        with Server(product) as server:
            found = {text: list(check.check(Page("planted.md", text), product, server)) for text in [*PLANTED, SOUND]}
    for text, wanted in PLANTED.items():
        assert any(wanted in fault for fault in found[text]), f"not found in {text!r}: {wanted!r}; but {found[text]}"
    assert not found[SOUND], found[SOUND]
    # A fault's place is that of the line.
    assert check.line_with(Page("x.md", "a\n\n    b\n    here\n"), "here") == 4
    assert anchor("`GET /v1/x`, [a link](y)") == "get-v1x-a-link"
    linked("[x](API.md#errors)", "[x](../docs/API.md#errors)")
    linked("[x](../README.md)", "[x](../index.md)")
    linked("[x](../LICENSE)", f"[x]({book.REPOSITORY}/blob/main/LICENSE)")
    linked("[x](../benches/records)", f"[x]({book.REPOSITORY}/tree/main/benches/records)")
    for kept in ("`[x](API.md)`", "[x](#here)", "[x](https://example.org)", "```text\n[x](API.md)\n```"):
        linked(kept, kept)
    assert book.Links('<a href="x#y">z</a><h2 id="q">').links == ["x#y"]
    print(f"{len(PLANTED)} planted faults are found")


def linked(written, wanted):
    """A link of a page below docs/, as it is in the site."""
    page, chapters = PurePosixPath("docs/X.md"), {PurePosixPath("docs/API.md"), PurePosixPath("README.md")}
    assert (found := book.rewritten(written, page, page, chapters)) == wanted, found


if __name__ == "__main__":
    main(*sys.argv[1:])
